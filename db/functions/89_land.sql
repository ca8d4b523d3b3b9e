-- A bucket lands: from arrivals into the tables, in one transaction, compared before the
-- commit with what left. See 89_depart.sql for the whole way. Writes contacts and all that
-- belongs to them, sequence_versions, steps, senders, paces, suppressions, history_sums, control.

create or replace function pgdrip.clear_arrivals(p_bucket integer)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  delete from pgdrip.arrivals as a where a.bucket = p_bucket
$$;

comment on function pgdrip.clear_arrivals(integer) is
  'Private: forgets the copy of a bucket that has not left its shard';

create or replace function pgdrip.arrive(p_bucket integer, p_content text)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  perform set_config('synchronous_commit', 'on', true);
  insert into pgdrip.arrivals (bucket, part, item_id, content)
  select p_bucket, i.part, i.item_id, i.content
    from jsonb_populate_recordset(null::pgdrip.arrival, p_content::jsonb) as i;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

comment on function pgdrip.arrive(integer, text) is
  'Private: keeps rows of a bucket that is on its way here; returns how many';

create or replace function pgdrip.make_room(p_bucket integer)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return pgdrip.adopt_months((
    select min((j ->> 'at')::timestamptz)
      from pgdrip.arrivals as a,
           jsonb_path_query(a.content, '$.enrollments[*].deliveries[*]') as j
     where a.bucket = p_bucket and a.part = 'contact'));
end
$$;

comment on function pgdrip.make_room(integer) is
  'Private: makes the months of history that what has arrived goes back to; returns how many were missing';

create or replace function pgdrip.has_arrived(p_bucket integer)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgdrip.arrivals as a where a.bucket = p_bucket)
$$;

comment on function pgdrip.has_arrived(integer) is
  'Private: whether a bucket is here that has not landed';

create or replace function pgdrip.land_senders(p_bucket integer)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- A sender stays where its counters are. Here it is a name for the history, and what it
  -- was to send goes to others as if it had retired.
  with added as (
    insert into pgdrip.senders
      (sender_id, name, pool, channel, status, status_reason, deleted_at)
    overriding system value
    select a.item_id, pgdrip.former_name(s), s.pool, s.channel, 'retiring',
           'it is a sender of another shard', pgdrip.clock()
      from pgdrip.arrivals as a,
           lateral jsonb_populate_record(null::pgdrip.senders, a.content || jsonb_build_object(
             'sender_id', a.item_id, 'name', pgdrip.first_name(a.content ->> 'name'))) as s
     where a.bucket = p_bucket and a.part = 'sender'
    on conflict (sender_id) do nothing
    returning sender_id, channel
  )
  insert into pgdrip.paces (sender_id, channel) select a.sender_id, a.channel from added as a;
end
$$;

comment on function pgdrip.land_senders(integer) is
  'Private: gives senders of other shards that an arriving bucket names a row, out of service';

create or replace function pgdrip.first_name(p_name text)
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(p_name, '( \(former [0-9]+\))+$', '')
$$;

comment on function pgdrip.first_name(text) is
  'Private: what former_name() made of a name, taken back';

create or replace function pgdrip.land_version(p_content jsonb)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences := pgdrip.sequence_named(p_content ->> 'sequence');
  v_version  pgdrip.sequence_versions;
  v_id       bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('pgdrip.sequence.' || v_sequence.name, 0));
  select max(v.version_id) into v_id from pgdrip.sequence_versions as v
   where v.sequence_id = v_sequence.sequence_id
     and v.definition = p_content #> '{version,definition}';
  if v_id is null then
    -- Somebody is still on what only the other shard had published.
    v_version := jsonb_populate_record(null::pgdrip.sequence_versions, p_content -> 'version');
    v_version.sequence_id := v_sequence.sequence_id;
    select coalesce(max(v.number), 0) + 1 into v_version.number
      from pgdrip.sequence_versions as v where v.sequence_id = v_sequence.sequence_id;
    v_id := pgdrip.publish_version(v_version, array(
      select s from jsonb_populate_recordset(null::pgdrip.steps, p_content -> 'steps') as s));
  end if;
  return v_id;
end
$$;

comment on function pgdrip.land_version(jsonb) is
  'Private: the version here with the content of one from another shard, stored where it is not; MD001 where its sequence is not';

