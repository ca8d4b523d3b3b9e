-- How the map changes: shards come, buckets move. Only `pgdrip shard` calls these.

drop function if exists pgdrip.shard_map();
create function pgdrip.shard_map()
  returns table (shard integer, dsn text, buckets bigint, moving integer[])
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select s.shard, s.dsn, count(b.bucket),
         coalesce(array_agg(b.bucket order by b.bucket) filter (where b.is_moving), '{}')
    from pgdrip.shards as s left join pgdrip.buckets as b using (shard)
   group by s.shard, s.dsn, s.place order by s.place
$$;

comment on function pgdrip.shard_map() is
  'Private: every shard, how to connect to it, how many buckets live there and which of them are leaving';

create or replace function pgdrip.shared_key()
  returns bytea
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select r.address_key from pgdrip.router as r
$$;

comment on function pgdrip.shared_key() is
  'Private: with which every shard hashes addresses; NULL before the first one';

create or replace function pgdrip.add_shard(p_shard integer, p_dsn text, p_address_key bytea)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pgdrip.router as r
     set version = r.version + 1, address_key = coalesce(r.address_key, p_address_key);
  update pgdrip.shards as s set dsn = p_dsn where s.shard = p_shard;
  if found then
    return false;
  end if;
  insert into pgdrip.shards (shard, place, dsn)
  select p_shard, count(*), p_dsn from pgdrip.shards;
  return true;
end
$$;

comment on function pgdrip.add_shard(integer, text, bytea) is
  'Private: takes a shard into the map, without buckets, or changes how to connect to it; false: it was there';

create or replace function pgdrip.spread_buckets()
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  insert into pgdrip.buckets as b (bucket, shard)
  select i, s.shard
    from generate_series(0, 1023) as i
    join pgdrip.shards as s on s.place = i % (select count(*) from pgdrip.shards)
  on conflict (bucket) do update set shard = excluded.shard
   where not b.is_moving
$$;

comment on function pgdrip.spread_buckets() is
  'Private: gives every shard as many buckets; only while no shard has a contact';

create or replace function pgdrip.give_buckets(p_shard integer)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  insert into pgdrip.buckets (bucket, shard) select i, p_shard from generate_series(0, 1023) as i
  on conflict do nothing
$$;

comment on function pgdrip.give_buckets(integer) is
  'Private: gives a shard the buckets that no shard has';

create or replace function pgdrip.begin_move(p_bucket integer, p_to integer)
  returns pgdrip.moves
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_from integer;
  v_move pgdrip.moves;
begin
  perform set_config('synchronous_commit', 'on', true);
  if not exists (select from pgdrip.shards as s where s.shard = p_to) then
    raise exception 'there is no shard %', p_to
      using errcode = 'MD001', hint = 'pgdrip shard status lists them.';
  end if;
  select b.shard into v_from from pgdrip.buckets as b where b.bucket = p_bucket for update;
  if not found then
    raise exception 'no shard has bucket %', p_bucket
      using errcode = 'MD001', hint = 'Buckets are numbered from 0 to 1023.';
  end if;
  select m.* into v_move from pgdrip.moves as m where m.bucket = p_bucket;
  if v_move.to_shard <> p_to then
    raise exception 'bucket % is on its way to shard %', p_bucket, v_move.to_shard
      using errcode = 'MD003', hint = 'End that move first: pgdrip shard move --resume.';
  elsif v_move.move_id is null and v_from <> p_to then
    update pgdrip.buckets as b set is_moving = true where b.bucket = p_bucket;
    insert into pgdrip.moves (bucket, from_shard, to_shard, started_at)
    values (p_bucket, v_from, p_to, pgdrip.clock()) returning * into v_move;
  end if;
  return v_move;
end
$$;

comment on function pgdrip.begin_move(integer, integer) is
  'Private: marks a bucket as leaving, or finds the move that was begun; NULL: it is there already; MD001, MD003';

create or replace function pgdrip.await_calls(p_bucket integer)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_xact_lock(hashtext('pgdrip.bucket'), p_bucket)
$$;

comment on function pgdrip.await_calls(integer) is
  'Private: returns when no call is under way that saw the bucket where it was';

create or replace function pgdrip.cancel_move(p_move bigint)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    delete from pgdrip.moves as m where m.move_id = p_move returning m.bucket
  )
  update pgdrip.buckets as b set is_moving = false from gone as g where b.bucket = g.bucket
$$;

comment on function pgdrip.cancel_move(bigint) is
  'Private: leaves a bucket where it is, which has not left its shard';

create or replace function pgdrip.end_move(
  p_move        bigint,
  p_contacts    bigint[],
  p_enrollments bigint[]
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_move pgdrip.moves;
begin
  perform set_config('synchronous_commit', 'on', true);
  delete from pgdrip.moves as m where m.move_id = p_move returning * into v_move;
  if not found then
    return;  -- somebody else has ended it, and the bucket may be anywhere by now
  end if;
  update pgdrip.buckets as b set shard = v_move.to_shard, is_moving = false
   where b.bucket = v_move.bucket;
  delete from pgdrip.moved_ids as i where i.bucket = v_move.bucket;
  insert into pgdrip.moved_ids (kind, id, bucket)
  select 'contact', c, v_move.bucket from unnest(p_contacts) as c
  union all
  select 'enrollment', e, v_move.bucket from unnest(p_enrollments) as e
  on conflict (kind, id) do update set bucket = excluded.bucket;
end
$$;

comment on function pgdrip.end_move(bigint, bigint[], bigint[]) is
  'Private: from here on calls go to the shard that a bucket has landed in, also those by ids that were born elsewhere';

create or replace function pgdrip.open_moves()
  returns setof pgdrip.moves
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select m.* from pgdrip.moves as m order by m.move_id
$$;

comment on function pgdrip.open_moves() is 'Private: moves that have begun and not ended';

drop function if exists pgdrip.bucket_owners();
create function pgdrip.bucket_owners()
  returns table (bucket integer, shard integer)
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select b.bucket, b.shard from pgdrip.buckets as b order by b.bucket
$$;

comment on function pgdrip.bucket_owners() is 'Private: which shard each bucket lives in';
