-- What every claim writes of a sender, in a narrow row of its own: the definition is long,
-- and its checks are evaluated again with every update.
-- depends: 0018.group_waits

create table pgdrip.paces (
  sender_id  bigint not null,
  channel    text not null,
  tat        timestamptz not null default 'epoch',
  day_slot   bigint not null default 0,
  day_counts integer[] not null default array_fill(0, array[25]),
  ready_at   timestamptz not null default 'epoch',
  next_at    timestamptz,
  floor_at   timestamptz not null default 'epoch',
  constraint paces_pkey primary key (sender_id),
  constraint paces_day_counts_are_25
    check (cardinality(day_counts) = 25 and array_position(day_counts, null) is null),
  constraint paces_times_finite
    check (isfinite(tat) and isfinite(ready_at) and isfinite(next_at) and isfinite(floor_at))
) with (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 500);
comment on table pgdrip.paces is
  'How far each sender is within its limits, and where its work begins; claim locks and writes it';
comment on column pgdrip.paces.channel is 'As of the sender; it never changes';
comment on column pgdrip.paces.tat is
  'Theoretical arrival time of the next message at the hourly rate (GCRA)';
comment on column pgdrip.paces.day_slot is
  'Number of the slot that day_counts[1] counts; a slot lasts (24 h + grace) / 24';
comment on column pgdrip.paces.ready_at is
  'Rate readiness: before this time no limit lets a message go';
comment on column pgdrip.paces.next_at is
  'Work hint: not later than the earliest claimable due row, wakes aside; NULL: none known, or no limits and no outage';
comment on column pgdrip.paces.floor_at is
  'Not later than any due row that is not parked, wakes aside; a claim reads the index from here, past what an old snapshot keeps in it';

insert into pgdrip.paces (sender_id, channel, tat, day_slot, day_counts, ready_at, next_at)
select s.sender_id, s.channel, s.tat, s.day_slot, s.day_counts, s.ready_at,
       case when s.is_limited then s.next_at when s.health <> 'healthy' then 'epoch' end
  from pgdrip.senders as s;

drop view if exists pgdrip.sender_load;
drop function if exists
  pgdrip.lock_senders(timestamptz,text[],bigint[],integer),
  pgdrip.sender_allowance(pgdrip.senders,timestamptz),
  pgdrip.spend_allowance(pgdrip.senders,timestamptz,integer),
  pgdrip.why_live(pgdrip.due,pgdrip.enrollments,pgdrip.sequences,pgdrip.senders,timestamptz),
  pgdrip.play_slice(pgdrip.senders,integer,timestamptz);
alter table pgdrip.senders
  drop constraint senders_day_counts_are_25, drop constraint senders_times_finite,
  drop column tat, drop column day_slot, drop column day_counts, drop column ready_at,
  drop column next_at,
  add constraint senders_times_finite
    check (isfinite(started_at) and isfinite(limits_at) and isfinite(fault_at)),
  add constraint senders_pace_fkey foreign key (sender_id) references pgdrip.paces
    deferrable initially deferred,
  set (fillfactor = 70);

alter type pgdrip.offer add attribute floor_at timestamptz;
