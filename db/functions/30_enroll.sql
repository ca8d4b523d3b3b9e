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
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select c.contact_id, q.sequence_id, t.unused_id, q.version_id, coalesce(l.run, 0) + 1,
           case when l.status = 'active' then l.enrollment_id end, o.obstacle, w.allowed_at,
           q.pool, q.channel, coalesce(c.timezone, 'UTC'),
           -- The one it prefers, else the last it had, if in service.
           case when o.obstacle is null then coalesce(
             (select s.sender_id from pgdrip.senders as s
               where s.sender_id = c.sender_id and s.pool = q.pool and s.channel = q.channel
                 and s.status = 'active' and s.health <> 'blocked'),
             (select e.sender_id from pgdrip.enrollments as e
               where e.contact_id = c.contact_id and exists (
                 -- By offset 0 it is asked for this one, not joined with all of the channel.
                 select from pgdrip.senders as s
                  where s.sender_id = e.sender_id and s.pool = q.pool
                    and s.channel = q.channel and s.status = 'active'
                    and s.health <> 'blocked' offset 0)
               order by e.enrolled_at desc limit 1)) end
      from unnest(p_contacts, p_sequences, p_triggers)
             as i(contact_id, sequence_id, trigger_id)
      join pgdrip.contacts as c using (contact_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.channels as h on h.channel = q.channel
      left join lateral (
        select e.enrollment_id, e.run, e.status, e.ended_at from pgdrip.enrollments as e
         where e.contact_id = c.contact_id and e.sequence_id = q.sequence_id
         order by e.run desc limit 1) as l on true,
      lateral (select pgdrip.recipient(h.address, c.phone, c.email) offset 0) as a(recipient),
      lateral (
        select case when l.run is null or not exists (
          select from pgdrip.enrollments as e
           where e.contact_id = c.contact_id and e.sequence_id = q.sequence_id
             and e.trigger_id = k.trigger_id) then k.trigger_id end
          from (select coalesce(i.trigger_id, (
            select t.trigger_id from pgdrip.contact_triggers as t
             where t.contact_id = c.contact_id and t.trigger = q.trigger))) as k(trigger_id)
        offset 0) as t(unused_id),
      -- Of a live run the end is not known: looked at again when it could have ended.
      lateral (select case when l.run is not null then pgdrip.after_span(
        case when l.status = 'active' then p_now else l.ended_at end,
        case when l.status <> 'active' then q.reentry_after
             when q.reentry_after is not null
             then greatest(q.reentry_after, interval '1 hour') end, 'UTC') end
        offset 0) as w(allowed_at),
      lateral (select case
        when q.version_id is null or q.status in ('draft', 'archived') then 'not_usable'
        when q.pool <> c.pool then 'other_pool'
        when l.status = 'active' then 'live'
        when a.recipient is null then 'no_address'
        when exists (select from pgdrip.suppressions as s
                      where s.address in (a.recipient, lower(a.recipient))) then 'suppressed'
        when i.trigger_id is not null and t.unused_id is null then 'used_trigger'
        when l.ended_at is not null and q.reentry_after is null then 'ended'
        when w.allowed_at > p_now then 'too_soon'
      end offset 0) as o(obstacle);
end
$$;

comment on function pgdrip.entries(bigint[], bigint[], bigint[], timestamptz) is
  'Private: for each contact and sequence whether the one may enter the other, and with which sender it is or wants to be; a trigger id says that a word asks for it';

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
  v_chosen bigint[];
  v_new    pgdrip.admission[];
begin
  select pgdrip.choose_senders(array_agg(case when i.sender_id is null then i.pool end),
                               array_agg(i.channel))
    into v_chosen from unnest(p_entries) as i;
  v_new := array(
    with starts as materialized (
      -- Who is in one zone starts at one time.
      select g.version_id, g.timezone, s.number as step,
             pgdrip.step_due_at(coalesce(p_start_at, p_now), s, 0, v.send_window,
                                g.timezone) as due_at
        from (select distinct i.version_id, i.timezone from unnest(p_entries) as i) as g
        join pgdrip.sequence_versions as v using (version_id)
        join pgdrip.steps as s on s.version_id = v.version_id and s.number = v.first_step
    )
    select row(nextval('pgdrip.enrollments_enrollment_id_seq'), i.contact_id,
               i.sequence_id, i.version_id, i.run, coalesce(i.sender_id, i.unnest),
               i.trigger_id, s.step, s.due_at)::pgdrip.admission
      from rows from (unnest(p_entries), unnest(v_chosen)) as i
      join starts as s using (version_id, timezone));

  insert into pgdrip.enrollments
    (enrollment_id, contact_id, sequence_id, version_id, run, sender_id, trigger_id,
     enrolled_at)
  overriding system value
  select i.enrollment_id, i.contact_id, i.sequence_id, i.version_id, i.run, i.sender_id,
         i.trigger_id, p_now from unnest(v_new) as i;
  insert into pgdrip.due (enrollment_id, sender_id, step, due_at, parked_reason)
  select i.enrollment_id, i.sender_id, i.step, i.due_at,
         case when i.sender_id is null then 'no_sender' end from unnest(v_new) as i;
  insert into pgdrip.wakes (sender_id, due_at)
  select i.sender_id, min(i.due_at) from unnest(v_new) as i
   where i.sender_id is not null group by i.sender_id;
  return query select i.enrollment_id from unnest(v_new) as i;
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
  v_word pgdrip.contact_triggers;
  v_now  timestamptz;
begin
  perform pgdrip.assert_given('p_trigger', p_trigger);
  if not pgdrip.is_word(p_trigger) then
    raise exception 'p_trigger must be one visible, trimmed word, not %',
      quote_literal(left(p_trigger, 40))
      using errcode = '22023', hint = 'Add several words by several calls.';
  end if;
  perform pgdrip.lock_contact(p_contact);
  v_now := pgdrip.clock();
  -- What is looked at here needs no sweep.
  insert into pgdrip.contact_triggers as t (contact_id, trigger, sweep_at)
  values (p_contact, p_trigger, case when not exists (
    select from pgdrip.sequences as q
     where q.trigger = p_trigger and q.status in ('active', 'paused')) then v_now end)
  on conflict do nothing returning t.* into v_word;
  if not found then
    select t.* into v_word from pgdrip.contact_triggers as t
     where t.contact_id = p_contact and t.trigger = p_trigger for no key update;
  end if;
  return query select pgdrip.enter_by_trigger(array[v_word], v_now);
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

create or replace function pgdrip.enter_by_trigger(
  p_words pgdrip.contact_triggers[],
  p_now   timestamptz
)
  returns setof bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_entries pgdrip.entry[];
begin
  select array_agg(n) into v_entries
    from (select array_agg(i.contact_id) as contacts, array_agg(q.sequence_id) as sequences,
                 array_agg(i.trigger_id) as triggers
            from unnest(p_words) as i join pgdrip.sequences as q using (trigger)) as w,
         lateral pgdrip.entries(w.contacts, w.sequences, w.triggers, p_now) as n;

  update pgdrip.contact_triggers as t
     set sweep_at = w.sweep_at
    from (select i.trigger_id, min(i.sweep_at) as sweep_at
            from (select u.trigger_id, null::timestamptz as sweep_at
                    from unnest(p_words) as u
                   where u.trigger in (select q.trigger from pgdrip.sequences as q
                                        where q.status in ('active', 'paused'))
                  union all
                  select n.trigger_id, n.allowed_at from unnest(v_entries) as n
                   where n.obstacle in ('live', 'too_soon')) as i
           group by i.trigger_id) as w
   where t.trigger_id = w.trigger_id and t.sweep_at is distinct from w.sweep_at;

  v_entries := array(select n from unnest(v_entries) as n where n.obstacle is null
                      order by n.contact_id, n.sequence_id);
  if v_entries <> '{}' then
    return query select a from pgdrip.admit(v_entries, null, p_now) as a;
  end if;
end
$$;

comment on function pgdrip.enter_by_trigger(pgdrip.contact_triggers[], timestamptz) is
  'Private: what words start now that are locked and whose contacts are; returns the enrollments';

create or replace function pgdrip.enroll_waiting(p_limit integer default 1000)
  returns integer
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
  v_now    timestamptz := pgdrip.clock();
  v_at     timestamptz := timestamptz 'epoch';
  v_id     bigint := 0;
  v_found  bigint[];
  v_words  pgdrip.contact_triggers[];
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
    -- What somebody else has locked stays for the next sweep.
    v_words := array(
      select t from pgdrip.contact_triggers as t join pgdrip.contacts as c using (contact_id)
       where t.trigger_id = any (v_found) and t.sweep_at <= v_now
         for no key update of c, t skip locked);
    v_done := v_done + (select count(*) from pgdrip.enter_by_trigger(v_words, v_now));
    exit when v_done >= p_limit;
  end loop;
  return v_done;
end
$$;

comment on function pgdrip.enroll_waiting(integer) is
  'Enrolls up to p_limit contacts whose triggers wait (written by COPY, sequence activated later, re-entry due); 0: nobody waits; 22004, 22023';