create or replace function pgdrip.land_contacts(p_bucket integer)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
begin
  create temp table if not exists bucket_contacts (
    contact_id bigint primary key
  ) on commit drop;
  insert into pg_temp.bucket_contacts
  select a.item_id from pgdrip.arrivals as a where a.bucket = p_bucket and a.part = 'contact';
  insert into pgdrip.contacts overriding system value
  select c.* from pgdrip.arrivals as a,
         lateral jsonb_populate_record(null::pgdrip.contacts, a.content -> 'contact') as c
   where a.bucket = p_bucket and a.part = 'contact';
  -- Each word is looked at once more: a sweep of another shard may have been on its way.
  insert into pgdrip.contact_triggers (trigger_id, contact_id, trigger, added_at)
  overriding system value
  select t.trigger_id, t.contact_id, t.trigger, t.added_at from pgdrip.arrivals as a,
         lateral jsonb_populate_recordset(null::pgdrip.contact_triggers, a.content -> 'triggers') as t
   where a.bucket = p_bucket and a.part = 'contact';
  insert into pgdrip.contact_events overriding system value
  select v.* from pgdrip.arrivals as a,
         lateral jsonb_populate_recordset(null::pgdrip.contact_events, a.content -> 'events') as v
   where a.bucket = p_bucket and a.part = 'contact';
  insert into pgdrip.suppressions as s
  select (jsonb_populate_record(null::pgdrip.suppressions, a.content)).*
    from pgdrip.arrivals as a where a.bucket = p_bucket and a.part = 'suppression'
  on conflict do nothing;
end
$$;

comment on function pgdrip.land_contacts(integer) is
  'Private: stores the contacts of an arriving bucket, their words and events, and lists them in pg_temp.bucket_contacts; 23505 where somebody here has an address of one';

create or replace function pgdrip.land_enrollments(p_bucket integer)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
begin
  create temp table if not exists bucket_enrollments (
    content jsonb
  ) on commit drop;
  perform pgdrip.land_version(a.content) from pgdrip.arrivals as a
    where a.bucket = p_bucket and a.part = 'version';
  insert into pg_temp.bucket_enrollments
  with versions as materialized (
    select q.name as sequence, q.sequence_id, max(v.version_id) as version_id,
           encode(sha256(convert_to(v.definition::text, 'UTF8')), 'hex') as hash
      from pgdrip.sequences as q join pgdrip.sequence_versions as v using (sequence_id)
     group by q.name, q.sequence_id, v.definition
  )
  select e.item || jsonb_build_object('version_id', v.version_id, 'sequence_id', v.sequence_id)
    from pgdrip.arrivals as a
   cross join lateral jsonb_array_elements(a.content -> 'enrollments') as e(item)
    join versions as v
      on v.sequence = e.item ->> 'sequence' and v.hash = e.item ->> 'version'
   where a.bucket = p_bucket and a.part = 'contact';

  insert into pgdrip.enrollments overriding system value
  select (jsonb_populate_record(null::pgdrip.enrollments, b.content)).*
    from pg_temp.bucket_enrollments as b;
  insert into pgdrip.due
  select d.* from pg_temp.bucket_enrollments as b,
         lateral jsonb_populate_record(null::pgdrip.due, nullif(b.content -> 'due', 'null')) as d
   where d.enrollment_id is not null;
  insert into pgdrip.deliveries
  select j.* from pg_temp.bucket_enrollments as b,
         lateral jsonb_populate_recordset(null::pgdrip.deliveries, b.content -> 'deliveries') as j;
  insert into pgdrip.provider_refs
  select r.* from pg_temp.bucket_enrollments as b,
         lateral jsonb_populate_recordset(null::pgdrip.provider_refs, b.content -> 'refs') as r;
  drop table pg_temp.bucket_enrollments;
end
$$;

comment on function pgdrip.land_enrollments(integer) is
  'Private: stores the enrollments of an arriving bucket with their live steps and history; MD001 where a sequence is not here';

create or replace function pgdrip.land_sums(p_bucket integer)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.history_sums as h
    (sequence_id, step, month_at, sent, delivered, read, skipped, failed, last_confirmed)
  select q.sequence_id, s.step, s.month_at, 0, 0, 0, 0, 0, s.last_confirmed
    from pgdrip.arrivals as a
    join pgdrip.sequences as q on q.name = a.content ->> 'sequence',
         lateral jsonb_populate_record(null::pgdrip.history_sums, a.content -> 'sum') as s
   where a.bucket = p_bucket and a.part = 'sum'
  on conflict (sequence_id, step, month_at) do update
    set last_confirmed = h.last_confirmed + excluded.last_confirmed;
  update pgdrip.control as c set pruned_until = greatest(c.pruned_until, a.pruned_until)
    from (select max((a.content ->> 'pruned_until')::timestamptz) as pruned_until
            from pgdrip.arrivals as a where a.bucket = p_bucket and a.part = 'sum') as a
   where a.pruned_until > coalesce(c.pruned_until, '-infinity');
