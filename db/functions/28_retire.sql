-- Retirement: a sender leaves for good, or for another pool; its work goes to others, what is
-- under way ends with it, and history keeps its name. The row of the sender is locked first,
-- the rest skips what others hold. Writes senders, due, enrollments, deliveries, wakes.

create or replace function pgdrip.lock_sender(p_sender text)
  returns pgdrip.senders
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders;
begin
  perform pgdrip.assert_given('p_sender', p_sender);
  select s.* into v_sender from pgdrip.senders as s
   where s.name = p_sender and s.deleted_at is null for no key update;
  if not found then
    raise exception 'no sender is named %', quote_literal(left(p_sender, 80))
      using errcode = 'MD001', hint = 'select sender from pgdrip.sender_load lists them.';
  end if;
  return v_sender;
end
$$;

comment on function pgdrip.lock_sender(text) is
  'Private: the sender of that name, locked; NULL 22004, none MD001';

create or replace function pgdrip.assert_pool(p_name text, p_pool text)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given(p_name, p_pool);
  if not exists (select from pgdrip.senders as s where s.pool = p_pool and s.deleted_at is null)
     and not exists (select from pgdrip.sequences as q where q.pool = p_pool)
     and not exists (select from pgdrip.contacts as c where c.pool = p_pool) then
    raise exception 'no pool is named %', quote_literal(left(p_pool, 80))
      using errcode = '22023',
            hint = 'A pool comes into being with its contacts, sequences or senders.';
  end if;
end
$$;

comment on function pgdrip.assert_pool(text, text) is
  'Refuses a pool that is NULL (22004) or that no contact, sequence or sender belongs to (22023)';

create or replace function pgdrip.has_live_work(p_sender bigint)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgdrip.due as d
                  where d.sender_id = p_sender and d.parked_reason is null)
      or exists (select from pgdrip.due as d
                  where d.sender_id = p_sender and d.parked_reason is not null)
$$;

comment on function pgdrip.has_live_work(bigint) is
  'Private: whether any live step, parked ones included, belongs to a sender';

