-- Groups: senders that share the limits of one account. A claim locks a group like a sender;
-- whatever somebody else has locked is skipped. Writes sender_groups, group_contacts,
-- group_waits, and due where a step is put off or recalled.

create or replace function pgdrip.group_named(p_group text, p_place text)
  returns bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_group bigint;
begin
  if p_group is null then
    return null;
  end if;
  select g.group_id into v_group from pgdrip.sender_groups as g where g.name = p_group;
  if not found then
    perform pgdrip.refuse_definition(p_place,
      format('unknown group %s', quote_literal(left(p_group, 80))),
      'Apply the group before its senders.');
  end if;
  return v_group;
end
$$;

comment on function pgdrip.group_named(text, text) is
  'Private: the group of that name for a definition; NULL for NULL; MD008';

create or replace function pgdrip.read_group(p_definition jsonb)
  returns pgdrip.sender_groups
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place text := format('group %s', coalesce(quote_literal(left(p_definition ->> 'name', 80)), ''));
  v_group pgdrip.sender_groups;
begin
  perform pgdrip.assert_keys(p_definition, v_place,
    array['name', 'rate', 'per', 'distinct_contacts_per_day'], array['name']);
  v_group.name := p_definition ->> 'name';
  if octet_length(v_group.name) > 200 or v_group.name ~ '[[:cntrl:]]'
     or jsonb_typeof(p_definition -> 'name') <> 'string' then
    perform pgdrip.refuse_definition(v_place, 'name is too long or no plain text',
      'Use a short plain name.');
  end if;
  v_group.rate := pgdrip.definition_integer(p_definition, v_place, 'rate', 1, 1000000);
  v_group.per := pgdrip.definition_span(p_definition, v_place, 'per', null);
  v_group.distinct_contacts_per_day := pgdrip.definition_integer(
    p_definition, v_place, 'distinct_contacts_per_day', 1, 10000000);
  if (v_group.rate is null) <> (v_group.per is null) then
    perform pgdrip.refuse_definition(v_place, 'rate and per belong together',
      'As {"rate": 80, "per": "1 second"}.');
  elsif v_group.per not between interval '1 second' and interval '30 days' then
    perform pgdrip.refuse_definition(v_place, 'per must be from 1 second to 30 days',
      'As {"rate": 80, "per": "1 second"}.');
  elsif v_group.rate is null and v_group.distinct_contacts_per_day is null then
    perform pgdrip.refuse_definition(v_place, 'a group without a limit does nothing',
      'Give rate and per, or distinct_contacts_per_day.');
  end if;
  return v_group;
end
$$;

comment on function pgdrip.read_group(jsonb) is 'Private: a group definition, checked; MD008';

create or replace function pgdrip.recall(p_enrollments bigint[])
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- A step that is claimed or has moved on since is not one that waits.
  with recalled as (
    update pgdrip.due as d set due_at = w.due_at
      from pgdrip.group_waits as w
     where d.enrollment_id = any (array(
             select x.enrollment_id from pgdrip.due as x
              where x.enrollment_id = any (p_enrollments) and x.lease_until is null
              order by x.enrollment_id for update skip locked))
       and w.enrollment_id = d.enrollment_id and d.due_at = w.waits_until
    returning d.sender_id, d.due_at
  )
  insert into pgdrip.wakes (sender_id, due_at)
  select r.sender_id, min(r.due_at) from recalled as r
   where r.sender_id is not null group by r.sender_id;
  delete from pgdrip.group_waits as w where w.enrollment_id = any (p_enrollments);
end
$$;

comment on function pgdrip.recall(bigint[]) is
  'Private: what was put off for its group is due again as it was, and its senders are told';

create or replace function pgdrip.apply_group(p_definition jsonb)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_new     pgdrip.sender_groups;
  v_old     pgdrip.sender_groups;
  v_now     timestamptz;
  v_outcome text := 'changed';
