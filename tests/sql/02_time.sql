-- When a step is due: days on the wall clock, hours on the line of time, both nights on
-- which clocks change, windows, holidays; the same in every session.
begin;
select no_plan();

create function pg_temp.step(p_delay interval, p_at time default null) returns pgdrip.steps
language sql as $$
  select jsonb_populate_record(null::pgdrip.steps,
           jsonb_build_object('number', 1, 'delay', p_delay, 'send_at', p_at))
$$;
create function pg_temp.hours(p_from text, p_to text, p_more jsonb default '{}') returns jsonb
language sql as $$
  select pgdrip.definition_window(
    jsonb_build_object('from', p_from, 'to', p_to) || p_more, 'test')
$$;

-- The whole page in every session's zone and date style

create function pg_temp.page(p_zone text) returns setof text language plpgsql as $$
begin
  perform set_config('timezone', p_zone, true);
  perform set_config('datestyle', case when p_zone = 'UTC' then 'ISO, MDY' else 'German, DMY' end, true);
  perform set_config('intervalstyle', case when p_zone = 'UTC' then 'postgres' else 'sql_standard' end, true);

  -- A wall clock time
  return query select is(pgdrip.wall_instant(d.wall::timestamp, d.zone), d.at::timestamptz,
                 format('%s: %s', p_zone, d.fact))
    from (values
      ('2026-01-05 09:00', 'UTC', '2026-01-05 09:00+00', 'UTC is itself'),
      ('2026-01-05 09:00', 'Asia/Kuala_Lumpur', '2026-01-05 01:00+00', 'Kuala Lumpur is 8 h ahead, not 8 h early twice'),
      ('2026-01-05 09:00', 'Asia/Kolkata', '2026-01-05 03:30+00', 'Kolkata is half an hour off'),
      ('2026-01-05 09:00', 'Asia/Kathmandu', '2026-01-05 03:15+00', 'Kathmandu is a quarter of an hour off'),
      ('2026-01-05 09:00', 'Pacific/Apia', '2026-01-04 20:00+00', 'Apia is 13 h ahead'),
      ('2026-03-08 01:59:59', 'America/New_York', '2026-03-08 06:59:59+00', 'before the gap winter time holds'),
      ('2026-03-08 02:00', 'America/New_York', '2026-03-08 07:00+00', 'the first moment of a gap is the next valid instant'),
      ('2026-03-08 02:30', 'America/New_York', '2026-03-08 07:00+00', 'the middle of a gap is the next valid instant'),
      ('2026-03-08 02:59:59.999999', 'America/New_York', '2026-03-08 07:00+00', 'the end of a gap is the next valid instant'),
      ('2026-03-08 03:00', 'America/New_York', '2026-03-08 07:00+00', 'after the gap summer time holds'),
      ('2026-11-01 00:59:59', 'America/New_York', '2026-11-01 04:59:59+00', 'before an overlap summer time holds'),
      ('2026-11-01 01:00', 'America/New_York', '2026-11-01 05:00+00', 'an overlap begins at its first occurrence'),
      ('2026-11-01 01:30', 'America/New_York', '2026-11-01 05:30+00', 'of an overlap the first occurrence counts'),
      ('2026-11-01 02:00', 'America/New_York', '2026-11-01 07:00+00', 'after the overlap winter time holds'),
      ('2026-11-01 20:00', 'America/New_York', '2026-11-02 01:00+00', 'the evening after an overlap is in winter time'),
      ('2026-03-29 02:30', 'Europe/Berlin', '2026-03-29 01:00+00', 'Berlin has its own gap'),
      ('2026-10-25 02:30', 'Europe/Berlin', '2026-10-25 00:30+00', 'and its own overlap'),
      ('2026-10-04 02:15', 'Australia/Lord_Howe', '2026-10-03 15:30+00', 'a gap of half an hour is a gap'),
      ('2026-04-05 01:45', 'Australia/Lord_Howe', '2026-04-04 14:45+00', 'of an overlap of half an hour the first occurrence counts'),
      ('2026-03-29 01:30', 'Antarctica/Troll', '2026-03-29 01:00+00', 'a gap of two hours is a gap'),
      ('2026-10-25 01:30', 'Antarctica/Troll', '2026-10-24 23:30+00', 'of an overlap of two hours the first occurrence counts'),
      ('2011-12-30 12:00', 'Pacific/Apia', '2011-12-30 10:00+00', 'a day that a country skipped is a gap'),
      ('2026-03-29 00:30', 'Asia/Beirut', '2026-03-28 22:00+00', 'midnight itself can be missing')
    ) as d(wall, zone, at, fact);

  -- A span
  return query select is(pgdrip.after_span(d.at::timestamptz, d.span::interval, d.zone), d.due::timestamptz,
                 format('%s: %s', p_zone, d.fact))
    from (values
      ('2026-03-07 17:00+00', '1 day', 'America/New_York', '2026-03-08 16:00+00', 'a day over the gap lasts 23 hours'),
      ('2026-03-07 17:00+00', '24 hours', 'America/New_York', '2026-03-08 17:00+00', '24 hours over the gap are 24 hours'),
      ('2026-10-31 16:00+00', '1 day', 'America/New_York', '2026-11-01 17:00+00', 'a day over the overlap lasts 25 hours'),
      ('2026-10-31 16:00+00', '24 hours', 'America/New_York', '2026-11-01 16:00+00', '24 hours over the overlap are 24 hours'),
      ('2026-03-07 07:30+00', '1 day', 'America/New_York', '2026-03-08 07:00+00', 'a day that ends in a gap ends after it'),
      ('2026-03-07 17:00+00', '1 day 12 hours', 'America/New_York', '2026-03-09 04:00+00', 'days come first, then hours'),
      ('2026-01-05 01:00+00', '12 hours', 'Asia/Kuala_Lumpur', '2026-01-05 13:00+00', 'twelve hours are twelve hours'),
      ('2026-01-05 01:00:00.123456+00', '3 days', 'Asia/Kuala_Lumpur', '2026-01-08 01:00:00.123456+00', 'three days keep the wall clock to the microsecond'),
      ('2026-01-05 01:00+00', '0', 'Asia/Kuala_Lumpur', '2026-01-05 01:00+00', 'no wait is no wait'),
      ('2011-12-29 20:00+00', '1 day', 'Pacific/Apia', '2011-12-30 10:00+00', 'the day that was skipped ends when the next begins')
    ) as d(at, span, zone, due, fact);

  -- A window
  return query select is(pgdrip.next_open(d.at::timestamptz, pg_temp.hours(d.since, d.until, d.more::jsonb), d.zone),
                 d.open::timestamptz, format('%s: %s', p_zone, d.fact))
    from (values
      ('2026-01-05 09:00+00', '09:00', '21:00', '{}', 'UTC', '2026-01-05 09:00+00', 'a window is open at its first moment'),
      ('2026-01-05 20:59:59.999999+00', '09:00', '21:00', '{}', 'UTC', '2026-01-05 20:59:59.999999+00', 'and just before its end'),
      ('2026-01-05 21:00+00', '09:00', '21:00', '{}', 'UTC', '2026-01-06 09:00+00', 'at its end it is closed until the next day'),
      ('2026-01-05 08:59:59+00', '09:00', '21:00', '{}', 'UTC', '2026-01-05 09:00+00', 'before it the same day counts'),
      ('2026-01-05 01:00+00', '09:00', '21:00', '{}', 'Asia/Kuala_Lumpur', '2026-01-05 01:00+00', 'it opens by the contact''s clock'),
      ('2026-01-05 01:00+00', '09:00', '21:00', '{"zone": "UTC"}', 'Asia/Kuala_Lumpur', '2026-01-05 09:00+00', 'or by the zone it names'),
      ('2026-01-05 16:30+00', '09:00', '21:00', '{"zone": "contact"}', 'Asia/Kolkata', '2026-01-06 03:30+00', 'half-hour zones open on the half hour'),
      ('2026-01-09 21:00+00', '09:00', '21:00', '{"days": ["mon", "fri"]}', 'UTC', '2026-01-12 09:00+00', 'other weekdays are closed'),
      ('2026-12-24 22:00+00', '09:00', '21:00', '{"holidays": ["2026-12-25", "2026-12-26"]}', 'UTC', '2026-12-27 09:00+00', 'holidays are closed'),
      ('2026-01-05 23:30+00', '22:00', '02:00', '{}', 'UTC', '2026-01-05 23:30+00', 'a window over midnight is open before midnight'),
      ('2026-01-06 01:59+00', '22:00', '02:00', '{}', 'UTC', '2026-01-06 01:59+00', 'and after it'),
      ('2026-01-06 02:00+00', '22:00', '02:00', '{}', 'UTC', '2026-01-06 22:00+00', 'and closes in the morning'),
      ('2026-01-06 01:00+00', '22:00', '02:00', '{"days": ["mon"]}', 'UTC', '2026-01-06 01:00+00', 'the night after Monday belongs to Monday'),
      ('2026-01-05 01:00+00', '22:00', '02:00', '{"days": ["mon"]}', 'UTC', '2026-01-05 22:00+00', 'the night before Monday does not'),
      ('2026-01-06 01:00+00', '22:00', '02:00', '{"holidays": ["2026-01-06"]}', 'UTC', '2026-01-06 01:00+00', 'a holiday does not cut the night before it'),
      ('2026-01-06 22:30+00', '22:00', '02:00', '{"holidays": ["2026-01-06"]}', 'UTC', '2026-01-07 22:00+00', 'but its own night'),
      ('2026-01-05 00:00+00', '00:00', '24:00', '{}', 'UTC', '2026-01-05 00:00+00', 'until 24:00 is the whole day'),
      ('2026-01-05 23:59+00', '09:00', '24:00', '{}', 'UTC', '2026-01-05 23:59+00', 'the last minute is open until 24:00'),
      ('2026-01-05 08:00+00', '09:00', '09:00', '{}', 'UTC', '2026-01-05 08:00+00', 'from nine to nine is always'),
      ('2026-03-08 06:00+00', '02:30', '05:00', '{}', 'America/New_York', '2026-03-08 07:00+00', 'a window that begins in the gap begins after it'),
      ('2026-03-08 06:00+00', '02:15', '02:45', '{}', 'America/New_York', '2026-03-09 06:15+00', 'a window within the gap is not that day'),
      ('2026-11-01 05:10+00', '01:30', '02:30', '{}', 'America/New_York', '2026-11-01 05:30+00', 'a window opens at the first of two'),
      ('2026-11-01 07:20+00', '01:30', '02:30', '{}', 'America/New_York', '2026-11-01 07:20+00', 'and lasts over the overlap')
    ) as d(at, since, until, more, zone, open, fact);

  -- A step
  return query select is(pgdrip.step_due_at(d.at::timestamptz, pg_temp.step(d.delay::interval, d.send_at::time), 0,
                                    pg_temp.hours(d.since, d.until, d.more::jsonb), d.zone),
                 d.due::timestamptz, format('%s: %s', p_zone, d.fact))
    from (values
      ('2026-01-05 01:00+00', '12 hours', null, '00:00', '24:00', '{}', 'Asia/Kuala_Lumpur', '2026-01-05 13:00+00', 'a delay alone'),
      ('2026-01-05 01:00+00', '12 hours', null, '00:00', '24:00', '{}', null, '2026-01-05 13:00+00', 'a contact without a zone counts as UTC'),
      ('2026-01-05 01:00+00', '1 day', '08:00', '00:00', '24:00', '{}', 'Asia/Kuala_Lumpur', '2026-01-07 00:00+00', 'the time of day comes after the delay, never before'),
      ('2026-01-05 01:00+00', '1 day', '09:00', '00:00', '24:00', '{}', 'Asia/Kuala_Lumpur', '2026-01-06 01:00+00', 'the very time of day is in time'),
      ('2026-01-05 01:00+00', '1 day', '09:00', '00:00', '24:00', '{"zone": "UTC"}', 'Asia/Kuala_Lumpur', '2026-01-06 09:00+00', 'the time of day is in the window''s zone'),
      ('2026-01-05 01:00+00', '2 days', '08:00', '09:00', '21:00', '{"days": ["mon", "tue", "wed", "thu"]}', 'Asia/Kuala_Lumpur', '2026-01-08 01:00+00', 'then the window'),
      ('2026-01-07 01:00+00', '2 days', '10:00', '09:00', '21:00', '{"days": ["mon", "tue", "wed", "thu"]}', 'Asia/Kuala_Lumpur', '2026-01-12 01:00+00', 'snapped, never dropped'),
      ('2026-03-07 17:00+00', '12 hours', '02:30', '00:00', '24:00', '{}', 'America/New_York', '2026-03-08 07:00+00', 'a time of day in the gap is the moment after it'),
      ('2026-10-31 17:00+00', '12 hours', '01:30', '00:00', '24:00', '{}', 'America/New_York', '2026-11-01 05:30+00', 'a time of day in the overlap is the first')
    ) as d(at, delay, send_at, since, until, more, zone, due, fact);
  return query select is(pgdrip.step_due_at('2026-01-05 01:00+00'::timestamptz, pg_temp.step('36 hours'), 0, null, 'Asia/Kuala_Lumpur'),
                 '2026-01-06 13:00+00', p_zone || ': without a window nothing is snapped');
