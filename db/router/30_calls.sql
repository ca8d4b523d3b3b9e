-- The calls that take more than one shard, or a look at what they say. Made anew whenever
-- make_routes() has dropped what they stand on.

create or replace function pgdrip.lock_addresses(p_addresses text[])
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- Two callers with the same address: the second sees what the first has found out. By
  -- buckets, so that a batch takes no more locks than there are, and in their order.
  perform pg_advisory_xact_lock(hashtext('pgdrip.address'), b.bucket)
     from (select distinct pgdrip.contact_bucket(a) as bucket from unnest(p_addresses) as a
            where a is not null order by 1) as b;
end
$$;

comment on function pgdrip.lock_addresses(text[]) is
  'Private: keeps others from deciding about these addresses until the end of the transaction';

create or replace function pgdrip.forget_given_up(p_addresses text[], p_pool text)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_address text;
  v_hash    bytea;
  v_bucket  integer;
begin
  perform pgdrip.lock_addresses(p_addresses);
  for v_address, v_hash, v_bucket in
    select a.address, s.address_hash, s.bucket
      from unnest(p_addresses) as a(address)
      join pgdrip.second_addresses as s
        on s.address_hash = pgdrip.address_hash(a.address) and s.pool = p_pool
  loop
    if not shards.knows_address(pgdrip.enter_bucket(v_bucket), v_address, p_pool) then
      delete from pgdrip.second_addresses as s
       where s.address_hash = v_hash and s.pool = p_pool;
    end if;
  end loop;
end
$$;

comment on function pgdrip.forget_given_up(text[], text) is
  'Private: forgets which of these addresses was the second one of a contact that has another by now; 08006, 55P03';

create or replace function pgdrip.bucket_for(p_phone text, p_email text, p_pool text)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_buckets integer[] := '{}';
  v_known   boolean[] := '{}';
  v_bucket  integer;
  v_address text;
begin
  perform pgdrip.lock_addresses(array[p_phone, p_email]);
  foreach v_address in array array_remove(array[p_phone, p_email], null) loop
    select a.bucket into v_bucket from pgdrip.second_addresses as a
     where a.address_hash = pgdrip.address_hash(v_address) and a.pool = p_pool;
    v_buckets := v_buckets || coalesce(v_bucket, pgdrip.contact_bucket(v_address));
  end loop;
  if cardinality(v_buckets) < 2 or v_buckets[1] = v_buckets[2] then
    return v_buckets[1];
  end if;
  v_known := array[
    shards.knows_address(pgdrip.enter_bucket(v_buckets[1]), p_phone, p_pool),
    shards.knows_address(pgdrip.enter_bucket(v_buckets[2]), p_email, p_pool)];
  if v_known[1] and v_known[2] then
    raise exception 'phone and email belong to two contacts'
      using errcode = 'MD003', hint = 'Decide which of them is meant and pass only its address.';
  end if;
  -- The one that is new goes where the other is.
  v_bucket := case when v_known[2] then v_buckets[2] else v_buckets[1] end;
  insert into pgdrip.second_addresses (address_hash, pool, bucket)
  values (pgdrip.address_hash(case when v_known[2] then p_phone else p_email end), p_pool, v_bucket)
  on conflict (address_hash, pool) do update set bucket = excluded.bucket;
  return v_bucket;
end
$$;

comment on function pgdrip.bucket_for(text, text, text) is
  'Private: the bucket of the contact of a pool with one of these addresses, or of a new one; remembers an address that is not there by itself; MD003';

