drop view if exists pgdrip.sender_load;
drop function if exists
  pgdrip.sender_allowance(pgdrip.senders,pgdrip.paces,timestamptz),
  pgdrip.spend_allowance(pgdrip.senders,pgdrip.paces,timestamptz,integer),
  pgdrip.why_live(pgdrip.due,pgdrip.enrollments,pgdrip.sequences,pgdrip.senders,pgdrip.paces,timestamptz),
  pgdrip.play_slice(pgdrip.senders,pgdrip.paces,integer,timestamptz);
alter type pgdrip.offer drop attribute floor_at;
alter table pgdrip.senders
  set (fillfactor = 30),
  drop constraint senders_pace_fkey,
  add column tat timestamptz not null default 'epoch',
  add column day_slot bigint not null default 0,
  add column day_counts integer[] not null default array_fill(0, array[25]),
  add column ready_at timestamptz not null default 'epoch',
  add column next_at timestamptz;
update pgdrip.senders as s
   set tat = p.tat, day_slot = p.day_slot, day_counts = p.day_counts, ready_at = p.ready_at,
       next_at = p.next_at
  from pgdrip.paces as p where p.sender_id = s.sender_id;
alter table pgdrip.senders
  drop constraint senders_times_finite,
  add constraint senders_day_counts_are_25
    check (cardinality(day_counts) = 25 and array_position(day_counts, null) is null),
  add constraint senders_times_finite
    check (isfinite(started_at) and isfinite(limits_at) and isfinite(tat) and isfinite(ready_at)
           and isfinite(next_at) and isfinite(fault_at));
drop table pgdrip.paces;
