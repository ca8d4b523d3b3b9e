-- What the operator page shows. Nothing it asks for while somebody waits scans the live
-- steps or the history: tally() counts beforehand, each thing as often as its cost allows.
-- The history is counted once, minute by minute, as soon as a minute is over; what is
-- live is counted anew. Writes tallies, minute_counts, sender_hours and step_counts.

set local search_path = pg_catalog, pg_temp;

create or replace function pgdrip.tally_content(p_name text)
  returns jsonb
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(case p_name
    when 'queue' then (select jsonb_agg(to_jsonb(q)) from pgdrip.queue_health as q)
    when 'senders' then (
      select jsonb_agg(jsonb_strip_nulls(to_jsonb(s)))
        from (select l.sender, l.pool, l.channel, l.status, l.health, l.limit_hour, l.used_hour,
                     l.limit_day, l.used_day, l.backlog, l.oldest_due_at, l.last_error
                from pgdrip.sender_load as l) as s)
    when 'check' then (
      select jsonb_agg(to_jsonb(v))
        from (select c.* from pgdrip.check() as c limit 100) as v)
    when 'enrollments' then (
      select jsonb_agg(to_jsonb(e))
        from (select q.name as sequence, e.status, count(*) as count
                from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
               group by q.name, e.status) as e)
    when 'live' then (
      select jsonb_agg(to_jsonb(l))
        from (select q.name as sequence, v.number as version, d.step, count(*) as count,
                     count(d.parked_reason) as parked
                from pgdrip.due as d
                join pgdrip.enrollments as e using (enrollment_id)
                join pgdrip.sequence_versions as v using (version_id)
                join pgdrip.sequences as q on q.sequence_id = e.sequence_id
               group by q.name, v.number, d.step) as l)
    when 'forecast' then (
      select jsonb_agg(to_jsonb(f))
        from (select q.name as sequence, greatest(0, floor(
                       extract(epoch from d.due_at - k.now) / 3600))::integer as hour,
                     count(*) as count
                from (select pgdrip.clock() as now offset 0) as k
                join pgdrip.due as d
                  on d.parked_reason is null and d.awaits is null
                 and d.due_at < k.now + interval '24 hours'
                join pgdrip.enrollments as e using (enrollment_id)
                join pgdrip.sequences as q using (sequence_id)
               group by 1, 2) as f)
    when 'receipts' then (
      select jsonb_agg(to_jsonb(r))
        from (select q.name as sequence, p.step,
                     count(*) filter (where p.receipt in ('delivered', 'read')) as delivered,
                     count(*) filter (where p.receipt = 'read') as read
                from pgdrip.provider_refs as p
                join pgdrip.enrollments as e using (enrollment_id)
                join pgdrip.sequences as q using (sequence_id)
               group by q.name, p.step) as r)
    end, '[]');
end
$$;

comment on function pgdrip.tally_content(text) is
  'Private: counts one thing now, by a scan: queue, senders, check, enrollments, live steps by version, a forecast of due steps by hours from now, or receipts';

create or replace function pgdrip.count_events(p_from timestamptz, p_to timestamptz, p_now timestamptz)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_count bigint;
begin
  with events as materialized (
    select j.* from pgdrip.deliveries as j where j.at >= p_from and j.at < p_to),
  minutes as (
    insert into pgdrip.minute_counts as m (minute_at, event, class, count)
    select date_trunc('minute', j.at), j.event, coalesce(j.class, ''), count(*)
      from events as j where j.at > p_now - interval '25 hours'
     group by 1, 2, 3
    on conflict (minute_at, event, class) do update set count = m.count + excluded.count),
  hours as (
    insert into pgdrip.sender_hours as h (sender_id, hour_at, sent, failed)
    select j.sender_id, date_trunc('hour', j.at, 'UTC'),
           count(*) filter (where j.event = 'sent'),
           count(*) filter (where j.event = 'failed')
      from events as j
     where j.at > p_now - interval '49 hours' and j.sender_id is not null
       and j.event in ('sent', 'failed')
     group by 1, 2
    on conflict (sender_id, hour_at) do update
      set sent = h.sent + excluded.sent, failed = h.failed + excluded.failed),
  steps as (
    insert into pgdrip.step_counts as c (sequence_id, step, sent, skipped, failed)
    select e.sequence_id, j.step, count(*) filter (where j.is_sent),
           count(*) filter (where j.is_skipped), count(*) filter (where j.is_failed)
      from (select x.enrollment_id, x.step, bool_or(x.verdict = 'skipped') as is_skipped,
                   bool_or(x.verdict = 'failed') as is_failed,
                   bool_or(x.event = 'sent' or x.code in ('sent', 'delivered', 'read'))
                     is true and bool_and(o.at is null) as is_sent
              from events as x
              left join lateral (
                -- Most sends are the first of their step, and need no look at the past.
                select o.at from pgdrip.deliveries as o
                 where not (x.event = 'sent' and x.attempt = 1
                            and x.verdict in ('advanced', 'completed', 'awaiting'))
                   and o.enrollment_id = x.enrollment_id and o.step = x.step and o.at < p_from
                   and (o.event = 'sent' or o.code in ('sent', 'delivered', 'read'))
                 limit 1) as o on true
             group by x.enrollment_id, x.step) as j
      join pgdrip.enrollments as e using (enrollment_id)
     where j.is_sent or j.is_skipped or j.is_failed
     group by e.sequence_id, j.step
    on conflict (sequence_id, step) do update
      set sent = c.sent + excluded.sent, skipped = c.skipped + excluded.skipped,
          failed = c.failed + excluded.failed)
  select count(*) into v_count from events;
  return v_count;
