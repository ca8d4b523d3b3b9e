-- Adoption: the rows of a legacy system, which `pgdrip adopt` has copied into tables of its
-- session, become contacts and enrollments at the right next step.
-- What was sent is the evidence; what a status or a current step claims is not. A send that
-- nobody can prove or rule out parks its enrollment as uncertain, at that step. What was
-- sent goes into the journal at its own time, with tokens of its own but without begun_at:
-- so it confirms steps and counts for caps, and no limit or window judges what pgdrip did
-- not do. Writes contacts, contact_triggers, enrollments, due, deliveries, wakes, adoptions.

create or replace function pgdrip.stage_adoption()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  create temp table legacy_user_devices (
    id text, user_id text, device_name text, phone text, jid text, status text,
    min_delay_seconds integer, max_delay_seconds integer) on commit drop;
  create temp table legacy_sequences (
    id text, user_id text, device_id text, name text, target_status text, status text,
    is_active boolean, trigger text, start_trigger text, end_trigger text,
    schedule_time text, created_at timestamptz) on commit drop;
  create temp table legacy_sequence_steps (
    id text, sequence_id text, day_number integer, trigger text, next_trigger text,
    trigger_delay_hours integer, is_entry_point boolean, message_type text, content text,
    message_text text, caption text, media_url text, time_schedule text,
    number integer) on commit drop;
  create temp table legacy_leads (
    id text, user_id text, device_id text, name text, phone text, email text, address text,
    status text, niche text, trigger text, created_at timestamptz, updated_at timestamptz,
    pool text, e164 text, contact_id bigint, is_known boolean,
    outcome text, notes text) on commit drop;
  create temp table legacy_sequence_contacts (
    id text, sequence_id text, contact_phone text, contact_name text, current_step integer,
    status text, completed_at timestamptz, next_trigger_time timestamptz,
    processing_device_id text, assigned_device_id text, sequence_stepid text, user_id text,
    target bigint, pool text, e164 text, contact_id bigint, step integer,
    outcome text, notes text) on commit drop;
  create temp table legacy_broadcast_messages (
    id text, user_id text, device_id text, sequence_id text, sequence_stepid text,
    recipient_phone text, recipient_name text, content text, media_url text, status text,
    scheduled_at timestamptz, sent_at timestamptz, created_at timestamptz,
    target bigint, pool text, e164 text, contact_id bigint, step integer, proof text,
    at timestamptz, is_foreign boolean, outcome text, notes text) on commit drop;
  create temp table legacy_words (
    id text, contact_id bigint, word text, meant_for text) on commit drop;
  create temp table legacy_users (user_id text, pool text) on commit drop;
  create temp table legacy_phones (
    written text, phone text, how text, problem text) on commit drop;
  create temp table legacy_proofs (
    contact_id bigint, target bigint, step integer, proof text, at timestamptz,
    sender_id bigint, hash bytea) on commit drop;
  create temp table legacy_positions (
    position bigint generated always as identity, contact_id bigint, target bigint,
    enrolled_at timestamptz, start_at timestamptz, passed integer, passed_at timestamptz,
    confirmed integer, doubt integer, doubt_at timestamptz, version_id bigint,
    trigger_id bigint, run integer, sender_id bigint, obstacle text, next_step integer,
    due_at timestamptz, enrollment_id bigint) on commit drop;
end
$$;

comment on function pgdrip.stage_adoption() is
  'Private: makes the empty tables of an adoption, until the end of the transaction: legacy_ and the name of each legacy table, and what is found out';

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

create or replace function pgdrip.name_legacy_pools()
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_users bigint;
begin
  update pg_temp.legacy_leads as l set user_id = d.user_id
    from pg_temp.legacy_user_devices as d where l.user_id is null and d.id = l.device_id;
  update pg_temp.legacy_sequences as s set user_id = d.user_id
    from pg_temp.legacy_user_devices as d where s.user_id is null and d.id = s.device_id;
  -- Two users whose ids begin alike do not share a pool.
  insert into pg_temp.legacy_users (user_id, pool)
  select u.user_id, 'user-' || case
           when row_number() over (partition by left(u.user_id, 8) order by u.user_id) = 1
             then left(u.user_id, 8) else u.user_id end
    from (select d.user_id from pg_temp.legacy_user_devices as d union
          select s.user_id from pg_temp.legacy_sequences as s union
          select l.user_id from pg_temp.legacy_leads as l) as u
   where u.user_id is not null;
  get diagnostics v_users = row_count;
  return v_users;
