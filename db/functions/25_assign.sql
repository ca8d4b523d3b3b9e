-- Assignment: which sender a contact gets. A pool's shares are kept in a wheel for a
-- minute; a choice turns it and never locks a sender. Writes wheels, due, enrollments,
-- deliveries, wakes.

create or replace function pgdrip.sender_capacity(p_sender pgdrip.senders, p_now timestamptz)
  returns bigint
  language plpgsql
  stable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_days float8 := 1;
  v_open float8 := 1;
  v_gap  float8 := extract(epoch from p_sender.gap_min + p_sender.gap_max) / 2;
  v_rate integer := pgdrip.hourly_rate(p_sender, p_now);
begin
  if p_sender.hours is not null then
    v_days := jsonb_array_length(p_sender.hours -> 'days') / 7.0;
    v_open := extract(epoch from (p_sender.hours ->> 'to')::time
                                 - (p_sender.hours ->> 'from')::time) / 86400;
    v_open := v_days * case when v_open > 0 then v_open else 1 + v_open end;
  end if;
  return greatest(1, round(1000 * least(
    -- A burst is kept free of the rate.
    v_open * least(3600, v_rate, v_rate - pgdrip.send_burst(p_sender, v_rate) + 1,
                   3600 / nullif(v_gap, 0)),
    v_days * p_sender.rate_per_day / 24)));
end
$$;

comment on function pgdrip.sender_capacity(pgdrip.senders, timestamptz) is
  'What a sender can send in 1,000 hours, by rate, day, gap, ramp and hours; an unlimited one counts as 3,600 an hour';

create or replace function pgdrip.pool_shares(p_pool text, p_channel text, p_now timestamptz)
  returns setof pgdrip.sender_share
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
begin
  -- Who is down gets nobody, but serves where nobody is healthy.
  return query
    with members as materialized (
      select s.sender_id, s.health, least(pgdrip.sender_capacity(s, p_now), (
               least(3600000::numeric * g.rate / extract(epoch from g.per),
                     1000.0 * g.distinct_contacts_per_day / 24)
               / count(*) over (partition by s.group_id))::bigint) as capacity
        from pgdrip.senders as s left join pgdrip.sender_groups as g using (group_id)
       where s.pool = p_pool and s.channel = p_channel
         and s.status = 'active' and s.health <> 'blocked'
    )
    -- Everybody is to reach the load of the busiest, up to four apart: so far even choices
    -- stray, and to mend that would disturb their evenness.
    select x.sender_id, x.capacity, x.load, greatest(0, floor(x.capacity
             * max((x.load - 4) / x.capacity::numeric) over () - x.load))::bigint
      from (select m.sender_id, greatest(1, m.capacity) as capacity, (
                     select count(*) from pgdrip.due as d
                      where d.sender_id = m.sender_id and d.parked_reason is null) as load
              from members as m
             where m.health = 'healthy'
                or not exists (select from members as o where o.health = 'healthy')) as x;
end
$$;

comment on function pgdrip.pool_shares(text, text, timestamptz) is
  'Private: the senders of a pool and channel that may get new work, with capacity, load and what is short of an even load';

create or replace function pgdrip.build_wheel(p_pool text, p_channel text, p_now timestamptz)
  returns pgdrip.wheels
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_wheel pgdrip.wheels;
begin
  v_wheel.pool := p_pool;
  v_wheel.channel := p_channel;
  v_wheel.built_at := p_now;
  v_wheel.first_choice := nextval('pgdrip.assignment_seq');
  select array_agg(r.sender_id order by r.sender_id),
         array_agg(r.capacity order by r.sender_id),
         array_agg(r.shortfall order by r.sender_id)
    into v_wheel.sender_ids, v_wheel.capacities, v_wheel.shortfalls
    from (select h.sender_id, (sum(h.capacity) over w)::bigint as capacity,
                 (sum(h.shortfall) over w)::bigint as shortfall
            from pgdrip.pool_shares(p_pool, p_channel, p_now) as h
          window w as (order by h.sender_id)) as r;
  -- One of senders that are down is for this once: a healthy one may be back any moment.
  if exists (select from pgdrip.senders as s
              where s.sender_id = v_wheel.sender_ids[1] and s.health = 'healthy') then
    insert into pgdrip.wheels
      (pool, channel, built_at, first_choice, sender_ids, capacities, shortfalls)
    values (p_pool, p_channel, p_now, v_wheel.first_choice, v_wheel.sender_ids,
            v_wheel.capacities, v_wheel.shortfalls)
    returning wheel_id into v_wheel.wheel_id;
  end if;
  return v_wheel;
end
$$;

comment on function pgdrip.build_wheel(text, text, timestamptz) is
  'Private: the shares of a pool''s senders as they are now; stored where one is healthy; sender_ids NULL: nobody is in service';

