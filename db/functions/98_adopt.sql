-- Adoption: the rows of a legacy system, which `pgdrip adopt` has copied into tables of its
-- session, become contacts and enrollments at the right next step; 99_legacy.sql says what
-- they mean. What was sent goes into the journal at its own time, with a token of its own
-- but without begun_at: it confirms steps and counts for caps, and no limit or window
-- judges what pgdrip did not do. A send that nobody can prove or rule out is parked.
-- Writes contacts, contact_triggers, enrollments, due, deliveries, wakes and adoptions.

create or replace function pgdrip.adopt_people(p_timezone text, p_in_doubt text)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  -- Tables of the session have no statistics until they are full: by hash, whatever it takes.
  set enable_nestloop = off
  set work_mem = '128MB'
  set jit = off
as $$
declare
  v_now      timestamptz := pgdrip.clock();
  v_enrolled bigint;
begin
  perform pgdrip.forget_adopted();
  perform pgdrip.adopt_leads(p_timezone);
  perform pgdrip.adopt_words();
  perform pgdrip.place_enrolled();
  perform pgdrip.place_messages(v_now);
  perform pgdrip.adopt_strangers(p_timezone);
  analyze pg_temp.legacy_sequence_contacts, pg_temp.legacy_broadcast_messages,
          pg_temp.legacy_words;
  perform pgdrip.match_messages();
  perform pgdrip.weigh_proofs(p_in_doubt, v_now);
  perform pgdrip.find_positions(v_now);
  perform pgdrip.judge_positions(v_now);
  perform pgdrip.find_position_senders();
  v_enrolled := pgdrip.adopt_enrollments(v_now);
  perform pgdrip.account_leads();
  perform pgdrip.account_enrolled();
  perform pgdrip.account_messages();
  return v_enrolled;
end
$$;

comment on function pgdrip.adopt_people(text, text) is
  'Private: adopts the staged leads and all they are in, after their senders and sequences; returns the enrollments made';

create or replace function pgdrip.adopt_months(p_from timestamptz)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(sum(pgdrip.create_partitions(m.month at time zone 'UTC')), 0)
      from generate_series(date_trunc('month', p_from at time zone 'UTC'),
                           pgdrip.clock() at time zone 'UTC', interval '1 month') as m(month));
end
$$;

comment on function pgdrip.adopt_months(timestamptz) is
  'Private: makes the history partitions from that month until now; returns how many were missing';

create or replace function pgdrip.find_leads()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_leads as l set contact_id = c.contact_id
    from pgdrip.contacts as c
   where c.phone = l.e164 and c.pool = l.pool and l.outcome is null;
  update pg_temp.legacy_leads as l set contact_id = c.contact_id
    from pgdrip.contacts as c
   where lower(c.email) = lower(l.email) and c.pool = l.pool and l.outcome is null
     and l.contact_id is null;
end
$$;

comment on function pgdrip.find_leads() is
  'Private: finds the contacts that staged leads are, by phone, else by e-mail';

create or replace function pgdrip.adopt_leads(p_timezone text)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.judge_leads();
  perform pgdrip.find_leads();
  update pg_temp.legacy_leads as l set is_known = l.contact_id is not null
   where l.outcome is null;
  -- Of several leads with one address the one that changed last speaks first.
  insert into pgdrip.contacts
    (pool, phone, email, name, timezone, sender_id, attributes, bucket)
  select k.pool, k.e164, k.emails[1], pgdrip.legacy_name(k.names[1]), p_timezone, a.object_id,
         jsonb_strip_nulls(jsonb_build_object('status', lower(btrim(k.statuses[1])),
           'niche', left(k.niches[1], 500), 'address', left(k.addresses[1], 500))),
         pgdrip.contact_bucket(coalesce(k.e164, k.emails[1]))
    from (select l.pool, l.e164, array_agg(l.email) filter (where l.email is not null) as emails,
                 array_agg(l.name) filter (where not pgdrip.is_blank(l.name)) as names,
                 array_agg(l.device_id) filter (where l.device_id is not null) as devices,
                 array_agg(l.status) filter (where not pgdrip.is_blank(l.status)) as statuses,
                 array_agg(l.niche) filter (where not pgdrip.is_blank(l.niche)) as niches,
                 array_agg(l.address) filter (where not pgdrip.is_blank(l.address)) as addresses
            from (select i.* from pg_temp.legacy_leads as i
                   where i.outcome is null and not i.is_known
                   order by i.updated_at desc nulls last, i.id) as l
           group by l.pool, l.e164, case when l.e164 is null then lower(l.email) end) as k
    left join pgdrip.adoptions as a
           on a.legacy_table = 'user_devices' and a.legacy_id = k.devices[1]
   order by k.e164 is null
  on conflict do nothing;
  perform pgdrip.find_leads();
  perform pgdrip.suppress_again(array(
    select a.address from pg_temp.legacy_leads as l,
           lateral (values (l.e164), (l.email)) as a(address) where l.outcome is null));
