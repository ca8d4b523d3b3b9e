-- History: what became of each attempt, and what providers told of it.
-- depends: 0005.enrollments

create table pgdrip.deliveries (
  at            timestamptz not null,
  enrollment_id bigint not null,
  token         bigint,
  event         text not null,
  step          integer not null,
  attempt       integer not null,
  sender_id     bigint,
  runner        text,
  due_at        timestamptz,
  begun_at      timestamptz,
  code          text,
  class         text,
  detail        text,
  provider_id   text,
  verdict       text,
  next_due_at   timestamptz,
  content_hash  bytea,
  variant       integer,
  constraint deliveries_event_known check (event in (
    'sent', 'failed', 'uncertain', 'abandoned', 'refused', 'resolved', 'skipped')),
  constraint deliveries_failure_has_class check ((event = 'failed') <= (class is not null)),
  constraint deliveries_detail_bounded check (octet_length(detail) <= 2048),
  constraint deliveries_times_finite
    check (isfinite(at) and isfinite(due_at) and isfinite(begun_at)
           and isfinite(next_due_at))
) partition by range (at);
create index deliveries_attempt on pgdrip.deliveries (enrollment_id, token);
comment on table pgdrip.deliveries is
  'Append-only journal: one row per event of a token, by month of the event';
comment on column pgdrip.deliveries.event is
  'abandoned: lease ran out or was released before the send; refused: begin_send said no';
comment on column pgdrip.deliveries.token is 'NULL where a step was skipped without a claim';
comment on column pgdrip.deliveries.due_at is 'When the step had been due';
comment on column pgdrip.deliveries.verdict is 'What the reporter was told';
comment on column pgdrip.deliveries.next_due_at is 'When the live step was due after this event';
comment on column pgdrip.deliveries.variant is 'Which of the step''s variants it was, from 1';
comment on column pgdrip.deliveries.content_hash is 'sha256 of the text as rendered and sent';

create table pgdrip.deliveries_default partition of pgdrip.deliveries default;
comment on table pgdrip.deliveries_default is
  'Events of months without a partition; empty while maintain() runs';
revoke update, delete, truncate on pgdrip.deliveries, pgdrip.deliveries_default
  from public, current_user;

create table pgdrip.provider_refs (
  channel       text not null,
  provider_id   text not null,
  enrollment_id bigint not null,
  token         bigint not null,
  step          integer not null,
  receipt       text,
  receipt_at    timestamptz,
  created_at    timestamptz not null,
  constraint provider_refs_pkey primary key (channel, provider_id),
  constraint provider_refs_receipt_known
    check (receipt in ('sent', 'delivered', 'read', 'failed')),
  constraint provider_refs_receipt_has_time
    check ((receipt is null) = (receipt_at is null)),
  constraint provider_refs_times_finite check (isfinite(receipt_at) and isfinite(created_at))
);
create index provider_refs_enrollment on pgdrip.provider_refs (enrollment_id, step);
comment on table pgdrip.provider_refs is
  'Which delivery a provider''s id stands for, and the furthest receipt for it';

create table pgdrip.receipts (
  receipt_id  bigint generated always as identity,
  channel     text not null,
  provider_id text not null,
  status      text not null,
  at          timestamptz not null,
  constraint receipts_pkey primary key (receipt_id),
  constraint receipts_status_known check (status in ('sent', 'delivered', 'read', 'failed')),
  constraint receipts_at_finite check (isfinite(at))
);
create index receipts_early on pgdrip.receipts (channel, provider_id);
comment on table pgdrip.receipts is
  'Receipts that came before the report with their provider id; matched when it arrives';
