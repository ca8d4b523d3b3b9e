-- Limits: no rolling hour or day exceeds the rate however the claims fall, gaps are kept, and
-- a sender that is ready may send.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- Limits: every claim of a simulated sender, one row per message

create function pg_temp.claims(
  p_definition jsonb, p_hours integer, p_style text, p_hour_zero timestamptz
) returns table (style text, at timestamptz, is_ready boolean) language plpgsql as $$
declare
  v_sender pgdrip.senders;
  v_pace   pgdrip.paces;
  v_spent  pgdrip.sender_pace;
  v_now    timestamptz := p_hour_zero;
  v_count  integer;
begin
  perform pgdrip.apply_sender('{"name": "sim", "channel": "log"}' || p_definition);
  select s.* into v_sender from pgdrip.senders as s where s.name = 'sim';
  select p.* into v_pace from pgdrip.paces as p where p.sender_id = v_sender.sender_id;
  v_sender.started_at := p_hour_zero;
  while v_now < p_hour_zero + p_hours * interval '1 hour' loop
    select a into v_count from pgdrip.sender_allowance(v_sender, v_pace, v_now) as a;
    is_ready := v_count > 0 or v_pace.ready_at > v_now;
    if p_style = 'nibble' then
      v_count := least(v_count, floor(random() * 3)::integer);
    end if;
    select n.* into v_spent from pgdrip.spend_allowance(v_sender, v_pace, v_now, v_count) as n;
    v_pace.tat := v_spent.tat;
    v_pace.day_slot := v_spent.day_slot;
    v_pace.day_counts := v_spent.day_counts;
    v_pace.ready_at := v_spent.ready_at;
    for i in 1 .. v_count loop
      style := p_style; at := v_now;
      return next;
    end loop;
    v_now := case p_style
      -- As fast as readiness lets it.
      when 'greedy' then greatest(v_pace.ready_at, v_now + interval '1 microsecond')
      -- Whatever ready_at says, just before and after the round times.
      when 'awkward' then v_now + (array[interval '59.999999 seconds', '1 microsecond',
        '44.999999 seconds', '3599.999999 seconds', '10 seconds'])[1 + floor(random() * 5)]
      when 'nibble' then v_now + random() * interval '90 seconds'
      -- Rests that fill a burst up, then as fast as it goes.
      when 'rest' then case when random() < 0.02 then v_now + random() * interval '4 hours'
        else greatest(v_pace.ready_at, v_now + interval '1 microsecond') end
    end;
  end loop;
end $$;

create function pg_temp.most(p_claims timestamptz[], p_span interval) returns bigint
language sql as $$
  select coalesce(max(n), 0) from (
    select count(*) over (order by c range between p_span preceding and current row) as n
      from unnest(p_claims) as c) as w
$$;

select setseed(0.42);
create temp table simulated as
select d.definition, d.hours, s.style,
       array_agg(c.at order by c.at) as claims, bool_and(c.is_ready) as is_honest
  from (values
         ('{"rate_per_hour": 80}'::jsonb, 30),
         ('{"rate_per_hour": 80, "rate_per_day": 800}', 60),
         ('{"rate_per_hour": 80, "burst": 10}', 30),
         ('{"rate_per_hour": 80, "burst": 80}', 60),
         ('{"rate_per_hour": 1}', 60),
         ('{"rate_per_hour": 7, "burst": 3, "rate_per_day": 50}', 90),
         ('{"rate_per_day": 100}', 90),
         ('{"rate_per_hour": 80, "gap_min": "5 seconds", "gap_max": "15 seconds"}', 30),
         ('{"rate_per_hour": 80, "burst": 20, "gap_min": "5 seconds", "gap_max": "15 seconds"}', 30),
         ('{"gap_min": "2 minutes", "gap_max": "3 minutes"}', 20)
       ) as d(definition, hours),
       unnest(array['greedy', 'awkward', 'nibble', 'rest']) as s(style),
       lateral pg_temp.claims(d.definition, d.hours, s.style, '2026-01-05 09:00+00') as c
 group by d.definition, d.hours, s.style;

