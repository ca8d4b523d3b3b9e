-- Metrics: what to watch from outside, in the terms of Prometheus. Cheap enough for a scrape
-- every few seconds: nothing here scans the live steps or the history, and what could be many
-- is counted to 10,000 at most or taken from the last vacuum, as its help says.

create or replace function pgdrip.metrics_of_engine(p_now timestamptz)
  returns setof pgdrip.metric
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select m.name, m.help, 'gauge', '{}'::jsonb, m.value
      from pgdrip.control as c,
           lateral (values
             ('pgdrip_engine_paused', '1 while pause_all() holds everything',
              (c.paused_at is not null)::integer::numeric),
             ('pgdrip_engine_locked', '1 after a restore, copy or failover, until unlock()',
              (not pgdrip.is_unlocked())::integer),
             ('pgdrip_maintenance_age_seconds', 'Since maintain() ran; absent: it never did',
              extract(epoch from p_now - c.maintained_at))) as m(name, help, value)
     where m.value is not null;
  return query
    select 'pgdrip_runner_silence_seconds', 'Since each runner or job ticked; gone after a day',
           'gauge', jsonb_build_object('runner', r.runner, 'version', r.version),
           extract(epoch from p_now - r.seen_at)
      from pgdrip.runners as r where r.seen_at > p_now - interval '24 hours';
  return query
    select 'pgdrip_runners_alive', 'Runners and jobs that ticked within a minute', 'gauge',
           '{}'::jsonb, count(*)::numeric
      from pgdrip.runners as r where r.seen_at > p_now - interval '1 minute';
  return query
    select m.name, m.help, 'counter', '{}'::jsonb,
           -- Without the bits of epoch and shard.
           (coalesce(pg_sequence_last_value(m.sequence), 0) & ((1::bigint << 40) - 1))::numeric
      from (values
        ('pgdrip_claims_total', 'Messages handed to runners, ever',
         'pgdrip.token_seq'::regclass),
        ('pgdrip_enrollments_total', 'Enrollments, ever, those rolled back included',
         pg_get_serial_sequence('pgdrip.enrollments', 'enrollment_id')::regclass))
        as m(name, help, sequence);
end
$$;

comment on function pgdrip.metrics_of_engine(timestamptz) is
  'Private: whether the engine works, who runs it, and what it did in all';

create or replace function pgdrip.metrics_of_queue(p_now timestamptz)
  returns setof pgdrip.metric
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
begin
  return query
    select 'pgdrip_parked_steps', 'Steps that wait for a cause to go, counted to 10,000',
           'gauge', jsonb_build_object('reason', r.reason), d.count::numeric
      from unnest(array['no_sender', 'uncertain', 'never_begun', 'failed', 'unconfirmed',
                        'enrollment_paused', 'sequence_paused']) as r(reason)
     cross join lateral (
        select count(*) from (select from pgdrip.due as x
                               where x.parked_reason = r.reason limit 10000) as x) as d;
  return query
    select 'pgdrip_waiting_triggers', 'Words that the next sweep looks at, counted to 10,000',
           'gauge', '{}'::jsonb, count(*)::numeric
      from (select from (select distinct q.trigger from pgdrip.sequences as q
                          where q.status in ('active', 'paused')) as q
             cross join lateral (
               select from pgdrip.contact_triggers as t
                where t.trigger = q.trigger and t.sweep_at <= p_now limit 10000) as t
             limit 10000) as t;
end
$$;

comment on function pgdrip.metrics_of_queue(timestamptz) is
  'Private: how much is parked, and waits to be enrolled';

create or replace function pgdrip.metrics_of_senders(p_now timestamptz)
  returns setof pgdrip.metric
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
begin
  return query
    with known as materialized (
      select s.sender_id, s.pool, s.channel, f.due_at,
             case when s.status <> 'active' then s.status else s.health end as state,
             greatest(p.ready_at, g.ready_at) as ready_at
        from pgdrip.senders as s
        join pgdrip.paces as p using (sender_id)
        left join pgdrip.sender_groups as g using (group_id)
        left join lateral (
          select x.due_at from pgdrip.due as x
           where x.sender_id = s.sender_id and x.parked_reason is null
             and x.due_at <= p_now and x.awaits is null
             and (x.lease_until is null or x.lease_until <= p_now)
           order by x.due_at limit 1) as f on true
       where s.deleted_at is null
    )
    select 'pgdrip_senders', 'Senders: healthy, down, blocked, paused, retiring, retired',
           'gauge', jsonb_build_object('pool', k.pool, 'channel', k.channel, 'state', k.state),
           count(*)::numeric
      from known as k group by k.pool, k.channel, k.state
    union all
    select 'pgdrip_senders_at_limit', 'Healthy senders that a limit holds back now', 'gauge',
           jsonb_build_object('pool', k.pool, 'channel', k.channel),
           count(*) filter (where k.state = 'healthy' and k.ready_at > p_now)
      from known as k group by k.pool, k.channel
    union all
    select 'pgdrip_due_steps', 'Steps that are due and not claimed, counted to 10,000', 'gauge',
           jsonb_build_object('channel', h.channel), d.count
      from (select distinct k.channel from known as k) as h
     cross join lateral (
        select count(*)
          from (select from known as k
                 cross join lateral (
                   select from pgdrip.due as x
                    where x.sender_id = k.sender_id and x.parked_reason is null
                      and x.due_at <= p_now and x.awaits is null
                      and (x.lease_until is null or x.lease_until <= p_now)
                    order by x.due_at limit 10000) as x
                 where k.channel = h.channel and k.due_at is not null limit 10000) as x) as d
    union all
    select 'pgdrip_due_age_seconds', 'How long the oldest step is due; limits make it grow',
           'gauge', jsonb_build_object('channel', k.channel),
           coalesce(extract(epoch from p_now - min(k.due_at)), 0)
      from known as k group by k.channel
    union all
    select 'pgdrip_ready_age_seconds',
           'How long the oldest step waits for a runner: due, and its sender could send it',
           'gauge', jsonb_build_object('channel', k.channel),
           coalesce(extract(epoch from p_now - min(greatest(k.due_at, k.ready_at)) filter (
             where k.state = 'healthy' and k.due_at <= p_now and k.ready_at <= p_now)), 0)
      from known as k group by k.channel;
