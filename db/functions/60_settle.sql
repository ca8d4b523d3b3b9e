-- Settling: the one place where a live step moves. Whoever decides what becomes of a step
-- (report, triage, an operator, a receipt) says so by a settlement; settle() journals it
-- and carries it out. The callers hold the locks of due and enrollments.
--
-- Moves: confirm (on to the next step, or complete) · skip (the same, unconfirmed) · branch
-- (on from a step that awaited an event) · retry · await (a receipt) · park · fail · exit ·
-- note (the journal only).

create or replace function pgdrip.step_after(
  p_enrollment pgdrip.enrollments,
  p_sequence   pgdrip.sequences,
  p_step       pgdrip.steps,
  p_begun_at   timestamptz,
  p_move       text,
  p_code       text
)
  returns setof pgdrip.next_step
  language sql
  stable
begin atomic
  select case when o.is_other then p_sequence.version_id else p_enrollment.version_id end,
         case when o.is_other then (
                select min(s.number) from pgdrip.steps as s
                 where s.version_id = p_sequence.version_id and s.number > p_step.number)
              else n.step end
    from (select case
            when p_step.wait_event is null then p_step.next_step
            when p_move = 'branch' and p_code = 'event'
              then coalesce(p_step.then_step, p_step.next_step)
            when p_move = 'branch' then coalesce(p_step.else_step, p_step.next_step)
            when p_move = 'skip' then p_step.next_step
            -- The event may have come between the send and its report.
            when exists (
              select from pgdrip.contact_events as x
               where x.contact_id = p_enrollment.contact_id and x.event = p_step.wait_event
                 and x.at >= p_begun_at) then coalesce(p_step.then_step, p_step.next_step)
            else p_step.number end) as n(step),
         lateral (select p_sequence.in_flight <> 'pin'
                     and p_sequence.version_id <> p_enrollment.version_id
                     and n.step is distinct from p_step.number) as o(is_other);
end;

comment on function pgdrip.step_after(pgdrip.enrollments, pgdrip.sequences, pgdrip.steps, timestamptz, text, text) is
  'Private: where a step leads: the next one, a branch, itself while it waits for its event, or on in the newest version';

create or replace function pgdrip.complete_settlements(
  p_settlements pgdrip.settlement[],
  p_now         timestamptz
)
  returns pgdrip.settlement[]
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(r.enrollment_id, r.token, r.event, r.code, r.class,
             -- 2 kB at most, whole characters, nothing that is not text.
             left(regexp_replace(r.detail, '[\u0001-\u0008\u000b-\u001f\u007f]', ' ', 'g'), 512),
             r.provider_id,
             coalesce(r.verdict, case when r.move = 'skip' then 'skipped'
                                      when x.ends_as = 'completed' then 'completed'
                                      when m.is_on then 'advanced' end),
             r.move, r.reason,
             coalesce(r.step, case when r.move <> 'note' then d.step end), t.step,
             case when not m.is_on then r.next_due_at
                  when t.step = s.number
                    then pgdrip.after_span(p_now, s.wait_timeout, coalesce(c.timezone, 'UTC'))
                  when t.step is not null
                    then pgdrip.step_due_at(p_now, n, s.number, v.send_window, c.timezone) end,
             t.version_id, x.ends_as, d)::pgdrip.settlement
      from unnest(p_settlements) as r
     cross join lateral (
       select coalesce(r.move in ('confirm', 'skip', 'branch'), false) as is_on offset 0) as m
      left join pgdrip.due as d on d.enrollment_id = r.enrollment_id
      left join pgdrip.enrollments as e on e.enrollment_id = d.enrollment_id
      left join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
      left join pgdrip.sequences as q on q.sequence_id = e.sequence_id
      left join pgdrip.contacts as c on c.contact_id = e.contact_id
      left join lateral (
        select a.version_id, a.step from pgdrip.step_after(e, q, s, d.begun_at, r.move, r.code) as a
         where m.is_on offset 0) as t on true
      left join pgdrip.steps as n on n.version_id = t.version_id and n.number = t.step
      left join pgdrip.sequence_versions as v on v.version_id = t.version_id
     cross join lateral (
       select case when r.move = 'fail' then 'failed'
                   when r.move = 'exit' then 'exited'
                   when m.is_on and t.step is null then 'completed' end offset 0) as x(ends_as));