select cmp_ok(pg_temp.most(claims, '1 hour'), '<=', (definition ->> 'rate_per_hour')::bigint,
         format('%s, %s: no rolling hour exceeds the rate', definition, style))
  from simulated where definition ? 'rate_per_hour';
select cmp_ok(pg_temp.most(claims, '24 hours'), '<=', (definition ->> 'rate_per_day')::bigint,
         format('%s, %s: no rolling 24 hours exceed the rate', definition, style))
  from simulated where definition ? 'rate_per_day';
-- Each message leaves up to 10 seconds after its claim, some of them at once.
select cmp_ok(pg_temp.most(array(select c + random() * interval '9.999 seconds'
                                   from unnest(claims) as c), '1 hour'),
         '<=', (definition ->> 'rate_per_hour')::bigint,
         format('%s, %s: nor does it where messages leave late', definition, style))
  from simulated where definition ? 'rate_per_hour';
select cmp_ok(pg_temp.most(array(select c + random() * interval '9.999 seconds'
                                   from unnest(claims) as c), '24 hours'),
         '<=', (definition ->> 'rate_per_day')::bigint,
         format('%s, %s: nor any 24 hours', definition, style))
  from simulated where definition ? 'rate_per_day';
select ok(is_honest, format('%s: a sender that is ready may send', definition))
  from simulated where style = 'greedy';
select cmp_ok(cardinality(claims), '>=', (0.97 * hours * (definition ->> 'rate_per_hour')::integer)::integer,
         format('%s: a busy sender uses its rate', definition))
  from simulated
 where style = 'greedy' and definition in ('{"rate_per_hour": 80}', '{"rate_per_hour": 1}',
   '{"rate_per_hour": 80, "gap_min": "5 seconds", "gap_max": "15 seconds"}');
select cmp_ok(cardinality(claims), '>=', 3 * (definition ->> 'rate_per_day')::integer,
         format('%s: a daily rate alone is used up each day, not stretched to one an hour', definition))
  from simulated where style = 'greedy' and definition = '{"rate_per_day": 100}';
select cmp_ok(g.least, '>=', (s.definition ->> 'gap_min')::interval,
         format('%s, %s: the gap is kept', s.definition, s.style))
  from simulated as s,
       lateral (select min(t.gap) as least from (
         select c - lag(c) over (order by c) as gap from unnest(s.claims) as c) as t) as g
 where s.definition ? 'gap_min';
select ok(cardinality(claims) between 20 * 20 and 20 * 30,
         format('%s: without a rate the gap is the only limit', definition))
  from simulated where style = 'greedy' and definition ->> 'gap_min' = '2 minutes';
select is(pg_temp.most(claims, '0'), 10::bigint, 'a burst goes out at once after a rest')
  from simulated where style = 'rest' and definition = '{"rate_per_hour": 80, "burst": 10}';
select is(pg_temp.most(claims, '0'), 1::bigint, 'without a burst messages go one by one')
  from simulated where style = 'rest' and definition = '{"rate_per_hour": 80}';

-- One sender at one time

create function pg_temp.allowance(p_name text, p_now timestamptz, p_spent integer default 0,
                                  p_later interval default '0') returns integer
language sql as $$
  select pgdrip.sender_allowance(s, jsonb_populate_record(p, to_jsonb(n)), p_now + p_later)
    from pgdrip.senders as s join pgdrip.paces as p using (sender_id),
         lateral pgdrip.spend_allowance(s, p, p_now, p_spent) as n
   where s.name = p_name
$$;

select pgdrip.apply_sender('{"name": "gap", "channel": "log", "rate_per_hour": 80, "burst": 20,
  "gap_min": "5 seconds", "gap_max": "5 seconds"}');
select is(pg_temp.allowance('gap', pgdrip.clock()), 1, 'a sender with a gap gets one message at a time');
select is(pg_temp.allowance('gap', pgdrip.clock(), 1, '44 seconds'), 0,
          'a burst does not undo the gap, even where readiness was reset');
