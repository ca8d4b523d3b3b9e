-- One shard among several: its number, what all shards must agree on, and what the router
-- asks of each. Writes control, error_rules, suppressions and erased_suppressions.

create or replace function pgdrip.is_unused()
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select not exists (select from pgdrip.contacts)
     and not exists (select from pgdrip.senders)
     and not exists (select from pgdrip.sender_groups)
     and not exists (select from pgdrip.sequences)
     and not exists (select from pgdrip.suppressions)
     and not exists (select from pgdrip.erased_suppressions)
$$;

comment on function pgdrip.is_unused() is
  'Private: whether nobody has stored or defined anything here yet';

create or replace function pgdrip.set_shard(p_shard integer, p_address_key bytea)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old pgdrip.control;
begin
  perform pgdrip.assert_given('p_shard', p_shard);
  perform pgdrip.assert_given('p_address_key', p_address_key);
  if p_shard not between 0 and 8191 or octet_length(p_address_key) <> 32 then
    raise exception 'a shard has a number from 0 to 8191 and a key of 32 bytes'
      using errcode = '22023', hint = 'pgdrip shard add passes the key that all shards share.';
  end if;
  select c.* into v_old from pgdrip.control as c for update;
  if (v_old.shard, v_old.address_key) = (p_shard, p_address_key) then
    return false;
  elsif not pgdrip.is_unused() then
    raise exception 'this database is shard % and in use', v_old.shard
      using errcode = 'MD003',
            hint = 'Its ids and hashes carry that; only an unused database can become another shard.';
  end if;
  update pgdrip.control as c set shard = p_shard, address_key = p_address_key;
  -- From here on every id says where it was born.
  perform setval(pg_get_serial_sequence(format('pgdrip.%I', c.relname), a.attname),
                 (p_shard::bigint << 40) + 1, false)
     from pg_class as c
     join pg_attribute as a on a.attrelid = c.oid and a.attidentity <> ''
    where c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = 'pgdrip')
      and c.relkind = 'r' and c.relname <> 'audit';
  perform pgdrip.note('shard', format('shard %s', p_shard));
  return true;
end
$$;

comment on function pgdrip.set_shard(integer, bytea) is
  'Private: makes an unused database the shard of that number, with the key that hashes addresses in all shards; false: it was; 22004, 22023, MD003';

create or replace function pgdrip.hashed_suppressions()
  returns setof pgdrip.erased_suppressions
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select sha256(k.address_key || sha256(k.address_key || convert_to(s.address, 'UTF8'))),
         s.reason, s.created_at
    from pgdrip.suppressions as s cross join pgdrip.control as k
  union all
  select e.* from pgdrip.erased_suppressions as e
$$;

comment on function pgdrip.hashed_suppressions() is
  'Private: every suppressed address as address_hash() gives it; one kept both ways comes twice';

create or replace function pgdrip.shared_definitions()
  returns setof pgdrip.shared_definition
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  -- A sender with limits keeps its counters in one shard and is that shard's alone.
  select d.definition ->> 'kind', d.definition ->> 'name', (d.definition - 'kind')::text
    from pgdrip.export_definitions() with ordinality as d(definition, place)
    left join pgdrip.senders as s
           on d.definition ->> 'kind' = 'sender' and s.name = d.definition ->> 'name'
   where s.is_limited is not true order by d.place
$$;

comment on function pgdrip.shared_definitions() is
  'Private: the definitions that every shard must have, in the order to apply them';

create or replace function pgdrip.shared_rules()
  returns jsonb
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(to_jsonb(r)) from pgdrip.error_rules as r
$$;

comment on function pgdrip.shared_rules() is 'Private: the error rules as merge_error_rules() takes them';

create or replace function pgdrip.config_hash()
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(convert_to(concat_ws(E'\n',
    (select string_agg(concat_ws(' ', d.kind, d.definition), E'\n'
                       order by d.kind collate "C", d.name collate "C")
       from pgdrip.shared_definitions() as d),
    (select string_agg(concat_ws(' ', r.channel, r.code, r.class), E'\n'
                       order by r.channel collate "C", r.code collate "C")
       from pgdrip.error_rules as r),
    (select bit_xor(('x' || left(encode(h.address_hash, 'hex'), 16))::bit(64)::bigint)
       from (select distinct s.address_hash from pgdrip.hashed_suppressions() as s) as h)
    ), 'UTF8')), 'hex')
$$;

comment on function pgdrip.config_hash() is
  'Private: one hash of shared definitions, error rules and suppressed addresses; the same in shards that agree';

create or replace function pgdrip.shard_identity()
  returns pgdrip.shard_identity
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select c.shard, c.address_key, exists (select from pgdrip.contacts), pgdrip.config_hash()
    from pgdrip.control as c
$$;

comment on function pgdrip.shard_identity() is
  'Private: who this database is among shards, its secret key included';

create or replace function pgdrip.merge_error_rules(p_rules jsonb)
  returns integer
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  with wanted as (
    select r.* from jsonb_populate_recordset(null::pgdrip.error_rules, p_rules) as r
  ),
  gone as (
    delete from pgdrip.error_rules as r
     where not exists (select from wanted as w where (w.channel, w.code) = (r.channel, r.code))
    returning r.code
  ),
  kept as (
    insert into pgdrip.error_rules as r select w.* from wanted as w
    on conflict (channel, code) do update set class = excluded.class, source = excluded.source
     where (r.class, r.source) <> (excluded.class, excluded.source)
    returning r.code
  )
  select (select count(*) from gone)::integer + (select count(*) from kept)::integer
