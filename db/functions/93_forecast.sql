-- Forecasting: when a batch would be through. The sender that will take longest is played
-- with what waits there, by the rules that claim and settle use. Nothing is written.

create or replace function pgdrip.lots_waiting(p_sender bigint)
  returns setof pgdrip.forecast_lot
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select e.version_id, d.step, count(*)::integer, max(d.due_at), false
    from (select x.enrollment_id, x.step, x.due_at,
                 ntile(60) over (order by x.due_at, x.enrollment_id) as part
            from pgdrip.due as x
           where x.sender_id = p_sender and x.parked_reason is null and x.awaits is null) as d
    join pgdrip.enrollments as e using (enrollment_id)
   group by e.version_id, d.step, d.part
$$;

comment on function pgdrip.lots_waiting(bigint) is
  'Private: the live steps of a sender in lots of about a sixtieth';

create or replace function pgdrip.lots_enrolled(
  p_version  bigint,
  p_contacts integer,
  p_now      timestamptz
)
  returns setof pgdrip.forecast_lot
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select v.version_id, s.number, n.contacts,
         pgdrip.step_due_at(p_now, s, 0, v.send_window, null), true
    from pgdrip.sequence_versions as v
    join pgdrip.steps as s on s.version_id = v.version_id and s.number = v.first_step,
         lateral (select (p_contacts * i / l.lots - p_contacts * (i - 1) / l.lots)::integer as contacts
                    from (select least(100, p_contacts)::bigint as lots) as l,
                         generate_series(1, l.lots) as i) as n
   where v.version_id = p_version
$$;

comment on function pgdrip.lots_enrolled(bigint, integer, timestamptz) is
  'Private: contacts enrolled now in a version, in up to a hundred lots';

create or replace function pgdrip.lot_after(p_lot pgdrip.forecast_lot, p_sent_at timestamptz)
  returns pgdrip.forecast_lot
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_lot  pgdrip.forecast_lot := p_lot;
  v_from timestamptz := p_sent_at;
  v_step pgdrip.steps;
begin
  select s.* into v_step from pgdrip.steps as s
   where s.version_id = p_lot.version_id and s.number = p_lot.step;
  v_lot.step := v_step.next_step;
  -- A step that waits for an event: as if it did not come.
  if v_step.wait_event is not null then
    v_from := pgdrip.after_span(v_from, v_step.wait_timeout, 'UTC');
    v_lot.step := coalesce(v_step.else_step, v_step.next_step);
  end if;
  v_lot.due_at := (
    select pgdrip.step_due_at(v_from, s, p_lot.step, v.send_window, null)
      from pgdrip.steps as s join pgdrip.sequence_versions as v using (version_id)
     where s.version_id = p_lot.version_id and s.number = v_lot.step);
  return v_lot;
end
$$;

comment on function pgdrip.lot_after(pgdrip.forecast_lot, timestamptz) is
  'Private: a lot at its next step; due_at NULL: it is through';

create or replace function pgdrip.play_slice(
  p_sender pgdrip.senders,
  p_pace   pgdrip.paces,
  p_count  integer,
  p_at     timestamptz
)
  returns pgdrip.forecast_slice
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_out     pgdrip.forecast_slice;
  v_daily   pgdrip.senders := p_sender;
  v_spacing interval;
begin
  v_out.sent := (select least(p_count, a, 1) from pgdrip.sender_allowance(p_sender, p_pace, p_at) as a);
  v_out.sent_at := p_at;
  select greatest(w.ready_at, p_at + (1 - v_out.sent) * interval '1 second'),
         w.tat, w.day_slot, w.day_counts
    into v_out.ready_at, v_out.tat, v_out.day_slot, v_out.day_counts
    from pgdrip.spend_allowance(p_sender, p_pace, p_at, v_out.sent) as w;
  if v_out.sent = 1 then
    -- What goes out in ten minutes goes at once, at the pace of the first.
    v_spacing := v_out.tat - greatest(p_pace.tat, p_at);
    v_daily.rate_per_hour := null;
    v_daily.ramp := null;
    v_daily.gap_max := interval '0';
    v_out.sent := (
      select least(p_count, case when v_spacing > interval '0'
                     then greatest(1, floor(600 / extract(epoch from v_spacing))) end,
                   case when p_sender.rate_per_day is not null then a end)
        from pgdrip.sender_allowance(v_daily, p_pace, p_at) as a);
    v_spacing := (v_out.sent - 1) * v_spacing;
    v_out.sent_at := p_at + v_spacing;
    v_out.ready_at := v_out.ready_at + v_spacing;
    v_out.tat := v_out.tat + v_spacing;
    v_out.day_counts[1] := v_out.day_counts[1] + v_out.sent - 1;
  end if;
  return v_out;