select is(pg_temp.allowance('gap', pgdrip.clock(), 1, '46 seconds'), 1,
          'the next slot is the greater of gap and hourly interval');

select pgdrip.apply_sender('{"name": "free", "channel": "log"}');
select is(pg_temp.allowance('free', pgdrip.clock()), 1000, 'an unlimited sender gets a batch');
update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 1 where name = 'free';
select is(pg_temp.allowance('free', pgdrip.clock()), 1, 'a sender that is down gets one probe');
update pgdrip.senders set rate_per_hour = 0, health = 'healthy', faults = 0, down_at = null where name = 'free';
select is(pg_temp.allowance('free', pgdrip.clock()), 0, 'a rate of zero lets nothing go');
select is(array(select pgdrip.probe_wait(n) from unnest(array[1, 2, 3, 6, 7, 1000]) as n),
          array['1 minute', '2 minutes', '4 minutes', '32 minutes', '1 hour', '1 hour']::interval[],
          'the rest of a faulty sender doubles up to an hour');

select pgdrip.apply_sender('{"name": "ramp", "channel": "log", "rate_per_hour": 80,
  "ramp": {"1": 20, "7": 50, "14": 90}}');
select is(array(select pgdrip.hourly_rate(s, s.started_at + n * interval '24 hours')
                  from pgdrip.senders as s, unnest(array[-2, 0, 5.99, 6, 12.99, 13, 400]) as n
                 where s.name = 'ramp'),
          array[20, 20, 20, 50, 50, 80, 80],
          'the rate follows the ramp by age and never exceeds the hourly rate');
create temp table ramped as
select c.at, row_number() over (order by c.at) as n
  from pg_temp.claims('{"rate_per_hour": 80, "burst": 5, "ramp": {"1": 20, "2": 50, "3": 80}}',
                      72, 'greedy', '2026-01-05 09:00+00') as c;
select is_empty($$
  select from ramped as r
    join lateral (select count(*) from ramped as o
                   where o.at between r.at - interval '1 hour' and r.at) as h on true
   where h.count > case when r.at < '2026-01-06 09:00+00' then 20
                        when r.at < '2026-01-07 09:00+00' then 50 else 80 end $$,
  'no rolling hour exceeds the ramp, across its rises too');
select cmp_ok((select count(*) from ramped)::integer, '>', 24 * (15 + 45 + 75),
              'the ramp is used');

create temp table hourly as
select c.at at time zone 'Asia/Kuala_Lumpur' as wall, c.is_ready
  from pg_temp.claims('{"rate_per_hour": 30, "burst": 9, "rate_per_day": 200, "hours": {"from":
    "09:00", "to": "17:00", "days": ["mon", "tue", "thu"], "zone": "Asia/Kuala_Lumpur",
    "holidays": ["2026-01-08"]}}', 24 * 10, 'greedy', '2026-01-04 09:00+00') as c;
select is_empty($$select from hourly where wall::time < '09:00' or wall::time >= '17:00'$$,
                'nothing goes out off the sender''s hours');
select results_eq('select distinct wall::date from hourly order by 1',
  array['2026-01-05', '2026-01-06', '2026-01-12', '2026-01-13']::date[],
  'nothing goes out on other days and holidays');
select ok(bool_and(is_ready), 'readiness waits for the hours') from hourly;
select results_eq($$
  select pgdrip.slot_at(s.ready_at, 86410) > s.day_slot
    from generate_series(0, 30 * 24) as h,
         lateral (select p.* from pgdrip.senders as o join pgdrip.paces as k using (sender_id),
                         lateral pgdrip.spend_allowance(
           o, k, '2026-01-05 09:00+00'::timestamptz + h * interval '1 hour', 200) as p
                   where o.name = 'sim') as s group by 1 $$,
  array[true], 'a sender whose day is full is ready in a later slot, never a moment before it');

select * from finish();
rollback;
