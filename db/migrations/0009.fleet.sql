-- Circuit breaker, failover, retirement of senders, and how new work is shared among them.
-- depends: 0008.groups

alter table pgdrip.senders
  add column fault_threshold integer not null default 1,
  add column failover_after interval,
  add column down_at timestamptz,
  add column moves_to text,
  add column deleted_at timestamptz,
  add constraint senders_fault_threshold_in_range check (fault_threshold between 1 and 100),
  add constraint senders_failover_after_is_span check (pgdrip.is_span(failover_after)),
  add constraint senders_outage_finite check (isfinite(down_at) and isfinite(deleted_at)),
  drop constraint senders_status_known,
  add constraint senders_status_known
    check (status in ('active', 'paused', 'retiring', 'retired')),
  add constraint senders_moved_work_is_retired
    check (moves_to is null or status in ('retiring', 'retired')),
  add constraint senders_deleted_is_retired
    check (deleted_at is null or status in ('retiring', 'retired'));
update pgdrip.senders as s set down_at = coalesce(s.fault_at, pgdrip.clock())
 where s.health = 'down';
alter table pgdrip.senders add constraint senders_down_has_time
  check ((health = 'down') = (down_at is not null));
comment on column pgdrip.senders.status is
  'retiring: hands out nothing, its work leaves, what is under way ends here; then retired';
comment on column pgdrip.senders.fault_threshold is
  'Sender faults in a row that take it out of service';
comment on column pgdrip.senders.failover_after is
  'How long it may be down before its due work goes to others; NULL: it never does';
comment on column pgdrip.senders.down_at is 'Since when it is down';
comment on column pgdrip.senders.moves_to is
  'Pool whose senders get the work of a retired one; NULL: its own';
comment on column pgdrip.senders.deleted_at is
  'Since when only the history knows it, under a name that no longer can be taken';

create table pgdrip.wheels (
  wheel_id     bigint generated always as identity,
  pool         text not null,
  channel      text not null,
  built_at     timestamptz not null,
  first_choice bigint not null,
  sender_ids   bigint[] not null,
  capacities   bigint[] not null,
  shortfalls   bigint[] not null,
  constraint wheels_pkey primary key (wheel_id),
  constraint wheels_are_whole check (
    cardinality(sender_ids) = cardinality(capacities)
    and cardinality(sender_ids) = cardinality(shortfalls)),
  constraint wheels_built_finite check (isfinite(built_at))
);
create index wheels_latest on pgdrip.wheels (pool, channel, wheel_id);
comment on table pgdrip.wheels is
  'Shares of a pool''s senders in new work, kept for a minute; the latest counts. Append-only, so that enrolling never locks one';
comment on column pgdrip.wheels.first_choice is
  'Value of assignment_seq when it was built; the choices after it fill the shortfalls first';
comment on column pgdrip.wheels.sender_ids is 'The senders in service, in the order of the sums';
comment on column pgdrip.wheels.capacities is
  'Running sums of what each can send, in messages per 1,000 hours';
comment on column pgdrip.wheels.shortfalls is
  'Running sums of how many steps each has less than its share';

-- Adoption finds who waits for a sender without reading those of pools that have none.
create index enrollments_without_sender on pgdrip.enrollments (sequence_id, enrollment_id)
  where sender_id is null and status = 'active';

create type pgdrip.sender_share as (
  sender_id bigint,
  capacity  bigint,
  load      bigint,
  shortfall bigint
);
comment on type pgdrip.sender_share is
  'Private: a sender in service, its messages per 1,000 hours, the live steps it has, and how many less than its share that is';

create type pgdrip.sender_queue as (
  backlog       bigint,
  oldest_due_at timestamptz,
  in_flight     bigint
);
comment on type pgdrip.sender_queue is 'Private: what waits for one sender and what is under way';

create type pgdrip.forecast_lot as (
  version_id bigint,
  step       integer,
  contacts   integer,
  due_at     timestamptz,
  is_counted boolean
);
comment on type pgdrip.forecast_lot is
  'Private: contacts that go through a sequence together in a forecast; due_at NULL: through';

create type pgdrip.forecast_slice as (
  sent       integer,
  sent_at    timestamptz,
  ready_at   timestamptz,
  tat        timestamptz,
  day_slot   bigint,
  day_counts integer[]
);
comment on type pgdrip.forecast_slice is
  'Private: messages a sender lets out in a forecast, when the last of them goes, and its pace after them';

create type pgdrip.forecast as (
  done_at         timestamptz,
  bottleneck_pool text,
  per_hour        numeric
);
comment on type pgdrip.forecast is
  'When a batch would be through, whose senders hold it up, and what they send per hour';
