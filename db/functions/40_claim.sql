-- Claiming: hand due steps to a runner, each to one runner only, never above a limit.
-- Senders first: those that have readiness and work, then the oldest due rows of each. It
-- waits for nothing: whatever somebody else holds is skipped and stays due. Writes due,
-- paces, wakes; by triage also everything settle() writes.

create or replace function pgdrip.drain_wakes()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from pgdrip.wakes) then
    return;
  end if;
  -- A wake whose pace is locked stays; one for an unlimited sender, which every claim
  -- looks at anyway, has done its work by having been there for next_wake().
  with taken as materialized (
    select w.wake_id, p.sender_id, w.due_at
      from pgdrip.wakes as w
      join pgdrip.paces as p using (sender_id)
     order by w.wake_id limit 5000
       for update of w skip locked for no key update of p skip locked
  ),
  gone as (
    delete from pgdrip.wakes as w
     where w.wake_id = any (array(select t.wake_id from taken as t))
  )
  update pgdrip.paces as p
     set next_at = least(p.next_at, t.due_at), floor_at = least(p.floor_at, t.due_at)
    from (select t.sender_id, min(t.due_at) as due_at from taken as t group by t.sender_id) as t
    join pgdrip.senders as s using (sender_id)
   where p.sender_id = t.sender_id and s.is_limited
     and (p.next_at is null or t.due_at < p.next_at or t.due_at < p.floor_at);
end
$$;

comment on function pgdrip.drain_wakes() is
  'Private: lowers next_at and floor_at of senders that were told of earlier work';

create or replace function pgdrip.lock_senders(
  p_now      timestamptz,
  p_channels text[],
  p_done     bigint[],
  p_is_first boolean,
  p_limit    integer
)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = on
  set enable_material = off
as $$
declare
  v_seats  integer := p_limit;
  v_ids    bigint[];
  v_groups bigint[];
begin
  -- A sender costs as much as a message. Where more are ready than could have one each, the
  -- first turn gives a hundred of them several.
  if p_is_first and p_limit > 100 and p_limit < (
       select count(*) from pgdrip.paces as p
        where p.ready_at <= p_now and p.next_at <= p_now
          and (p_channels is null or p.channel = any (p_channels))) then
    v_seats := 100;
  end if;
  -- Who has been ready the longest comes first, so that a few with much work do not take
  -- every turn.
  v_ids := array(
    select p.sender_id
      from (select k.sender_id, k.ready_at from pgdrip.paces as k
             where k.ready_at <= p_now and k.next_at <= p_now and k.sender_id <> all (p_done)
               and (p_channels is null or k.channel = any (p_channels))
               and k.sender_id not in (
                     select o.sender_id from pgdrip.senders as o
                      where o.status <> 'active' or o.health = 'blocked')
             order by k.ready_at, k.sender_id offset 0) as k
      join pgdrip.senders as s using (sender_id)
      join pgdrip.paces as p using (sender_id)
     where (s.is_limited or s.health = 'down') and p.ready_at <= p_now
       and (s.group_id is null or s.group_id in (
             select g.group_id from pgdrip.sender_groups as g where g.ready_at <= p_now))
     order by k.ready_at, k.sender_id limit v_seats
       for no key update of p skip locked);
  if not exists (select from pgdrip.sender_groups) then
    return v_ids;
  end if;
  v_groups := pgdrip.lock_groups(v_ids, p_now);
  return array(
    select s.sender_id from unnest(v_ids) with ordinality as i(sender_id, ord)
      join pgdrip.senders as s using (sender_id)
     where s.group_id is null or s.group_id = any (v_groups) order by i.ord);
end
$$;

comment on function pgdrip.lock_senders(timestamptz, text[], bigint[], boolean, integer) is
  'Private: senders with a limit that may send and have work, locked, and their groups with them';