end
$$;

comment on function pgdrip.name_legacy_pools() is
  'Private: gives each legacy user a pool, user- and the first 8 characters of its id; what has no user is its device''s user''s; returns how many';

create or replace function pgdrip.stage_legacy_phones(
  p_written  text[],
  p_phones   text[],
  p_hows     text[],
  p_problems text[]
)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pg_temp.legacy_phones (written, phone, how, problem)
  select * from unnest(p_written, p_phones, p_hows, p_problems);
  return cardinality(p_written);
end
$$;

comment on function pgdrip.stage_legacy_phones(text[], text[], text[], text[]) is
  'Private: takes what phones as written mean in E.164, how that was found, or what is wrong with them';

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

create or replace function pgdrip.forget_adopted()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_sequence_steps as s set number = a.object_id
    from pgdrip.adoptions as a
   where a.legacy_table = 'sequence_steps' and a.legacy_id = s.id;
  delete from pg_temp.legacy_leads as l using pgdrip.adoptions as a
   where a.legacy_table = 'leads' and a.legacy_id = l.id and a.outcome <> 'refused';
  delete from pg_temp.legacy_sequence_contacts as e using pgdrip.adoptions as a
   where a.legacy_table = 'sequence_contacts' and a.legacy_id = e.id
     and a.outcome <> 'refused';
  delete from pg_temp.legacy_broadcast_messages as m using pgdrip.adoptions as a
   where a.legacy_table = 'broadcast_messages' and a.legacy_id = m.id
     and a.outcome <> 'refused';
  analyze pg_temp.legacy_leads, pg_temp.legacy_sequence_contacts,
          pg_temp.legacy_broadcast_messages, pg_temp.legacy_phones,
          pg_temp.legacy_sequence_steps;
end
$$;

comment on function pgdrip.forget_adopted() is
  'Private: leaves of the staged rows those that no adoption has settled, and gives steps the numbers they were adopted under';

-- People

create or replace function pgdrip.judge_leads()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_leads as l
     set pool = u.pool, e164 = p.phone, email = case when m.problem is null then i.email end,
         outcome = case
           when u.pool is null or p.phone is null and (i.email is null or m.problem is not null)
             then 'refused' end,
         notes = nullif(concat_ws('; ', case when u.pool is null then 'has no user and no device of one' end,
           p.how, case when i.phone is null then 'has no phone' else p.problem end,
           case when m.problem is not null then 'its e-mail is no address: left out' end,
           case when w.words > 1 then 'its trigger list became single words' end,
           case when w.is_odd then 'what was no word in its trigger list was left out' end,
           case when i.status <> lower(btrim(i.status)) then 'its status was spelled otherwise' end), '')
    from pg_temp.legacy_leads as i
    left join pg_temp.legacy_users as u using (user_id)
    left join pg_temp.legacy_phones as p on p.written = i.phone
   cross join lateral (
     select pgdrip.contact_problem(null, i.email, null, null) as problem
      where i.email is not null
     union all select null where i.email is null) as m
   cross join lateral (
     select count(*) filter (where pgdrip.is_word(btrim(t.word, E' \t\n\r\u00a0'))) as words,
            bool_or(not pgdrip.is_word(btrim(t.word, E' \t\n\r\u00a0'))) is true as is_odd
       from string_to_table(i.trigger, ',') as t(word)) as w
   where i.id = l.id;
  -- An e-mail that two phones share stays with the lead that changed last.
  update pg_temp.legacy_leads as l
     set email = null, notes = concat_ws('; ', l.notes, 'its e-mail belongs to another phone: left out')
    from (select i.id, first_value(i.e164) over (
                   partition by i.pool, lower(i.email)
                   order by i.e164 is null, i.updated_at desc nulls last, i.id) as owner,
                 c.phone as stored
            from pg_temp.legacy_leads as i
            left join pgdrip.contacts as c
                   on c.pool = i.pool and lower(c.email) = lower(i.email)
           where i.outcome is null and i.email is not null) as o
   where o.id = l.id and l.e164 is not null
     and (l.e164 <> o.owner or l.e164 <> o.stored);
end
$$;