end
$$;

comment on function pgdrip.count_events(timestamptz, timestamptz, timestamptz) is
  'Private: adds the events of a span, its end excluded, to the counts by minute, sender and step; returns how many';

create or replace function pgdrip.tally_history(p_now timestamptz)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  -- Who writes an event takes its time shortly before the commit; a minute is plenty.
  v_end   timestamptz := date_trunc('minute', p_now - interval '1 minute');
  v_from  timestamptz := (select t.counted_at from pgdrip.tallies as t where t.name = 'history');
  v_to    timestamptz;
  v_count bigint := 0;
begin
  -- From the beginning, and that is in the sums where retention took it.
  if v_from is null then
    delete from pgdrip.minute_counts;
    delete from pgdrip.sender_hours;
    delete from pgdrip.step_counts;
    insert into pgdrip.step_counts (sequence_id, step, sent, skipped, failed)
    select h.sequence_id, h.step, sum(h.sent), sum(h.skipped), sum(h.failed)
      from pgdrip.history_sums as h group by h.sequence_id, h.step;
    v_from := least(v_end, date_trunc('hour', (select min(j.at) from pgdrip.deliveries as j), 'UTC'));
    insert into pgdrip.tallies (name, counted_at) values ('history', v_from);
  end if;
  while v_from < v_end and v_count < 100000 loop
    v_to := least(v_end, v_from + interval '1 hour');
    v_count := v_count + pgdrip.count_events(v_from, v_to, p_now);
    v_from := v_to;
  end loop;
  update pgdrip.tallies as t set counted_at = v_from
   where t.name = 'history' and t.counted_at <> v_from;
  if not found then
    return false;
  end if;
  delete from pgdrip.minute_counts as m where m.minute_at < p_now - interval '25 hours';
  delete from pgdrip.sender_hours as h where h.hour_at < p_now - interval '49 hours';
  return true;
end
$$;

comment on function pgdrip.tally_history(timestamptz) is
  'Private: counts the minutes that are over and not yet counted, a hundred thousand events or so at a time; false: there was none';

