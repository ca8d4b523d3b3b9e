-- A bucket of contacts moves to another shard. On the shard it leaves one transaction,
-- opened by stage_bucket(), holds everything of its contacts until remove_bucket() and the
-- commit; on the other shard rows wait in arrivals, where nothing works, until they land.
--
-- Locks, in the order of everybody else: contacts, due, enrollments. Claims pass what is
-- locked by. A step that a runner has is never waited for in a lock: drain_bucket() takes
-- what is not leased and says how much is out; reports come in meanwhile, and the caller
-- asks again until all is held.
--
-- The commit of remove_bucket() is the moment of the move. Before it the copy elsewhere is
-- void, whatever happens, and the bucket lives on here. After it arrivals is the only copy:
-- it has landed there before, was compared by bucket_checksum(), and lands again if that
-- landing was lost. departures tells which of the two it is. So nothing is ever live twice.
--
-- Ids and tokens stay. What differs between shards goes by its natural key: sequences by
-- name, versions by their content, senders by id, of whom history keeps the names.

create or replace function pgdrip.is_still_here(p_move bigint, p_bucket integer)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_try_advisory_xact_lock(hashtext('pgdrip.move'), p_bucket) then
    raise exception 'somebody else is moving bucket %', p_bucket
      using errcode = 'MD003', hint = 'Wait for it, or end it.';
  end if;
  return not exists (select from pgdrip.departures as d where d.move_id = p_move);
end
$$;

comment on function pgdrip.is_still_here(bigint, integer) is
  'Private: whether a bucket has not left by this move; until the end of the transaction nobody else moves it; MD003';

create or replace function pgdrip.stage_bucket(p_bucket integer)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
declare
  v_blocked text;
begin
  perform pgdrip.assert_working();
  create temp table if not exists bucket_contacts (
    contact_id bigint primary key
  ) on commit drop;
  insert into pg_temp.bucket_contacts
  select c.contact_id from pgdrip.contacts as c
   where c.bucket = p_bucket order by c.contact_id for no key update;
  analyze pg_temp.bucket_contacts;
  select s.name into v_blocked
    from pg_temp.bucket_contacts as b
    join pgdrip.enrollments as e using (contact_id)
    join pgdrip.due as d using (enrollment_id)
    join pgdrip.senders as s on s.sender_id = d.sender_id
   where s.health = 'blocked' limit 1;
  if found then
    raise exception 'sender % is blocked: its work is not moved', quote_literal(v_blocked)
      using errcode = 'MD003',
            hint = 'exit_enrollment() ends its work; resume_sender() if the block was lifted.';
  end if;
  return (select count(*) from pg_temp.bucket_contacts);
end
$$;

comment on function pgdrip.stage_bucket(integer) is
  'Private: holds the contacts of a bucket until the end of the transaction and lists them in pg_temp.bucket_contacts; returns how many; the commit is durable; MD003, MD005';

create or replace function pgdrip.drain_bucket()
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  timestamptz := pgdrip.clock();
  v_live bigint[];
  v_held bigint[];
begin
  v_live := array(
    select d.enrollment_id from pg_temp.bucket_contacts as b
      join pgdrip.enrollments as e using (contact_id)
      join pgdrip.due as d using (enrollment_id));
  v_held := array(
    select d.enrollment_id from pgdrip.due as d
     where d.enrollment_id = any (v_live) and (d.lease_until is null or d.lease_until <= v_now)
     order by d.enrollment_id for update skip locked);
  -- What a runner let lapse is settled as a claim would.
  perform pgdrip.settle_stopped(array(
    select d.enrollment_id from pgdrip.due as d
     where d.enrollment_id = any (v_held) and d.lease_until is not null
       and d.begun_at is not null), v_now);
  perform pgdrip.give_back(array(
    select d.enrollment_id from pgdrip.due as d
     where d.enrollment_id = any (v_held) and d.lease_until is not null
       and d.begun_at is null), 'abandoned', 'lease_expired', v_now);
  if exists (select from pgdrip.due as d
              where d.enrollment_id = any (v_live)
                and (d.enrollment_id <> all (v_held) or d.lease_until is not null)) then
    return (select count(*) from pgdrip.due as d
             where d.enrollment_id = any (v_live)
               and (d.enrollment_id <> all (v_held) or d.lease_until is not null));
  end if;
  -- Nobody is under way any more: the last words, receipts and events end here.
  perform from pgdrip.contacts as c join pg_temp.bucket_contacts as b using (contact_id)
    order by c.contact_id for update of c;
  perform from pgdrip.enrollments as e join pg_temp.bucket_contacts as b using (contact_id)
    order by e.enrollment_id for update of e;
  return 0;
