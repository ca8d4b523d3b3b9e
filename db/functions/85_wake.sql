-- Keeping going: when a runner should look again, and what is done from time to time.

create or replace function pgdrip.next_wake()
  returns timestamptz
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
  set max_parallel_workers_per_gather = 0
as $$
declare
  v_has_groups boolean := exists (select from pgdrip.sender_groups);
begin
  if (select c.paused_at is not null from pgdrip.control as c) then
    return null;
  end if;
  return (
    select min(w.at) from (
      -- A sender with limits keeps a hint, which a wake may undercut.
      select greatest(p.ready_at, least(p.next_at, w.due_at), (
               select g.ready_at
                 from pgdrip.senders as s join pgdrip.sender_groups as g using (group_id)
                where s.sender_id = p.sender_id and v_has_groups)) as at
        from pgdrip.paces as p
        left join (select k.sender_id, min(k.due_at) as due_at
                     from pgdrip.wakes as k group by k.sender_id) as w using (sender_id)
       where (p.next_at is not null or w.due_at is not null)
         and p.sender_id not in (select s.sender_id from pgdrip.senders as s
                                  where s.status <> 'active' or s.health = 'blocked')
         and p.sender_id not in (select s.sender_id from pgdrip.senders as s
                                  where not s.is_limited)
      union all
      select greatest(p.ready_at, least(f.due_at, l.lease_until))
        from pgdrip.senders as s
        join pgdrip.paces as p using (sender_id)
        left join lateral (
          select d.due_at from pgdrip.due as d
           where d.sender_id = s.sender_id and d.parked_reason is null
             and d.lease_until is null
           order by d.due_at limit 1) as f on true
        left join lateral (
          select min(d.lease_until) as lease_until from pgdrip.due as d
           where d.sender_id = s.sender_id and d.parked_reason is null
             and d.due_at <= pgdrip.clock()
             -- With work that nobody holds the answer is known: no look at a long queue.
             and (f.due_at is null or f.due_at > pgdrip.clock())) as l on true
       where s.status = 'active' and s.health <> 'blocked' and not s.is_limited
         and (f.due_at is not null or l.lease_until is not null)) as w);
end
$$;

comment on function pgdrip.next_wake() is
  'When a claim may find work next, at the earliest; in the past: now; NULL: nothing is due at any time';

create or replace function pgdrip.create_partitions(p_now timestamptz)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  -- Bounds are written out as text: a caller's style and zone could be read back as another.
  set datestyle = 'ISO, YMD'
  set timezone = 'UTC'
  set lock_timeout = '500ms'
as $$
declare
  v_month   timestamp := date_trunc('month', p_now at time zone 'UTC');
  v_owner   regrole := (select c.relowner from pg_class as c
                         where c.oid = 'pgdrip.deliveries'::regclass);
  v_name    text;
  v_created integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pgdrip.maintain', 0)) then
    return 0;
  end if;
  for i in 0 .. 2 loop
    v_name := 'deliveries_' || to_char(v_month, 'YYYY_MM');
    if to_regclass('pgdrip.' || v_name) is null and not exists (
         select from pgdrip.deliveries_default as j
          where j.at >= v_month at time zone 'UTC'
            and j.at < (v_month + interval '1 month') at time zone 'UTC') then
      execute format(
        'create table pgdrip.%I partition of pgdrip.deliveries for values from (%L) to (%L)',
        v_name, v_month at time zone 'UTC', (v_month + interval '1 month') at time zone 'UTC');
      execute format('comment on table pgdrip.%I is %L', v_name,
        'Events of ' || to_char(v_month, 'YYYY-MM') || ' UTC');
      execute format('revoke update, delete, truncate on pgdrip.%I from current_user', v_name);
      execute format('alter table pgdrip.%I owner to %s', v_name, v_owner);
      v_created := v_created + 1;
    end if;
    v_month := v_month + interval '1 month';
  end loop;
  return v_created;
-- Who reads the history at length is not waited for: everybody would stand in line. Events
-- of a month that came in meanwhile stay where they are.
exception when lock_not_available or check_violation then
  return 0;
end
$$;

