-- Enrollment: a contact enters a sequence by a trigger word or directly.
-- Locks the contact first; writes contact_triggers, enrollments, due and wakes. Whatever a
-- client holds open here never locks a sender: the sender learns of its work by a wake.

create or replace function pgdrip.lock_contact(p_contact bigint)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_contact', p_contact);
  perform from pgdrip.contacts as c
    where c.contact_id = p_contact and c.erased_at is null for no key update;
  if not found then
    raise exception 'no contact has id %', p_contact
      using errcode = 'MD001', hint = 'upsert_contact() returns ids.';
  end if;
end
$$;

comment on function pgdrip.lock_contact(bigint) is
  'Locks a contact, so that two callers never enroll it twice; 22004, MD001';

create or replace function pgdrip.entries(
  p_contacts  bigint[],
  p_sequences bigint[],
  p_triggers  bigint[],
  p_now       timestamptz
)
  returns setof pgdrip.entry
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select c.contact_id, q.sequence_id, case when not u.is_used then t.trigger_id end,
         q.version_id, coalesce(l.run, 0) + 1,
         case when l.status = 'active' then l.enrollment_id end,
         case
           when q.version_id is null or q.status in ('draft', 'archived') then 'not_usable'
           when q.pool <> c.pool then 'other_pool'
           when l.status = 'active' then 'live'
           when a.recipient is null then 'no_address'
           when exists (select from pgdrip.suppressions as s
                         where s.address in (a.recipient, lower(a.recipient))) then 'suppressed'
           when i.trigger_id is not null and u.is_used then 'used_trigger'
           when l.ended_at is not null and q.reentry_after is null then 'ended'
           when w.allowed_at > p_now then 'too_soon'
         end,
         w.allowed_at
    from unnest(p_contacts, p_sequences, p_triggers)
           as i(contact_id, sequence_id, trigger_id)
    join pgdrip.contacts as c using (contact_id)
    join pgdrip.sequences as q using (sequence_id)
    join pgdrip.channels as h on h.channel = q.channel
    left join pgdrip.contact_triggers as t
           on t.contact_id = c.contact_id and t.trigger = q.trigger
    left join lateral (
      select e.enrollment_id, e.run, e.status, e.ended_at from pgdrip.enrollments as e
       where e.contact_id = c.contact_id and e.sequence_id = q.sequence_id
       order by e.run desc limit 1) as l on true,
    lateral (select pgdrip.recipient(h.address, c.phone, c.email)) as a(recipient),
    -- Of a live run the end is not known: looked at again when it could have ended.
    lateral (select pgdrip.after_span(
      case when l.status = 'active' then p_now else l.ended_at end,
      case when l.status <> 'active' then q.reentry_after
           when q.reentry_after is not null
           then greatest(q.reentry_after, interval '1 hour') end, 'UTC')) as w(allowed_at),
    lateral (select exists (
      select from pgdrip.enrollments as e
       where e.contact_id = c.contact_id and e.sequence_id = q.sequence_id
         and e.trigger_id = t.trigger_id)) as u(is_used)
$$;

comment on function pgdrip.entries(bigint[], bigint[], bigint[], timestamptz) is
  'Private: for each contact and sequence whether the one may enter the other; a trigger id says that a word asks for it';