end $$;

select pg_temp.page(z)
  from unnest(array['UTC', 'Asia/Kuala_Lumpur', 'America/New_York', 'Pacific/Apia']) as z;
set local timezone = 'UTC';
set local datestyle = 'ISO, MDY';
set local intervalstyle = 'postgres';

-- The steps of the old system: 12, 24 and 36 hours are three different times

select is(array(select pgdrip.step_due_at('2026-01-05 09:00+00', pg_temp.step(h * interval '1 hour'),
                                          1, null, 'Asia/Kuala_Lumpur') from unnest(array[12, 24, 36]) as h),
          array['2026-01-05 21:00+00', '2026-01-06 09:00+00', '2026-01-06 21:00+00']::timestamptz[],
          'steps 12, 24 and 36 hours later are due 12, 24 and 36 hours later');

select is(array(select pgdrip.step_due_at('2026-03-07 17:00+00', jsonb_populate_record(pg_temp.step(null), '{"number": 3}'),
                                          previous, null, 'America/New_York') from unnest(array[0, 1, 2]) as previous),
          array['2026-03-07 17:00+00', '2026-03-09 16:00+00', '2026-03-08 16:00+00']::timestamptz[],
          'without a delay the difference of the day numbers counts, and none for the first step');

-- Windows at their worst

