-- The router: a database that knows which shard a contact lives in and passes calls on.
--
-- Each shard is a complete pgdrip database. A contact lives in the shard of its bucket, ten
-- bits of the hash of its first address; buckets → shards is a table here. Runners connect
-- straight to their shard, as claim, begin_send and report must see its locks and nothing
-- else; everything else may come here, by the same names and arguments. PL/Proxy carries
-- the calls (schema shards: one function each, which takes the place of a shard first); the
-- functions of schema pgdrip find the place, put answers together and say which shard did
-- not answer.
--
-- Where does a call go?
--   an address   its bucket, or that of second_addresses: somebody's other address
--   an id        the shard in its upper bits, where it was born, or that of moved_ids
--   neither      every shard, one after the other; one that is down stops none of the rest
--
-- What is done on a shard stays done, whatever becomes of the transaction here: each call
-- is its own. All calls may be repeated: 08006 says that a shard did not answer, 55P03 that
-- a bucket is on its way.
--
-- A move (pgdrip shard move) marks the bucket, waits for calls that are under way by an
-- advisory lock, moves it as 89_depart.sql of the shards tells, then changes buckets and
-- moved_ids in one transaction. Calls by an id find it or not; whoever does not, while a
-- move is under way, is told to ask again.

set local client_min_messages = warning;
create extension if not exists plproxy;
create schema if not exists pgdrip;
comment on schema pgdrip is 'The router of a sharded pgdrip: its map, and the functions of the shards';
create schema if not exists shards;
comment on schema shards is 'Private: one PL/Proxy function for each call that goes to a shard';
create schema if not exists plproxy;
comment on schema plproxy is 'What PL/Proxy asks to find the shards';

create table if not exists pgdrip.router (
  is_singleton boolean not null default true,
  version      integer not null default 1,
  address_key  bytea,
  constraint router_pkey primary key (is_singleton),
  constraint router_has_one_row check (is_singleton),
  constraint router_address_key_has_256_bits check (octet_length(address_key) = 32)
);
comment on table pgdrip.router is 'One row: what all shards share';
comment on column pgdrip.router.version is 'Rises whenever PL/Proxy must look at the shards anew';
comment on column pgdrip.router.address_key is
  'With which all shards hash addresses; the first shard brings it, NULL until then';
insert into pgdrip.router default values on conflict do nothing;

create table if not exists pgdrip.shards (
  shard integer not null,
  place integer not null,
  dsn   text not null,
  constraint shards_pkey primary key (shard),
  constraint shards_place_key unique (place),
  constraint shards_shard_in_range check (shard between 0 and 8191),
  constraint shards_place_not_negative check (place >= 0),
  constraint shards_dsn_has_no_password check (dsn !~* 'password')
);
comment on table pgdrip.shards is 'The databases that hold contacts; none is ever taken out';
comment on column pgdrip.shards.shard is 'The upper bits of every id that is born there';
comment on column pgdrip.shards.place is 'Where PL/Proxy has it, from 0 without a gap';
comment on column pgdrip.shards.dsn is
  'How the router connects, as libpq takes it; a password belongs into a passfile';

create table if not exists pgdrip.buckets (
  bucket    integer not null,
  shard     integer not null,
  is_moving boolean not null default false,
  constraint buckets_pkey primary key (bucket),
  constraint buckets_bucket_in_range check (bucket between 0 and 1023),
  constraint buckets_shard_fkey foreign key (shard) references pgdrip.shards
);
create index if not exists buckets_shard on pgdrip.buckets (shard);
comment on table pgdrip.buckets is 'Which shard the contacts of a bucket live in';
comment on column pgdrip.buckets.is_moving is 'Calls by an address of it are told to come again';

create table if not exists pgdrip.moves (
  move_id    bigint generated always as identity,
  bucket     integer not null,
  from_shard integer not null,
  to_shard   integer not null,
  started_at timestamptz not null,
  constraint moves_pkey primary key (move_id),
  constraint moves_bucket_key unique (bucket),
  constraint moves_bucket_fkey foreign key (bucket) references pgdrip.buckets,
  constraint moves_from_fkey foreign key (from_shard) references pgdrip.shards,
  constraint moves_to_fkey foreign key (to_shard) references pgdrip.shards,
  constraint moves_go_elsewhere check (from_shard <> to_shard),
  constraint moves_started_at_finite check (isfinite(started_at))
);
create index if not exists moves_from on pgdrip.moves (from_shard);
create index if not exists moves_to on pgdrip.moves (to_shard);
comment on table pgdrip.moves is 'Buckets on their way; pgdrip shard move ends what it began';