create or replace function pgdrip.known_senders(p_entries pgdrip.entry[])
  returns bigint[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select array_agg(coalesce(p.sender_id, k.sender_id) order by i.ord)
    from unnest(p_entries) with ordinality as i(contact_id, sequence_id, trigger_id,
           version_id, run, enrollment_id, obstacle, allowed_at, ord)
    join pgdrip.contacts as c using (contact_id)
    join pgdrip.sequences as q using (sequence_id)
    left join pgdrip.senders as p
           on p.sender_id = c.sender_id and p.pool = q.pool and p.channel = q.channel
          and p.status = 'active' and p.health <> 'blocked'
    left join lateral (
      select e.sender_id from pgdrip.enrollments as e
       where e.contact_id = c.contact_id and exists (
         -- By offset 0 it is asked for this one sender, not joined with all of the channel.
         select from pgdrip.senders as s
          where s.sender_id = e.sender_id and s.pool = q.pool and s.channel = q.channel
            and s.status = 'active' and s.health <> 'blocked' offset 0)
       order by e.enrolled_at desc limit 1) as k on true
$$;

comment on function pgdrip.known_senders(pgdrip.entry[]) is
  'Private: the sender each contact prefers or already has; NULL: none in service';

create or replace function pgdrip.admit(
  p_entries  pgdrip.entry[],
  p_start_at timestamptz,
  p_now      timestamptz
)
  returns setof bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_senders bigint[] := pgdrip.known_senders(p_entries);
  v_chosen  bigint[];
  v_ids     bigint[];
begin
  select pgdrip.choose_senders(
           array_agg(case when s.sender_id is null then q.pool end order by i.ord),
           array_agg(case when s.sender_id is null then q.channel end order by i.ord))
    into v_chosen
    from unnest(p_entries) with ordinality as i(contact_id, sequence_id, trigger_id,
           version_id, run, enrollment_id, obstacle, allowed_at, ord)
    join unnest(v_senders) with ordinality as s(sender_id, ord) using (ord)
    join pgdrip.sequences as q using (sequence_id);

  with added as (
    insert into pgdrip.enrollments
      (contact_id, sequence_id, version_id, run, sender_id, trigger_id, enrolled_at)
    select i.contact_id, i.sequence_id, i.version_id, i.run,
           coalesce(v_senders[i.ord], v_chosen[i.ord]), i.trigger_id, p_now
      from unnest(p_entries) with ordinality as i(contact_id, sequence_id, trigger_id,
             version_id, run, enrollment_id, obstacle, allowed_at, ord)
     order by i.ord
    returning enrollment_id
  )
  select array_agg(a.enrollment_id order by a.enrollment_id) into v_ids from added as a;

  insert into pgdrip.due (enrollment_id, sender_id, step, due_at, parked_reason)
  select e.enrollment_id, e.sender_id, s.number,
         pgdrip.step_due_at(coalesce(p_start_at, p_now), s, 0, v.send_window, c.timezone),
         case when e.sender_id is null then 'no_sender' end
    from pgdrip.enrollments as e
    join pgdrip.contacts as c using (contact_id)
    join pgdrip.sequence_versions as v using (version_id)
    join pgdrip.steps as s on s.version_id = v.version_id and s.number = v.first_step
   where e.enrollment_id = any (v_ids);

  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at) from pgdrip.due as d
   where d.enrollment_id = any (v_ids) and d.sender_id is not null group by d.sender_id;
  return query select unnest(v_ids);
end
$$;

comment on function pgdrip.admit(pgdrip.entry[], timestamptz, timestamptz) is
  'Private: enrolls entries without obstacle whose contacts are locked; returns the enrollments';

