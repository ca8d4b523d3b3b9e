-- Groups of senders that share one account's limits, and whom a group wrote to lately.
-- depends: 0007.types

create table pgdrip.sender_groups (
  group_id                  bigint generated always as identity,
  name                      text not null,
  rate                      integer,
  per                       interval,
  distinct_contacts_per_day integer,
  limits_at                 timestamptz not null default pgdrip.clock(),
  slot                      bigint not null default 0,
  slot_counts               integer[] not null default array_fill(0, array[25]),
  day_slot                  bigint not null default 0,
  contact_counts            integer[] not null default array_fill(0, array[25]),
  ready_at                  timestamptz not null default 'epoch',
  constraint sender_groups_pkey primary key (group_id),
  constraint sender_groups_name_key unique (name),
  constraint sender_groups_name_visible
    check (not pgdrip.is_blank(name) and octet_length(name) <= 200),
  constraint sender_groups_limits_positive
    check (rate between 1 and 1000000 and distinct_contacts_per_day between 1 and 10000000),
  constraint sender_groups_rate_has_per check ((rate is null) = (per is null)),
  constraint sender_groups_limit_something
    check (rate is not null or distinct_contacts_per_day is not null),
  constraint sender_groups_per_is_span check (
    pgdrip.is_span(per) and per between interval '1 second' and interval '30 days'),
  constraint sender_groups_counts_are_25 check (
    cardinality(slot_counts) = 25 and array_position(slot_counts, null) is null
    and cardinality(contact_counts) = 25 and array_position(contact_counts, null) is null),
  constraint sender_groups_times_finite check (isfinite(ready_at) and isfinite(limits_at))
) with (fillfactor = 30);
comment on table pgdrip.sender_groups is
  'Senders of one provider account: what they may send together';
comment on column pgdrip.sender_groups.rate is 'Messages of all its senders in any rolling "per"';
comment on column pgdrip.sender_groups.distinct_contacts_per_day is
  'Different contacts that all its senders may write to in any rolling 24 hours';
comment on column pgdrip.sender_groups.limits_at is
  'When the limits last changed; check() holds what was sent since against them';
comment on column pgdrip.sender_groups.slot is
  'Number of the slot that slot_counts[1] counts; a slot lasts a 24th of per, grace included';
comment on column pgdrip.sender_groups.slot_counts is 'Claims per slot, newest first';
comment on column pgdrip.sender_groups.day_slot is
  'Number of the slot that contact_counts[1] counts, as senders.day_slot';
comment on column pgdrip.sender_groups.contact_counts is
  'Contacts by the slot of the last claim for each, newest first';
comment on column pgdrip.sender_groups.ready_at is
  'Before this time the rate lets none of its senders go';

create table pgdrip.group_contacts (
  group_id   bigint not null,
  contact_id bigint not null,
  day_slot   bigint not null,
  constraint group_contacts_pkey primary key (group_id, contact_id),
  constraint group_contacts_group_fkey foreign key (group_id) references pgdrip.sender_groups
);
comment on table pgdrip.group_contacts is
  'Whom a group with distinct_contacts_per_day wrote to, and in which slot last; older ones are pruned';

alter table pgdrip.senders add column group_id bigint;
alter table pgdrip.senders add constraint senders_group_fkey
  foreign key (group_id) references pgdrip.sender_groups;
create index senders_group on pgdrip.senders (group_id);
comment on column pgdrip.senders.group_id is 'The account whose limits it shares; NULL: none';

alter table pgdrip.senders drop column is_limited;
alter table pgdrip.senders add column is_limited boolean generated always as (
  rate_per_hour is not null or rate_per_day is not null or gap_max > interval '0'
  or ramp is not null or hours is not null or group_id is not null) stored;
comment on column pgdrip.senders.is_limited is
  'Whether a claim must lock it: unlimited senders serve many runners at once';

create type pgdrip.sender_pace as (
  tat        timestamptz,
  day_slot   bigint,
  day_counts integer[],
  ready_at   timestamptz
);
comment on type pgdrip.sender_pace is 'Private: what a claim changes of a sender''s readiness';

create type pgdrip.offer as (
  sender_id bigint,
  is_locked boolean,
  share     integer,
  skip      integer,
  leased    integer,
  is_empty  boolean
);
comment on type pgdrip.offer is
  'Private: what a sender is given in one round of a claim; is_locked: it has limits to be charged; is_empty: no more of its rows are due';

create type pgdrip.pick as (
  enrollment_id bigint,
  sender_id     bigint
);
comment on type pgdrip.pick is 'Private: a due row that a claim has locked';

create type pgdrip.judgement as (
  event       text,
  move        text,
  reason      text,
  verdict     text,
  next_due_at timestamptz
);
comment on type pgdrip.judgement is 'Private: what one outcome means for the step it tells of';

-- Helpers of the claim and the report that are gone or return something else now.
drop function if exists
  pgdrip.charge_senders(bigint[],integer[],timestamptz),
  pgdrip.count_by_sender(bigint[],bigint[]),
  pgdrip.day_counts(pgdrip.senders,timestamptz),
  pgdrip.day_slot(timestamptz),
  pgdrip.first_of_each(bigint[],bigint[],integer[],integer),
  pgdrip.judge_current(pgdrip.due,pgdrip.steps,pgdrip.senders,text,text,timestamptz),
  pgdrip.judge_past(pgdrip.due,pgdrip.deliveries,pgdrip.senders,text,bigint,timestamptz),
  pgdrip.lock_due(bigint[],integer[],timestamptz),
  pgdrip.lock_senders(timestamptz,text[],bigint[],integer),
  pgdrip.send_interval(integer,integer),
  pgdrip.sender_allowance(pgdrip.senders,timestamptz),
  pgdrip.spend_allowance(pgdrip.senders,timestamptz,integer),
  pgdrip.step_after(pgdrip.enrollments,pgdrip.sequences,pgdrip.steps,timestamptz,text,text);
