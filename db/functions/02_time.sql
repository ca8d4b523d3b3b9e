-- When a step is due: its delay, then its time of day, then the send window.
-- Days are counted on the wall clock of a zone, hours on the line of time; the session's
-- own TimeZone never matters. What adds a span to a time is called stable, as the operator
-- is: from one called immutable the planner would make a call for each row.

create or replace function pgdrip.wall_instant(p_wall timestamp, p_zone text)
  returns timestamptz
  language plpgsql
  immutable
  strict
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_at    timestamptz := p_wall at time zone p_zone;
  v_low   timestamptz := v_at - interval '25 hours';
  v_span  interval := interval '25 hours';
  -- Reckoned without zones: an interval of a day is 24 hours only there.
  v_early timestamptz := ((v_low at time zone 'UTC')
    + (p_wall - (v_low at time zone p_zone))) at time zone 'UTC';
begin
  -- By the offset of the day before: where the clocks were put back, the first of the two.
  if v_early at time zone p_zone = p_wall then
    return v_early;
  elsif v_at at time zone p_zone = p_wall then
    return v_at;
  end if;
  -- The clocks were put forward over it: halve down to the first second after the gap.
  while v_span > interval '1 second' loop
    v_span := v_span / 2;
    if (v_low + v_span) at time zone p_zone <= p_wall then
      v_low := v_low + v_span;
    end if;
  end loop;
  return date_bin('1 second', v_low + interval '1 second', 'epoch');
end
$$;

comment on function pgdrip.wall_instant(timestamp, text) is
  'The instant of a wall clock time: the first of two in an overlap, the next valid one in a gap';

create or replace function pgdrip.after_days(p_from timestamptz, p_span interval, p_zone text)
  returns timestamptz
  language plpgsql
  immutable
  strict
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_days interval := make_interval(days => extract(day from p_span)::integer);
begin
  return pgdrip.wall_instant((p_from at time zone p_zone) + v_days, p_zone)
         + (p_span - v_days);
end
$$;

comment on function pgdrip.after_days(timestamptz, interval, text) is
  'A span later in a zone that may put its clocks forward or back';

create or replace function pgdrip.after_span(p_from timestamptz, p_span interval, p_zone text)
  returns timestamptz
  language sql
  stable
  parallel safe
return case
  -- Without days, or in UTC, a span is so many seconds.
  when extract(day from p_span) = 0 or p_zone = 'UTC'
    then p_from + make_interval(secs => extract(epoch from p_span)::double precision)
  else pgdrip.after_days(p_from, p_span, p_zone) end;

comment on function pgdrip.after_span(timestamptz, interval, text) is
  'A span later: days on the zone''s wall clock, the rest in elapsed time; NULL for NULL';

create or replace function pgdrip.next_open(p_at timestamptz, p_window jsonb, p_zone text)
  returns timestamptz
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone  text := coalesce(nullif(p_window ->> 'zone', 'contact'), p_zone);
  v_from  time := (p_window ->> 'from')::time;
  v_to    time := (p_window ->> 'to')::time;
  v_day   date := (p_at at time zone v_zone)::date - 1;
  v_open  timestamptz;
  v_close timestamptz;
begin
  -- 366 holidays can close a window of one day a week for seven years, not for eight.
  for i in 0 .. 8 * 366 loop
    if p_window -> 'days' @> to_jsonb(extract(isodow from v_day)::integer)
       and not coalesce(p_window -> 'holidays' @> to_jsonb(v_day), false) then
      v_close := pgdrip.wall_instant(v_day + (v_to <= v_from)::integer + v_to, v_zone);
      if p_at < v_close then
        v_open := pgdrip.wall_instant(v_day + v_from, v_zone);
        -- Clocks put forward over the whole of it leave nothing of that day's window.
        if v_open < v_close then
          return greatest(p_at, v_open);
        end if;
      end if;
    end if;
    v_day := v_day + 1;
  end loop;
  raise exception 'the window never opens'
    using errcode = 'MD002', hint = 'Publish the sequence with fewer holidays.';
end
$$;

comment on function pgdrip.next_open(timestamptz, jsonb, text) is
  'The given time if the window is open then, else when it next opens; holidays are days it would open on';

create or replace function pgdrip.spread_open(
  p_at     timestamptz,
  p_window jsonb,
  p_zone   text,
  p_key    bigint
)
  returns timestamptz
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_open  timestamptz := pgdrip.next_open(p_at, p_window, p_zone);
  v_wide  numeric := extract(epoch from (p_window ->> 'to')::time - (p_window ->> 'from')::time);
  v_later timestamptz;
begin
  if v_open = p_at then
    return p_at;
  end if;
  if v_wide <= 0 then
    v_wide := v_wide + 86400;
  end if;
  v_later := v_open
    + make_interval(secs => least(3600, v_wide) * (hashint8(p_key) & 1023) / 1024.0);
  return case when pgdrip.next_open(v_later, p_window, p_zone) = v_later
              then v_later else v_open end;
end
$$;

comment on function pgdrip.spread_open(timestamptz, jsonb, text, bigint) is
  'Like next_open, but waiting rows are spread by their key over the first hour it is open';

create or replace function pgdrip.fit_day(
  p_at     timestamptz,
  p_time   time,
  p_window jsonb,
  p_zone   text
)
  returns timestamptz
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_at   timestamptz := p_at;
  v_wall text := coalesce(nullif(p_window ->> 'zone', 'contact'), p_zone);
  v_day  date;
begin
  if p_time is not null then
    v_day := (v_at at time zone v_wall)::date;
    if pgdrip.wall_instant(v_day + p_time, v_wall) < v_at then
      v_day := v_day + 1;
    end if;
    v_at := pgdrip.wall_instant(v_day + p_time, v_wall);
  end if;
  if p_window is not null then
    v_at := pgdrip.next_open(v_at, p_window, p_zone);
  end if;
  return v_at;
end
$$;

comment on function pgdrip.fit_day(timestamptz, time, jsonb, text) is
  'The next time of day, then the window; each may be NULL';

create or replace function pgdrip.step_wait(p_step pgdrip.steps, p_previous integer)
  returns interval
  language sql
  immutable
  parallel safe
return coalesce(p_step.delay, make_interval(
  days => case when p_previous > 0 then p_step.number - p_previous else 0 end));

comment on function pgdrip.step_wait(pgdrip.steps, integer) is
  'The delay of a step, else the days between it and the step p_previous; 0 for the first';

create or replace function pgdrip.step_due_at(
  p_from     timestamptz,
  p_step     pgdrip.steps,
  p_previous integer,
  p_window   jsonb,
  p_zone     text
)
  returns timestamptz
  language sql
  stable
  parallel safe
return case
  when p_step.send_at is null and p_window is null
    then pgdrip.after_span(p_from, pgdrip.step_wait(p_step, p_previous), coalesce(p_zone, 'UTC'))
  else pgdrip.fit_day(
    pgdrip.after_span(p_from, pgdrip.step_wait(p_step, p_previous), coalesce(p_zone, 'UTC')),
    p_step.send_at, p_window, coalesce(p_zone, 'UTC')) end;

comment on function pgdrip.step_due_at(timestamptz, pgdrip.steps, integer, jsonb, text) is
  'When a step is due that starts to wait at p_from, after the step p_previous (0: none): delay, then time of day, then window';
