-- Limits: what a sender may send now, and when it may again. Nothing is written here.
-- Most are one expression or one select, bound when created: the planner puts them into the
-- claim's statements. In a loop of PL/pgSQL they belong behind "from", too.

create or replace function pgdrip.ramp_rate(p_ramp jsonb, p_age interval)
  returns integer
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select r.value::integer from jsonb_each_text(p_ramp) as r
     where r.key::integer <= 1 + greatest(0, floor(extract(epoch from p_age) / 86400))
     order by r.key::integer desc limit 1);
end
$$;

comment on function pgdrip.ramp_rate(jsonb, interval) is
  'The hourly rate that a ramp-up schedule allows at an age';

create or replace function pgdrip.hourly_rate(p_sender pgdrip.senders, p_now timestamptz)
  returns integer
  language sql
  stable
  parallel safe
return case
  when p_sender.ramp is null then p_sender.rate_per_hour
  else least(p_sender.rate_per_hour,
             pgdrip.ramp_rate(p_sender.ramp, p_now - p_sender.started_at)) end;

comment on function pgdrip.hourly_rate(pgdrip.senders, timestamptz) is
  'The hourly rate in force at a sender''s age; NULL: unlimited';

create or replace function pgdrip.send_burst(p_sender pgdrip.senders, p_rate integer)
  returns integer
  language sql
  stable
  parallel safe
return least(p_rate, case when p_sender.gap_max > interval '0' then 1 else p_sender.burst end);

comment on function pgdrip.send_burst(pgdrip.senders, integer) is
  'How many messages may be claimed at once after a rest; a gap leaves one';

-- T such that messages claimed T apart, and sent up to 10 s after their claim, never
-- exceed the rate in any rolling hour, burst included.
create or replace function pgdrip.send_spacing(p_rate integer, p_burst integer)
  returns bigint
  language sql
  immutable
  parallel safe
return case when p_rate is null then 0
            else ceil(3610000000::double precision / greatest(p_rate - p_burst + 1, 1))::bigint end;

comment on function pgdrip.send_spacing(integer, integer) is
  'Microseconds between messages at the hourly rate (GCRA), with the 10 s between claim and send; 0: unlimited';

-- Rolling windows: 25 slots, each a 24th of the window long, cover any window whole.
create or replace function pgdrip.slot_at(p_at timestamptz, p_seconds double precision)
  returns bigint
  language sql
  stable
  parallel safe
return floor(date_part('epoch', p_at) * 24 / p_seconds)::bigint;

comment on function pgdrip.slot_at(timestamptz, double precision) is
  'Number of the slot that an instant falls in, for a window of so many seconds';

create or replace function pgdrip.day_span()
  returns double precision
  language sql
  immutable
  parallel safe
return 86410;

comment on function pgdrip.day_span() is
  'Seconds that the slots of a day cover: 24 hours and the 10 s between claim and send';

create or replace function pgdrip.slot_counts(p_counts integer[], p_slot bigint, p_now_slot bigint)
  returns integer[]
  language sql
  immutable
  parallel safe
return case when p_now_slot <= p_slot then p_counts
            else (array_fill(0, array[least(25, p_now_slot - p_slot)::integer])
                  || p_counts)[1:25] end;

comment on function pgdrip.slot_counts(integer[], bigint, bigint) is
  'Claims per slot, newest first, moved on to a later slot';

create or replace function pgdrip.add_to_first(p_counts integer[], p_count integer)
  returns integer[]
  language sql
  immutable
  parallel safe
return (p_counts[1] + p_count) || p_counts[2:25];

comment on function pgdrip.add_to_first(integer[], integer) is 'Slots after so many more claims';

create or replace function pgdrip.slot_sum(p_counts integer[], p_slot bigint, p_now_slot bigint)
  returns integer
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sum integer := 0;
begin
  for i in 1 .. least(25, greatest(0, 25 - (p_now_slot - p_slot))) loop
    v_sum := v_sum + p_counts[i];
  end loop;
  return v_sum;
end
$$;

comment on function pgdrip.slot_sum(integer[], bigint, bigint) is
  'Claims in the window that ends with a slot';

create or replace function pgdrip.slots_free_at(
  p_counts  integer[],
  p_slot    bigint,
  p_seconds double precision,
  p_limit   integer,
  p_now     timestamptz
)
  returns timestamptz
  language plpgsql
  stable
  strict
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_slot bigint := greatest(p_slot, pgdrip.slot_at(p_now, p_seconds));
begin
  if pgdrip.slot_sum(p_counts, p_slot, v_slot) < p_limit then
    return null;
  end if;
  -- Of a limit of zero, too, the next slot is told: it is asked again then.
  loop
    v_slot := v_slot + 1;
    exit when pgdrip.slot_sum(p_counts, p_slot, v_slot) <= greatest(p_limit - 1, 0);
  end loop;
  -- A microsecond later, so that no rounding leads back into the slot before.
  return to_timestamp(v_slot * p_seconds / 24) + interval '1 microsecond';
