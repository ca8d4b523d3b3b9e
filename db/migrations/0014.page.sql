-- What the operator page counts beforehand, so that looking costs no scan.
-- depends: 0008.groups

-- Not concurrently, which a partitioned table does not know: writes wait meanwhile.
-- squawk-ignore require-concurrent-index-creation
create index deliveries_at on pgdrip.deliveries
  using brin (at) with (pages_per_range = 32, autosummarize = on);
-- squawk-ignore require-concurrent-index-creation
create index deliveries_trouble on pgdrip.deliveries (at)
  where event in ('failed', 'uncertain');

create table pgdrip.tallies (
  name       text not null,
  counted_at timestamptz not null,
  content    jsonb not null default '[]',
  constraint tallies_pkey primary key (name),
  constraint tallies_content_is_list check (jsonb_typeof(content) = 'array'),
  constraint tallies_counted_at_finite check (isfinite(counted_at))
);
comment on table pgdrip.tallies is
  'What was counted last by tally(), and when; of the history: up to which time';
comment on column pgdrip.tallies.content is
  'The rows that were counted, each an object; empty for the history, which has tables';

create table pgdrip.minute_counts (
  minute_at timestamptz not null,
  event     text not null,
  class     text not null,
  count     bigint not null,
  constraint minute_counts_pkey primary key (minute_at, event, class),
  constraint minute_counts_minute_finite check (isfinite(minute_at))
);
comment on table pgdrip.minute_counts is
  'Events of each minute of the last 25 hours; class is empty where an event has none';

create table pgdrip.sender_hours (
  sender_id bigint not null,
  hour_at   timestamptz not null,
  sent      bigint not null,
  failed    bigint not null,
  constraint sender_hours_pkey primary key (sender_id, hour_at),
  constraint sender_hours_hour_finite check (isfinite(hour_at))
);
comment on table pgdrip.sender_hours is
  'What each sender sent and failed to send in each hour of the last 49';

create table pgdrip.step_counts (
  sequence_id bigint not null,
  step        integer not null,
  sent        bigint not null,
  skipped     bigint not null,
  failed      bigint not null,
  constraint step_counts_pkey primary key (sequence_id, step)
);
comment on table pgdrip.step_counts is
  'How often each step of a sequence was sent, was skipped, or failed for good, ever';
comment on column pgdrip.step_counts.sent is
  'Steps of enrollments, each once, however many attempts it took; again where retry_failed() sent one again';
