-- Triage: what becomes of due rows that must not be sent now. It waits for nothing: a row of
-- which any part is held elsewhere stays due. Writes what settle() writes.

create or replace function pgdrip.lock_capped(p_enrollments bigint[])
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_capped bigint[];
  v_locked bigint[];
  v_free   bigint[];
begin
  if not exists (select from pgdrip.sequence_versions as v where v.cap_max is not null) then
    return '{}'::bigint[];
  end if;
  v_capped := array(
    select e.enrollment_id from pgdrip.enrollments as e
      join pgdrip.sequence_versions as v using (version_id)
     where e.enrollment_id = any (p_enrollments) and v.cap_max is not null);
  if v_capped = '{}' then
    return v_capped;
  end if;
  -- Two claims must not both find room for one contact: one row of it at a time.
  v_locked := array(
    select c.contact_id from pgdrip.contacts as c
     where c.contact_id in (select e.contact_id from pgdrip.enrollments as e
                             where e.enrollment_id = any (v_capped))
     order by c.contact_id for no key update skip locked);
  v_free := array(
    select min(e.enrollment_id) from pgdrip.enrollments as e
     where e.enrollment_id = any (p_enrollments) and e.contact_id = any (v_locked)
     group by e.contact_id having bool_and(e.enrollment_id = any (v_capped)));
  return array(select i from unnest(v_capped) as i where i <> all (v_free));
end
$$;

comment on function pgdrip.lock_capped(bigint[]) is
  'Private: the rows of capped sequences whose contact somebody else holds or has another row here: not now';

create or replace function pgdrip.lock_for_triage(p_enrollments bigint[])
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  -- settle() will write these; a row of which any part is held elsewhere stays due.
  v_ids := array(
    select e.enrollment_id from pgdrip.enrollments as e
     where e.enrollment_id = any (p_enrollments)
     order by e.enrollment_id for update skip locked);
  v_ids := array(
    select e.enrollment_id from pgdrip.enrollments as e
     where e.enrollment_id = any (v_ids)
       and e.contact_id = any (array(
             select c.contact_id from pgdrip.contacts as c
              where c.contact_id in (select x.contact_id from pgdrip.enrollments as x
                                      where x.enrollment_id = any (v_ids))
              -- Nor wait below for a word that somebody is about to add to it.
              order by c.contact_id for no key update skip locked)));
  v_ids := array(
    select e.enrollment_id from pgdrip.enrollments as e
      left join pgdrip.contact_triggers as t using (trigger_id)
     where e.enrollment_id = any (v_ids)
       and (t.trigger_id is null or t.trigger_id = any (array(
             select l.trigger_id from pgdrip.contact_triggers as l
              where l.trigger_id in (select x.trigger_id from pgdrip.enrollments as x
                                      where x.enrollment_id = any (v_ids))
              order by l.trigger_id for update skip locked))));
  -- A sequence that is being resumed is locked: parking its rows now would lose the resume.
  return array(
    select e.enrollment_id from pgdrip.enrollments as e
     where e.enrollment_id = any (v_ids)
       and e.sequence_id = any (array(
             select q.sequence_id from pgdrip.sequences as q
              where q.sequence_id in (select x.sequence_id from pgdrip.enrollments as x
                                       where x.enrollment_id = any (v_ids))
              order by q.sequence_id for share skip locked)));
end
$$;

comment on function pgdrip.lock_for_triage(bigint[]) is
  'Private: of rows with an obstacle, those that can be settled without waiting';

create or replace function pgdrip.triage(p_looks pgdrip.look[], p_now timestamptz)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_held    bigint[] := pgdrip.lock_capped(array(
                          select l.enrollment_id from unnest(p_looks) as l));
  v_stopped bigint[] := array(
                          select l.enrollment_id from unnest(p_looks) as l
                           where l.obstacle is not null and l.enrollment_id <> all (v_held));
begin
  perform pgdrip.settle_stopped(v_stopped, p_now);
  return v_held || v_stopped;
end
$$;

comment on function pgdrip.triage(pgdrip.look[], timestamptz) is
  'Private: settles rows that must not be sent now; returns all that are not to be handed out';