end
$$;

comment on function pgdrip.adopt_leads(text) is
  'Private: makes contacts of staged leads, one for each address in a pool';

create or replace function pgdrip.adopt_words()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pg_temp.legacy_words (id, contact_id, word)
  select l.id, l.contact_id, btrim(t.word, E' \t\n\r\u00a0')
    from pg_temp.legacy_leads as l, string_to_table(l.trigger, ',') as t(word)
   where l.outcome is null and pgdrip.is_word(btrim(t.word, E' \t\n\r\u00a0'));
  -- A sequence took in leads of one status only: others do not get its word.
  update pg_temp.legacy_words as w set meant_for = lower(btrim(s.target_status))
    from pg_temp.legacy_leads as l
    join pgdrip.sequences as q on q.pool = l.pool
    join pgdrip.adoptions as a
      on a.legacy_table = 'sequences' and a.object_id = q.sequence_id
    join pg_temp.legacy_sequences as s on s.id = a.legacy_id
   where l.id = w.id and q.trigger = w.word
     and lower(btrim(s.target_status)) not in ('', 'all', 'any')
     and lower(btrim(s.target_status)) is distinct from lower(btrim(l.status));
  update pg_temp.legacy_leads as l
     set notes = concat_ws('; ', l.notes, format(
           'its trigger %s was left out: that sequence is for %s',
           quote_literal(k.word), k.meant_for))
    from (select w.id, min(w.word) as word, min(w.meant_for) as meant_for
            from pg_temp.legacy_words as w where w.meant_for is not null group by w.id) as k
   where k.id = l.id;
  insert into pgdrip.contact_triggers (contact_id, trigger)
  select distinct w.contact_id, w.word from pg_temp.legacy_words as w
   where w.meant_for is null order by 1, 2
  on conflict do nothing;
end
$$;

comment on function pgdrip.adopt_words() is
  'Private: puts the words of staged leads on their contacts, each once';

create or replace function pgdrip.adopt_strangers(p_timezone text)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  for v_pass in 1 .. 2 loop
    update pg_temp.legacy_sequence_contacts as e
       set contact_id = c.contact_id,
           notes = case v_pass when 1 then e.notes
             else concat_ws('; ', e.notes, 'it has no lead: the contact is made from this row') end
      from pgdrip.contacts as c
     where c.phone = e.e164 and c.pool = e.pool and e.outcome is null and e.contact_id is null;
    update pg_temp.legacy_broadcast_messages as m
       set contact_id = c.contact_id
      from pgdrip.contacts as c
     where c.phone = m.e164 and c.pool = m.pool and m.outcome is null and m.contact_id is null;
    exit when v_pass = 2;
    insert into pgdrip.contacts (pool, phone, name, timezone, sender_id, bucket)
    select distinct on (k.pool, k.e164) k.pool, k.e164, pgdrip.legacy_name(k.name),
           p_timezone, a.object_id, pgdrip.contact_bucket(k.e164)
      from (select e.pool, e.e164, e.contact_name as name, e.assigned_device_id as device,
                   e.id, 1 as place
              from pg_temp.legacy_sequence_contacts as e
             where e.outcome is null and e.contact_id is null
            union all
            select m.pool, m.e164, m.recipient_name, m.device_id, m.id, 2
              from pg_temp.legacy_broadcast_messages as m
             where m.outcome is null and m.contact_id is null and m.is_foreign is not true) as k
      left join pgdrip.adoptions as a
             on a.legacy_table = 'user_devices' and a.legacy_id = k.device
     order by k.pool, k.e164, k.place, k.name is null, k.id
    on conflict do nothing;
  end loop;
  perform pgdrip.suppress_again(array(
    select e.e164 from pg_temp.legacy_sequence_contacts as e where e.outcome is null
    union
    select m.e164 from pg_temp.legacy_broadcast_messages as m where m.outcome is null));
end
$$;