create or replace function pgdrip.forget_wheels(p_pools text[], p_built_before timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgdrip.wheels as w
   where w.wheel_id = any (array(
     select x.wheel_id from pgdrip.wheels as x
      where x.pool = any (p_pools) or x.built_at < p_built_before
        for update skip locked));
end
$$;

comment on function pgdrip.forget_wheels(text[], timestamptz) is
  'Private: drops the shares of some pools, and those built before a time';

create or replace function pgdrip.draw_senders(p_pool text, p_channel text, p_count integer)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := pgdrip.clock();
  v_wheel pgdrip.wheels;
  v_drawn bigint[] := '{}'::bigint[];
  -- Arrays of their own: those inside a row would be unpacked at every draw.
  v_ids        bigint[];
  v_capacities bigint[];
  v_shortfalls bigint[];
begin
  select w.* into v_wheel from pgdrip.wheels as w
   where w.pool = p_pool and w.channel = p_channel
   order by w.wheel_id desc limit 1;
  for v_turn in 1 .. 5 loop
    -- Who went out of service since it was built is drawn again; too many: a new one.
    if v_turn = 5 or v_wheel.built_at is null
       or v_wheel.built_at not between v_now - interval '1 minute' and v_now then
      v_wheel := pgdrip.build_wheel(p_pool, p_channel, v_now);
    end if;
    v_ids := v_wheel.sender_ids;
    v_capacities := v_wheel.capacities;
    v_shortfalls := v_wheel.shortfalls;
    exit when v_ids is null;
    v_drawn := v_drawn || array(
      -- Each choice is made once, whatever the plan. Successive multiples of the golden
      -- ratio fill [0, 1) evenly, whatever their number.
      with choices as materialized (
        select c.choice, mod(c.choice * 0.6180339887498948482, 1) as point
          from (select nextval('pgdrip.assignment_seq') as choice
                  from generate_series(1, p_count - cardinality(v_drawn))) as c
      )
      select s.sender_id
        from choices as c
       cross join lateral (
         select case
           when c.choice - v_wheel.first_choice <= v_shortfalls[cardinality(v_ids)]
             then width_bucket(
               floor(c.point * v_shortfalls[cardinality(v_ids)])::bigint, v_shortfalls)
           else width_bucket(
             floor(c.point * v_capacities[cardinality(v_ids)])::bigint, v_capacities)
           end as place) as w
       cross join lateral (
         select s.sender_id from pgdrip.senders as s
          where s.sender_id = v_ids[w.place + 1] and s.status = 'active'
            and (s.health = 'healthy' or v_wheel.wheel_id is null and s.health = 'down')
         offset 0) as s);
    exit when cardinality(v_drawn) = p_count;
  end loop;
  return v_drawn;
end
$$;

comment on function pgdrip.draw_senders(text, text, integer) is
  'Private: so many times a sender of the pool and channel, first to even out their loads, then in proportion to capacity; empty: nobody is in service';

create or replace function pgdrip.choose_senders(p_pools text[], p_channels text[])
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with wanted as materialized (
      select i.ord, i.pool, i.channel,
             row_number() over (partition by i.pool, i.channel order by i.ord) as place
        from unnest(p_pools, p_channels) with ordinality as i(pool, channel, ord)
    ),
    drawn as materialized (
      select w.pool, w.channel,
             pgdrip.draw_senders(w.pool, w.channel, max(w.place)::integer) as sender_ids
        from wanted as w where w.pool is not null group by w.pool, w.channel
    )
    select array_agg(d.sender_ids[w.place] order by w.ord)
      from wanted as w left join drawn as d using (pool, channel));
end
$$;

comment on function pgdrip.choose_senders(text[], text[]) is
  'For each wanted (pool, channel) a sender, by load and capacity; NULL where there is none or none is wanted';

create or replace function pgdrip.reassign(
  p_enrollments bigint[],
  p_senders     bigint[],
  p_now         timestamptz
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that ran out before the send began leaves its trace with the sender it was for.
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, code, step, attempt, sender_id, runner, due_at,
     verdict, content_hash)
  select p_now, d.enrollment_id, d.token, 'abandoned', 'lease_expired', d.step, d.attempt,
         d.sender_id, d.runner, d.due_at, 'stale', d.content_hash
    from unnest(p_enrollments) as i(enrollment_id) join pgdrip.due as d using (enrollment_id)
   where d.token is not null;
  update pgdrip.due as d
     set sender_id = i.sender_id,
         parked_reason = case when i.sender_id is null then 'no_sender'
                              when d.parked_reason <> 'no_sender' then d.parked_reason end,
         never_begun = d.never_begun + (d.token is not null)::integer,
         token = null, runner = null, lease_until = null, send_by = null, content_hash = null
    from unnest(p_enrollments, p_senders) as i(enrollment_id, sender_id)
   where d.enrollment_id = i.enrollment_id;
  update pgdrip.enrollments as e set sender_id = i.sender_id
    from unnest(p_enrollments, p_senders) as i(enrollment_id, sender_id)
   where e.enrollment_id = i.enrollment_id;
  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at)
    from unnest(p_enrollments) as i(enrollment_id) join pgdrip.due as d using (enrollment_id)
   where d.parked_reason is null group by d.sender_id;
end
$$;

comment on function pgdrip.reassign(bigint[], bigint[], timestamptz) is
  'Private: gives locked steps that nobody is sending to other senders, for good; NULL: parked no_sender';

create or replace function pgdrip.adopt(p_limit integer)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids      bigint[];
  v_pools    text[];
  v_channels text[];
  v_senders  bigint[];
begin
  select array_agg(i.enrollment_id), array_agg(i.pool), array_agg(i.channel)
    into v_ids, v_pools, v_channels
    from (select d.enrollment_id, q.pool, q.channel
            from pgdrip.sequences as q
           cross join lateral (
             select d.enrollment_id
               from pgdrip.enrollments as e join pgdrip.due as d using (enrollment_id)
              where e.sequence_id = q.sequence_id and e.sender_id is null
                and e.status = 'active' and d.parked_reason = 'no_sender'
              order by e.enrollment_id limit p_limit for update of d skip locked) as d
           where (q.pool, q.channel) in (
             select s.pool, s.channel from pgdrip.senders as s
              where s.status = 'active' and s.health <> 'blocked')
           limit p_limit) as i;
  if v_ids is null then
    return 0;
  end if;
  v_senders := pgdrip.choose_senders(v_pools, v_channels);
  perform pgdrip.reassign(v_ids, v_senders, pgdrip.clock());
  return cardinality(v_ids);
end
$$;

comment on function pgdrip.adopt(integer) is
  'Private: gives a sender to steps parked for want of one; returns how many';