end
$$;

comment on function pgdrip.drain_bucket() is
  'Private: holds the live steps of the staged bucket that no runner has, settles those whose lease ran out, and returns how many are out; 0: all is held';

create or replace function pgdrip.bucket_senders()
  returns setof bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select c.sender_id from pg_temp.bucket_contacts as b join pgdrip.contacts as c using (contact_id)
     where c.sender_id is not null
    union
    select x.sender_id
      from pg_temp.bucket_contacts as b
      join pgdrip.enrollments as e using (contact_id),
           lateral (select e.sender_id
                    union
                    select j.sender_id from pgdrip.deliveries as j
                     where j.enrollment_id = e.enrollment_id) as x
     where x.sender_id is not null;
end
$$;

comment on function pgdrip.bucket_senders() is
  'Private: the senders that the staged contacts and their history name';

create or replace function pgdrip.forgotten_sums()
  returns setof pgdrip.history_sums
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select e.sequence_id, e.last_confirmed_step, timestamptz 'epoch', 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint,
           count(*)
      from pg_temp.bucket_contacts as b
      join pgdrip.enrollments as e using (contact_id)
      join pgdrip.control as c on e.enrolled_at < c.pruned_until
     where e.last_confirmed_step > 0 and e.ended_at is not null
       and not pgdrip.is_remembered(e)
     group by e.sequence_id, e.last_confirmed_step;
end
$$;

comment on function pgdrip.forgotten_sums() is
  'Private: enrollments of the staged contacts that retention took the last event of, as history_sums counts them';

create or replace function pgdrip.bucket_parts()
  returns text
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return (select coalesce(jsonb_agg(to_jsonb(p)), '[]')::text from (
    select 'sender', s.sender_id,
           jsonb_build_object('name', s.name, 'pool', s.pool, 'channel', s.channel)
      from pgdrip.senders as s join pgdrip.bucket_senders() as i(sender_id) using (sender_id)
    union all
    select 'version', v.version_id, jsonb_build_object(
             'sequence', q.name, 'version', to_jsonb(v), 'steps', (
               select jsonb_agg(to_jsonb(s) order by s.number) from pgdrip.steps as s
                where s.version_id = v.version_id))
      from (select distinct e.version_id
              from pg_temp.bucket_contacts as b join pgdrip.enrollments as e using (contact_id)) as u
      join pgdrip.sequence_versions as v using (version_id)
      join pgdrip.sequences as q using (sequence_id)
    union all
    select 'suppression', row_number() over (), to_jsonb(s)
      from (select distinct x.*
              from pg_temp.bucket_contacts as b
              join pgdrip.contacts as c using (contact_id)
              join pgdrip.suppressions as x on x.address in (c.phone, lower(c.email))) as s
    union all
    select 'sum', row_number() over (), jsonb_build_object(
             'sequence', q.name, 'sum', to_jsonb(h), 'pruned_until', c.pruned_until)
      from pgdrip.forgotten_sums() as h
      join pgdrip.sequences as q using (sequence_id)
     cross join pgdrip.control as c) as p(part, item_id, content));
end
$$;

comment on function pgdrip.bucket_parts() is
  'Private: what the staged contacts name and another shard may lack: senders, versions, suppressions, sums of forgotten history';

create or replace function pgdrip.contact_content(p_contact pgdrip.contacts)
  returns jsonb
  language sql
  stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
  select jsonb_build_object(
    'contact', to_jsonb(p_contact),
    'triggers', (
      select coalesce(jsonb_agg(to_jsonb(t) - 'sweep_at' order by t.trigger_id), '[]')
        from pgdrip.contact_triggers as t where t.contact_id = p_contact.contact_id),
    'events', (
      select coalesce(jsonb_agg(to_jsonb(v) order by v.event_id), '[]')
        from pgdrip.contact_events as v where v.contact_id = p_contact.contact_id),
    'suppressed', (
      select coalesce(jsonb_agg(s.address order by s.address collate "C"), '[]')
        from pgdrip.suppressions as s
       where s.address in (p_contact.phone, lower(p_contact.email))),
    'enrollments', (
      select coalesce(jsonb_agg(to_jsonb(e) - 'version_id' - 'sequence_id' || jsonb_build_object(
               'sequence', q.name,
               'version', encode(sha256(convert_to(v.definition::text, 'UTF8')), 'hex'),
               'due', (select jsonb_strip_nulls(to_jsonb(d)) from pgdrip.due as d
                        where d.enrollment_id = e.enrollment_id),
               'deliveries', (
                 select coalesce(jsonb_agg(x.row order by x.at, x.row::text collate "C"), '[]')
                   from (select j.at, jsonb_strip_nulls(to_jsonb(j)) as row
                           from pgdrip.deliveries as j
                          where j.enrollment_id = e.enrollment_id) as x),
               'refs', (
                 select coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(r))
                                           order by r.channel collate "C", r.provider_id collate "C"), '[]')
                   from pgdrip.provider_refs as r where r.enrollment_id = e.enrollment_id))
               order by e.enrollment_id), '[]')
        from pgdrip.enrollments as e
        join pgdrip.sequence_versions as v using (version_id)
        join pgdrip.sequences as q on q.sequence_id = e.sequence_id
       where e.contact_id = p_contact.contact_id))