begin
  perform pgdrip.assert_given('p_definition', p_definition);
  v_new := pgdrip.read_group(p_definition);
  insert into pgdrip.sender_groups (name, rate, per, distinct_contacts_per_day)
  values (v_new.name, v_new.rate, v_new.per, v_new.distinct_contacts_per_day)
  on conflict (name) do nothing;
  if found then
    v_outcome := 'created';
  end if;
  select g.* into v_old from pgdrip.sender_groups as g
   where g.name = v_new.name for no key update;
  v_now := pgdrip.clock();
  if v_old.per is distinct from v_new.per then
    -- Slots of another length: what the window holds counts as claimed just now.
    v_old.slot_counts := pgdrip.slot_sum(v_old.slot_counts, v_old.slot,
                           pgdrip.slot_at(v_now, pgdrip.group_span(v_old)))
                         || array_fill(0, array[24]);
    v_old.slot := coalesce(pgdrip.slot_at(v_now, pgdrip.group_span(v_new)), 0);
  end if;
  update pgdrip.sender_groups as g
     set rate = v_new.rate, per = v_new.per,
         distinct_contacts_per_day = v_new.distinct_contacts_per_day,
         limits_at = v_now, slot = v_old.slot, slot_counts = v_old.slot_counts,
         -- A group that is full by its new rate must not be asked again and again.
         ready_at = coalesce(pgdrip.slots_free_at(
           v_old.slot_counts, v_old.slot, pgdrip.group_span(v_new), v_new.rate, v_now), 'epoch')
   where g.group_id = v_old.group_id
     and (g.rate, g.per, g.distinct_contacts_per_day)
         is distinct from (v_new.rate, v_new.per, v_new.distinct_contacts_per_day);
  if not found and v_outcome = 'changed' then
    return 'unchanged';
  end if;
  if v_new.distinct_contacts_per_day <= v_old.distinct_contacts_per_day is not true then
    perform pgdrip.recall(array(
      select w.enrollment_id from pgdrip.group_waits as w where w.group_id = v_old.group_id));
  end if;
  insert into pgdrip.wakes (sender_id, due_at)
  select s.sender_id, v_now from pgdrip.senders as s where s.group_id = v_old.group_id;
  perform pgdrip.note(v_outcome, format('group %s', quote_literal(v_new.name)));
  return v_outcome;
end
$$;

comment on function pgdrip.apply_group(jsonb) is
  'Stores a group of senders: created, changed or unchanged; new limits hold from the next claim on; MD008';

-- Over less than a minute the limit is kept at the claim; the 10 s that a send may follow
-- its claim would leave nothing of it.
create or replace function pgdrip.group_span(p_group pgdrip.sender_groups)
  returns double precision
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return extract(epoch from p_group.per)
       + case when p_group.per >= interval '1 minute' then 10 else 0 end;
end
$$;

comment on function pgdrip.group_span(pgdrip.sender_groups) is
  'Seconds that the slots of a group''s rate cover: per, and from a minute on the 10 s between claim and send';

create or replace function pgdrip.lock_groups(p_senders bigint[], p_now timestamptz)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select g.group_id from pgdrip.sender_groups as g
     where g.group_id in (select s.group_id from pgdrip.senders as s
                           where s.sender_id = any (p_senders))
       and g.ready_at <= p_now
     order by g.group_id for no key update skip locked);
end
$$;

comment on function pgdrip.lock_groups(bigint[], timestamptz) is
  'Private: locks the groups of these senders; without those that somebody else holds';

create or replace function pgdrip.triage_groups(p_enrollments bigint[], p_now timestamptz)
  returns setof pgdrip.triage
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_slot bigint := pgdrip.slot_at(p_now, pgdrip.day_span());
begin
  -- New to the group is a contact it did not write to in the window; the first of a day's
  -- new ones have room, the others wait until a slot of old ones has passed.
  return query
    select r.enrollment_id, r.sender_id, 'group_full', pgdrip.slots_free_at(
             pgdrip.add_to_first(k.counts, k.room), v_slot, pgdrip.day_span(),
             g.distinct_contacts_per_day, p_now)
      from (select w.enrollment_id, w.sender_id, w.group_id, sum(w.is_first::integer) over (
                     partition by w.group_id order by w.first_ord) as place
              from (select d.enrollment_id, d.sender_id, s.group_id,
                           min(i.ord) over by_contact as first_ord,
                           row_number() over by_contact = 1 as is_first
                      from unnest(p_enrollments) with ordinality as i(enrollment_id, ord)
                      join pgdrip.due as d using (enrollment_id)
                      join pgdrip.senders as s on s.sender_id = d.sender_id
                      join pgdrip.enrollments as e using (enrollment_id)
                     where s.group_id is not null and not exists (
                       select from pgdrip.group_contacts as k
                        where k.group_id = s.group_id and k.contact_id = e.contact_id
                          and k.day_slot > v_slot - 25)
                    window by_contact as (partition by s.group_id, e.contact_id order by i.ord)
                   ) as w) as r
      join pgdrip.sender_groups as g using (group_id),
           lateral (select pgdrip.slot_counts(g.contact_counts, g.day_slot, v_slot),
                           greatest(0, g.distinct_contacts_per_day - pgdrip.slot_sum(
                             g.contact_counts, g.day_slot, v_slot))) as k(counts, room)
     where g.distinct_contacts_per_day is not null and r.place > k.room;
end
$$;

comment on function pgdrip.triage_groups(bigint[], timestamptz) is
  'Private: of rows in the order they would go, those to contacts for whom their group has no room';

create or replace function pgdrip.within_groups(p_enrollments bigint[], p_now timestamptz)
  returns bigint[]
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select r.enrollment_id
      from (select i.enrollment_id, i.ord, s.group_id,
                   row_number() over (partition by s.group_id order by i.ord) as place
              from unnest(p_enrollments) with ordinality as i(enrollment_id, ord)
              join pgdrip.due as d using (enrollment_id)
              join pgdrip.senders as s on s.sender_id = d.sender_id) as r
      left join pgdrip.sender_groups as g using (group_id)
     where g.rate is null
        or r.place <= g.rate - pgdrip.slot_sum(
             g.slot_counts, g.slot, pgdrip.slot_at(p_now, pgdrip.group_span(g)))
     order by r.ord);