end
$$;

comment on function pgdrip.play_slice(pgdrip.senders, pgdrip.paces, integer, timestamptz) is
  'Private: what a sender lets out from a moment on, at most ten minutes of it, and its pace afterwards';

-- A sender's part may be less than one message in the span: then it is one in a longer span.
create or replace function pgdrip.group_share(p_sender pgdrip.senders, p_now timestamptz)
  returns pgdrip.sender_groups
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_group   pgdrip.sender_groups;
  v_members numeric;
  v_rate    integer;
  v_used    integer;
begin
  select g.* into v_group from pgdrip.sender_groups as g where g.group_id = p_sender.group_id;
  select count(*) into v_members from pgdrip.senders as s
   where s.group_id = p_sender.group_id
     and (s.sender_id = p_sender.sender_id
          or s.status = 'active' and s.health = 'healthy'
         and ((s.pool, s.channel) = (p_sender.pool, p_sender.channel)
              or pgdrip.has_live_work(s.sender_id)));
  v_group.distinct_contacts_per_day := ceil(v_group.distinct_contacts_per_day / v_members);
  if v_group.rate is not null then
    v_used := pgdrip.slot_sum(v_group.slot_counts, v_group.slot,
                              pgdrip.slot_at(p_now, pgdrip.group_span(v_group)));
    v_rate := ceil(v_group.rate / v_members);
    v_group.per := v_group.per * (v_rate * v_members / v_group.rate)::double precision;
    v_group.slot := pgdrip.slot_at(p_now, pgdrip.group_span(v_group));
    v_group.slot_counts := round(v_used::numeric * v_rate / v_group.rate)::integer
                           || array_fill(0, array[24]);
    v_group.rate := v_rate;
  end if;
  return v_group;
end
$$;

comment on function pgdrip.group_share(pgdrip.senders, timestamptz) is
  'Private: the part of its group''s limits that falls to one sender beside the others at work; without a group nothing but NULL';

create or replace function pgdrip.group_after(
  p_group pgdrip.sender_groups,
  p_count integer,
  p_at    timestamptz
)
  returns pgdrip.sender_groups
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_group pgdrip.sender_groups := p_group;
begin
  v_group.slot := greatest(p_group.slot, pgdrip.slot_at(p_at, pgdrip.group_span(p_group)));
  v_group.slot_counts := pgdrip.add_to_first(
    pgdrip.slot_counts(p_group.slot_counts, p_group.slot, v_group.slot), p_count);
  return v_group;
end
$$;

comment on function pgdrip.group_after(pgdrip.sender_groups, integer, timestamptz) is
  'Private: a group after so many more messages of it';

create or replace function pgdrip.play_sender(
  p_sender pgdrip.senders,
  p_lots   pgdrip.forecast_lot[],
  p_now    timestamptz
)
  returns timestamptz
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders := p_sender;
  v_pace   pgdrip.paces := (select p from pgdrip.paces as p where p.sender_id = p_sender.sender_id);
  v_lots   pgdrip.forecast_lot[] := p_lots;
  v_group  pgdrip.sender_groups := pgdrip.group_share(p_sender, p_now);
  v_lot    pgdrip.forecast_lot;
  v_slice  pgdrip.forecast_slice;
  v_free   timestamptz;
  v_at     timestamptz := p_now;
  v_open   timestamptz;
  v_done   timestamptz;
  v_nth    integer;
  v_rest   integer;