create table if not exists pgdrip.moved_ids (
  kind   text not null,
  id     bigint not null,
  bucket integer not null,
  constraint moved_ids_pkey primary key (kind, id),
  constraint moved_ids_kind_known check (kind in ('contact', 'enrollment')),
  constraint moved_ids_bucket_fkey foreign key (bucket) references pgdrip.buckets
);
create index if not exists moved_ids_bucket on pgdrip.moved_ids (bucket);
comment on table pgdrip.moved_ids is
  'Contacts and enrollments that do not live in the shard which their id names';

create table if not exists pgdrip.second_addresses (
  address_hash bytea not null,
  pool         text not null,
  bucket       integer not null,
  constraint second_addresses_pkey primary key (address_hash, pool),
  constraint second_addresses_bucket_fkey foreign key (bucket) references pgdrip.buckets
);
create index if not exists second_addresses_bucket on pgdrip.second_addresses (bucket);
comment on table pgdrip.second_addresses is
  'Addresses, hashed with the key of the shards, of contacts in the bucket of another address of theirs';

create or replace function plproxy.get_cluster_version(p_cluster text)
  returns integer
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select r.version from pgdrip.router as r
$$;

comment on function plproxy.get_cluster_version(text) is
  'PL/Proxy asks at every call whether to read the shards anew';

create or replace function plproxy.get_cluster_partitions(p_cluster text)
  returns setof text
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select s.dsn from pgdrip.shards as s order by s.place
$$;

comment on function plproxy.get_cluster_partitions(text) is 'The shards, by their place';

create or replace function plproxy.get_cluster_config(
  in p_cluster text, out key text, out val text
)
  returns setof record
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  -- Whoever calls is who logs in, where a dsn names no user.
  values ('modular_mapping', '1'), ('default_user', 'session_user'), ('query_timeout', '60')
$$;

comment on function plproxy.get_cluster_config(text) is
  'That a place is a number from 0, who logs in, and the seconds after which a shard has not answered';

create or replace function pgdrip.clock()
  returns timestamptz
  language plpgsql
  stable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return clock_timestamp();
end
$$;

comment on function pgdrip.clock() is 'Now, by the router';

create or replace function pgdrip.contact_bucket(p_address text)
  returns integer
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select get_byte(h.hash, 0) * 4 + get_byte(h.hash, 1) / 64
    from sha256(convert_to(lower(p_address), 'UTF8')) as h(hash)
$$;

comment on function pgdrip.contact_bucket(text) is
  'The first ten bits of the sha256 of an address in lower case, as the shards have it';

create or replace function pgdrip.address_hash(p_address text)
  returns bytea
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select sha256(r.address_key || sha256(r.address_key || convert_to(lower(p_address), 'UTF8')))
    from pgdrip.router as r
$$;

comment on function pgdrip.address_hash(text) is
  'Private: an address as second_addresses holds it; the same as in the shards';

create or replace function pgdrip.places()
  returns integer[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(s.place order by s.place), '{}') from pgdrip.shards as s
$$;

comment on function pgdrip.places() is 'Private: every shard, as PL/Proxy numbers them';

create or replace function pgdrip.shard_at(p_place integer)
  returns integer
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select s.shard from pgdrip.shards as s where s.place = p_place
$$;

comment on function pgdrip.shard_at(integer) is 'Private: the number of the shard at a place';

create or replace function pgdrip.place_of_id(p_kind text, p_id bigint)
  returns integer
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place integer;
begin
  select s.place into v_place
    from pgdrip.shards as s
   where s.shard = coalesce(
     (select b.shard from pgdrip.moved_ids as m join pgdrip.buckets as b using (bucket)
       where m.kind = p_kind and m.id = p_id), p_id >> 40);
  -- An id that no shard can have given: any of them says so.
  return coalesce(v_place, 0);