end
$$;

comment on function pgdrip.metrics_of_senders(timestamptz) is
  'Private: what state the senders are in, how much is due with them, and how long it waits for them and for runners';

create or replace function pgdrip.metrics_of_failures(p_now timestamptz)
  returns setof pgdrip.metric
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
begin
  return query
    select 'pgdrip_recent_failures',
           'Failures of the last 15 minutes by class, of the latest 10,000; unknown: no error rule',
           'gauge', jsonb_build_object('class', c.class), count(j.class)::numeric
      from unnest(array['transient', 'permanent', 'contact', 'content', 'sender', 'blocked',
                        'unknown']) as c(class)
      left join (
        select case when x.event = 'failed' then x.class
                    when x.code not in ('lapsed', 'exited', 'restored') then 'unknown' end as class
          from pgdrip.deliveries as x
         where x.event in ('failed', 'uncertain') and x.at > p_now - interval '15 minutes'
         order by x.at desc limit 10000) as j using (class)
     group by c.class;
end
$$;

comment on function pgdrip.metrics_of_failures(timestamptz) is
  'Private: what went wrong lately, by an index of the trouble alone';

create or replace function pgdrip.metrics_of_tables(p_now timestamptz)
  returns setof pgdrip.metric
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select m.name, m.help, 'gauge', '{}'::jsonb, m.value
      from (select count(*) filter (where h.from_at > p_now)::numeric as ahead,
                   count(*) filter (where h.until_at <= p_now - make_interval(
                     secs => extract(epoch from c.retention)))::numeric as overdue,
                   coalesce(sum(h.bytes), 0) as bytes
              from pgdrip.control as c left join pgdrip.history_months() as h on true) as h,
           lateral (values
             ('pgdrip_history_bytes', 'Size of the history, without indexes', h.bytes),
             ('pgdrip_history_months_ahead', 'Months to come that have a partition', h.ahead),
             ('pgdrip_history_months_overdue',
              'Months older than the retention that a live enrollment or a cap keeps', h.overdue))
             as m(name, help, value);
  return query
    select m.name, m.help, 'gauge', jsonb_build_object('table', t.name), m.value
      from unnest(array['contacts', 'enrollments', 'due', 'senders']) as t(name)
      join pg_class as c on c.relname = t.name and c.relnamespace = 'pgdrip'::regnamespace,
           lateral (values
             ('pgdrip_rows', 'Rows, as estimated by the last vacuum or analyze; due: live steps',
              greatest(c.reltuples, 0)::numeric),
             ('pgdrip_dead_rows', 'Dead rows that vacuum has yet to remove, an estimate',
              pg_stat_get_dead_tuples(c.oid)::numeric)) as m(name, help, value);
  return query
    select 'pgdrip_snapshot_age_transactions',
           'Transactions since the oldest snapshot that vacuum must respect', 'gauge',
           '{}'::jsonb, coalesce(max(age(a.backend_xmin)), 0)::numeric
      from pg_stat_activity as a where a.datname = current_database();
end
$$;

comment on function pgdrip.metrics_of_tables(timestamptz) is
  'Private: sizes, partitions ahead, and what keeps vacuum from its work';

create or replace function pgdrip.metrics()
  returns setof pgdrip.metric
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pgdrip.clock();
begin
  return query
    select m.*
      from (select e.* from pgdrip.metrics_of_engine(v_now) as e
            union all select q.* from pgdrip.metrics_of_queue(v_now) as q
            union all select s.* from pgdrip.metrics_of_senders(v_now) as s
            union all select f.* from pgdrip.metrics_of_failures(v_now) as f
            union all select t.* from pgdrip.metrics_of_tables(v_now) as t) as m
     order by m.name, m.labels;
end
$$;

comment on function pgdrip.metrics() is
  'Samples for Prometheus, by name: name, help, gauge or counter, labels, value; scans neither live steps nor history';