comment on function pgdrip.adopt_strangers(text) is
  'Private: finds the contacts that are in a sequence, and makes those that have no lead';

create or replace function pgdrip.find_positions(p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pg_temp.legacy_positions (contact_id, target, enrolled_at, start_at)
  select k.contact_id, k.target, least(p_now, coalesce(min(k.at), p_now)), min(k.start_at)
    from (select e.contact_id, e.target, e.completed_at as at,
                 e.next_trigger_time as start_at
            from pg_temp.legacy_sequence_contacts as e
           where e.outcome is null and e.contact_id is not null
          union all
          select m.contact_id, m.target, m.at, null
            from pg_temp.legacy_broadcast_messages as m
           where m.outcome is null and m.contact_id is not null and m.is_foreign is not true
          union all
          select w.contact_id, q.sequence_id, null, null
            from pg_temp.legacy_words as w
            join pgdrip.contacts as c using (contact_id)
            join pgdrip.sequences as q on q.pool = c.pool and q.trigger = w.word
           where w.meant_for is null) as k
   group by k.contact_id, k.target
   order by k.contact_id, k.target;
  update pg_temp.legacy_positions as p
     set passed = coalesce(f.passed, 0), confirmed = coalesce(f.confirmed, 0),
         doubt = case when f.doubt > coalesce(f.passed, 0) then f.doubt end
    from pg_temp.legacy_positions as i
    left join (
      select x.contact_id, x.target, max(x.step) filter (where x.proof <> 'doubt') as passed,
             max(x.step) filter (where x.proof = 'sent') as confirmed,
             max(x.step) filter (where x.proof = 'doubt') as doubt
        from pg_temp.legacy_proofs as x group by x.contact_id, x.target) as f
      using (contact_id, target)
   where i.position = p.position;
  update pg_temp.legacy_positions as p
     set passed_at = case when f.step = p.passed then f.at else p.passed_at end,
         enrolled_at = least(p.enrolled_at, f.at)
    from pg_temp.legacy_proofs as f
   where f.contact_id = p.contact_id and f.target = p.target and f.step = p.passed;
  update pg_temp.legacy_positions as p set doubt_at = f.at
    from pg_temp.legacy_proofs as f
   where f.contact_id = p.contact_id and f.target = p.target and f.step = p.doubt;
  analyze pg_temp.legacy_positions;
end
$$;

comment on function pgdrip.find_positions(timestamptz) is
  'Private: gathers who is in which sequence, or carries its word, and how far each has come';

create or replace function pgdrip.judge_positions(p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_positions as p
     set version_id = n.version_id, trigger_id = n.trigger_id, run = n.run,
         obstacle = n.obstacle, enrollment_id = n.enrollment_id
    from (select array_agg(i.contact_id order by i.position) as contacts,
                 array_agg(i.target order by i.position) as targets,
                 array_agg(null::bigint) as triggers
            from pg_temp.legacy_positions as i) as w,
         lateral pgdrip.entries(w.contacts, w.targets, w.triggers, p_now) as n
   where n.contact_id = p.contact_id and n.sequence_id = p.target;
  -- Who has been through before keeps that run.
  update pg_temp.legacy_positions as p
     set obstacle = 'ended', enrollment_id = e.enrollment_id
    from pgdrip.enrollments as e
   where e.contact_id = p.contact_id and e.sequence_id = p.target and e.run = p.run - 1
     and p.enrollment_id is null;
  update pg_temp.legacy_positions as p
     set next_step = s.number,
         due_at = case
           when p.doubt is not null then p.doubt_at
           -- Who was to begin later begins then; a time beyond a month is no plan.
           when p.passed = 0 then pgdrip.step_due_at(
             case when p.start_at between p_now and p_now + interval '720 hours'
                  then p.start_at else p.enrolled_at end, s, 0, v.send_window, c.timezone)
           else pgdrip.step_due_at(p.passed_at, s, p.passed, v.send_window, c.timezone) end
    from pgdrip.contacts as c, pgdrip.sequence_versions as v, pgdrip.steps as s
   where p.obstacle is null and c.contact_id = p.contact_id and v.version_id = p.version_id
     and s.version_id = p.version_id and s.number = (
       select min(x.number) from pgdrip.steps as x
        where x.version_id = p.version_id
          and x.number >= coalesce(p.doubt, p.passed + 1));
end
$$;

comment on function pgdrip.judge_positions(timestamptz) is
  'Private: what keeps whom from entering, which step comes next and when';

create or replace function pgdrip.find_position_senders()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_positions bigint[];
  v_pools     text[];
  v_channels  text[];
  v_senders   bigint[];
begin
  -- A device that a contact knows stays with it, if it can send.
  update pg_temp.legacy_positions as p set sender_id = s.sender_id
    from pgdrip.contacts as c, pgdrip.sequences as q, pgdrip.senders as s
   where p.obstacle is null and p.next_step is not null
     and c.contact_id = p.contact_id and q.sequence_id = p.target
     and s.sender_id = c.sender_id and s.pool = q.pool and s.channel = q.channel
     and s.status = 'active' and s.health <> 'blocked';
  select array_agg(p.position order by p.position), array_agg(q.pool order by p.position),
         array_agg(q.channel order by p.position)
    into v_positions, v_pools, v_channels
    from pg_temp.legacy_positions as p
    join pgdrip.sequences as q on q.sequence_id = p.target
   where p.obstacle is null and p.next_step is not null and p.sender_id is null;
  v_senders := pgdrip.choose_senders(v_pools, v_channels);
  update pg_temp.legacy_positions as p set sender_id = k.sender_id
    from unnest(v_positions, v_senders) as k(position, sender_id)
   where k.position = p.position;
end
$$;

comment on function pgdrip.find_position_senders() is
  'Private: who sends the next step of each position';

create or replace function pgdrip.adopt_enrollments(p_now timestamptz)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch    bigint := (select c.epoch << 40 from pgdrip.control as c);
  v_enrolled bigint;
begin
  insert into pgdrip.enrollments
    (contact_id, sequence_id, version_id, run, sender_id, trigger_id, status, enrolled_at,
     last_confirmed_step, ended_at, end_reason)
  select p.contact_id, p.target, p.version_id, p.run, p.sender_id, p.trigger_id,
         case when p.next_step is null then 'completed' else 'active' end, p.enrolled_at,
         p.confirmed, case when p.next_step is null then p.passed_at end,
         case when p.next_step is null then 'completed' end
    from pg_temp.legacy_positions as p where p.obstacle is null order by p.position;
  get diagnostics v_enrolled = row_count;
  update pg_temp.legacy_positions as p set enrollment_id = e.enrollment_id
    from pgdrip.enrollments as e
   where e.contact_id = p.contact_id and e.sequence_id = p.target and e.run = p.run
     and p.obstacle is null;

  insert into pgdrip.due
    (enrollment_id, sender_id, step, due_at, attempt, token, runner, begun_at, content_hash,
     parked_reason)
  select p.enrollment_id, p.sender_id, p.next_step, p.due_at, (p.doubt is not null)::integer,
         case when p.doubt is not null then v_epoch | nextval('pgdrip.token_seq') end,
         case when p.doubt is not null then 'adopt' end, p.doubt_at, f.hash,
         case when p.doubt is not null then 'uncertain'
              when p.sender_id is null then 'no_sender' end
    from pg_temp.legacy_positions as p
    left join pg_temp.legacy_proofs as f
           on f.contact_id = p.contact_id and f.target = p.target and f.step = p.doubt
   where p.obstacle is null and p.next_step is not null;
  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at)
    from pg_temp.legacy_positions as p join pgdrip.due as d using (enrollment_id)
   where p.obstacle is null and d.parked_reason is null group by d.sender_id;

  perform pgdrip.adopt_history(v_epoch, p_now);
  perform pgdrip.settle_adopted_words();
  return v_enrolled;
end
$$;

comment on function pgdrip.adopt_enrollments(timestamptz) is
  'Private: enrolls every position that nothing keeps out, at its next step, with what was sent as its history; returns how many';

create or replace function pgdrip.adopt_history(p_epoch bigint, p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, step, attempt, sender_id, runner, detail, verdict,
     next_due_at, content_hash)
  select f.at, p.enrollment_id,
         case when f.proof = 'sent' then p_epoch | nextval('pgdrip.token_seq') end, f.proof,
         f.step, (f.proof = 'sent')::integer, f.sender_id, 'adopt', 'by the legacy system',
         case when f.proof = 'skipped' then 'skipped'
              when f.step = p.passed and p.next_step is null then 'completed'
              else 'advanced' end,
         case when f.step = p.passed and p.doubt is null then p.due_at end,
         case when f.proof = 'sent' then f.hash end
    from pg_temp.legacy_positions as p
    join pg_temp.legacy_proofs as f on f.contact_id = p.contact_id and f.target = p.target
   where p.obstacle is null and f.proof <> 'doubt'
   order by f.at;
  -- What is over was counted once, and now there is more of it: tally() begins anew.
  if found then
    delete from pgdrip.tallies as t where t.name = 'history';
  end if;
  -- Begun and never heard of again, as a send whose lease ran out.
  insert into pgdrip.deliveries
    (at, enrollment_id, token, event, step, attempt, sender_id, runner, due_at, begun_at, code,
     detail, verdict, content_hash)
  select p_now, d.enrollment_id, d.token, 'uncertain', d.step, 1, d.sender_id, 'adopt', d.due_at,
         d.begun_at, 'lapsed', 'begun by the legacy system', 'parked', d.content_hash
    from pg_temp.legacy_positions as p join pgdrip.due as d using (enrollment_id)
   where p.obstacle is null and p.doubt is not null;
end
$$;

comment on function pgdrip.adopt_history(bigint, timestamptz) is
  'Private: journals what the legacy system sent and skipped, at its own time, and what nobody knows';

create or replace function pgdrip.settle_adopted_words()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pgdrip.contact_triggers as t set sweep_at = null
    from pg_temp.legacy_positions as p
   where p.obstacle is null and t.trigger_id = p.trigger_id;
  -- Who has been through gives the word back, unless another sequence still runs by it.
  delete from pgdrip.contact_triggers as t
   using pg_temp.legacy_positions as p, pgdrip.sequence_versions as v
   where p.obstacle is null and p.next_step is null and t.trigger_id = p.trigger_id
     and v.version_id = p.version_id and v.removes_trigger
     and not exists (
       select from pgdrip.enrollments as o
        where o.contact_id = p.contact_id and o.trigger_id = t.trigger_id
          and o.status = 'active');
end
$$;

comment on function pgdrip.settle_adopted_words() is
  'Private: marks the words of adopted contacts as used, and removes those of completed runs';

create or replace function pgdrip.record_adoptions(
  p_table    text,
  p_ids      text[],
  p_outcomes text[],
  p_details  text[],
  p_objects  bigint[]
)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_recorded bigint;
begin
  insert into pgdrip.adoptions as a (legacy_table, legacy_id, outcome, detail, object_id)
  select p_table, i.id, i.outcome, nullif(i.detail, ''), i.object_id
    from unnest(p_ids, p_outcomes, p_details, p_objects) as i(id, outcome, detail, object_id)
  on conflict (legacy_table, legacy_id) do update
    set outcome = excluded.outcome, detail = excluded.detail,
        object_id = excluded.object_id, adopted_at = excluded.adopted_at
    where (a.outcome, a.detail, a.object_id)
          is distinct from (excluded.outcome, excluded.detail, excluded.object_id);
  get diagnostics v_recorded = row_count;
  return v_recorded;
end
$$;

comment on function pgdrip.record_adoptions(text, text[], text[], text[], bigint[]) is
  'Private: writes what became of legacy rows; returns how many of them have news';

create or replace function pgdrip.obstacle_of(p_obstacle text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.obstacle_text(
    row(null, null, null, null, null, null, p_obstacle, null, null, null, null, null)
      ::pgdrip.entry)
$$;

comment on function pgdrip.obstacle_of(text) is
  'Private: why nobody like that may enter, in words';

create or replace function pgdrip.account_leads()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.adoptions as a (legacy_table, legacy_id, outcome, detail, object_id)
  select 'leads', l.id, r.outcome, nullif(concat_ws('; ', r.reason, l.notes), ''),
         case when r.outcome <> 'refused' then l.contact_id end
    from (select i.id, i.contact_id, i.is_known, i.outcome, i.notes, row_number() over (
                   partition by i.contact_id order by i.updated_at desc nulls last, i.id) as place
            from pg_temp.legacy_leads as i) as l
   cross join lateral (
     select coalesce(l.outcome, case
              when l.place > 1 or l.is_known then 'merged'
              when l.notes is not null then 'repaired' else 'adopted' end) as outcome,
            case when l.outcome is null and (l.place > 1 or l.is_known)
                 then 'the contact is known by another row' end as reason) as r
   order by l.id
  on conflict (legacy_table, legacy_id) do update
    set outcome = excluded.outcome, detail = excluded.detail,
        object_id = excluded.object_id, adopted_at = excluded.adopted_at
    where (a.outcome, a.detail, a.object_id)
          is distinct from (excluded.outcome, excluded.detail, excluded.object_id);
end
$$;

comment on function pgdrip.account_leads() is
  'Private: records what became of each staged lead';

create or replace function pgdrip.account_enrolled()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.adoptions as a (legacy_table, legacy_id, outcome, detail, object_id)
  select 'sequence_contacts', e.id, r.outcome,
         nullif(concat_ws('; ', r.reason, e.notes), ''),
         case when r.outcome <> 'refused' then e.enrollment_id end
    from (select i.id, i.outcome, i.notes, p.obstacle, p.enrollment_id, row_number() over (
                   partition by i.contact_id, i.target
                   order by i.status in ('active', 'pending') desc, i.completed_at, i.id) as place
            from pg_temp.legacy_sequence_contacts as i
            left join pg_temp.legacy_positions as p using (contact_id, target)) as e
   cross join lateral (
     select coalesce(e.outcome, case
              when e.obstacle not in ('live', 'ended') then 'refused'
              when e.obstacle is not null or e.place > 1 then 'merged'
              when e.notes is not null then 'repaired' else 'adopted' end) as outcome,
            case when e.outcome is not null then null
                 when e.obstacle in ('live', 'ended') then 'the contact was enrolled before'
                 when e.obstacle is not null then pgdrip.obstacle_of(e.obstacle)
                 when e.place > 1 then 'one of several rows of the contact in this sequence'
            end as reason) as r
   order by e.id
  on conflict (legacy_table, legacy_id) do update
    set outcome = excluded.outcome, detail = excluded.detail,
        object_id = excluded.object_id, adopted_at = excluded.adopted_at
    where (a.outcome, a.detail, a.object_id)
          is distinct from (excluded.outcome, excluded.detail, excluded.object_id);
end
$$;

comment on function pgdrip.account_enrolled() is
  'Private: records what became of each staged row of sequence_contacts';

create or replace function pgdrip.account_messages()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.adoptions as a (legacy_table, legacy_id, outcome, detail, object_id)
  select 'broadcast_messages', m.id, r.outcome,
         nullif(concat_ws('; ', w.said[2], m.notes), ''),
         case when r.outcome <> 'refused' then m.enrollment_id end
    from (select i.id, i.step, i.proof, i.status, i.outcome, i.notes, p.position, p.obstacle,
                 p.enrollment_id, p.doubt, p.next_step, row_number() over (partition by i.contact_id, i.target, i.step, i.proof
                                    order by i.at desc, i.id) as place
            from pg_temp.legacy_broadcast_messages as i
            left join pg_temp.legacy_positions as p using (contact_id, target)) as m
   cross join lateral (select case
     when m.outcome is not null then array[m.outcome, null]
     when m.position is null then array['refused', 'its sequence belongs to another user']
     when m.obstacle in ('live', 'ended') and m.proof in ('sent', 'doubt') then
       array['refused', 'the contact was enrolled before it was sent: stop the legacy system']
     when m.obstacle in ('live', 'ended') then array['merged', 'the contact was enrolled before']
     when m.obstacle is not null then array['refused', pgdrip.obstacle_of(m.obstacle)]
     when m.proof = 'none' and m.status in ('failed', 'error') and m.next_step is not null
       then array['repaired', 'it failed unsent: that says nothing of the contact']
     when m.proof = 'none' then array['merged', 'never sent: its step goes out when it is due']
     when m.step is null then array['merged', 'there are more messages than steps']
     when m.place > 1 then array['merged', format('step %s was sent before', m.step)]
     when m.proof = 'sent' then array['adopted', format('step %s was sent', m.step)]
     when m.proof = 'skipped' then array['adopted', format('step %s was skipped', m.step)]
     when m.step = m.doubt then
       array['repaired', format('nobody knows whether step %s was sent: parked', m.step)]
     else array['merged', format('nobody knows whether step %s was sent', m.step)] end) as w(said)
   cross join lateral (select case when w.said[1] = 'adopted' and m.notes is not null
                                   then 'repaired' else w.said[1] end) as r(outcome)
   order by m.id
  on conflict (legacy_table, legacy_id) do update
    set outcome = excluded.outcome, detail = excluded.detail,
        object_id = excluded.object_id, adopted_at = excluded.adopted_at
    where (a.outcome, a.detail, a.object_id)
          is distinct from (excluded.outcome, excluded.detail, excluded.object_id);
end
$$;

comment on function pgdrip.account_messages() is
  'Private: records what became of each staged message';