end
$$;

comment on function pgdrip.place_of_id(text, bigint) is
  'Private: where a contact or enrollment lives, by its id';

create or replace function pgdrip.enter_bucket(p_bucket integer)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket pgdrip.buckets;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'isolation level must be read committed, not %',
      current_setting('transaction_isolation')
      using errcode = 'MD003', hint = 'An older snapshot does not see that a bucket has moved.';
  end if;
  -- Until the end of this call the bucket cannot leave: its mover waits for us, or we see it.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgdrip.bucket'), p_bucket) then
    v_bucket.is_moving := true;
  else
    select b.* into v_bucket from pgdrip.buckets as b where b.bucket = p_bucket;
  end if;
  if v_bucket.is_moving then
    raise exception 'bucket % is being moved', p_bucket
      using errcode = '55P03', hint = 'Call again in a moment.';
  elsif v_bucket.bucket is null then
    raise exception 'no shard has bucket %', p_bucket
      using errcode = 'MD003', hint = 'pgdrip shard add gives the buckets to shards.';
  end if;
  return (select s.place from pgdrip.shards as s where s.shard = v_bucket.shard);
end
$$;

comment on function pgdrip.enter_bucket(integer) is
  'Private: where a bucket lives, and stays until the end of the transaction; 55P03, MD003';

create or replace function pgdrip.buckets_of(p_address text)
  returns integer[]
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select array(select pgdrip.contact_bucket(p_address) where p_address is not null
               union
               select a.bucket from pgdrip.second_addresses as a
                where a.address_hash = pgdrip.address_hash(p_address) order by 1)
$$;

comment on function pgdrip.buckets_of(text) is
  'Private: in which buckets contacts with that address may be';

create or replace function pgdrip.raise_as_told(
  p_place   integer,
  p_state   text,
  p_message text,
  p_hint    text
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- PL/Proxy has no code of its own for this.
  if p_state !~ '^(XX|MD|22|23)' or p_state = 'XX000' and p_message !~ 'REMOTE ERROR: '
     and p_message ~* 'connect|timeout|server closed' then
    raise exception 'shard % does not answer', pgdrip.shard_at(p_place)
      using errcode = '08006', detail = p_message,
            hint = 'The others go on; call again when it is back.';
  end if;
  raise exception '%', regexp_replace(p_message, '^.*?REMOTE ERROR: ', '')
    using errcode = p_state, hint = regexp_replace(p_hint, '^Remote hint: ', '');
end
$$;

comment on function pgdrip.raise_as_told(integer, text, text, text) is
  'Private: raises an error of a shard as that said it, without who passed it on; 08006 where it did not answer';

create or replace function pgdrip.is_elsewhere(
  p_kind  text,
  p_id    bigint,
  p_place integer,
  p_error text
)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_error !~ '^no (contact|enrollment) has id ' then
    return false;
  elsif pgdrip.place_of_id(p_kind, p_id) <> p_place then
    return true;
  elsif exists (select from pgdrip.moves as m where m.from_shard = pgdrip.shard_at(p_place)) then
    raise exception '% % is not in shard %: it may be on its way to another', p_kind, p_id,
      pgdrip.shard_at(p_place)
      using errcode = '55P03', hint = 'Call again in a moment.';
  end if;
  return false;
end
$$;

comment on function pgdrip.is_elsewhere(text, bigint, integer, text) is
  'Private: whether what a shard does not know has moved since its place was looked up; 55P03 while it may be under way';

create or replace function pgdrip.assert_all_answered(p_lost integer[])
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_lost <> '{}' then
    raise exception 'done, but not in shard %, which does not answer', array_to_string(p_lost, ', ')
      using errcode = '08006', hint = 'Call again when it is back: the others find nothing left to do.';
  end if;
end
$$;

comment on function pgdrip.assert_all_answered(integer[]) is
  'Private: raises 08006 where a call to every shard did not reach some';

create or replace function pgdrip.schema_version()
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select '1'
$$;

comment on function pgdrip.schema_version() is 'Which API the router speaks: that of its shards';