create or replace function pgdrip.enroll(
  p_sequence text,
  p_contact  bigint,
  p_start_at timestamptz default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences;
  v_entry    pgdrip.entry;
  v_now      timestamptz;
begin
  perform pgdrip.assert_time('p_start_at', p_start_at);
  perform pgdrip.assert_given('p_sequence', p_sequence);
  perform pgdrip.lock_contact(p_contact);
  v_sequence := pgdrip.sequence_named(p_sequence);
  v_now := pgdrip.clock();
  v_entry := pgdrip.entries(array[p_contact], array[v_sequence.sequence_id],
                            array[null::bigint], v_now);
  if v_entry.obstacle = 'live' then
    return v_entry.enrollment_id;
  elsif v_entry.obstacle is not null then
    raise exception 'contact % cannot enter %: %', p_contact, quote_literal(p_sequence),
      pgdrip.obstacle_text(v_entry)
      using errcode = case v_entry.obstacle when 'not_usable' then 'MD002'
                        when 'suppressed' then 'MD004' else 'MD003' end,
            hint = pgdrip.obstacle_hint(v_entry.obstacle);
  end if;
  return (select a from pgdrip.admit(array[v_entry], p_start_at, v_now) as a);
end
$$;

comment on function pgdrip.enroll(text, bigint, timestamptz) is
  'Enrolls a contact and returns the enrollment; a live one: its id again; 22004, MD001 to MD004';

create or replace function pgdrip.obstacle_text(p_entry pgdrip.entry)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case p_entry.obstacle
    when 'not_usable' then 'the sequence is a draft or archived'
    when 'other_pool' then 'contact and sequence belong to different pools'
    when 'live' then format('it is enrolled already, as %s', p_entry.enrollment_id)
    when 'no_address' then 'the contact has no address for the channel'
    when 'suppressed' then 'its address is suppressed'
    when 'used_trigger' then 'its trigger was used by an earlier run'
    when 'ended' then 'it has been through and re-entry is never'
    when 'too_soon' then format('re-entry is allowed from %s UTC on',
      to_char(p_entry.allowed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
  end
$$;

comment on function pgdrip.obstacle_text(pgdrip.entry) is
  'Private: why a contact may not enter, in words; NULL: it may';

create or replace function pgdrip.obstacle_hint(p_obstacle text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case p_obstacle
    when 'not_usable' then 'activate_sequence() lets people in.'
    when 'other_pool' then 'Store the contact in the sequence''s pool.'
    when 'no_address' then 'upsert_contact() with the missing phone or email.'
    when 'suppressed' then 'unsuppress() if the person asked to be messaged again.'
    when 'used_trigger' then 'Remove the trigger and add it anew.'
    else 'Set "reentry" in the sequence''s definition, as {"after": "30 days"}.'
  end
$$;

comment on function pgdrip.obstacle_hint(text) is 'Private: what to do about an obstacle';

create or replace function pgdrip.explain_enroll(p_sequence text, p_contact bigint)
  returns text
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences := pgdrip.sequence_named(p_sequence);
  v_trigger  bigint;
  v_entry    pgdrip.entry;
begin
  perform pgdrip.assert_given('p_contact', p_contact);
  select t.trigger_id into v_trigger from pgdrip.contact_triggers as t
   where t.contact_id = p_contact and t.trigger = v_sequence.trigger;
  select e.* into v_entry from pgdrip.entries(array[p_contact],
    array[v_sequence.sequence_id], array[v_trigger], pgdrip.clock()) as e;
  if not found then
    return format('No contact has id %s.', p_contact);
  elsif v_entry.obstacle is not null then
    return format('Not now: %s.', pgdrip.obstacle_text(v_entry));
  elsif v_trigger is null then
    return format('It may enter, but does not carry the trigger %s: add_trigger() or enroll().',
                  quote_literal(v_sequence.trigger));
  end if;
  return 'It carries the trigger and enters with the next sweep: enroll_waiting().';
end
$$;

comment on function pgdrip.explain_enroll(text, bigint) is
  'Why a contact is or is not in a sequence, in one sentence; MD001 for an unknown sequence';

create or replace function pgdrip.add_trigger(p_contact bigint, p_trigger text)
  returns setof bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_trigger bigint;
begin
  perform pgdrip.assert_given('p_trigger', p_trigger);
  if not pgdrip.is_word(p_trigger) then
    raise exception 'p_trigger must be one visible, trimmed word, not %',
      quote_literal(left(p_trigger, 40))
      using errcode = '22023', hint = 'Add several words by several calls.';
  end if;
  perform pgdrip.lock_contact(p_contact);
  insert into pgdrip.contact_triggers (contact_id, trigger) values (p_contact, p_trigger)
  on conflict do nothing;
  select t.trigger_id into v_trigger from pgdrip.contact_triggers as t
   where t.contact_id = p_contact and t.trigger = p_trigger;
  return query select pgdrip.enter_by_trigger(array[v_trigger], pgdrip.clock());
end
$$;

comment on function pgdrip.add_trigger(bigint, text) is
  'Puts a word on a contact and returns the enrollments it starts at once; none is no error; 22004, 22023, MD001';

create or replace function pgdrip.remove_trigger(p_contact bigint, p_trigger text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_trigger', p_trigger);
  perform pgdrip.lock_contact(p_contact);
  delete from pgdrip.contact_triggers as t
   where t.contact_id = p_contact and t.trigger = p_trigger;
  return found;
end
$$;

comment on function pgdrip.remove_trigger(bigint, text) is
  'Takes a word off a contact; ends no enrollment; false: it was not there; 22004, MD001';

create or replace function pgdrip.enter_by_trigger(p_triggers bigint[], p_now timestamptz)
  returns setof bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_entries pgdrip.entry[];
begin
  select array_agg(n) into v_entries
    from (select array_agg(t.contact_id) as contacts, array_agg(q.sequence_id) as sequences,
                 array_agg(t.trigger_id) as triggers
            from pgdrip.contact_triggers as t
            join pgdrip.sequences as q using (trigger)
           where t.trigger_id = any (p_triggers)) as w,
         lateral pgdrip.entries(w.contacts, w.sequences, w.triggers, p_now) as n;

  perform from pgdrip.contact_triggers as t where t.trigger_id = any (p_triggers)
    order by t.trigger_id for no key update;
  update pgdrip.contact_triggers as t
     set sweep_at = w.sweep_at
    from (select i.trigger_id, min(n.allowed_at) as sweep_at
            from unnest(p_triggers) as i(trigger_id)
            left join unnest(v_entries) as n
                   on n.trigger_id = i.trigger_id and n.obstacle in ('live', 'too_soon')
           group by i.trigger_id) as w
   where t.trigger_id = w.trigger_id
     and exists (select from pgdrip.sequences as q
                  where q.trigger = t.trigger and q.status in ('active', 'paused'));

  return query
    select a from pgdrip.admit(
      array(select n from unnest(v_entries) as n where n.obstacle is null
             order by n.contact_id, n.sequence_id), null, p_now) as a;
end
$$;

comment on function pgdrip.enter_by_trigger(bigint[], timestamptz) is
  'Private: what trigger rows, whose contacts are locked, start now; returns the enrollments';

create or replace function pgdrip.enroll_waiting(p_limit integer default 1000)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set enable_seqscan = off
  set jit = off
  set max_parallel_workers_per_gather = 0
as $$
declare
  v_now    timestamptz := pgdrip.clock();
  v_at     timestamptz := timestamptz 'epoch';
  v_id     bigint := 0;
  v_found  bigint[];
  v_locked bigint[];
  v_done   integer := 0;
begin
  perform pgdrip.assert_given('p_limit', p_limit);
  if p_limit not between 1 and 100000 then
    raise exception 'p_limit must be from 1 to 100000, not %', p_limit
      using errcode = '22023', hint = 'Call it again for more.';
  end if;
  loop
    select array_agg(w.trigger_id order by w.sweep_at, w.trigger_id),
           (array_agg(w.sweep_at order by w.sweep_at, w.trigger_id))[count(*)],
           (array_agg(w.trigger_id order by w.sweep_at, w.trigger_id))[count(*)]
      into v_found, v_at, v_id
      from (select t.trigger_id, t.sweep_at
              from (select distinct q.trigger from pgdrip.sequences as q
                     where q.status in ('active', 'paused')) as q
             cross join lateral (
               select t.trigger_id, t.sweep_at from pgdrip.contact_triggers as t
                where t.trigger = q.trigger and t.sweep_at <= v_now
                  and (t.sweep_at, t.trigger_id) > (v_at, v_id)
                order by t.sweep_at, t.trigger_id limit p_limit - v_done) as t
             order by t.sweep_at, t.trigger_id limit p_limit - v_done) as w;
    exit when v_found is null;
    -- A contact that somebody else has locked stays for the next sweep.
    v_locked := array(
      select c.contact_id from pgdrip.contacts as c
       where c.contact_id in (select t.contact_id from pgdrip.contact_triggers as t
                               where t.trigger_id = any (v_found))
       order by c.contact_id for no key update skip locked);
    v_done := v_done + (
      select count(*) from pgdrip.enter_by_trigger(array(
        select t.trigger_id from pgdrip.contact_triggers as t
         where t.trigger_id = any (v_found) and t.contact_id = any (v_locked)
           and t.sweep_at <= v_now), v_now));
    exit when v_done >= p_limit;
  end loop;
  return v_done;
end
$$;

comment on function pgdrip.enroll_waiting(integer) is
  'Enrolls up to p_limit contacts whose triggers wait (written by COPY, sequence activated later, re-entry due); 0: nobody waits; 22004, 22023';