create or replace function pgdrip.tally(p_name text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pgdrip.clock();
begin
  perform pgdrip.assert_given('p_name', p_name);
  if p_name not in ('queue', 'senders', 'check', 'enrollments', 'live', 'forecast',
                    'receipts', 'history') then
    raise exception 'nothing to count is named %', quote_literal(left(p_name, 40))
      using errcode = '22023',
            hint = 'queue, senders, check, enrollments, live, forecast, receipts or history';
  end if;
  -- One at a time; a second one would count the same.
  if not pg_try_advisory_xact_lock(hashtextextended('pgdrip.tally ' || p_name, 0)) then
    return false;
  end if;
  if p_name = 'history' then
    return pgdrip.tally_history(v_now);
  end if;
  insert into pgdrip.tallies as t (name, counted_at, content)
  values (p_name, v_now, pgdrip.tally_content(p_name))
  on conflict (name) do update
    set counted_at = excluded.counted_at, content = excluded.content;
  return true;
end
$$;

comment on function pgdrip.tally(text) is
  'Counts for the operator page: queue, senders, check, enrollments, live, forecast, receipts or history; false: somebody else is at it, or of the history no minute is over since; 22004, 22023';

create or replace function pgdrip.minute_tally()
  returns setof pgdrip.minute_counts
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_now  timestamptz := pgdrip.clock();
  v_from timestamptz := greatest(v_now - interval '3 minutes',
    (select t.counted_at from pgdrip.tallies as t where t.name = 'history'));
begin
  return query
    select m.* from pgdrip.minute_counts as m where m.minute_at > v_now - interval '25 hours';
  return query
    select date_trunc('minute', j.at), j.event, coalesce(j.class, ''), count(*)
      from pgdrip.deliveries as j where j.at >= v_from
     group by 1, 2, 3;
end
$$;

comment on function pgdrip.minute_tally() is
  'Events by minute, event and class in the last 25 hours: what tally(''history'') counted, and the minutes since then, three at most';

create or replace view pgdrip.last_tallies as
  select t.name, t.counted_at, t.content from pgdrip.tallies as t;

comment on view pgdrip.last_tallies is 'What tally() counted last, by name, and when';

create or replace view pgdrip.sender_day as
  select s.name as sender, h.hour_at, h.sent, h.failed
    from pgdrip.sender_hours as h join pgdrip.senders as s using (sender_id)
   where h.hour_at > pgdrip.clock() - interval '25 hours';

comment on view pgdrip.sender_day is
  'What each sender sent and failed to send by the hour, up to a minute or two ago';

create or replace view pgdrip.step_tally as
  select q.name as sequence, c.step, c.sent, c.skipped, c.failed
    from pgdrip.step_counts as c join pgdrip.sequences as q using (sequence_id);

comment on view pgdrip.step_tally is
  'How often each step was sent, skipped, or failed for good, up to a minute or two ago';

create or replace view pgdrip.sequence_overview as
  select q.name as sequence, q.trigger, q.pool, q.channel, q.status,
         pgdrip.shown(q.paused_reason) as paused_reason, q.paused_at,
         v.number as version, v.published_at,
         array(select s.number from pgdrip.steps as s
                where s.version_id = q.version_id order by s.number) as steps
    from pgdrip.sequences as q
    left join pgdrip.sequence_versions as v on v.version_id = q.version_id;

comment on view pgdrip.sequence_overview is
  'Each sequence with its state, its newest version and the step numbers of that';

create or replace view pgdrip.runner_health as
  select r.runner, r.version, r.started_at, r.seen_at,
         r.seen_at > k.now - interval '1 minute' as is_alive, c.maintained_at
    from (select pgdrip.clock() as now) as k
   cross join pgdrip.control as c
    left join pgdrip.runners as r on r.seen_at > k.now - interval '1 day';

comment on view pgdrip.runner_health is
  'Who ticked in the last day, runners and scheduled jobs alike, and when maintain() ran last; one row of NULLs where nobody did';

create or replace view pgdrip.contact_details as
  select c.contact_id, c.pool, pgdrip.shown(c.phone) as phone, pgdrip.shown(c.email) as email,
         case when k.sees then c.name else left(c.name, 1) || '…' end as name, c.timezone,
         case when k.sees then c.attributes else '{}' end as attributes,
         c.created_at, s.name as preferred_sender,
         array(select t.trigger from pgdrip.contact_triggers as t
                where t.contact_id = c.contact_id order by t.trigger_id) as triggers,
         array(select pgdrip.shown(x.reason) from pgdrip.suppressions as x
                where x.address in (c.phone, lower(c.email)) order by x.created_at) as suppressed,
         c.erased_at
    from (select pgdrip.sees_people() as sees) as k
   cross join pgdrip.contacts as c
    left join pgdrip.senders as s using (sender_id);

comment on view pgdrip.contact_details is
  'Each contact with the words it carries and why its addresses are suppressed; of one that was erased only the id';

create or replace view pgdrip.contact_steps as
  select p.enrollment_id, p.contact_id, p.sequence, p.step, p.step_status, p.message_status,
         p.current_state, p.due_at, p.sent_at, p.completed_at, p.attempts, p.error_class,
         p.error_detail, s.name as sender, r.receipt, r.receipt_at, e.status, e.enrolled_at,
         e.ended_at, pgdrip.shown(e.end_reason) as end_reason
    from pgdrip.sequence_progress as p
    join pgdrip.enrollments as e using (enrollment_id)
    left join lateral (
      select j.sender_id from pgdrip.deliveries as j
       where j.enrollment_id = p.enrollment_id and j.step = p.step and j.sender_id is not null
       order by j.at desc limit 1) as j on true
    left join pgdrip.senders as s
      on s.sender_id = coalesce(j.sender_id, case when p.step_status = 'active' then e.sender_id end)
    left join lateral (
      select x.receipt, x.receipt_at from pgdrip.provider_refs as x
       where x.enrollment_id = p.enrollment_id and x.step = p.step and x.receipt is not null
       order by pgdrip.receipt_rank(x.receipt) desc limit 1) as r on true;

comment on view pgdrip.contact_steps is
  'sequence_progress with the sender, the furthest receipt and its time, and the end of each enrollment; ask for one contact_id';

create or replace view pgdrip.failure_details as
  select f.at, f.sequence, f.contact_id, f.recipient, f.step, f.attempt, f.sender, f.class,
         f.code, f.detail, f.verdict, f.enrollment_id,
         -- Looked up for the rows that are shown; exists() may read whole tables beforehand.
         coalesce(case f.verdict
           when 'failed' then (
             select e.status = 'failed' and e.ended_at = f.at from pgdrip.enrollments as e
              where e.enrollment_id = f.enrollment_id)
           when 'parked' then (
             select d.parked_reason = 'failed' and d.step = f.step from pgdrip.due as d
              where d.enrollment_id = f.enrollment_id) end, false) as is_retryable
    from pgdrip.failures as f;

comment on view pgdrip.failure_details is
  'failures, and whether this one ended or parked an enrollment that retry_failed() would take up again';