create or replace function pgdrip.upsert_contact(
  p_phone      text default null,
  p_email      text default null,
  p_name       text default null,
  p_attributes jsonb default '{}',
  p_timezone   text default null,
  p_pool       text default 'default',
  p_sender     text default null
)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(p_phone, p_email) is null then
    return shards.upsert_contact(0, p_phone, p_email, p_name, p_attributes, p_timezone, p_pool,
                                 p_sender);
  elsif p_phone is null or p_email is null then
    perform pgdrip.forget_given_up(array[coalesce(p_phone, p_email)], p_pool);
  end if;
  return shards.upsert_contact(
    pgdrip.enter_bucket(pgdrip.bucket_for(p_phone, p_email, p_pool)),
    p_phone, p_email, p_name, p_attributes, p_timezone, p_pool, p_sender);
end
$$;

comment on function pgdrip.upsert_contact(text, text, text, jsonb, text, text, text) is
  'Stores a contact in the shard of its bucket and returns its id; 22004, 22023, MD001, MD003, 08006, 55P03';

create or replace function pgdrip.import_contacts(p_contacts jsonb, p_pool text default 'default')
  returns setof pgdrip.import_result
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place integer;
  v_items jsonb;
begin
  if jsonb_typeof(p_contacts) <> 'array' or jsonb_array_length(p_contacts) > 10000
     or p_contacts @? 'strict $[*] ? (@.type() != "object")' then
    raise exception 'p_contacts must be an array of at most 10000 objects'
      using errcode = '22023', hint = 'Import in batches.';
  end if;
  perform pgdrip.lock_addresses(array(
    select a.address from jsonb_array_elements(p_contacts) as i(item),
           lateral (values (i.item ->> 'phone'), (i.item ->> 'email')) as a(address)));
  perform pgdrip.forget_given_up(array(
    select coalesce(i.item ->> 'phone', i.item ->> 'email')
      from jsonb_array_elements(p_contacts) as i(item)
     where (i.item ->> 'phone' is null) <> (i.item ->> 'email' is null)), p_pool);
  -- One without an address any shard refuses.
  for v_place, v_items in
    select case when b.bucket is null then 0 else pgdrip.enter_bucket(b.bucket) end,
           jsonb_agg(jsonb_build_object('line', b.ord) || b.item order by b.ord)
      from (select i.ord, i.item,
                   pgdrip.bucket_for(i.item ->> 'phone', i.item ->> 'email', p_pool) as bucket
              from jsonb_array_elements(p_contacts) with ordinality as i(item, ord)
             order by i.ord) as b
     group by 1
  loop
    return query select r.* from shards.import_contacts(v_place, v_items, p_pool) as r;
  end loop;
end
$$;

comment on function pgdrip.import_contacts(jsonb, text) is
  'Merges a batch, each contact in the shard of its bucket; bad elements come back with a reason; 22004, 22023, 08006, 55P03: call again with the same batch';

create or replace function pgdrip.find_contact(p_address text)
  returns bigint
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place integer;
  v_found bigint[] := '{}';
begin
  for v_place in
    select distinct pgdrip.enter_bucket(b) from unnest(pgdrip.buckets_of(p_address)) as b
  loop
    begin
      v_found := v_found || shards.find_contact(v_place, p_address);
    exception when sqlstate 'MD001' then
      null;  -- in another one, or nowhere
    end;
  end loop;
  if cardinality(v_found) > 1 then
    raise exception 'several contacts have the address %', quote_literal(left(p_address, 80))
      using errcode = 'MD003', hint = format('Say which: %s.', array_to_string(v_found, ', '));
  elsif v_found = '{}' then
    return shards.find_contact(0, p_address);
  end if;
  return v_found[1];
end
$$;

comment on function pgdrip.find_contact(text) is
  'The id of the contact with that phone or e-mail, over all pools and shards; 22004, MD001, several MD003, 08006, 55P03';

