-- Sequences and their published versions.
-- depends: 0002.senders

create table pgdrip.sequences (
  sequence_id    bigint generated always as identity,
  name           text not null,
  trigger        text not null,
  pool           text not null default 'default',
  channel        text not null,
  status         text not null default 'draft',
  paused_at      timestamptz,
  paused_reason  text,
  reentry_after  interval,
  in_flight      text not null default 'pin',
  priority       integer not null default 0,
  version_id     bigint,
  constraint sequences_pkey primary key (sequence_id),
  constraint sequences_name_key unique (name),
  constraint sequences_name_visible
    check (not pgdrip.is_blank(name) and octet_length(name) <= 200),
  constraint sequences_trigger_not_blank check (pgdrip.is_word(trigger)),
  constraint sequences_pool_visible
    check (not pgdrip.is_blank(pool) and octet_length(pool) <= 200),
  constraint sequences_channel_fkey foreign key (channel) references pgdrip.channels,
  constraint sequences_status_known
    check (status in ('draft', 'active', 'paused', 'archived')),
  constraint sequences_pause_has_time check ((status = 'paused') = (paused_at is not null)),
  constraint sequences_pause_has_reason
    check ((paused_at is null) = (paused_reason is null)),
  constraint sequences_paused_at_finite check (isfinite(paused_at)),
  constraint sequences_reentry_is_span check (pgdrip.is_span(reentry_after)),
  constraint sequences_in_flight_known check (in_flight in ('pin', 'follow', 'migrate')),
  constraint sequences_priority_in_range check (priority between -1000 and 1000)
);
create index sequences_channel on pgdrip.sequences (channel);
create index sequences_trigger on pgdrip.sequences (trigger);
comment on table pgdrip.sequences is 'A named list of steps that a trigger starts';
comment on column pgdrip.sequences.version_id is 'What new enrollments get';
comment on column pgdrip.sequences.in_flight is
  'Whether enrollments stay on their version, take the newest at each step, or at once';
comment on column pgdrip.sequences.priority is
  'Among the due rows of one sender higher goes first';
comment on column pgdrip.sequences.reentry_after is
  'How long after its last run ended a contact may run again; NULL: never';

create table pgdrip.sequence_versions (
  version_id     bigint generated always as identity,
  sequence_id    bigint not null,
  number         integer not null,
  definition     jsonb not null,
  send_window    jsonb,
  stop_on_reply  boolean not null default true,
  removes_trigger boolean not null default true,
  adds_trigger   text,
  goal           text,
  exit_when      jsonb,
  cap_max        integer,
  cap_per        interval,
  on_cap         text not null default 'defer',
  first_step     integer,
  published_at   timestamptz not null default pgdrip.clock(),
  constraint sequence_versions_pkey primary key (version_id),
  constraint sequence_versions_number_key unique (sequence_id, number),
  constraint sequence_versions_sequence_fkey foreign key (sequence_id)
    references pgdrip.sequences,
  constraint sequence_versions_of_sequence_key unique (sequence_id, version_id),
  constraint sequence_versions_number_positive check (number > 0),
  constraint sequence_versions_adds_word
    check (adds_trigger is null or pgdrip.is_word(adds_trigger)),
  constraint sequence_versions_window_is_object check (jsonb_typeof(send_window) = 'object'),
  constraint sequence_versions_goal_visible
    check (goal is null or not pgdrip.is_blank(goal)),
  constraint sequence_versions_exit_when_is_object
    check (jsonb_typeof(exit_when) = 'object'),
  constraint sequence_versions_cap_is_whole check ((cap_max is null) = (cap_per is null)),
  constraint sequence_versions_cap_is_possible
    check (cap_max > 0 and pgdrip.is_span(cap_per) and cap_per > interval '0'),
  constraint sequence_versions_on_cap_known check (on_cap in ('defer', 'skip', 'stop'))
);
alter table pgdrip.sequences add constraint sequences_version_fkey
  foreign key (sequence_id, version_id)
  references pgdrip.sequence_versions (sequence_id, version_id);
create index sequences_version on pgdrip.sequences (sequence_id, version_id);
comment on table pgdrip.sequence_versions is
  'A published, immutable content of a sequence; enrollments stay on theirs';
comment on column pgdrip.sequence_versions.definition is
  'The definition as published, without status and dry_run';
comment on column pgdrip.sequence_versions.send_window is
  'When messages may go out: {"days": [1..7], "from", "to", "zone", "holidays"}';
comment on column pgdrip.sequence_versions.removes_trigger is
  'Whether completion removes the trigger row that the enrollment used';
comment on column pgdrip.sequence_versions.adds_trigger is 'Word that completion adds';
comment on column pgdrip.sequence_versions.goal is 'Event that ends the enrollment as reached';
comment on column pgdrip.sequence_versions.exit_when is
  'Attributes that end the enrollment, looked at before each send';