create or replace function pgdrip.settle_late(
  p_senders bigint[],
  p_limit   integer,
  p_now     timestamptz
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
begin
  v_locked := array(
    select d.enrollment_id from pgdrip.due as d
     where d.sender_id = any (p_senders) and d.parked_reason is null
       and (d.begun_at is not null and d.awaits is null and d.lease_until <= p_now
            or d.awaits = 'receipt' and d.due_at <= p_now)
     order by d.enrollment_id limit p_limit for update skip locked);
  perform pgdrip.settle_stopped(v_locked, p_now);
end
$$;

comment on function pgdrip.settle_late(bigint[], integer, timestamptz) is
  'Private: settles, as a claim would, sends of these senders that nobody reported or confirmed in time';

create or replace function pgdrip.clear_senders(
  p_senders bigint[],
  p_limit   integer,
  p_now     timestamptz
)
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
  v_pools    text[];
  v_channels text[];
  v_moved    integer := 0;
begin
  perform pgdrip.settle_late(p_senders, p_limit, p_now);
  -- Never off a blocked number.
  select array_agg(m.enrollment_id), array_agg(m.pool), array_agg(m.channel)
    into v_ids, v_pools, v_channels
    from (select d.enrollment_id, coalesce(s.moves_to, s.pool) as pool, s.channel
            from pgdrip.senders as s
           cross join lateral (
             select d.enrollment_id from pgdrip.due as d
              where d.sender_id = s.sender_id and d.parked_reason is null
                and d.begun_at is null and (d.lease_until is null or d.lease_until <= p_now)
                and d.awaits is distinct from 'receipt'
              order by d.due_at limit p_limit for update of d skip locked) as d
           where s.sender_id = any (p_senders) and s.health <> 'blocked'
           limit p_limit) as m;
  if v_ids is not null then
    v_moved := pgdrip.hand_over(v_ids, v_pools, v_channels, p_now);
  end if;
  -- What came back to a retired one and may not leave it keeps it retiring.
  update pgdrip.senders as s
     set status = case s.status when 'retiring' then 'retired' else 'retiring' end
   where s.sender_id = any (array(
     select x.sender_id from pgdrip.senders as x
      where x.sender_id = any (p_senders)
        and (x.status = 'retired') = exists (
          select from pgdrip.due as d
           where d.sender_id = x.sender_id and d.parked_reason is null)
      order by x.sender_id for no key update skip locked));
  return v_moved;
end
$$;

comment on function pgdrip.clear_senders(bigint[], integer, timestamptz) is
  'Private: hands on what is left with senders that retire, and says which of them have nothing under way and are retired; returns how many steps moved';

create or replace function pgdrip.tend_fleet(p_limit integer, p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_leaving bigint[];
begin
  perform pgdrip.failover(p_limit, p_now);
  -- A retired one too: an enrollment may have been open while its sender retired, and an
  -- uncertain step may have been resolved since.
  v_leaving := array(
    select s.sender_id from pgdrip.senders as s
     where s.status = 'retiring'
        or s.status = 'retired'
       and exists (select from pgdrip.due as d
                    where d.sender_id = s.sender_id and d.parked_reason is null)
     order by s.sender_id);
  if v_leaving <> '{}' then
    perform pgdrip.clear_senders(v_leaving, p_limit, p_now);
  end if;
  perform pgdrip.adopt(p_limit);
  perform pgdrip.forget_wheels(null, p_now - interval '1 minute');
end
$$;

comment on function pgdrip.tend_fleet(integer, timestamptz) is
  'Private: failover, retirement and adoption, up to p_limit steps each';

create or replace function pgdrip.move_parked(p_sender pgdrip.senders, p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  -- A token says that it may have been sent: that stays where it was.
  v_ids := array(
    select d.enrollment_id from pgdrip.due as d
     where d.sender_id = p_sender.sender_id and d.parked_reason is not null and d.token is null
     order by d.enrollment_id for update skip locked);
  perform pgdrip.hand_over(v_ids,
    array_fill(coalesce(p_sender.moves_to, p_sender.pool), array[cardinality(v_ids)]),
    array_fill(p_sender.channel, array[cardinality(v_ids)]), p_now);
end
$$;

comment on function pgdrip.move_parked(pgdrip.senders, timestamptz) is
  'Private: gives what is parked with a sender that retires to others';

create or replace function pgdrip.begin_retirement(
  p_sender pgdrip.senders,
  p_pool   text,
  p_reason text
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := pgdrip.clock();
  v_sender pgdrip.senders := p_sender;
begin
  if p_sender.health = 'blocked' and pgdrip.has_live_work(p_sender.sender_id) then
    raise exception 'sender % is blocked: its work is not moved', quote_literal(p_sender.name)
      using errcode = 'MD003',
            hint = 'exit_enrollment() ends its work; resume_sender() if the block was lifted.';
  end if;
  v_sender.moves_to := p_pool;
  update pgdrip.senders as s
     set status = 'retiring', status_reason = p_reason, moves_to = p_pool
   where s.sender_id = p_sender.sender_id;
  perform pgdrip.forget_wheels(array[p_sender.pool], null);
  perform pgdrip.move_parked(v_sender, v_now);
  perform pgdrip.clear_senders(array[p_sender.sender_id], null, v_now);
end
$$;

comment on function pgdrip.begin_retirement(pgdrip.senders, text, text) is
  'Private: takes a locked sender out of service and hands its work to the senders of a pool; MD003';

create or replace function pgdrip.retire_sender(
  p_sender       text,
  p_move_to_pool text default null
)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders := pgdrip.lock_sender(p_sender);
begin
  if p_move_to_pool is not null then
    perform pgdrip.assert_pool('p_move_to_pool', p_move_to_pool);
  end if;
  if v_sender.status in ('retiring', 'retired') then
    return false;
  end if;
  if p_move_to_pool is null and pgdrip.has_live_work(v_sender.sender_id) then
    raise exception 'sender % has live work', quote_literal(p_sender)
      using errcode = 'MD003', hint = format(
        'Say whose senders get it: retire_sender(%L, %L).', p_sender, v_sender.pool);
  elsif p_move_to_pool is not null and not exists (
      select from pgdrip.senders as s
       where s.pool = p_move_to_pool and s.channel = v_sender.channel
         and s.sender_id <> v_sender.sender_id
         and s.status = 'active' and s.health <> 'blocked') then
    raise exception 'pool % has no other sender in service on channel %',
      quote_literal(p_move_to_pool), v_sender.channel
      using errcode = 'MD003', hint = 'Apply or resume one first.';
  end if;
  perform pgdrip.begin_retirement(v_sender, p_move_to_pool, 'retired');
  perform pgdrip.note('retire', format('sender %s', quote_literal(p_sender)),
                      'its work to pool ' || quote_literal(p_move_to_pool));
  return true;
end
$$;

comment on function pgdrip.retire_sender(text, text) is
  'Takes a sender out of service for good and spreads its work over the senders of a pool; what is under way ends here; false: it was retired; 22004, 22023, MD001, MD003';

create or replace function pgdrip.former_name(p_sender pgdrip.senders)
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select format('%s (former %s)',
    case when octet_length(p_sender.name) <= 160 then p_sender.name
         else left(p_sender.name, 40) end,
    p_sender.sender_id)
$$;

comment on function pgdrip.former_name(pgdrip.senders) is
  'Private: the name that the history shows for a sender once its own is free for another';

create or replace function pgdrip.delete_sender(p_sender text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders := pgdrip.lock_sender(p_sender);
begin
  if v_sender.status <> 'retired' then
    raise exception 'sender % is %, not retired', quote_literal(p_sender), v_sender.status
      using errcode = 'MD003', hint = 'retire_sender() first, and wait for what is under way.';
  elsif pgdrip.has_live_work(v_sender.sender_id) then
    raise exception 'sender % has uncertain or unconfirmed sends', quote_literal(p_sender)
      using errcode = 'MD003', hint = 'resolve_uncertain() settles them.';
  end if;
  -- The row stays, so that history keeps a name for what it sent.
  update pgdrip.senders as s
     set name = pgdrip.former_name(v_sender), deleted_at = pgdrip.clock(),
         config = '{}', secret = null, group_id = null
   where s.sender_id = v_sender.sender_id;
  perform pgdrip.note('delete', format('sender %s', quote_literal(p_sender)),
    format('history shows it as %s', quote_literal(pgdrip.former_name(v_sender))));
  return true;
end
$$;

comment on function pgdrip.delete_sender(text) is
  'Forgets a retired sender and frees its name; history shows it as former; always true; 22004, MD001, MD003';

create or replace function pgdrip.move_sender(p_sender text, p_pool text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders := pgdrip.lock_sender(p_sender);
  v_moved  bigint;
begin
  perform pgdrip.assert_pool('p_pool', p_pool);
  if v_sender.status in ('retiring', 'retired') then
    raise exception 'sender % is retired', quote_literal(p_sender)
      using errcode = 'MD003', hint = 'Apply a sender under another name.';
  elsif v_sender.pool = p_pool then
    return false;
  end if;
  -- Its old row retires, with what is under way and its history; a new one takes the name.
  update pgdrip.senders as s
     set name = pgdrip.former_name(v_sender), deleted_at = pgdrip.clock(),
         status = 'retiring', status_reason = 'moved'
   where s.sender_id = v_sender.sender_id;
  insert into pgdrip.senders
    (name, pool, channel, config, secret, rate_per_hour, rate_per_day, burst, gap_min, gap_max,
     ramp, hours, group_id, advance_on, confirm_within, on_unconfirmed, fault_threshold,
     failover_after, status, status_reason, health, faults, fault_at, last_error, down_at,
     started_at, limits_at)
  values
    (v_sender.name, p_pool, v_sender.channel, v_sender.config, v_sender.secret,
     v_sender.rate_per_hour, v_sender.rate_per_day, v_sender.burst, v_sender.gap_min,
     v_sender.gap_max, v_sender.ramp, v_sender.hours, v_sender.group_id, v_sender.advance_on,
     v_sender.confirm_within, v_sender.on_unconfirmed, v_sender.fault_threshold,
     v_sender.failover_after, v_sender.status, v_sender.status_reason, v_sender.health,
     v_sender.faults, v_sender.fault_at, v_sender.last_error, v_sender.down_at,
     v_sender.started_at, v_sender.limits_at)
  returning sender_id into v_moved;
  insert into pgdrip.paces (sender_id, channel, tat, day_slot, day_counts, ready_at)
  select v_moved, p.channel, p.tat, p.day_slot, p.day_counts, p.ready_at
    from pgdrip.paces as p where p.sender_id = v_sender.sender_id for no key update;
  perform pgdrip.begin_retirement(v_sender, null, 'moved to another pool');
  perform pgdrip.forget_wheels(array[p_pool], null);
  perform pgdrip.adopt(1000);
  perform pgdrip.note('move', format('sender %s', quote_literal(p_sender)),
    format('from pool %s to %s', quote_literal(v_sender.pool), quote_literal(p_pool)));
  return true;
end
$$;

comment on function pgdrip.move_sender(text, text) is
  'Puts a sender into another pool, with its limits and what it has spent of them; its work goes to the others of its old pool; false: it was there; 22004, 22023, MD001, MD003';