create or replace function pgdrip.suppress(p_address text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place   integer;
  v_lost    integer[] := '{}';
  v_answers boolean[] := '{}';
begin
  perform pgdrip.enter_bucket(b) from unnest(pgdrip.buckets_of(p_address)) as b;
  foreach v_place in array pgdrip.places() loop
    begin
      v_answers := v_answers || shards.suppress(v_place, p_address, p_reason);
    exception when connection_exception then
      v_lost := v_lost || pgdrip.shard_at(v_place);
    end;
  end loop;
  perform pgdrip.assert_all_answered(v_lost);
  return (select bool_or(a) from unnest(v_answers) as a);
end
$$;

comment on function pgdrip.suppress(text, text) is
  'Never messages an address again, in any shard; false: it was suppressed; 22004, 22023, 55P03, 08006: not in every shard, call again';

create or replace function pgdrip.unsuppress(p_address text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place   integer;
  v_lost    integer[] := '{}';
  v_answers boolean[] := '{}';
begin
  perform pgdrip.enter_bucket(b) from unnest(pgdrip.buckets_of(p_address)) as b;
  foreach v_place in array pgdrip.places() loop
    begin
      v_answers := v_answers || shards.unsuppress(v_place, p_address, p_reason);
    exception when connection_exception then
      v_lost := v_lost || pgdrip.shard_at(v_place);
    end;
  end loop;
  perform pgdrip.assert_all_answered(v_lost);
  return (select bool_or(a) from unnest(v_answers) as a);
end
$$;

comment on function pgdrip.unsuppress(text, text) is
  'Lets an address be messaged again, in every shard; false: it was not suppressed; 22004, 22023, 55P03, 08006: not in every shard, call again';

create or replace function pgdrip.record_reply(
  p_channel text,
  p_address text,
  p_text    text,
  p_at      timestamptz default null
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place   integer;
  v_ended   integer := 0;
  v_stopped boolean := false;
begin
  for v_place in
    select distinct pgdrip.enter_bucket(b) from unnest(pgdrip.buckets_of(p_address)) as b
  loop
    v_ended := v_ended + shards.record_reply(v_place, p_channel, p_address, p_text, p_at);
    v_stopped := v_stopped or shards.is_suppressed(v_place, p_address);
  end loop;
  if v_stopped then
    perform pgdrip.suppress(p_address, 'opted out by reply');
  end if;
  return v_ended;
end
$$;

comment on function pgdrip.record_reply(text, text, text, timestamptz) is
  'Ends what is in flight to an address on that channel, wherever it is; STOP and its like suppress in every shard; 22004, 22023, 08006, 55P03: call again';

create or replace function pgdrip.record_receipt(
  p_channel     text,
  p_provider_id text,
  p_status      text,
  p_at          timestamptz default null
)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place  integer;
  v_bucket integer;
  v_lost   integer[] := '{}';
begin
  foreach v_place in array pgdrip.places() loop
    begin
      v_bucket := shards.knows_message(v_place, p_channel, p_provider_id);
    exception when connection_exception then
      v_lost := v_lost || pgdrip.shard_at(v_place);
    end;
    if v_bucket is not null then
      return shards.record_receipt(pgdrip.enter_bucket(v_bucket), p_channel, p_provider_id,
                                   p_status, p_at);
    end if;
  end loop;
  if v_lost <> '{}' then
    raise exception 'no shard that answers knows the message; shard % does not answer',
      array_to_string(v_lost, ', ')
      using errcode = '08006', hint = 'Call again when it is back.';
  end if;
  if exists (select from pgdrip.moves) then
    raise exception 'no shard knows the message: it may be on its way to another'
      using errcode = '55P03', hint = 'Call again in a moment.';
  end if;
  -- It overtook its report: whichever shard that comes to has it then.
  foreach v_place in array pgdrip.places() loop
    perform shards.record_receipt(v_place, p_channel, p_provider_id, p_status, p_at);
  end loop;
  return false;
end
$$;

comment on function pgdrip.record_receipt(text, text, text, timestamptz) is
  'Tells the shard that knows a message what its provider says of it, and every shard where none does yet; false: nothing new or not known yet; 22004, 22023, 55P03, 08006: call again';

create or replace function pgdrip.report(
  p_enrollments  bigint[],
  p_tokens       bigint[],
  p_outcomes     text[],
  p_provider_ids text[] default null,
  p_codes        text[] default null,
  p_details      text[] default null
)
  returns setof pgdrip.report_verdict
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_places   integer[] := array(
    select pgdrip.place_of_id('enrollment', e.id)
      from unnest(p_enrollments) with ordinality as e(id, ord) order by e.ord);
  v_place    integer;
  v_lost     integer[] := '{}';
  v_verdicts pgdrip.report_verdict[];
  v_told     pgdrip.report_verdict[] := array_fill(null::pgdrip.report_verdict,
                                                   array[cardinality(v_places)]);
begin
  -- Where something is wrong with it, one shard gets it whole and says so.
  if exists (select from unnest(array[
       cardinality(p_tokens), cardinality(p_outcomes), cardinality(p_provider_ids),
       cardinality(p_codes), cardinality(p_details)]) as n where n <> cardinality(v_places)) then
    v_places := array_fill(0, array[cardinality(v_places)]);
  end if;
  for v_place in
    select distinct p from unnest(coalesce(nullif(v_places, '{}'), '{0}')) as p order by 1
  loop
    begin
      v_verdicts := array(select r from shards.report(v_place,
        pgdrip.at_place(p_enrollments, v_places, v_place),
        pgdrip.at_place(p_tokens, v_places, v_place),
        pgdrip.at_place(p_outcomes, v_places, v_place),
        pgdrip.at_place(p_provider_ids, v_places, v_place),
        pgdrip.at_place(p_codes, v_places, v_place),
        pgdrip.at_place(p_details, v_places, v_place)) as r);
      for i in 1 .. cardinality(v_verdicts) loop
        v_told[(array_positions(v_places, v_place))[i]] := v_verdicts[i];
      end loop;
    exception when connection_exception then
      v_lost := v_lost || pgdrip.shard_at(v_place);
    end;
  end loop;
  perform pgdrip.assert_all_answered(v_lost);
  return query select v.* from unnest(v_told) as v;
end
$$;

comment on function pgdrip.report(bigint[], bigint[], text[], text[], text[], text[]) is
  'Splits a report by the shards of its enrollments and returns a verdict for each token, in order; 22004, 22023, MD005, 08006: not every shard answered, call again with the same';

create or replace function pgdrip.at_place(p_values anyarray, p_places integer[], p_place integer)
  returns anyarray
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when cardinality(p_values) is distinct from cardinality(p_places) then p_values
    else array(select v.value from unnest(p_values, p_places) with ordinality as v(value, place, ord)
                where v.place = p_place order by v.ord) end
$$;

comment on function pgdrip.at_place(anyarray, integer[], integer) is
  'Private: what of a list belongs to one shard; NULL for none';

create or replace function pgdrip.erase_contact(p_contact bigint, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_home    integer := pgdrip.place_of_id('contact', p_contact);
  v_person  jsonb := pgdrip.export_contact(p_contact) -> 'contact';
  v_place   integer;
  v_address text;
begin
  -- The others first: while one of them is down, the person is still here to be erased.
  foreach v_address in array array_remove(array[v_person ->> 'phone', v_person ->> 'email'], null)
  loop
    perform pgdrip.enter_bucket(b) from unnest(pgdrip.buckets_of(v_address)) as b;
    foreach v_place in array array_remove(pgdrip.places(), v_home) loop
      perform shards.forget_address(v_place, v_address);
    end loop;
    delete from pgdrip.second_addresses as a
     where a.address_hash = pgdrip.address_hash(v_address) and a.pool = v_person ->> 'pool';
  end loop;
  return shards.erase_contact(v_home, p_contact, p_reason);
end
$$;

comment on function pgdrip.erase_contact(bigint, text) is
  'Takes a person away for good, in every shard; false: erased already; 22004, 22023, MD001, 55P03, 08006: call again';

create or replace function pgdrip.check()
  returns setof pgdrip.violation
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place integer;
begin
  foreach v_place in array pgdrip.places() loop
    begin
      return query select v.* from shards.check(v_place) as v;
    exception when connection_exception then
      return query select 'SHARD_MISSING', null::bigint, sqlerrm;
    end;
  end loop;
end
$$;

comment on function pgdrip.check() is
  'Every broken invariant of every shard; SHARD_MISSING for one that does not answer; empty is good';

create or replace function pgdrip.missing_shards(p_seen integer[])
  returns integer[]
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(s.shard order by s.shard), '{}') from pgdrip.shards as s
   where s.shard <> all (coalesce(p_seen, '{}'))
$$;

comment on function pgdrip.missing_shards(integer[]) is
  'Shards that are not among those seen';

create or replace view pgdrip.queue_health as
  select sum(q.due_now)::bigint as due_now, min(q.oldest_due_at) as oldest_due_at,
         sum(q.in_flight)::bigint as in_flight, sum(q.lease_expired)::bigint as lease_expired,
         sum(q.awaiting)::bigint as awaiting, sum(q.scheduled)::bigint as scheduled,
         sum(q.parked)::bigint as parked, sum(q.uncertain)::bigint as uncertain,
         bool_or(q.is_paused) as is_paused, bool_or(q.is_locked) as is_locked,
         sum(q.senders_down)::bigint as senders_down, sum(q.runners_alive)::bigint as runners_alive,
         pgdrip.missing_shards(array_agg(q.shard)) as missing_shards
    from pgdrip.each_queue_health() as q;

comment on view pgdrip.queue_health is 'The queues of all shards in one row; missing_shards did not answer';

create or replace view pgdrip.sequence_funnel as
    with q as materialized (select * from pgdrip.each_sequence_funnel())
  select q.sequence, q.step, sum(q.upcoming)::bigint as upcoming, sum(q.active)::bigint as active,
         sum(q.sent)::bigint as sent, sum(q.delivered)::bigint as delivered,
         sum(q.read)::bigint as read, sum(q.skipped)::bigint as skipped,
         sum(q.failed)::bigint as failed,
         pgdrip.missing_shards(array(select m.shard from q as m)) as missing_shards
    from q group by q.sequence, q.step;

comment on view pgdrip.sequence_funnel is
  'How many enrollments of all shards stand where, by sequence and step; missing_shards did not answer';

create or replace view pgdrip.sender_load as
  select s.sender, s.pool, s.channel, s.status, s.health, s.limit_hour, s.used_hour, s.limit_day,
         s.used_day, s.backlog, s.oldest_due_at, s.in_flight, s.ready_at,
         s.last_error, s.down_at, s.faults, s.sender_group, s.shard
    from pgdrip.each_sender_load() as s;

comment on view pgdrip.sender_load is
  'Each sender of each shard that answers, with its limits, what it used of them and what waits; errors masked';

create or replace view pgdrip.failures as
  select f.at, f.sequence, f.contact_id, f.recipient, f.step, f.attempt,
         f.sender, f.class, f.code, f.detail, f.verdict, f.is_unclassified,
         f.enrollment_id, f.token, f.shard
    from pgdrip.each_failures() as f;

comment on view pgdrip.failures is 'Every failure in the shards that answer; for operators, as it is not masked';

create or replace view pgdrip.uncertain_deliveries as
  select u.token, u.sequence, u.contact_id, u.recipient, u.step,
         u.attempt, u.sender, u.runner, u.begun_at, u.code, u.detail,
         u.enrollment_id, u.shard
    from pgdrip.each_uncertain_deliveries() as u;

comment on view pgdrip.uncertain_deliveries is
  'Sends whose outcome nobody knows, in the shards that answer; resolve_uncertain() is for their shard. For operators, as it is not masked';