end
$$;

comment on function pgdrip.slots_free_at(integer[], bigint, double precision, integer, timestamptz) is
  'When a window holds less than its limit again; NULL: now, or no limit';

create or replace function pgdrip.probe_wait(p_faults integer)
  returns interval
  language sql
  immutable
  parallel safe
return least(interval '1 hour', interval '1 minute' * 2 ^ least(greatest(p_faults - 1, 0), 6));

comment on function pgdrip.probe_wait(integer) is
  'How long a sender with that many faults in a row rests before one message probes it';

create or replace function pgdrip.sender_allowance(
  p_sender pgdrip.senders,
  p_pace   pgdrip.paces,
  p_now    timestamptz
)
  returns setof integer
  language sql
  stable
  parallel safe
begin atomic
  select case
           when p_sender.hours is not null
            and pgdrip.next_open(p_now, p_sender.hours, 'UTC') > p_now then 0
           when p_sender.gap_max > interval '0' and p_pace.tat > p_now then 0
           else greatest(0, least(1000,
             case when r.rate is not null then least(r.rate, b.burst - div(
               s.spacing - 1 + greatest(0, round(
                 date_part('epoch', p_pace.tat - p_now) * 1e6))::bigint, s.spacing)) end,
             case when p_sender.rate_per_day is not null
                  then p_sender.rate_per_day - pgdrip.slot_sum(
                    p_pace.day_counts, p_pace.day_slot, pgdrip.slot_at(p_now, pgdrip.day_span())) end,
             case when p_sender.gap_max > interval '0' or p_sender.health = 'down' then 1 end))
         end
    from (select pgdrip.hourly_rate(p_sender, p_now) as rate offset 0) as r
   cross join lateral (select pgdrip.send_burst(p_sender, r.rate) as burst offset 0) as b
   cross join lateral (select pgdrip.send_spacing(r.rate, b.burst) as spacing offset 0) as s;
end;

comment on function pgdrip.sender_allowance(pgdrip.senders, pgdrip.paces, timestamptz) is
  'How many messages a sender may be given now, by rate, day, gap, ramp, hours and health; at most 1000';

create or replace function pgdrip.spend_allowance(
  p_sender pgdrip.senders,
  p_pace   pgdrip.paces,
  p_now    timestamptz,
  p_count  integer
)
  returns setof pgdrip.sender_pace
  language sql
  stable
begin atomic
  select t.tat, d.slot, d.counts,
         case when p_sender.hours is null then n.ready_at
              else pgdrip.next_open(greatest(n.ready_at, p_now), p_sender.hours, 'UTC') end
    from (select pgdrip.hourly_rate(p_sender, p_now) as rate offset 0) as r
   cross join lateral (select pgdrip.send_burst(p_sender, r.rate) as burst offset 0) as b
   cross join lateral (
     select pgdrip.send_spacing(r.rate, b.burst) / 1e6::double precision as seconds offset 0) as s
   cross join lateral (
     select case when p_count = 0 then p_pace.tat
                 else greatest(p_pace.tat, p_now) + make_interval(secs => case
                   when p_sender.gap_max = interval '0' then p_count * s.seconds
                   -- In seconds: a day of a gap is 24 hours in every TimeZone.
                   else greatest(s.seconds, extract(epoch from p_sender.gap_min
                          + random() * (p_sender.gap_max - p_sender.gap_min))::double precision)
                   end) end as tat offset 0) as t
   cross join lateral (
     select greatest(pgdrip.slot_at(p_now, pgdrip.day_span()), p_pace.day_slot) as slot offset 0) as w
   cross join lateral (
     select pgdrip.slot_counts(p_pace.day_counts, p_pace.day_slot, w.slot) as old offset 0) as o
   cross join lateral (
     select w.slot, pgdrip.add_to_first(o.old, p_count) as counts offset 0) as d
   cross join lateral (
     select greatest(t.tat - make_interval(secs => (coalesce(b.burst, 1) - 1) * s.seconds),
       case when p_sender.rate_per_day is not null then pgdrip.slots_free_at(
              d.counts, d.slot, pgdrip.day_span(), p_sender.rate_per_day, p_now) end,
       case when r.rate = 0 then p_now + interval '1 hour' end,
       case when p_sender.health = 'down' and p_count > 0
            then p_now + pgdrip.probe_wait(
              p_sender.faults - p_sender.fault_threshold + 1) end) as ready_at offset 0) as n;
end;

comment on function pgdrip.spend_allowance(pgdrip.senders, pgdrip.paces, timestamptz, integer) is
  'The pace of a sender after p_count claims: its arrival time, day counts and when it is ready again';