$$;

comment on function pgdrip.merge_error_rules(jsonb) is
  'Private: makes the error rules those of another shard; returns how many differed';

create or replace function pgdrip.merge_hashes(
  p_hashes  bytea[],
  p_reasons text[],
  p_times   timestamptz[]
)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_new bytea[];
begin
  with added as (
    insert into pgdrip.erased_suppressions as e (address_hash, reason, created_at)
    select distinct on (n.address_hash) n.address_hash, n.reason, n.created_at
      from unnest(p_hashes, p_reasons, p_times) as n(address_hash, reason, created_at)
     where not exists (select from pgdrip.hashed_suppressions() as h
                        where h.address_hash = n.address_hash)
     order by n.address_hash, n.created_at
    on conflict do nothing
    returning e.address_hash
  )
  select array_agg(a.address_hash) into v_new from added as a;
  if v_new is not null then
    -- Whoever is here already must not be messaged either.
    perform pgdrip.suppress(a.address, e.reason)
       from pgdrip.contacts as c
      cross join pgdrip.control as k
      cross join lateral (values (c.phone), (lower(c.email))) as a(address)
       join pgdrip.erased_suppressions as e on e.address_hash
         = sha256(k.address_key || sha256(k.address_key || convert_to(a.address, 'UTF8')))
      where e.address_hash = any (v_new);
  end if;
  return coalesce(cardinality(v_new), 0);
end
$$;

comment on function pgdrip.merge_hashes(bytea[], text[], timestamptz[]) is
  'Private: suppresses what hashed_suppressions() of another shard tells, contacts that are here by their address; returns how many were new';

create or replace function pgdrip.forget_address(p_address text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_contact pgdrip.contacts;
begin
  v_contact.contact_id := 0;
  v_contact.email := pgdrip.plain_address(p_address);
  if not exists (select from pgdrip.suppressions as s where s.address = v_contact.email) then
    return false;
  end if;
  perform pgdrip.hash_suppressions(v_contact);
  return true;
end
$$;

comment on function pgdrip.forget_address(text) is
  'Keeps the suppression of an address as a keyed hash only, unless a contact here has it; what the router does in every shard before it erases a person; false: it was not suppressed; 22004, 22023';

create or replace function pgdrip.knows_message(p_channel text, p_provider_id text)
  returns integer
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select c.bucket
    from pgdrip.provider_refs as r
    join pgdrip.enrollments as e using (enrollment_id)
    join pgdrip.contacts as c using (contact_id)
   where r.channel = p_channel and r.provider_id = p_provider_id
$$;

comment on function pgdrip.knows_message(text, text) is
  'The bucket of the contact that a provider''s message went to; NULL: not known here';

create or replace function pgdrip.bucket_counts()
  returns setof pgdrip.bucket_count
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select c.bucket, count(*) from pgdrip.contacts as c group by c.bucket order by c.bucket
$$;

comment on function pgdrip.bucket_counts() is
  'Private: contacts by bucket; reads all of them';

create or replace function pgdrip.is_suppressed(p_address text)
  returns boolean
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgdrip.suppressions as s where s.address = pgdrip.plain_address(p_address))
$$;

comment on function pgdrip.is_suppressed(text) is
  'Whether an address must not be messaged; 22004, 22023';

create or replace function pgdrip.knows_address(p_address text, p_pool text)
  returns boolean
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pgdrip.contacts as c
                  where c.pool = p_pool and c.phone = p_address)
      or exists (select from pgdrip.contacts as c
                  where c.pool = p_pool and lower(c.email) = lower(p_address))
$$;

comment on function pgdrip.knows_address(text, text) is
  'Whether a contact of a pool has that phone or e-mail';

create or replace function pgdrip.api_catalog()
  returns jsonb
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with ours as (
    select n.oid as nsp from pg_namespace as n where n.nspname = 'pgdrip'
  )
  select jsonb_build_object(
    'functions', (
      select jsonb_agg(jsonb_build_object(
               'name', p.proname, 'arguments', pg_get_function_arguments(p.oid),
               'plain', pg_get_function_identity_arguments(p.oid),
               'names', to_jsonb(coalesce(p.proargnames, '{}')), 'result', pg_get_function_result(p.oid),
               'comment', obj_description(p.oid, 'pg_proc')) order by p.proname)
        from pg_proc as p join ours as o on o.nsp = p.pronamespace),
    'types', (
      select jsonb_agg(jsonb_build_object(
               'name', c.relname, 'comment', obj_description(t.oid, 'pg_type'),
               'columns', (
                 select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)),
                                   ', ' order by a.attnum)
                   from pg_attribute as a where a.attrelid = c.oid and not a.attisdropped)) order by c.relname)
        from pg_class as c join pg_type as t on t.typrelid = c.oid
        join ours as o on o.nsp = c.relnamespace where c.relkind = 'c'),
    'views', (
      select jsonb_agg(jsonb_build_object(
               'name', c.relname, 'comment', obj_description(c.oid, 'pg_class'),
               'columns', (
                 select jsonb_agg(jsonb_build_object(
                          'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                          'comment', col_description(c.oid, a.attnum)) order by a.attnum)
                   from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0)) order by c.relname)
        from pg_class as c join ours as o on o.nsp = c.relnamespace where c.relkind = 'v'))
$$;

comment on function pgdrip.api_catalog() is
  'Private: functions, types and views of this schema, from which the router makes its own';