comment on function pgdrip.judge_leads() is
  'Private: finds pool, phone and e-mail of each staged lead, what had to be repaired, and who cannot be a contact';

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

create or replace function pgdrip.legacy_name(p_name text)
  returns text
  language sql
  immutable
  parallel safe
return nullif(btrim(regexp_replace(left(p_name, 250), '[\u0001-\u001f]+', ' ', 'g')), '');

comment on function pgdrip.legacy_name(text) is
  'Private: a name on one line, cut to 250 characters; NULL for one that is blank';

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
           'its trigger %s was left out: that sequence is for %s', quote_literal(k.word), k.meant_for))
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

-- What was sent

create or replace function pgdrip.place_enrolled()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_sequence_contacts as e
     set target = q.sequence_id, pool = q.pool, e164 = p.phone,
         step = coalesce(k.number, d.number), status = lower(btrim(i.status)),
         outcome = case when r.reason is not null then 'refused' end,
         notes = nullif(concat_ws('; ', r.reason, p.how,
           case when i.status <> lower(btrim(i.status)) then 'its status was spelled otherwise' end,
           case when i.status is null then 'it had no status' end,
           case when k.number is null and d.number is not null
                then 'its step was found by the day' end,
           case when k.number is null and d.number is null and q.sequence_id is not null
                then 'it names no step of the sequence' end,
           case when lower(btrim(i.status)) in ('completed', 'sent')
                 and i.next_trigger_time > pgdrip.clock()
                then 'it was completed before its time' end,
           case when i.processing_device_id is not null
                 and lower(btrim(i.status)) in ('active', 'processing')
                then 'a claim that nobody works on was released' end,
           case when lower(btrim(i.status)) in ('failed', 'sequence_failed')
                then 'that it failed says nothing of the contact' end), '')
    from pg_temp.legacy_sequence_contacts as i
    left join pg_temp.legacy_sequences as s on s.id = i.sequence_id
    left join pgdrip.adoptions as a on a.legacy_table = 'sequences' and a.legacy_id = s.id
    left join pgdrip.sequences as q on q.sequence_id = a.object_id
    left join pg_temp.legacy_phones as p on p.written = i.contact_phone
    left join pg_temp.legacy_sequence_steps as k
           on k.id = i.sequence_stepid and k.sequence_id = i.sequence_id
    left join (select x.sequence_id, x.day_number, min(x.number) as number
                 from pg_temp.legacy_sequence_steps as x group by 1, 2) as d
           on d.sequence_id = i.sequence_id and d.day_number = i.current_step
   cross join lateral (select case
     when i.sequence_id is null then 'names no sequence'
     when s.id is null then 'its sequence does not exist'
     when q.sequence_id is null then 'its sequence was refused'
     when i.user_id <> s.user_id then 'its sequence belongs to another user'
     when i.contact_phone is null then 'has no phone'
     else p.problem end) as r(reason)
   where i.id = e.id;
end
$$;

comment on function pgdrip.place_enrolled() is
  'Private: finds sequence, phone and step of each staged row of sequence_contacts, and what had to be repaired';

