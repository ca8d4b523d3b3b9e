-- Enrollments and the one live step of each.
-- depends: 0003.contacts 0004.sequences

create table pgdrip.enrollments (
  enrollment_id       bigint generated always as identity,
  contact_id          bigint not null,
  sequence_id         bigint not null,
  version_id          bigint not null,
  run                 integer not null default 1,
  sender_id           bigint,
  trigger_id          bigint,
  status              text not null default 'active',
  enrolled_at         timestamptz not null,
  paused_at           timestamptz,
  paused_reason       text,
  last_confirmed_step integer not null default 0,
  ended_at            timestamptz,
  end_reason          text,
  constraint enrollments_pkey primary key (enrollment_id),
  constraint enrollments_run_key unique (contact_id, sequence_id, run),
  constraint enrollments_contact_fkey foreign key (contact_id) references pgdrip.contacts,
  constraint enrollments_version_fkey foreign key (sequence_id, version_id)
    references pgdrip.sequence_versions (sequence_id, version_id),
  constraint enrollments_run_positive check (run > 0),
  constraint enrollments_status_known
    check (status in ('active', 'completed', 'exited', 'failed')),
  constraint enrollments_ended_when_not_active
    check ((status = 'active') = (ended_at is null)),
  constraint enrollments_end_has_reason check ((ended_at is null) = (end_reason is null)),
  constraint enrollments_pause_has_reason
    check ((paused_at is null) = (paused_reason is null)),
  constraint enrollments_step_not_negative check (last_confirmed_step >= 0),
  constraint enrollments_times_finite
    check (isfinite(enrolled_at) and isfinite(paused_at) and isfinite(ended_at))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create unique index enrollments_one_live on pgdrip.enrollments (contact_id, sequence_id)
  where status = 'active';
create index enrollments_version on pgdrip.enrollments (sequence_id, version_id);
comment on table pgdrip.enrollments is 'One run of one contact through one sequence';
comment on column pgdrip.enrollments.sender_id is
  'Chosen once; NULL only while no sender of the pool could be found';
comment on column pgdrip.enrollments.trigger_id is
  'The trigger row that started it; completion removes exactly that row';
comment on column pgdrip.enrollments.last_confirmed_step is
  'Only ever grows: no step of an enrollment is confirmed twice';

create table pgdrip.due (
  enrollment_id bigint not null,
  sender_id     bigint,
  step          integer not null,
  due_at        timestamptz not null,
  attempt       integer not null default 0,
  never_begun   integer not null default 0,
  token         bigint,
  runner        text,
  lease_until   timestamptz,
  send_by       timestamptz,
  begun_at      timestamptz,
  content_hash  bytea,
  variant       integer,
  awaits        text,
  parked_reason text,
  constraint due_pkey primary key (enrollment_id),
  constraint due_enrollment_fkey foreign key (enrollment_id) references pgdrip.enrollments,
  constraint due_attempt_not_negative check (attempt >= 0 and never_begun >= 0),
  constraint due_lease_has_token check (lease_until is null or token is not null),
  constraint due_lease_has_send_by check (lease_until is null or send_by <= lease_until),
  constraint due_begun_has_token check (begun_at is null or token is not null),
  constraint due_parked_is_not_leased check (parked_reason is null or lease_until is null),
  constraint due_awaits_known check (awaits in ('receipt', 'event')),
  constraint due_awaiting_is_not_leased check (awaits is null or lease_until is null),
  constraint due_without_sender_is_parked
    check (sender_id is not null or parked_reason is not null),
  constraint due_parked_reason_known check (parked_reason in (
    'no_sender', 'uncertain', 'never_begun', 'failed', 'unconfirmed', 'restored',
    'enrollment_paused', 'sequence_paused')),
  constraint due_times_finite
    check (isfinite(due_at) and isfinite(lease_until) and isfinite(send_by)
           and isfinite(begun_at))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);
create index due_claim on pgdrip.due (sender_id, due_at) where parked_reason is null;
create index due_parked on pgdrip.due (parked_reason, enrollment_id)
  where parked_reason is not null;
comment on table pgdrip.due is
  'The one live step of each active enrollment: due, leased, sending, awaiting or parked';
comment on column pgdrip.due.due_at is
  'Not sent before; of an awaiting row the deadline of what it awaits';
comment on column pgdrip.due.awaits is
  'receipt: sent, not confirmed yet; event: confirmed, the next step depends on an event';
comment on column pgdrip.due.attempt is 'Sends begun of this step';
comment on column pgdrip.due.never_begun is 'Leases in a row that ran out before the send began';
comment on column pgdrip.due.token is
  'Fences one claim; kept on an awaiting or uncertain row, so that its report still fits';
comment on column pgdrip.due.send_by is
  'begin_send refuses after this; bounds what a stalled runner does to the rate';
comment on column pgdrip.due.variant is 'Which of the step''s variants the claim rendered, from 1';
comment on column pgdrip.due.content_hash is 'sha256 of what the claim rendered';
comment on column pgdrip.due.parked_reason is
  'Why nothing happens to it: out of the due index until its cause is gone';
