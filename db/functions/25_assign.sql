-- Assignment: which sender a contact gets. Writes due, enrollments, wakes.

create or replace function pgdrip.choose_senders(p_pools text[], p_channels text[])
  returns bigint[]
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  -- Successive multiples of the golden ratio fill [0, 1) evenly, whatever their number;
  -- each falls into one sender's share of the pool's capacity. A sender that is down has
  -- next to none, but serves where nobody is healthy.
  with shares as (
    select s.pool, s.channel, s.sender_id, sum(
             case s.health when 'healthy' then 1 else 1e-9::float8 end * greatest(1e-6, least(
               3600, s.rate_per_day / 24.0::float8,
               -- A call for each of 3,000 senders would cost more than all the rest.
               case when s.ramp is null then s.rate_per_hour
                    else pgdrip.hourly_rate(s, pgdrip.clock()) end,
               case when s.gap_max > interval '0'
                    then 7200 / extract(epoch from s.gap_min + s.gap_max)::float8 end))
           ) over (partition by s.pool, s.channel order by s.sender_id) as upto
      from pgdrip.senders as s
     where s.status = 'active' and s.health <> 'blocked'
       and s.pool = any (p_pools) and s.channel = any (p_channels)
  ),
  wheels as (
    select s.pool, s.channel, max(s.upto) as total,
           array_agg(s.sender_id order by s.sender_id) as ids,
           array_agg(s.upto order by s.sender_id) as uptos
      from shares as s group by s.pool, s.channel
  ),
  wanted as (
    select i.ord, i.pool, i.channel, case when i.pool is not null
             then mod(nextval('pgdrip.assignment_seq') * 0.6180339887498948482, 1) end as point
      from unnest(p_pools, p_channels) with ordinality as i(pool, channel, ord)
  )
  select array_agg(
           w.ids[width_bucket(n.point::float8 * w.total, w.uptos) + 1] order by n.ord)
    from wanted as n left join wheels as w using (pool, channel)
$$;

comment on function pgdrip.choose_senders(text[], text[]) is
  'For each wanted (pool, channel) a sender, in proportion to capacity; NULL where there is none or none is wanted';

create or replace function pgdrip.adopt(p_limit integer)
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
    select d.enrollment_id from pgdrip.due as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.sequences as q using (sequence_id)
     where d.parked_reason = 'no_sender'
       and exists (select from pgdrip.senders as s
                    where s.pool = q.pool and s.channel = q.channel
                      and s.status = 'active' and s.health <> 'blocked')
     order by d.enrollment_id limit p_limit for update of d skip locked);
  select pgdrip.choose_senders(array_agg(q.pool order by i.ord),
                               array_agg(q.channel order by i.ord)) into v_senders
    from unnest(v_ids) with ordinality as i(enrollment_id, ord)
    join pgdrip.enrollments as e using (enrollment_id)
    join pgdrip.sequences as q using (sequence_id);
  update pgdrip.due as d set sender_id = i.sender_id, parked_reason = null
    from unnest(v_ids, v_senders) as i(enrollment_id, sender_id)
   where d.enrollment_id = i.enrollment_id;
  update pgdrip.enrollments as e set sender_id = i.sender_id
    from unnest(v_ids, v_senders) as i(enrollment_id, sender_id)
   where e.enrollment_id = i.enrollment_id;
  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at) from pgdrip.due as d
   where d.enrollment_id = any (v_ids) group by d.sender_id;
  return cardinality(v_ids);
end
$$;

comment on function pgdrip.adopt(integer) is
  'Private: gives a sender to steps parked for want of one; returns how many';