begin
  v_sender.health := 'healthy';
  v_sender.gap_min := (p_sender.gap_min + p_sender.gap_max) / 2;
  v_sender.gap_max := v_sender.gap_min;
  -- As if every message went to another contact of the day.
  v_sender.rate_per_day := least(p_sender.rate_per_day, v_group.distinct_contacts_per_day);
  while exists (select from unnest(v_lots) as l where l.is_counted and l.due_at is not null) loop
    select l.nth into v_nth
      from unnest(v_lots) with ordinality
             as l(version_id, step, contacts, due_at, is_counted, nth)
     where l.due_at is not null order by l.due_at, l.nth limit 1;
    v_lot := v_lots[v_nth];
    v_rest := v_lot.contacts;
    v_at := greatest(v_at, v_lot.due_at);
    while v_rest > 0 loop
      v_open := (select pgdrip.spread_open(v_at, v.send_window, 'UTC', v_nth)
                   from pgdrip.sequence_versions as v
                  where v.version_id = v_lot.version_id and v.send_window is not null);
      exit when v_open > v_at;
      if v_at > p_now + interval '3650 days' then
        return null;
      end if;
      v_free := pgdrip.slots_free_at(v_group.slot_counts, v_group.slot,
                                     pgdrip.group_span(v_group), v_group.rate, v_at);
      if v_free is not null then
        v_at := v_free;
        continue;
      end if;
      v_slice := pgdrip.play_slice(v_sender, v_pace, least(v_rest, v_group.rate - pgdrip.slot_sum(
        v_group.slot_counts, v_group.slot,
        pgdrip.slot_at(v_at, pgdrip.group_span(v_group)))), v_at);
      v_group := pgdrip.group_after(v_group, v_slice.sent, v_at);
      v_pace.tat := v_slice.tat;
      v_pace.day_slot := v_slice.day_slot;
      v_pace.day_counts := v_slice.day_counts;
      v_at := v_slice.ready_at;
      v_rest := v_rest - v_slice.sent;
    end loop;
    if v_rest > 0 then
      v_lots[v_nth].contacts := v_rest;
      v_lots[v_nth].due_at := v_open;
    else
      v_lots[v_nth] := pgdrip.lot_after(v_lot, v_slice.sent_at);
      v_done := greatest(v_done, case when v_lot.is_counted then v_slice.sent_at end);
    end if;
  end loop;
  return v_done;
end
$$;

comment on function pgdrip.play_sender(pgdrip.senders, pgdrip.forecast_lot[], timestamptz) is
  'Private: when the counted lots would be through with one sender, oldest due first; NULL: not within ten years';

create or replace function pgdrip.forecast(p_sequence text, p_contacts integer)
  returns pgdrip.forecast
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences := pgdrip.sequence_named(p_sequence);
  v_now      timestamptz := pgdrip.clock();
  v_out      pgdrip.forecast;
  v_shares   pgdrip.sender_share[];
begin
  perform pgdrip.assert_given('p_contacts', p_contacts);
  if p_contacts not between 1 and 100000000 then
    raise exception 'p_contacts must be from 1 to 100000000, not %', p_contacts
      using errcode = '22023', hint = 'How many would be enrolled now.';
  elsif v_sequence.version_id is null then
    raise exception 'sequence % has no steps', quote_literal(p_sequence)
      using errcode = 'MD002', hint = 'apply_sequence() publishes them.';
  end if;
  v_shares := array(
    select h from pgdrip.pool_shares(v_sequence.pool, v_sequence.channel, v_now) as h);
  select case when bool_or(s.is_limited) then v_sequence.pool end,
         case when bool_or(s.is_limited) then round(sum(h.capacity) / 1000, 1) end
    into v_out.bottleneck_pool, v_out.per_hour
    from unnest(v_shares) as h join pgdrip.senders as s using (sender_id);
  if v_shares = '{}' then
    v_out.bottleneck_pool := v_sequence.pool;
    v_out.per_hour := 0;
    return v_out;
  end if;
  -- Whoever has most to do is the last to finish: for its capacity over days, or for its pace.
  with parts as (
    select s as sender, h.capacity, h.load + p.contacts as work,
           greatest(1, ceil(p.contacts))::integer as contacts, p.contacts >= 0.5 as is_used
      from unnest(v_shares) as h
      join pgdrip.senders as s using (sender_id)
     cross join (select sum(i.capacity) as capacity, sum(i.shortfall) as shortfall
                   from unnest(v_shares) as i) as t,
           -- As choose_senders() spreads them: what each is short of first.
           lateral (select case when p_contacts <= t.shortfall
                      then p_contacts * h.shortfall / t.shortfall
                      else h.shortfall + (p_contacts - t.shortfall) * h.capacity / t.capacity
                    end as contacts) as p
  ),
  last as (
    (select p.* from parts as p order by p.is_used desc, p.work / p.capacity desc limit 1)
    union
    (select p.* from parts as p
      order by p.is_used desc, p.work / coalesce(pgdrip.hourly_rate(p.sender, v_now), 3600) desc
      limit 1)
  )
  select case when bool_and(d.done_at is not null) then max(d.done_at) end into v_out.done_at
    from last as l, lateral pgdrip.play_sender(l.sender, array(
      select w from pgdrip.lots_waiting((l.sender).sender_id) as w
      union all
      select n from pgdrip.lots_enrolled(v_sequence.version_id, l.contacts, v_now) as n
    ), v_now) as d(done_at);
  return v_out;
end
$$;

comment on function pgdrip.forecast(text, integer) is
  'When so many contacts enrolled now would be through, by the limits of the senders and what waits there; done_at NULL: not within ten years; nothing is written; 22004, 22023, MD001, MD002';
