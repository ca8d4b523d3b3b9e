-- What the rows of a legacy system mean: whose they are, which step they speak of, whether
-- it was sent. What was sent is the evidence; what a status or a current step claims is
-- not. Writes nothing but the tables of the session that stage_adoption() makes.

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
         notes = nullif(concat_ws('; ',
           case when u.pool is null then 'has no user and no device of one' end,
           p.how, case when i.phone is null then 'has no phone' else p.problem end,
           case when m.problem is not null then 'its e-mail is no address: left out' end,
           case when w.words > 1 then 'its trigger list became single words' end,
           case when w.is_odd then 'what was no word in its trigger list was left out' end,
           case when i.status <> lower(btrim(i.status)) then 'its status was spelled otherwise' end),
           '')
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
     set email = null,
         notes = concat_ws('; ', l.notes, 'its e-mail belongs to another phone: left out')
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

create or replace function pgdrip.legacy_name(p_name text)
  returns text
  language sql
  immutable
  parallel safe
return nullif(btrim(regexp_replace(left(p_name, 250), '[\u0001-\u001f]+', ' ', 'g')), '');

comment on function pgdrip.legacy_name(text) is
  'Private: a name on one line, cut to 250 characters; NULL for one that is blank';

create or replace function pgdrip.legacy_text(p_text text)
  returns text
  language sql
  immutable
  parallel safe
return md5(lower(regexp_replace(btrim(p_text, E' \t\n\r'), '\s+', ' ', 'g')));

comment on function pgdrip.legacy_text(text) is
  'Private: what two texts share that differ in blanks and capitals only';

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
         notes = coalesce(r.reason, nullif(concat_ws('; ', p.how,
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
                then 'that it failed says nothing of the contact' end), ''))
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
         notes = coalesce(r.reason, nullif(concat_ws('; ', p.how,
           case when i.status <> w.word then 'its status was spelled otherwise' end,
           case when w.word in ('sent', 'success') and i.sent_at is null
                then 'it was sent without a time' end,
           case when i.sent_at > p_now then 'it was sent in the future: taken as now' end,
           case when i.sent_at < i.created_at
                then 'it was sent before it was created: taken as then' end), ''))
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
    from (select x.sequence_id, x.said, min(x.number) as number
            from (select s.sequence_id, s.number, pgdrip.legacy_text(t.said) as said
                    from pg_temp.legacy_sequence_steps as s,
                         unnest(array[s.content, s.message_text, s.caption, s.media_url]) as t(said)
                   where s.number is not null and not pgdrip.is_blank(t.said)) as x
           group by 1, 2 having count(distinct x.number) = 1) as k
   where k.sequence_id = m.sequence_id
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
