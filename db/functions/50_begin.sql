-- Between claim and report: begin a send, keep its lease, or give it back. Writes due.

create or replace function pgdrip.begin_send(p_enrollments bigint[], p_tokens bigint[])
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set join_collapse_limit = 1
  set jit = off
  set max_parallel_workers_per_gather = 0
as $$
declare
  v_now timestamptz;
begin
  perform pgdrip.assert_tokens(p_enrollments, p_tokens);
  perform pgdrip.assert_working();
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  v_now := pgdrip.clock();
  -- A new statement: a cause committed while we waited for the rows is seen here.
  perform pgdrip.give_back(array_agg(r.enrollment_id), 'refused', r.obstacle, v_now)
     from pgdrip.send_refusals(p_enrollments, p_tokens, v_now) as r
    group by r.obstacle;
  return query
    update pgdrip.due as d
       set begun_at    = coalesce(d.begun_at, v_now),
           attempt     = d.attempt + (d.begun_at is null)::integer,
           never_begun = 0
      from (select distinct i.enrollment_id, i.token
              from unnest(p_enrollments, p_tokens) as i(enrollment_id, token)) as i
     where d.enrollment_id = i.enrollment_id and d.token = i.token
       and d.lease_until > v_now and d.send_by >= v_now
    returning d.token;
end
$$;

comment on function pgdrip.begin_send(bigint[], bigint[]) is
  'The tokens that may go out now; call it right before the request; others went back to due or are void; 22004, 22023, 25006, MD003, MD005';

create or replace function pgdrip.send_refusals(
  p_enrollments bigint[],
  p_tokens      bigint[],
  p_now         timestamptz
)
  returns setof pgdrip.triage
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select r.enrollment_id, r.sender_id, r.obstacle, null::timestamptz from (
      select d.enrollment_id, d.sender_id, case
               when d.send_by < p_now then 'too_late'
               when (select c.paused_at from pgdrip.control as c) is not null then 'all_paused'
               when n.status <> 'active' or n.health = 'blocked' then 'sender_paused'
               when q.status = 'paused' then 'sequence_paused'
               when e.paused_at is not null then 'enrollment_paused'
               when exists (select from pgdrip.suppressions as x
                             where x.address in (a.recipient, lower(a.recipient)))
                 then 'suppressed'
             end as obstacle
        from unnest(p_enrollments, p_tokens) as i(enrollment_id, token)
        join pgdrip.due as d using (enrollment_id, token)
        join pgdrip.enrollments as e using (enrollment_id)
        join pgdrip.sequences as q using (sequence_id)
        join pgdrip.channels as h on h.channel = q.channel
        join pgdrip.contacts as c using (contact_id)
        join pgdrip.senders as n on n.sender_id = d.sender_id,
             lateral (select pgdrip.recipient(h.address, c.phone, c.email)) as a(recipient)
       where d.begun_at is null and d.lease_until > p_now) as r
     where r.obstacle is not null;
end
$$;

comment on function pgdrip.send_refusals(bigint[], bigint[], timestamptz) is
  'Private: leased rows that must not be sent now, each with a code that says why';

create or replace function pgdrip.give_back(
  p_enrollments bigint[],
  p_event       text,
  p_code        text,
  p_now         timestamptz
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, code, step, attempt, sender_id, runner, due_at, verdict,
     content_hash)
  select p_now, d.enrollment_id, d.token, p_event, p_code, d.step, d.attempt, d.sender_id,
         d.runner, d.due_at, 'stale', d.content_hash
    from pgdrip.due as d where d.enrollment_id = any (p_enrollments);
  update pgdrip.due as d
     set token = null, runner = null, lease_until = null, send_by = null, content_hash = null
   where d.enrollment_id = any (p_enrollments);
  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at) from pgdrip.due as d
   where d.enrollment_id = any (p_enrollments) group by d.sender_id;
end
$$;

comment on function pgdrip.give_back(bigint[], text, text, timestamptz) is
  'Private: leased rows whose send has not begun go back to due; the journal keeps the token';

create or replace function pgdrip.heartbeat(
  p_enrollments bigint[],
  p_tokens      bigint[],
  p_lease       interval default '2 minutes'
)
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
begin
  perform pgdrip.assert_tokens(p_enrollments, p_tokens);
  perform pgdrip.assert_lease(p_lease);
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  v_now := pgdrip.clock();
  return query
    update pgdrip.due as d set lease_until = greatest(d.lease_until, v_now + p_lease)
      from (select distinct i.enrollment_id, i.token
              from unnest(p_enrollments, p_tokens) as i(enrollment_id, token)) as i
     where d.enrollment_id = i.enrollment_id and d.token = i.token
       and d.lease_until > v_now
    returning d.token;
end
$$;

comment on function pgdrip.heartbeat(bigint[], bigint[], interval) is
  'Prolongs leases that have not run out and returns their tokens; 22004, 22023';

create or replace function pgdrip.release(p_enrollments bigint[], p_tokens bigint[])
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_freed  bigint[];
  v_tokens bigint[];
begin
  perform pgdrip.assert_tokens(p_enrollments, p_tokens);
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  select array_agg(d.enrollment_id), array_agg(d.token) into v_freed, v_tokens
    from (select distinct i.enrollment_id, i.token
            from unnest(p_enrollments, p_tokens) as i(enrollment_id, token)) as i
    join pgdrip.due as d using (enrollment_id, token)
   where d.lease_until is not null and d.begun_at is null;
  perform pgdrip.give_back(v_freed, 'abandoned', 'released', pgdrip.clock());
  return query select unnest(v_tokens);
end
$$;

comment on function pgdrip.release(bigint[], bigint[]) is
  'Gives back messages whose send has not begun: due again at once, no attempt burned; returns their tokens; 22004, 22023';