$$;

comment on function pgdrip.contact_content(pgdrip.contacts) is
  'Private: a contact with all that belongs to it, the same text in whichever shard it is; when its words are swept is left out';

create or replace function pgdrip.bucket_batch(p_after bigint, p_limit integer)
  returns pgdrip.arrival_batch
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_out pgdrip.arrival_batch;
begin
  select max(x.contact_id), jsonb_agg(x.item)::text into v_out
    from (select c.contact_id, jsonb_build_object(
                   'part', 'contact', 'item_id', c.contact_id,
                   'content', pgdrip.contact_content(c)) as item
            from (select b.contact_id from pg_temp.bucket_contacts as b
                   where b.contact_id > p_after order by b.contact_id limit p_limit) as b
            join pgdrip.contacts as c using (contact_id)) as x;
  return v_out;
end
$$;

comment on function pgdrip.bucket_batch(bigint, integer) is
  'Private: the staged contacts after that id, as arrive() takes them; NULL: no more';

create or replace function pgdrip.bucket_checksum()
  returns text
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select encode(sha256(coalesce(string_agg(
             sha256(convert_to(pgdrip.contact_content(c)::text, 'UTF8')), '' order by c.contact_id),
             '')), 'hex')
      from pg_temp.bucket_contacts as b join pgdrip.contacts as c using (contact_id));
end
$$;

comment on function pgdrip.bucket_checksum() is
  'Private: one hash of the staged contacts and all that belongs to them';

create or replace function pgdrip.remove_bucket(p_move bigint, p_bucket integer)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_ids bigint[] := array(
    select e.enrollment_id from pg_temp.bucket_contacts as b
      join pgdrip.enrollments as e using (contact_id));
begin
  if exists (select from pgdrip.contacts as c
              where c.bucket = p_bucket
                and c.contact_id not in (select b.contact_id from pg_temp.bucket_contacts as b)) then
    raise exception 'contacts of bucket % were added to this shard meanwhile', p_bucket
      using errcode = 'MD003', hint = 'Add contacts through the router, and move it again.';
  end if;
  insert into pgdrip.history_sums as h
    (sequence_id, step, month_at, sent, delivered, read, skipped, failed, last_confirmed)
  select s.sequence_id, s.step, s.month_at, 0, 0, 0, 0, 0, -s.last_confirmed
    from pgdrip.forgotten_sums() as s
  on conflict (sequence_id, step, month_at) do update
    set last_confirmed = h.last_confirmed + excluded.last_confirmed;
  insert into pgdrip.departures (move_id, bucket, left_at)
  values (p_move, p_bucket, pgdrip.clock());
  -- The journal is only added to, else: here it goes on elsewhere.
  grant delete on pgdrip.deliveries to current_user;
  delete from pgdrip.deliveries as j where j.enrollment_id = any (v_ids);
  revoke delete on pgdrip.deliveries from current_user;
  delete from pgdrip.provider_refs as r where r.enrollment_id = any (v_ids);
  delete from pgdrip.group_waits as w where w.enrollment_id = any (v_ids);
  delete from pgdrip.due as d where d.enrollment_id = any (v_ids);
  delete from pgdrip.enrollments as e where e.enrollment_id = any (v_ids);
  delete from pgdrip.contacts as c
   using pg_temp.bucket_contacts as b where b.contact_id = c.contact_id;
end
$$;

comment on function pgdrip.remove_bucket(bigint, integer) is
  'Private: deletes the staged contacts, which have arrived elsewhere, and all that belongs to them; MD003';