end
$$;

comment on function pgdrip.complete_settlements(pgdrip.settlement[], timestamptz) is
  'Private: fills in verdict, step, next step and its due time, how the enrollment ends, and the live row as it stands';

create or replace function pgdrip.journal(p_settlements pgdrip.settlement[], p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- A token that is on its row no longer has its story in the journal. The due_at of a
  -- row that awaits a receipt is a deadline, not when its step had been due.
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, step, attempt, sender_id, runner, due_at, begun_at,
     code, class, detail, provider_id, verdict, next_due_at, content_hash, variant)
  select p_now, r.enrollment_id, r.token, r.event, coalesce(r.step, d.step),
         d.attempt, d.sender_id, d.runner, d.due_at, d.begun_at, r.code, r.class, r.detail,
         r.provider_id, r.verdict, r.next_due_at, d.content_hash, d.variant
    from unnest(p_settlements) as r
   cross join lateral (select coalesce((r.live).enrollment_id = r.enrollment_id
                         and (r.live).token is not distinct from r.token, false) offset 0) as l(is_its)
    left join lateral (
      select (r.live).step, (r.live).attempt + ((r.live).begun_at is null
               and (r.live).lease_until is not null)::integer as attempt,
             (r.live).sender_id, (r.live).runner,
             case when (r.live).awaits is null
                   and (r.live).parked_reason is distinct from 'unconfirmed'
                  then (r.live).due_at end as due_at,
             (r.live).begun_at, (r.live).content_hash, (r.live).variant
       where l.is_its
      union all
      (select j.step, j.attempt, j.sender_id, j.runner, j.due_at, j.begun_at, j.content_hash,
              j.variant
         from pgdrip.deliveries as j
        where not l.is_its and j.enrollment_id = r.enrollment_id and j.token = r.token
        order by j.at desc limit 1)) as d on true
   where r.event is not null;
  -- A step that moves by an earlier token voids the later claim on its row.
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, code, step, attempt, sender_id, runner, due_at, verdict,
     content_hash)
  select p_now, r.enrollment_id, (r.live).token, 'abandoned', 'superseded', (r.live).step,
         (r.live).attempt, (r.live).sender_id, (r.live).runner, (r.live).due_at, 'stale',
         (r.live).content_hash
    from unnest(p_settlements) as r
   where r.move <> 'note' and (r.live).token <> r.token and (r.live).lease_until is not null;
end
$$;

comment on function pgdrip.journal(pgdrip.settlement[], timestamptz) is
  'Private: writes one event per settlement, and one for a claim it voids, as the live row stands before it moves';

create or replace function pgdrip.move_due(p_settlements pgdrip.settlement[])
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- The sender's hint knows of this row no later than the end of its lease.
  insert into pgdrip.wakes (sender_id, due_at)
  select (r.live).sender_id, min(coalesce(r.next_due_at, (r.live).due_at))
    from unnest(p_settlements) as r
   where (r.move in ('retry', 'await') or r.next_step is not null)
     and (r.live).sender_id is not null
     and ((r.live).parked_reason is not null or (r.live).awaits is not null
          or coalesce(r.next_due_at, (r.live).due_at) < (r.live).lease_until)
   group by (r.live).sender_id;

  update pgdrip.due as d
     set step          = coalesce(r.next_step, d.step),
         due_at        = coalesce(r.next_due_at, d.due_at),
         attempt       = case
           when r.next_step is not null then 0
           when r.class in ('sender', 'blocked') then d.attempt - (d.begun_at is not null)::integer
           when d.lease_until is not null and d.begun_at is null
            and r.event in ('sent', 'failed', 'uncertain') then d.attempt + 1
           else d.attempt end,
         never_begun   = case when r.event = 'abandoned' then d.never_begun + 1 else 0 end,
         token         = case when k.is_kept then d.token end,
         runner        = case when k.is_kept then d.runner end,
         begun_at      = case when k.is_kept then d.begun_at end,
         content_hash  = case when k.is_kept then d.content_hash end,
         variant       = case when k.is_kept then d.variant end,
         lease_until   = null,
         send_by       = null,
         awaits        = case when r.move = 'await' then 'receipt'
                              when r.next_step = r.step then 'event' end,
         parked_reason = case when r.move = 'park' then r.reason end
    from unnest(p_settlements) as r,
         lateral (select r.move = 'await' or r.move = 'park'
                         and r.reason in ('uncertain', 'unconfirmed')) as k(is_kept)
   where d.enrollment_id = r.enrollment_id
     and (r.move in ('retry', 'await', 'park') or r.next_step is not null);

  delete from pgdrip.due as d
   using unnest(p_settlements) as r
   where d.enrollment_id = r.enrollment_id and r.ends_as is not null;
