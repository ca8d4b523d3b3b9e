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

create or replace function pgdrip.is_wanted(p_step pgdrip.steps, p_values jsonb)
  returns boolean
  language sql
  stable
  parallel safe
return p_step.only_if is null and p_step.skip_if is null
    or coalesce(p_values @> p_step.only_if, true)
       and not coalesce(p_values @> p_step.skip_if, false);

comment on function pgdrip.is_wanted(pgdrip.steps, jsonb) is
  'Whether a step''s only_if and skip_if let it go to a contact of these values';

create or replace function pgdrip.cap_free_at(
  p_contact bigint,
  p_max     integer,
  p_per     interval,
  p_now     timestamptz
)
  returns timestamptz
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  -- What is on its way counts as sent now; of what was sent, the p_max-th newest decides.
  select s.at + make_interval(secs => extract(epoch from p_per))
    from (
      select d.token, p_now as at
        from pgdrip.enrollments as e join pgdrip.due as d using (enrollment_id)
       where e.contact_id = p_contact and e.status = 'active' and d.lease_until is not null
         and (d.lease_until > p_now or d.begun_at is not null)
      union all
      select j.token, max(coalesce(j.begun_at, j.at))
        from pgdrip.enrollments as e join pgdrip.deliveries as j using (enrollment_id)
       where e.contact_id = p_contact and j.event in ('sent', 'uncertain')
         and j.at > p_now - make_interval(secs => extract(epoch from p_per))
         and not exists (select from pgdrip.deliveries as r
                          where r.enrollment_id = j.enrollment_id and r.token = j.token
                            and r.code = 'not_sent')
       group by j.token) as s
   order by s.at desc offset p_max - 1 limit 1
$$;

comment on function pgdrip.cap_free_at(bigint, integer, interval, timestamptz) is
  'When a contact may get one more message under a cap, over all sequences; NULL: now';

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

create or replace function pgdrip.look(p_rows pgdrip.due[], p_now timestamptz)
  returns setof pgdrip.look
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select d.enrollment_id, d.sender_id, x.obstacle, greatest(o.until, r.free_at), q.name,
           d.step, d.attempt + 1, q.channel, n.name,
           case when n.secret is null then n.config
                else n.config || jsonb_build_object('secret', n.secret) end,
           a.recipient, m.subject, m.body, m.content, m.variant, d.due_at
      from (select r.*, row_number() over () as ord from unnest(p_rows) as r) as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.channels as h on h.channel = q.channel
      join pgdrip.sequence_versions as v on v.version_id = e.version_id
      join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
      join pgdrip.senders as n on n.sender_id = d.sender_id
      join pgdrip.contacts as c on c.contact_id = e.contact_id,
           lateral (select pgdrip.recipient(h.address, c.phone, c.email),
                           pgdrip.contact_values(c) offset 0) as a(recipient, vals),
           lateral (select case when v.send_window is not null then
             pgdrip.spread_open(p_now, v.send_window, coalesce(c.timezone, 'UTC'),
                                d.enrollment_id) end offset 0) as o(until),
           lateral (select case when v.cap_max is not null then
             pgdrip.cap_free_at(c.contact_id, v.cap_max, v.cap_per, p_now) end offset 0) as r(free_at),
           lateral (select case
             when d.awaits = 'receipt' then 'unconfirmed'
             when d.awaits = 'event' then 'timed_out'
             when d.begun_at is not null then 'lapsed'
             when d.never_begun >= 19 and d.token is not null then 'never_begun'
             when a.recipient is null then 'no_address'
             when exists (select from pgdrip.suppressions as x
                           where x.address in (a.recipient, lower(a.recipient)))
               then 'suppressed'
             when e.paused_at is not null then 'enrollment_paused'
             when q.status = 'paused' then 'sequence_paused'
             when s.on_expire <> 'send_late'
              and pgdrip.after_span(d.due_at, s.expire_after, 'UTC') < p_now then 'expired'
             when a.vals @> v.exit_when then 'exit_condition'
             when not pgdrip.is_wanted(s, a.vals) then 'condition'
             when o.until > p_now then 'closed'
             when cardinality(s.required) > 0 and not pgdrip.has_values(s.required, a.vals)
               then 'missing_variable'
             when r.free_at > p_now then 'capped'
           end offset 0) as x(obstacle)
      left join lateral (
        select pgdrip.render_template(t.subject, a.vals) as subject,
               pgdrip.render_template(t.body, a.vals) as body,
               pgdrip.render_template(t.content, a.vals)::jsonb as content, t.variant
          from (select (w.text).* from (
                  select case when s.variants is null
                              then row(s.subject, s.body, s.content, null)::pgdrip.step_text
                              else pgdrip.step_text(s, d.enrollment_id) end as text offset 0) as w
                offset 0) as t
         where x.obstacle is null offset 0) as m on true
     order by d.ord;
end
$$;

comment on function pgdrip.look(pgdrip.due[], timestamptz) is
  'Private: what stands in the way of each row, or, with an obstacle of NULL, its rendered message; in order';

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

create or replace function pgdrip.step_text(p_step pgdrip.steps, p_enrollment bigint)
  returns pgdrip.step_text
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text pgdrip.step_text;
  v_hash integer;
  v_item jsonb;
begin
  if p_step.variants is null then
    return row(p_step.subject, p_step.body, p_step.content, null)::pgdrip.step_text;
  end if;
  -- The same enrollment falls into the same part of the weights at every step.
  v_hash := get_byte(sha256(int8send(p_enrollment)), 0) * 256
          + get_byte(sha256(int8send(p_enrollment)), 1);
  v_text.variant := 1;
  while v_hash * (p_step.variants -> -1 ->> 'upto')::integer / 65536
        >= (p_step.variants -> (v_text.variant - 1) ->> 'upto')::integer loop
    v_text.variant := v_text.variant + 1;
  end loop;
  v_item := p_step.variants -> (v_text.variant - 1);
  v_text.subject := nullif(v_item -> 'subject', 'null');
  v_text.body    := nullif(v_item -> 'body', 'null');
  v_text.content := nullif(v_item -> 'content', 'null');
  return v_text;
end
$$;

comment on function pgdrip.step_text(pgdrip.steps, bigint) is
  'Private: the templates of a step for one enrollment: its own, or those of the variant that a stable hash chooses';

create or replace function pgdrip.content_hash(p_subject text, p_body text, p_content jsonb)
  returns bytea
  language sql
  stable
  parallel safe
return sha256(convert_to(concat_ws(E'\n', p_subject, p_body, p_content::text), 'UTF8'));

comment on function pgdrip.content_hash(text, text, jsonb) is
  'sha256 of subject, body and content as rendered, those present, joined by line feeds';

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
