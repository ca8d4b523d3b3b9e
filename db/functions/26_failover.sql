-- Failover: work leaves a sender that is down. What was begun ends where it began, what is
-- leased is left alone until its lease ends. Rows are locked as a claim locks them, skipping
-- what others hold. Writes due, enrollments, deliveries, wakes, audit.

create or replace function pgdrip.hand_over(
  p_enrollments bigint[],
  p_pools       text[],
  p_channels    text[],
  p_now         timestamptz
)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids     bigint[];
  v_senders bigint[];
begin
  v_ids := array(
    select e.enrollment_id from pgdrip.enrollments as e
     where e.enrollment_id = any (p_enrollments)
     order by e.enrollment_id for update skip locked);
  select pgdrip.choose_senders(array_agg(i.pool order by i.ord),
                               array_agg(i.channel order by i.ord)),
         array_agg(i.enrollment_id order by i.ord)
    into v_senders, v_ids
    from unnest(p_enrollments, p_pools, p_channels) with ordinality
           as i(enrollment_id, pool, channel, ord)
    join unnest(v_ids) as l(enrollment_id) using (enrollment_id);
  -- What is parked for another reason keeps its sender where there is no other.
  select array_agg(i.enrollment_id), array_agg(i.sender_id) into v_ids, v_senders
    from unnest(v_ids, v_senders) as i(enrollment_id, sender_id)
    join pgdrip.due as d using (enrollment_id)
   where i.sender_id is not null or d.parked_reason is null;
  perform pgdrip.reassign(v_ids, v_senders, p_now);
  return coalesce(cardinality(v_ids), 0);
end
$$;

comment on function pgdrip.hand_over(bigint[], text[], text[], timestamptz) is
  'Private: spreads steps, locked in due, over the senders of the pools and channels; parks them no_sender where nobody is in service; returns how many';

create or replace function pgdrip.failover(p_limit integer, p_now timestamptz)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_ids      bigint[];
  v_names    text[];
  v_pools    text[];
  v_channels text[];
  v_moved    integer;
begin
  select array_agg(m.enrollment_id), array_agg(m.name), array_agg(m.pool), array_agg(m.channel)
    into v_ids, v_names, v_pools, v_channels
    from (select d.enrollment_id, s.name, s.pool, s.channel
            from pgdrip.senders as s
           cross join lateral (
             select d.enrollment_id from pgdrip.due as d
              where d.sender_id = s.sender_id and d.parked_reason is null and d.due_at <= p_now
                and d.begun_at is null and (d.lease_until is null or d.lease_until <= p_now)
                and d.awaits is distinct from 'receipt'
              order by d.due_at limit p_limit for update of d skip locked) as d
           where s.status = 'active' and s.health = 'down'
             and pgdrip.after_span(s.down_at, s.failover_after, 'UTC') <= p_now
             and (s.pool, s.channel) in (
               select o.pool, o.channel from pgdrip.senders as o
                where o.status = 'active' and o.health = 'healthy')
           limit p_limit) as m;
  if v_ids is null then
    return 0;
  end if;
  v_moved := pgdrip.hand_over(v_ids, v_pools, v_channels, p_now);
  perform pgdrip.note('failover', format('sender %s', quote_literal(n.name)),
                      format('%s due steps to others of its pool', n.count))
     from (select x.name, count(*) as count from unnest(v_names) as x(name) group by x.name) as n;
  return v_moved;
end
$$;

comment on function pgdrip.failover(integer, timestamptz) is
  'Private: moves due steps that nobody is sending from senders that are down for longer than their failover_after to healthy ones, for good; returns how many, at most p_limit';