create or replace function pgdrip.place_messages(p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pg_temp.legacy_broadcast_messages as m
     set target = q.sequence_id, pool = q.pool, e164 = p.phone, step = k.number,
         status = w.word, is_foreign = i.user_id <> s.user_id,
         proof = case
           when w.word in ('sent', 'success', 'delivered', 'read') then 'sent'
           when w.word = 'skipped' then 'skipped'
           when i.sent_at is not null then 'doubt'
           when w.word is null or w.word in ('pending', 'scheduled', 'failed', 'error', 'cancelled')
             then 'none'
           else 'doubt' end,
         -- Never earlier than it can have been: what follows must not come too early.
         at = least(p_now, greatest(coalesce(i.sent_at, i.scheduled_at), i.created_at)),
         outcome = case when r.reason is not null then 'refused' end,
         notes = nullif(concat_ws('; ', r.reason, p.how,
           case when i.status <> w.word then 'its status was spelled otherwise' end,
           case when w.word in ('sent', 'success') and i.sent_at is null
                then 'it was sent without a time' end,
           case when i.sent_at > p_now then 'it was sent in the future: taken as now' end,
           case when i.sent_at < i.created_at
                then 'it was sent before it was created: taken as then' end), '')
    from pg_temp.legacy_broadcast_messages as i
    left join pg_temp.legacy_sequences as s on s.id = i.sequence_id
    left join pgdrip.adoptions as a on a.legacy_table = 'sequences' and a.legacy_id = s.id
    left join pgdrip.sequences as q on q.sequence_id = a.object_id
    left join pg_temp.legacy_phones as p on p.written = i.recipient_phone
    left join pg_temp.legacy_sequence_steps as k
           on k.id = i.sequence_stepid and k.sequence_id = i.sequence_id
   cross join lateral (select lower(btrim(i.status))) as w(word)
   cross join lateral (select case
     when i.sequence_id is null then 'is of no sequence'
     when s.id is null then 'its sequence does not exist'
     when q.sequence_id is null then 'its sequence was refused'
     when i.recipient_phone is null then 'has no phone'
     else p.problem end) as r(reason)
   where i.id = m.id;
end
$$;

comment on function pgdrip.place_messages(timestamptz) is
  'Private: finds sequence, phone and step of each staged message, and whether it was sent: sent, skipped, doubt or none';

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
end
$$;

comment on function pgdrip.adopt_strangers(text) is
  'Private: finds the contacts that are in a sequence, and makes those that have no lead';

create or replace function pgdrip.match_messages()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- By the text or else the media, where only one step of the sequence has it.
  update pg_temp.legacy_broadcast_messages as m
     set step = k.number, notes = concat_ws('; ', m.notes, 'its step was found by the text')
    from (select x.target_sequence, x.said, min(x.number) as number
            from (select s.sequence_id as target_sequence, s.number, pgdrip.legacy_text(t.said) as said
                    from pg_temp.legacy_sequence_steps as s,
                         unnest(array[s.content, s.message_text, s.caption, s.media_url]) as t(said)
                   where s.number is not null and not pgdrip.is_blank(t.said)) as x
           group by 1, 2 having count(distinct x.number) = 1) as k
   where k.target_sequence = m.sequence_id
     and k.said = pgdrip.legacy_text(case when pgdrip.is_blank(m.content) then m.media_url
                                          else m.content end)
     and m.step is null and m.outcome is null and m.proof <> 'none';
  -- By the day, counted from the contact's first message of the sequence.
  update pg_temp.legacy_broadcast_messages as m
     set step = k.number, notes = concat_ws('; ', m.notes, 'its step was found by the day')
    from (select i.id, s.number,
                 row_number() over (partition by i.contact_id, i.target, s.number
                                    order by i.at, i.id) as place
            from (select x.*, min(x.at) over (partition by x.contact_id, x.target) as first_at
                    from pg_temp.legacy_broadcast_messages as x
                   where x.outcome is null and x.proof <> 'none') as i
            join pg_temp.legacy_sequence_steps as s
              on s.sequence_id = i.sequence_id and s.number = s.day_number
             and s.number = 1 + ((i.at at time zone 'UTC')::date
                                 - (i.first_at at time zone 'UTC')::date)
           where i.step is null and i.at > i.first_at) as k
   where k.id = m.id and k.place = 1 and not exists (
     select from pg_temp.legacy_broadcast_messages as o
      where o.contact_id = m.contact_id and o.target = m.target and o.step = k.number);
  perform pgdrip.match_by_order();
end
$$;

comment on function pgdrip.match_messages() is
  'Private: finds the step of messages that name none: by the text, by the day, by their order';

create or replace function pgdrip.match_by_order()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- The n-th of them is the n-th step that no other message of the contact stands for.
  with lost as materialized (
    select i.id, i.contact_id, i.target, i.sequence_id,
           row_number() over (partition by i.contact_id, i.target order by i.at, i.id) as place
      from pg_temp.legacy_broadcast_messages as i
     where i.step is null and i.outcome is null and i.proof <> 'none'
  ),
  open as (
    select p.contact_id, p.target, s.number,
           row_number() over (partition by p.contact_id, p.target order by s.number) as place
      from (select distinct l.contact_id, l.target, l.sequence_id from lost as l) as p
      join (select distinct x.sequence_id, x.number
              from pg_temp.legacy_sequence_steps as x) as s using (sequence_id)
     where s.number is not null and not exists (
       select from pg_temp.legacy_broadcast_messages as o
        where o.contact_id = p.contact_id and o.target = p.target and o.step = s.number
          and o.proof <> 'none' and o.outcome is null)
  )
  update pg_temp.legacy_broadcast_messages as m
     set step = o.number, notes = concat_ws('; ', m.notes, 'its step was found by the order')
    from lost as l join open as o using (contact_id, target, place)
   where l.id = m.id;
end
$$;

comment on function pgdrip.match_by_order() is
  'Private: gives messages that nothing else tells the step of the steps that are left, in order';

create or replace function pgdrip.legacy_text(p_text text)
  returns text
  language sql
  immutable
  parallel safe
return md5(lower(regexp_replace(btrim(p_text, E' \t\n\r'), '\s+', ' ', 'g')));

comment on function pgdrip.legacy_text(text) is
  'Private: what two texts share that differ in blanks and capitals only';

create or replace function pgdrip.weigh_proofs(p_in_doubt text, p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- The strongest word for each step of a contact, and of equal ones the latest.
  insert into pg_temp.legacy_proofs (contact_id, target, step, proof, at, sender_id, hash)
  select distinct on (m.contact_id, m.target, m.step) m.contact_id, m.target, m.step, m.proof,
         coalesce(m.at, p_now), a.object_id, pgdrip.content_hash(null, m.content, null)
    from pg_temp.legacy_broadcast_messages as m
    left join pgdrip.adoptions as a
           on a.legacy_table = 'user_devices' and a.legacy_id = m.device_id
   where m.outcome is null and m.contact_id is not null and m.step is not null
     and m.proof <> 'none'
   order by m.contact_id, m.target, m.step,
            array_position(array['sent', 'doubt', 'skipped'], m.proof), m.at desc, m.id;
  -- The word of sequence_contacts counts only where no message tells: nobody knows then.
  -- Where all rows of a contact carry one and the same step, their number is what they say.
  insert into pg_temp.legacy_proofs (contact_id, target, step, proof, at)
  select k.contact_id, k.target, n.number, 'doubt', least(p_now, coalesce(k.done_at, p_now))
    from (select e.contact_id, e.target, e.sequence_id, count(*) filter (where d.is_done) as done,
                 count(*) > 1 and count(distinct e.current_step) = 1
                   and count(distinct e.step) <= 1 as is_smeared,
                 max(e.step) filter (where d.is_done) as step,
                 max(e.completed_at) filter (where d.is_done) as done_at
            from pg_temp.legacy_sequence_contacts as e
           cross join lateral (
             select e.status in ('completed', 'sent')
                    and (e.next_trigger_time > p_now) is not true as is_done) as d
           where e.outcome is null and e.contact_id is not null
           group by e.contact_id, e.target, e.sequence_id) as k
   cross join lateral (
     select array_agg(distinct s.number order by s.number) as numbers
       from pg_temp.legacy_sequence_steps as s
      where s.sequence_id = k.sequence_id and s.number is not null) as a
   cross join lateral (
     select coalesce(case when k.is_smeared then a.numbers[least(k.done, cardinality(a.numbers))]
                          else k.step end, a.numbers[1]) as number) as n
   where k.done > 0 and not exists (
     select from pg_temp.legacy_broadcast_messages as m
      where m.contact_id = k.contact_id and m.target = k.target and m.outcome is null);
  if p_in_doubt = 'unsent' then
    delete from pg_temp.legacy_proofs as f where f.proof = 'doubt';
  elsif p_in_doubt = 'sent' then
    update pg_temp.legacy_proofs as f
       set proof = 'sent', hash = coalesce(f.hash, pgdrip.content_hash(null, null, null))
     where f.proof = 'doubt';
  end if;
  analyze pg_temp.legacy_proofs;
end
$$;

comment on function pgdrip.weigh_proofs(text, timestamptz) is
  'Private: decides for each step of a contact whether it was sent, skipped or nobody knows; p_in_doubt says what nobody knows is taken for: park, sent or unsent';

-- Who goes on where

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

-- Accounts

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

create or replace function pgdrip.obstacle_of(p_obstacle text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.obstacle_text(
    row(null, null, null, null, null, null, p_obstacle, null)::pgdrip.entry)
$$;

comment on function pgdrip.obstacle_of(text) is
  'Private: why nobody like that may enter, in words';

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
    from (select i.id, i.step, i.proof, i.status, i.outcome, i.notes, p.position, p.obstacle, p.enrollment_id, p.doubt, p.next_step,
                 row_number() over (partition by i.contact_id, i.target, i.step, i.proof
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