create or replace function pgdrip.settle_stopped(p_enrollments bigint[], p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
begin
  if p_enrollments = '{}' then
    return;
  end if;
  v_locked := pgdrip.lock_for_triage(p_enrollments);
  -- Seen again with the locks held: what changed meanwhile counts.
  perform from pgdrip.settle(array(
    select pgdrip.triage_settlement(
             row(l.enrollment_id, l.sender_id, l.obstacle, l.until)::pgdrip.triage)
      from pgdrip.look(array(
             select d from pgdrip.due as d where d.enrollment_id = any (v_locked)), p_now) as l
     where l.obstacle is not null), p_now);
end
$$;

comment on function pgdrip.settle_stopped(bigint[], timestamptz) is
  'Private: settles locked rows by what stands in their way, those that can be without waiting';

create or replace function pgdrip.triage_settlement(p_row pgdrip.triage)
  returns pgdrip.settlement
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_due    pgdrip.due;
  v_step   pgdrip.steps;
  v_sender  pgdrip.senders;
  v_version pgdrip.sequence_versions;
  v_out     pgdrip.settlement;
begin
  select d.* into v_due from pgdrip.due as d where d.enrollment_id = p_row.enrollment_id;
  select s.* into v_step from pgdrip.steps as s
    join pgdrip.enrollments as e using (version_id)
   where e.enrollment_id = p_row.enrollment_id and s.number = v_due.step;
  select s.* into v_sender from pgdrip.senders as s where s.sender_id = v_due.sender_id;
  select v.* into v_version from pgdrip.sequence_versions as v
   where v.version_id = v_step.version_id;
  v_out.enrollment_id := p_row.enrollment_id;
  v_out.token  := v_due.token;
  v_out.code   := p_row.obstacle;
  v_out.reason := p_row.obstacle;
  case
    when p_row.obstacle = 'unconfirmed' then
      v_out.event := 'resolved';
      v_out.move := case v_sender.on_unconfirmed
        when 'advance' then 'confirm' when 'stop' then 'fail' else 'park' end;
    when p_row.obstacle = 'lapsed' then
      v_out.event := 'uncertain';
      v_out.reason := 'uncertain';
      v_out.move := case when v_step.on_uncertain = 'retry'
                          and v_due.attempt < v_step.max_attempts then 'retry' else 'park' end;
      v_out.verdict := case v_out.move when 'retry' then 'retry' else 'parked' end;
      v_out.next_due_at := v_due.due_at;
    when p_row.obstacle in ('closed', 'group_full') then
      v_out.move := 'retry';
      v_out.next_due_at := p_row.until;
    when p_row.obstacle = 'timed_out' then
      v_out.event := 'resolved';
      v_out.move := 'branch';
    when p_row.obstacle in ('suppressed', 'exit_condition') then
      v_out.move := 'exit';
    when p_row.obstacle = 'condition' then
      v_out.event := 'skipped';
      v_out.move := 'skip';
    when p_row.obstacle = 'capped' then
      v_out.move := case v_version.on_cap
        when 'defer' then 'retry' when 'skip' then 'skip' else 'exit' end;
      v_out.event := case v_version.on_cap when 'skip' then 'skipped' end;
      v_out.next_due_at := p_row.until;
    when p_row.obstacle in ('enrollment_paused', 'sequence_paused', 'never_begun') then
      v_out.move := 'park';
    when p_row.obstacle = 'expired' then
      v_out.event := 'skipped';
      v_out.move := case v_step.on_expire when 'stop' then 'exit' else 'skip' end;
    when p_row.obstacle = 'missing_variable' and v_step.on_missing = 'skip' then
      v_out.event := 'skipped';
      v_out.move := 'skip';
    else
      v_out.event := 'failed';
      v_out.class := case p_row.obstacle when 'no_address' then 'contact' else 'content' end;
      v_out.move := case v_step.on_failure
        when 'skip' then 'skip' when 'park' then 'park' else 'fail' end;
      v_out.reason := case v_out.move when 'park' then 'failed' else p_row.obstacle end;
  end case;
  -- A lease that ran out before the send began leaves its trace.
  if v_out.event is null and v_due.token is not null then
    v_out.event := 'abandoned';
  end if;
  return v_out;
end
$$;

comment on function pgdrip.triage_settlement(pgdrip.triage) is
  'Private: what becomes of a due row that must not be sent now';