select is(pgdrip.next_open('2026-01-05 09:00+00', pg_temp.hours('09:00', '10:00', jsonb_build_object(
            'days', array['mon'], 'zone', 'UTC', 'holidays', (
              select jsonb_agg((date '2026-01-05' + 7 * n)::text) from generate_series(0, 365) as n))), 'UTC'),
          '2033-01-10 09:00+00'::timestamptz, 'a window opens even after 366 holidays on its only weekday');
select is_empty($$
  select at from generate_series(timestamptz '2026-01-01 00:00+00', '2027-01-01 00:00+00', '29 hours 13 minutes') as at,
         unnest(array['UTC', 'America/New_York', 'Asia/Kolkata', 'Australia/Lord_Howe']) as zone,
         (values (pg_temp.hours('09:00', '21:00')), (pg_temp.hours('22:30', '02:30')),
                 (pg_temp.hours('02:00', '02:30', '{"days": ["sun"]}'))) as w(hours),
         lateral (select pgdrip.next_open(at, w.hours, zone)) as o(open)
   where o.open < at or pgdrip.next_open(o.open, w.hours, zone) <> o.open $$,
  'whenever a window opens, it is open then, all year round');
select is_empty($$
  select at from generate_series(timestamptz '2026-01-01 00:00+00', '2026-02-01 00:00+00', '3 hours 7 minutes') as at,
         (values (pg_temp.hours('09:00', '21:00')), (pg_temp.hours('23:50', '00:10'))) as w(hours),
         generate_series(1, 5) as key,
         lateral (select pgdrip.next_open(at, w.hours, 'UTC'), pgdrip.spread_open(at, w.hours, 'UTC', key)) as o(open, spread)
   where o.spread not between o.open and o.open + interval '1 hour'
      or pgdrip.next_open(o.spread, w.hours, 'UTC') <> o.spread
      or (o.open = at) <> (o.spread = at and o.open = at) $$,
  'waiting rows are spread within the first hour and within the window');
select cmp_ok(count(distinct pgdrip.spread_open('2026-01-05 00:00+00', pg_temp.hours('09:00', '21:00'), 'UTC', key)),
              '>', 550::bigint, 'a thousand waiting rows do not all start at nine')
  from generate_series(1, 1000) as key;
select is(pgdrip.after_span(null, '1 day', 'UTC'), null, 'nothing later than NULL');

select * from finish();
rollback;