end
$$;

comment on function pgdrip.within_groups(bigint[], timestamptz) is
  'Private: of rows in the order they would go, those that the rates of their groups let go now';

create or replace function pgdrip.fit_groups(p_enrollments bigint[], p_now timestamptz)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_full   pgdrip.triage[];
  v_locked bigint[];
begin
  if not exists (select from pgdrip.sender_groups) then
    return p_enrollments;
  end if;
  v_full := array(select t from pgdrip.triage_groups(p_enrollments, p_now) as t);
  v_locked := pgdrip.lock_for_triage(array(select t.enrollment_id from unnest(v_full) as t));
  insert into pgdrip.group_waits as w (enrollment_id, group_id, due_at, waits_until)
  select d.enrollment_id, s.group_id, d.due_at, t.until
    from unnest(v_full) as t
    join pgdrip.due as d using (enrollment_id)
    join pgdrip.senders as s on s.sender_id = d.sender_id
   where t.enrollment_id = any (v_locked)
  on conflict (enrollment_id) do update
    set group_id = excluded.group_id, waits_until = excluded.waits_until,
        due_at = case when excluded.due_at = w.waits_until then w.due_at
                      else excluded.due_at end;
  perform from pgdrip.settle(array(
    select pgdrip.triage_settlement(t) from unnest(v_full) as t
     where t.enrollment_id = any (v_locked)), p_now);
  return pgdrip.within_groups(array(
    select i.enrollment_id from unnest(p_enrollments) with ordinality as i(enrollment_id, ord)
     where i.enrollment_id not in (select t.enrollment_id from unnest(v_full) as t)
     order by i.ord), p_now);
end
$$;

comment on function pgdrip.fit_groups(bigint[], timestamptz) is
  'Private: of rows in the order they would go, those that their groups let go now; rows to contacts too many wait until there is room';

create or replace function pgdrip.charge_groups(p_enrollments bigint[], p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_slot bigint := pgdrip.slot_at(p_now, pgdrip.day_span());
begin
  if not exists (select from pgdrip.sender_groups) then
    return;
  end if;
  -- A contact counts once, in the slot of the last claim for it.
  with written as (
    select distinct s.group_id, e.contact_id
      from unnest(p_enrollments) as i(enrollment_id)
      join pgdrip.due as d using (enrollment_id)
      join pgdrip.senders as s on s.sender_id = d.sender_id
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.sender_groups as g on g.group_id = s.group_id
     where g.distinct_contacts_per_day is not null
  ),
  moved as (
    select w.group_id, v_slot - k.day_slot + 1 as place, count(*) as contacts
      from written as w
      left join pgdrip.group_contacts as k using (group_id, contact_id)
     group by 1, 2
  ),
  kept as (
    insert into pgdrip.group_contacts as k (group_id, contact_id, day_slot)
    select w.group_id, w.contact_id, v_slot from written as w
    on conflict (group_id, contact_id) do update set day_slot = excluded.day_slot
  )
  update pgdrip.sender_groups as g
     set day_slot = greatest(v_slot, g.day_slot),
         contact_counts = array(
           select c.count + coalesce(case when c.place = 1 then t.contacts end, 0)
                  - coalesce((select m.contacts from moved as m
                               where m.group_id = g.group_id and m.place = c.place), 0)
             from unnest(pgdrip.slot_counts(g.contact_counts, g.day_slot, v_slot))
                  with ordinality as c(count, place)
            order by c.place)
    from (select m.group_id, sum(m.contacts)::integer as contacts from moved as m
           group by m.group_id) as t
   where g.group_id = t.group_id;

  update pgdrip.sender_groups as g
     set slot = n.slot, slot_counts = n.counts,
         ready_at = coalesce(
           pgdrip.slots_free_at(n.counts, n.slot, pgdrip.group_span(g), g.rate, p_now), 'epoch')
    from (select s.group_id, count(*)::integer as claims
            from unnest(p_enrollments) as i(enrollment_id)
            join pgdrip.due as d using (enrollment_id)
            join pgdrip.senders as s on s.sender_id = d.sender_id
           where s.group_id is not null group by s.group_id) as c
    join pgdrip.sender_groups as o using (group_id),
         lateral (select greatest(o.slot, pgdrip.slot_at(p_now, pgdrip.group_span(o)))) as w(slot),
         lateral (select w.slot, pgdrip.add_to_first(
           pgdrip.slot_counts(o.slot_counts, o.slot, w.slot), c.claims)) as n(slot, counts)
   where g.group_id = c.group_id and g.rate is not null;
end
$$;

comment on function pgdrip.charge_groups(bigint[], timestamptz) is
  'Private: counts what was handed out against the limits of the groups, which the claim has locked';