comment on column pgdrip.sequence_versions.cap_max is
  'Messages to one contact within cap_per, counted over all sequences';

create table pgdrip.steps (
  version_id   bigint not null,
  number       integer not null,
  next_step    integer,
  delay        interval,
  send_at      time,
  body         jsonb,
  subject      jsonb,
  content      jsonb,
  required     text[] not null default '{}',
  max_attempts integer not null default 5,
  backoff      interval not null default '1 minute',
  on_failure   text not null default 'stop',
  on_uncertain text not null default 'park',
  on_missing   text not null default 'fail',
  expire_after interval,
  on_expire    text not null default 'send_late',
  only_if      jsonb,
  skip_if      jsonb,
  variants     jsonb,
  wait_event   text,
  wait_timeout interval,
  then_step    integer,
  else_step    integer,
  constraint steps_pkey primary key (version_id, number),
  constraint steps_version_fkey foreign key (version_id) references pgdrip.sequence_versions,
  constraint steps_next_fkey foreign key (version_id, next_step)
    references pgdrip.steps (version_id, number),
  constraint steps_number_in_range check (number between 1 and 36500),
  constraint steps_next_is_later check (next_step > number),
  constraint steps_delay_is_span check (pgdrip.is_span(delay)),
  constraint steps_then_fkey foreign key (version_id, then_step)
    references pgdrip.steps (version_id, number),
  constraint steps_else_fkey foreign key (version_id, else_step)
    references pgdrip.steps (version_id, number),
  constraint steps_branches_are_later check (then_step > number and else_step > number),
  constraint steps_wait_is_whole check ((wait_event is null) = (wait_timeout is null)),
  constraint steps_wait_is_span check (pgdrip.is_span(wait_timeout)),
  constraint steps_branch_has_wait
    check (wait_event is not null or then_step is null and else_step is null),
  constraint steps_conditions_are_objects
    check (jsonb_typeof(only_if) = 'object' and jsonb_typeof(skip_if) = 'object'),
  constraint steps_has_text
    check (body is not null or content is not null or variants is not null),
  constraint steps_send_at_within_day check (send_at < time '24:00'),
  constraint steps_max_attempts_in_range check (max_attempts between 1 and 100),
  constraint steps_backoff_is_span
    check (pgdrip.is_span(backoff) and backoff > interval '0'),
  constraint steps_on_failure_known check (on_failure in ('stop', 'skip', 'park')),
  constraint steps_on_uncertain_known check (on_uncertain in ('park', 'retry')),
  constraint steps_on_missing_known check (on_missing in ('fail', 'skip')),
  constraint steps_expire_after_is_span check (pgdrip.is_span(expire_after)),
  constraint steps_on_expire_known check (on_expire in ('send_late', 'skip', 'stop'))
);
create index steps_next on pgdrip.steps (version_id, next_step);
create index steps_then on pgdrip.steps (version_id, then_step);
create index steps_else on pgdrip.steps (version_id, else_step);
alter table pgdrip.sequence_versions add constraint sequence_versions_first_step_fkey
  foreign key (version_id, first_step) references pgdrip.steps (version_id, number);
create index sequence_versions_first_step
  on pgdrip.sequence_versions (version_id, first_step);
comment on table pgdrip.steps is 'One message of a version; the steps form a chain by next_step';
comment on column pgdrip.steps.number is 'Day number as written: 1, 3, 6, 9';
comment on column pgdrip.steps.delay is
  'Wait after the completion of the step before (the first: after enrollment); days count in the contact''s zone; NULL: the difference of the numbers, none for the first';
comment on column pgdrip.steps.send_at is 'Time of day, in the window''s zone, to wait for after the delay';
comment on column pgdrip.steps.body is
  'Compiled template: [[literal, variable, fallback, escape], …]; see compile_template()';
comment on column pgdrip.steps.content is
  'Compiled template of the JSON object with html, media and template';
comment on column pgdrip.steps.required is 'Variables without a fallback, all templates of the step';
comment on column pgdrip.steps.backoff is
  'Wait before the second attempt; doubles with each, at most 1 hour, jittered by a quarter';
comment on column pgdrip.steps.expire_after is 'Older than this past its due time: on_expire';
comment on column pgdrip.steps.only_if is 'Attributes without which the step is skipped';
comment on column pgdrip.steps.skip_if is 'Attributes with which the step is skipped';
comment on column pgdrip.steps.variants is
  'Instead of one text: [{"upto", "body", "subject", "content"}, …]; a hash of the enrollment chooses';
comment on column pgdrip.steps.wait_event is
  'After the send wait for this event, wait_timeout at most, then go to then_step or else_step';