end
$$;

comment on function pgdrip.move_due(pgdrip.settlement[]) is
  'Private: the same row moves on, is parked, or goes when its enrollment ends';

create or replace function pgdrip.end_enrollments(
  p_settlements pgdrip.settlement[],
  p_now         timestamptz
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  -- By ended_at: status = 'active' would, without statistics, read the index of all live ones.
  update pgdrip.enrollments as e
     set last_confirmed_step = case when r.move = 'confirm' then r.step
                                    else e.last_confirmed_step end,
         version_id = coalesce(r.next_version, e.version_id),
         status     = coalesce(r.ends_as, e.status),
         ended_at   = case when r.ends_as is not null then p_now end,
         end_reason = case when r.ends_as = 'completed' then 'completed'
                           when r.ends_as is not null then coalesce(r.reason, r.code, r.class) end
    from unnest(p_settlements) as r
   where e.enrollment_id = r.enrollment_id and e.ended_at is null
     and (r.move = 'confirm' and e.last_confirmed_step < r.step or r.ends_as is not null
          or r.next_version <> e.version_id);

  v_ended := array(
    select r.enrollment_id from unnest(p_settlements) as r where r.ends_as is not null);
  if v_ended = '{}' then
    return;
  end if;
  -- Of two enrollments by one word that end at once the second one here sees both ended.
  perform from pgdrip.contact_triggers as t
    where t.trigger_id in (
      select e.trigger_id from pgdrip.enrollments as e where e.enrollment_id = any (v_ended)
      union all
      select a.trigger_id
        from pgdrip.enrollments as e join pgdrip.sequence_versions as v using (version_id)
        join pgdrip.contact_triggers as a
          on a.contact_id = e.contact_id and a.trigger = v.adds_trigger
       where e.enrollment_id = any (v_ended))
    order by t.trigger_id for update;
  -- A completed one leaves its word to whoever still runs by it; the last one takes it along.
  delete from pgdrip.contact_triggers as t
   where t.trigger_id in (select e.trigger_id from pgdrip.enrollments as e
                           where e.enrollment_id = any (v_ended))
     and exists (
       select from pgdrip.enrollments as e join pgdrip.sequence_versions as v using (version_id)
        where e.contact_id = t.contact_id and e.trigger_id = t.trigger_id
          and e.status = 'completed' and v.removes_trigger)
     and not exists (
       select from pgdrip.enrollments as o
        where o.contact_id = t.contact_id and o.trigger_id = t.trigger_id
          and o.status = 'active');
  insert into pgdrip.contact_triggers (contact_id, trigger)
  select distinct e.contact_id, v.adds_trigger
    from pgdrip.enrollments as e join pgdrip.sequence_versions as v using (version_id)
   where e.enrollment_id = any (v_ended) and e.status = 'completed'
     and v.adds_trigger is not null
   order by 1, 2
  on conflict do nothing;
end
$$;

comment on function pgdrip.end_enrollments(pgdrip.settlement[], timestamptz) is
  'Private: confirms steps, ends enrollments, removes and adds the trigger words of completed ones; a word added is enrolled by the next sweep';

create or replace function pgdrip.settle(
  p_settlements pgdrip.settlement[],
  p_now         timestamptz
)
  returns setof pgdrip.settlement
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_rows pgdrip.settlement[] := pgdrip.complete_settlements(p_settlements, p_now);
begin
  perform pgdrip.journal(v_rows, p_now);
  perform pgdrip.move_due(v_rows);
  perform pgdrip.end_enrollments(v_rows, p_now);
  return query select r.* from unnest(v_rows) as r;
end
$$;

comment on function pgdrip.settle(pgdrip.settlement[], timestamptz) is
  'Private: carries settlements out and returns them completed';