create or replace function pgdrip.offers(
  p_locked   bigint[],
  p_channels text[],
  p_done     bigint[],
  p_limit    integer,
  p_now      timestamptz
)
  returns setof pgdrip.offer
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with free as (
      select i.sender_id, i.ord, a.allowance,
             case when s.is_limited then p.floor_at else 'epoch' end as floor_at,
             -- One of the first twenty probes a sender that is down: no single message that
             -- its gateway blames on it keeps it there.
             case when s.health = 'down' then (
               select floor(random() * count(*))::integer from (
                 select from pgdrip.due as d
                  where d.sender_id = s.sender_id and d.parked_reason is null
                    and d.due_at <= p_now and (d.lease_until is null or d.lease_until <= p_now)
                  limit 20) as d) else 0 end as skip
        from unnest(p_locked) with ordinality as i(sender_id, ord)
        join pgdrip.senders as s using (sender_id)
        join pgdrip.paces as p using (sender_id)
       cross join lateral pgdrip.sender_allowance(s, p, p_now) as a(allowance)
       where s.status = 'active' and s.health <> 'blocked'
      union all
      select s.sender_id, null, p_limit, timestamptz 'epoch', 0 from pgdrip.senders as s
       where s.status = 'active' and s.health = 'healthy' and not s.is_limited
         and (p_channels is null or s.channel = any (p_channels))
         and s.sender_id <> all (p_done)
    )
    select f.sender_id, f.ord is not null as is_locked,
           least(f.allowance, ceil(p_limit::numeric / count(*) over ()))::integer,
           f.skip, 0, false, f.floor_at
      -- Unlimited ones leave no trace of having been served: chance takes turns.
      from free as f order by coalesce(f.ord, random() * count(*) over ());
end
$$;

comment on function pgdrip.offers(bigint[], text[], bigint[], integer, timestamptz) is
  'Private: what each sender that may send is given of a claim: its fair share, within its allowance';

create or replace function pgdrip.lock_due(
  p_offers pgdrip.offer[],
  p_boost  integer,
  p_now    timestamptz
)
  returns pgdrip.due[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (select count(distinct q.priority) > 1 from pgdrip.sequences as q) then
    return array(
      select d.row from unnest(p_offers) as o
       cross join lateral (
         select d as row from pgdrip.due as d
           join pgdrip.enrollments as e using (enrollment_id)
           join pgdrip.sequences as q using (sequence_id)
          where d.sender_id = o.sender_id and d.parked_reason is null
            and d.due_at between o.floor_at and p_now
            and (d.lease_until is null or d.lease_until <= p_now)
          order by q.priority desc, d.due_at limit least(500, o.share * p_boost) offset o.skip
            for update of d skip locked) as d);
  end if;
  return array(
    select d.row from unnest(p_offers) as o
     cross join lateral (
       select d as row from pgdrip.due as d
        where d.sender_id = o.sender_id and d.parked_reason is null
          and d.due_at between o.floor_at and p_now
          and (d.lease_until is null or d.lease_until <= p_now)
        order by d.due_at limit least(500, o.share * p_boost) offset o.skip
          for update skip locked) as d);
end
$$;

comment on function pgdrip.lock_due(pgdrip.offer[], integer, timestamptz) is
  'Private: the claimable rows of each sender, locked: by priority where sequences differ in it, then the oldest; p_boost times as many as it is offered, where triage takes some';

-- These two read no table: joins by hash are no danger here, and by far the fastest.
create or replace function pgdrip.first_of_each(
  p_looks   pgdrip.look[],
  p_stopped bigint[],
  p_offers  pgdrip.offer[],
  p_limit   integer
)
  returns bigint[]
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set enable_hashjoin = on
as $$
begin
  return array(
    select r.enrollment_id
      from (select l.enrollment_id, l.sender_id, l.ord, row_number() over (
              partition by l.sender_id order by l.ord) as place
              from (select k.*, row_number() over () as ord from unnest(p_looks) as k) as l
              left join unnest(p_stopped) as s(enrollment_id) using (enrollment_id)
             where s.enrollment_id is null) as r
      join unnest(p_offers) as o using (sender_id)
     where r.place <= o.share
     order by r.place, r.ord limit p_limit);
end
$$;

comment on function pgdrip.first_of_each(pgdrip.look[], bigint[], pgdrip.offer[], integer) is
  'Private: of locked rows that nothing stops the first of each sender, up to its share';

create or replace function pgdrip.count_offers(
  p_offers pgdrip.offer[],
  p_rows   pgdrip.due[],
  p_leased bigint[],
  p_boost  integer
)
  returns pgdrip.offer[]
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set enable_hashjoin = on
as $$
begin
  return array(
    select row(o.sender_id, o.is_locked, o.share, o.skip, coalesce(g.leased, 0),
               o.skip = 0 and coalesce(g.given, 0) < least(500, o.share * p_boost),
               o.floor_at)::pgdrip.offer
      from unnest(p_offers) as o
      left join (select p.sender_id, count(*) as given, count(l.enrollment_id) as leased
                   from unnest(p_rows) as p
                   left join unnest(p_leased) as l(enrollment_id) using (enrollment_id)
                  group by p.sender_id) as g using (sender_id));
end
$$;

comment on function pgdrip.count_offers(pgdrip.offer[], pgdrip.due[], bigint[], integer) is
  'Private: the offers with what was leased of each, and whether it had fewer rows than asked for: no more are due';

create or replace function pgdrip.lease_due(
  p_rows        pgdrip.due[],
  p_looks       pgdrip.look[],
  p_enrollments bigint[],
  p_runner      text,
  p_lease       interval,
  p_now         timestamptz
)
  returns setof pgdrip.claimed_message
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch bigint := (select c.epoch << 40 from pgdrip.control as c);
begin
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, code, step, attempt, sender_id, runner, due_at,
     content_hash)
  select p_now, d.enrollment_id, d.token, 'abandoned', 'lease_expired', d.step, d.attempt,
         d.sender_id, d.runner, d.due_at, d.content_hash
    from unnest(p_rows) as d
   where d.token is not null and d.enrollment_id = any (p_enrollments);

  return query
    with leased as (
      update pgdrip.due as d
         set token = v_epoch | nextval('pgdrip.token_seq'), runner = p_runner,
             lease_until = p_now + p_lease,
             send_by = p_now + least(p_lease, interval '10 seconds'),
             never_begun = d.never_begun + (d.token is not null)::integer,
             content_hash = pgdrip.content_hash(l.subject, l.body, l.content),
             variant = l.variant
        from unnest(p_looks) as l
       where d.enrollment_id = l.enrollment_id and l.enrollment_id = any (p_enrollments)
      returning l.enrollment_id, d.token, l.sequence, l.step, l.attempt, l.channel, l.sender,
                l.sender_config, l.recipient, l.subject, l.body, l.content,
                l.enrollment_id || ':' || l.step, l.due_at, d.send_by, d.lease_until
    )
    select l.* from leased as l order by l.due_at, l.enrollment_id;