comment on function pgdrip.create_partitions(timestamptz) is
  'Private: makes the history partitions of this month and the next two; returns how many were missing; 0 also where somebody reads the history, for the next one to do it. Holds locks on it to the end of the transaction';

create or replace function pgdrip.upkeep(p_now timestamptz)
  returns pgdrip.maintenance
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_out pgdrip.maintenance := row(0, 0, 0, 0, 0, null)::pgdrip.maintenance;
begin
  -- One at a time; a second one has nothing to do.
  if not pg_try_advisory_xact_lock(hashtextextended('pgdrip.maintain', 0)) then
    return v_out;
  end if;
  v_out.senders_adopted := pgdrip.adopt(10000);
  insert into pgdrip.wakes (sender_id, due_at)
  select s.sender_id, f.due_at
    from pgdrip.senders as s
    join pgdrip.paces as p using (sender_id)
   cross join lateral (
      select d.due_at from pgdrip.due as d
       where d.sender_id = s.sender_id and d.parked_reason is null and d.lease_until is null
       order by d.due_at limit 1) as f
   where s.is_limited and s.status = 'active' and s.health <> 'blocked'
     and (p.next_at is null or p.next_at > f.due_at or p.floor_at > f.due_at)
     and not exists (select from pgdrip.wakes as w
                      where w.sender_id = s.sender_id and w.due_at <= f.due_at);
  get diagnostics v_out.hints_repaired = row_count;
  delete from pgdrip.group_contacts as k
   where k.day_slot < pgdrip.slot_at(p_now, pgdrip.day_span()) - 25;
  delete from pgdrip.group_waits as w where w.waits_until < p_now - interval '48 hours';
  delete from pgdrip.receipts as r where r.at < p_now - interval '720 hours';
  get diagnostics v_out.receipts_pruned = row_count;
  perform pgdrip.scrub_again();
  update pgdrip.control as c set maintained_at = p_now;
  return v_out;
end
$$;

comment on function pgdrip.upkeep(timestamptz) is
  'Private: what maintain() does, the partitions of the history aside; nothing while another one does it';

create or replace function pgdrip.maintain()
  returns pgdrip.maintenance
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pgdrip.clock();
  v_out pgdrip.maintenance := pgdrip.upkeep(v_now);
begin
  v_out.partitions_created := pgdrip.create_partitions(v_now);
  select r.months, r.held_by into v_out.months_retired, v_out.history_held_by
    from pgdrip.retire_history(v_now, null) as r;
  return v_out;
end
$$;

comment on function pgdrip.maintain() is
  'What must be done at least daily: history partitions ahead, senders for orphaned steps, lost hints, early receipts nobody claimed, months of history older than the retention';

create or replace function pgdrip.tick(p_runner text, p_version text)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := pgdrip.clock();
  v_enrolled integer;
  v_is_time  boolean := (select coalesce(c.maintained_at < v_now - interval '1 hour', true)
                           from pgdrip.control as c);
begin
  perform pgdrip.assert_named('p_runner', p_runner);
  perform pgdrip.assert_named('p_version', p_version);
  insert into pgdrip.runners as r (runner, version, started_at, seen_at)
  values (p_runner, p_version, v_now, v_now)
  on conflict (runner) do update
    set seen_at = v_now, version = excluded.version,
        started_at = case when r.version = excluded.version then r.started_at else v_now end;
  if v_is_time then
    perform pgdrip.upkeep(v_now);
  end if;
  perform pgdrip.match_receipts();
  perform pgdrip.move_in_flight(1000);
  v_enrolled := pgdrip.enroll_waiting(1000);
  -- Last, as they hold locks and wait for none, or not for long.
  perform pgdrip.tend_fleet(1000, v_now);
  if v_is_time then
    perform pgdrip.create_partitions(v_now);
    perform pgdrip.retire_history(v_now, 256 * 1024 * 1024);
  end if;
  return v_enrolled;
end
$$;

comment on function pgdrip.tick(text, text) is
  'What a runner calls every few seconds: says that it lives, sweeps waiting triggers, moves work off senders that are down or retire, maintains hourly; returns the enrollments made; 22004, 22023';