end
$$;

comment on function pgdrip.land_sums(integer) is
  'Private: takes over what retention remembers of the history of an arriving bucket';

create or replace function pgdrip.pass_tokens()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_token bigint;
begin
  select max(x.token & (1::bigint << 40) - 1) into v_token
    from pg_temp.bucket_contacts as b
    join pgdrip.enrollments as e using (contact_id),
         lateral (select d.token from pgdrip.due as d where d.enrollment_id = e.enrollment_id
                  union all
                  select j.token from pgdrip.deliveries as j
                   where j.enrollment_id = e.enrollment_id) as x;
  -- A later token of an enrollment is the greater one. So far ahead that no claim which
  -- takes tokens in this moment comes there before.
  if v_token > (select t.last_value from pgdrip.token_seq as t) then
    perform setval('pgdrip.token_seq', v_token + 1000000);
  end if;
end
$$;

comment on function pgdrip.pass_tokens() is
  'Private: lets tokens go on above those of what landed';

create or replace function pgdrip.land_bucket(p_bucket integer)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_working();
  perform pgdrip.land_senders(p_bucket);
  perform pgdrip.land_contacts(p_bucket);
  perform pgdrip.land_enrollments(p_bucket);
  perform pgdrip.land_sums(p_bucket);
  perform pgdrip.pass_tokens();
  delete from pgdrip.arrivals as a where a.bucket = p_bucket;
  return (select count(*) from pg_temp.bucket_contacts);
end
$$;

comment on function pgdrip.land_bucket(integer) is
  'Private: makes what has arrived of a bucket live here, its steps still with the senders of the other shard; returns how many contacts; the commit is durable; 23505, MD001, MD003, MD005';

create or replace function pgdrip.settle_in()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := pgdrip.clock();
  v_strange pgdrip.senders[];
begin
  -- Whoever preferred a sender that every shard has goes on preferring it.
  update pgdrip.contacts as c set sender_id = n.sender_id
    from pg_temp.bucket_contacts as b, pgdrip.senders as o, pgdrip.senders as n
   where b.contact_id = c.contact_id and o.sender_id = c.sender_id
     and o.deleted_at is not null and n.deleted_at is null
     and (n.name, n.pool, n.channel) = (pgdrip.first_name(o.name), o.pool, o.channel);
  v_strange := array(
    select s from pgdrip.senders as s
     where s.deleted_at is not null and s.sender_id in (
       select d.sender_id from pg_temp.bucket_contacts as b
         join pgdrip.enrollments as e using (contact_id)
         join pgdrip.due as d using (enrollment_id)));
  perform pgdrip.move_parked(s, v_now) from unnest(v_strange) as s;
  perform pgdrip.clear_senders(array(select s.sender_id from unnest(v_strange) as s), null, v_now);
  -- Work that came home to a sender of this shard.
  insert into pgdrip.wakes (sender_id, due_at)
  select d.sender_id, min(d.due_at)
    from pg_temp.bucket_contacts as b
    join pgdrip.enrollments as e using (contact_id)
    join pgdrip.due as d using (enrollment_id)
   where d.parked_reason is null group by d.sender_id;
end
$$;

comment on function pgdrip.settle_in() is
  'Private: gives the live steps of what landed to senders of this shard; those nobody here can send are parked no_sender';

create or replace function pgdrip.foreign_ids(p_bucket integer)
  returns setof pgdrip.foreign_id
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with mine as materialized (
    select c.contact_id, k.shard from pgdrip.contacts as c cross join pgdrip.control as k
     where c.bucket = p_bucket
  )
  select 'contact', m.contact_id from mine as m where m.contact_id >> 40 <> m.shard
  union all
  select 'enrollment', e.enrollment_id
    from mine as m join pgdrip.enrollments as e using (contact_id)
   where e.enrollment_id >> 40 <> m.shard
$$;

comment on function pgdrip.foreign_ids(integer) is
  'Private: contacts of a bucket and their enrollments that were born in another shard: their ids do not say that they are here';