end
$$;

comment on function pgdrip.lease_due(pgdrip.due[], pgdrip.look[], bigint[], text, interval, timestamptz) is
  'Private: leases locked rows to a runner, with the messages rendered for them';

create or replace function pgdrip.charge_senders(
  p_offers pgdrip.offer[],
  p_now    timestamptz
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever had all that it was asked for may have more at once: its hint stays. Else the
  -- hint is the first row nobody has leased, or the end of a lease in front of it. Now and
  -- then the floor rises to the first row of all: to look each time is what it saves.
  update pgdrip.paces as p
     set tat = n.tat, day_slot = n.day_slot, day_counts = n.day_counts,
         ready_at = n.ready_at,
         next_at = case when not c.is_empty or not s.is_limited then p.next_at
                        when f.due_at <= p_now then f.due_at
                        else least(f.due_at, l.lease_until) end,
         floor_at = coalesce(b.due_at, p.floor_at)
    from unnest(p_offers) as c
    join pgdrip.senders as s using (sender_id)
    join pgdrip.paces as o using (sender_id)
   cross join lateral pgdrip.spend_allowance(s, o, p_now, c.leased) as n
    left join lateral (
      select d.due_at from pgdrip.due as d
       where c.is_empty and d.sender_id = c.sender_id and d.parked_reason is null
         and d.due_at >= c.floor_at and (d.lease_until is null or d.lease_until <= p_now)
       order by d.due_at limit 1) as f on true
    left join lateral (
      select min(d.lease_until) as lease_until from pgdrip.due as d
       where c.is_empty and (f.due_at is null or f.due_at > p_now)
         and d.sender_id = c.sender_id and d.parked_reason is null
         and d.due_at between c.floor_at and p_now and d.lease_until > p_now) as l on true
   cross join lateral (select s.is_limited and random() < 0.125 as is_looked_for offset 0) as x
    left join lateral (
      select d.due_at from pgdrip.due as d
       where x.is_looked_for and d.sender_id = c.sender_id and d.parked_reason is null
         and d.due_at >= c.floor_at
       order by d.due_at limit 1) as b on true
   where c.is_locked and p.sender_id = c.sender_id;
end
$$;

comment on function pgdrip.charge_senders(pgdrip.offer[], timestamptz) is
  'Private: takes what was handed out from the senders'' allowances and renews their hints';

create or replace function pgdrip.assert_claim(
  p_runner   text,
  p_limit    integer,
  p_lease    interval,
  p_channels text[]
)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_named('p_runner', p_runner);
  perform pgdrip.assert_given('p_limit', p_limit);
  perform pgdrip.assert_lease(p_lease);
  if p_limit not between 1 and 1000 then
    raise exception 'p_limit must be from 1 to 1000, not %', p_limit
      using errcode = '22023', hint = 'Claim as many as can be sent within the lease.';
  end if;
  if exists (select from unnest(p_channels) as c where c is null) then
    raise exception 'p_channels must not hold NULL'
      using errcode = '22004', hint = 'Leave it out for every channel.';
  end if;
  if exists (select from unnest(p_channels) as c where octet_length(c) not between 1 and 63) then
    raise exception 'p_channels must hold channel names of 1 to 63 bytes'
      using errcode = '22023', hint = 'select channel from pgdrip.channels lists them.';
  end if;
end
$$;

comment on function pgdrip.assert_claim(text, integer, interval, text[]) is
  'Refuses arguments of claim: NULL 22004, out of range 22023';

create or replace function pgdrip.claim(
  p_runner   text,
  p_limit    integer default 100,
  p_lease    interval default '2 minutes',
  p_channels text[] default null
)
  returns setof pgdrip.claimed_message
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set join_collapse_limit = 1
  set random_page_cost = 1.1
  set jit = off
  set max_parallel_workers_per_gather = 0
as $$
declare
  v_now     timestamptz;
  v_want    integer := p_limit;
  v_triaged integer := 0;
  v_boost   integer := 1;
  v_done    bigint[] := '{}'::bigint[];
  v_locked  bigint[];
  v_offers  pgdrip.offer[];
  v_rows    pgdrip.due[];
  v_looks   pgdrip.look[];
  v_stopped bigint[];
  v_first   bigint[];
  v_leased  bigint[];
begin
  perform pgdrip.assert_claim(p_runner, p_limit, p_lease, p_channels);
  perform pgdrip.assert_working();
  if (select c.paused_at is not null from pgdrip.control as c) then
    return;
  end if;
  perform pgdrip.drain_wakes();
  v_now := pgdrip.clock();
  while v_want > 0 and v_triaged < 500 loop
    v_locked := pgdrip.lock_senders(v_now, p_channels, v_done, v_want = p_limit, v_want);
    -- A new statement: what others spent of them before they were locked is seen here.
    v_offers := array(
      select o from pgdrip.offers(v_locked, p_channels, v_done, v_want, v_now) as o);
    exit when v_offers = '{}';

    v_rows    := pgdrip.lock_due(v_offers, v_boost, v_now);
    v_looks   := array(select l from pgdrip.look(v_rows, v_now) as l);
    v_stopped := pgdrip.triage(v_looks, v_now);
    v_first   := pgdrip.first_of_each(v_looks, v_stopped, v_offers, v_want);
    v_leased  := pgdrip.fit_groups(v_first, v_now);
    return query
      select m.* from pgdrip.lease_due(v_rows, v_looks, v_leased, p_runner, p_lease, v_now) as m;

    v_offers := pgdrip.count_offers(v_offers, v_rows, v_leased, v_boost);
    perform pgdrip.charge_senders(v_offers, v_now);
    perform pgdrip.charge_groups(v_leased, v_now);
    v_done := v_done || array(
      select o.sender_id from unnest(v_offers) as o where o.is_empty or o.share = 0);
    v_want := v_want - cardinality(v_leased);
    v_triaged := v_triaged + cardinality(v_stopped)
                           + cardinality(v_first) - cardinality(v_leased);
    if v_stopped <> '{}' then
      v_boost := v_boost * 2;
    end if;
  end loop;
end
$$;

comment on function pgdrip.claim(text, integer, interval, text[]) is
  'Hands up to p_limit due messages to one runner under a lease; the sender''s allowance is spent here; 22004, 22023, 25006, MD003, MD005';
