-- One person's data: shown in full to whom it concerns, handed out whole, and erased.
-- Erasing writes contacts, enrollments, contact_triggers, contact_events, suppressions,
-- erased_suppressions, provider_refs, adoptions and, alone of all, deliveries; no sender, for
-- a client may hold it open: their last errors are masked from the beginning.

create or replace function pgdrip.mask(p_text text)
  returns text
  language sql
  immutable
  parallel safe
return regexp_replace(
         regexp_replace(p_text, '([[:alnum:]_])[^[:space:]@<>()]*@([[:alnum:].-]+)', '\1…@\2', 'g'),
         '(\+?[0-9]{2})[0-9 ().-]{3,}([0-9]{2})', '\1…\2', 'g');

comment on function pgdrip.mask(text) is
  'A text with e-mail addresses and long numbers made unreadable: +60…89, j…@example.com';

create or replace function pgdrip.sees_people()
  returns boolean
  language sql
  stable
return has_function_privilege('pgdrip.export_contact(bigint)', 'execute');

comment on function pgdrip.sees_people() is
  'Whether the current user may have a person''s data, so that views show it in full';

create or replace function pgdrip.shown(p_text text)
  returns text
  language sql
  stable
return case when pgdrip.sees_people() then p_text else pgdrip.mask(p_text) end;

comment on function pgdrip.shown(text) is
  'A text of or about a person, masked for whoever may not have a person''s data';

create or replace function pgdrip.address_hash(p_address text)
  returns bytea
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select sha256(k.address_key || sha256(k.address_key || convert_to(lower(p_address), 'UTF8')))
    from pgdrip.control as k
$$;

comment on function pgdrip.address_hash(text) is
  'Private: an address as erased_suppressions holds it: a hash with the key of this database';

create or replace function pgdrip.suppress_again(p_addresses text[])
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pgdrip.erased_suppressions) then
    insert into pgdrip.suppressions (address, reason)
    select distinct lower(a), e.reason from unnest(p_addresses) as a
      join pgdrip.erased_suppressions as e on e.address_hash = pgdrip.address_hash(a)
     order by 1
    on conflict do nothing;
  end if;
end
$$;

comment on function pgdrip.suppress_again(text[]) is
  'Private: suppresses those of some addresses that were suppressed when their person was erased';

create or replace function pgdrip.allow_again(p_address text)
  returns boolean
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  with plain as (
    delete from pgdrip.suppressions as s where s.address = p_address returning s.address
  ),
  hashed as (
    delete from pgdrip.erased_suppressions as e
     where e.address_hash = pgdrip.address_hash(p_address) returning e.reason
  )
  select exists (select from plain) or exists (select from hashed)
$$;

comment on function pgdrip.allow_again(text) is
  'Private: forgets that an address, in lower case, is suppressed, by whichever of the two; false: it was not';

create or replace function pgdrip.export_contact(p_contact bigint)
  returns jsonb
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_contact pgdrip.contacts;
begin
  perform pgdrip.assert_contact(p_contact);
  select c.* into v_contact from pgdrip.contacts as c where c.contact_id = p_contact;
  return jsonb_build_object(
    'contact', to_jsonb(v_contact) - 'bucket' - 'sender_id',
    'triggers', (
      select coalesce(jsonb_agg(jsonb_build_object('trigger', t.trigger, 'added_at', t.added_at)
                                order by t.trigger_id), '[]')
        from pgdrip.contact_triggers as t where t.contact_id = p_contact),
    'events', (
      select coalesce(jsonb_agg(to_jsonb(v) - 'contact_id' order by v.event_id), '[]')
        from pgdrip.contact_events as v where v.contact_id = p_contact),
    'suppressions', (
      select coalesce(jsonb_agg(to_jsonb(s) order by s.address), '[]')
        from pgdrip.suppressions as s
       where s.address in (v_contact.phone, lower(v_contact.email))),
    'enrollments', (
      select coalesce(jsonb_agg(jsonb_build_object(
               'enrollment_id', e.enrollment_id, 'sequence', q.name, 'run', e.run,
               'status', e.status, 'enrolled_at', e.enrolled_at, 'ended_at', e.ended_at,
               'end_reason', e.end_reason, 'deliveries', (
                 select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                          'at', j.at, 'event', j.event, 'step', j.step, 'attempt', j.attempt,
                          'sender', n.name, 'code', j.code, 'detail', j.detail,
                          'provider_id', j.provider_id)) order by j.at, j.token), '[]')
                   from pgdrip.deliveries as j left join pgdrip.senders as n using (sender_id)
                  where j.enrollment_id = e.enrollment_id)) order by e.enrollment_id), '[]')
        from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
       where e.contact_id = p_contact));
end
$$;

comment on function pgdrip.export_contact(bigint) is
  'Everything that is kept of one person, as {contact, triggers, events, suppressions, enrollments}; 22004, MD001';

create or replace function pgdrip.scrub_history(p_contacts bigint[])
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[] := array(
    select e.enrollment_id from pgdrip.enrollments as e where e.contact_id = any (p_contacts));
begin
  delete from pgdrip.provider_refs as r where r.enrollment_id = any (v_ids);
  update pgdrip.deliveries as j
     set detail = null, provider_id = null, code = pgdrip.mask(j.code)
   where j.enrollment_id = any (v_ids)
     and (j.detail is not null or j.provider_id is not null
          or j.code <> pgdrip.mask(j.code));
end
$$;

comment on function pgdrip.scrub_history(bigint[]) is
  'Private: takes the words and ids of providers out of the history of people, and addresses out of their codes; ids, hashes and times stay';

create or replace function pgdrip.scrub_again()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_erased bigint[] := array(
    select c.contact_id from pgdrip.contacts as c
     where c.erased_at > pgdrip.clock() - interval '7 days');
begin
  perform pgdrip.scrub_history(v_erased);
  delete from pgdrip.contact_triggers as t where t.contact_id = any (v_erased);
end
$$;

comment on function pgdrip.scrub_again() is
  'Private: what was told of a message that was on its way when its person was erased goes, too, and words that an import was about to put there';

create or replace function pgdrip.hash_suppressions(p_contact pgdrip.contacts)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- While somebody of another pool has the address, it stays readable.
  with gone as (
    delete from pgdrip.suppressions as s
     where s.address in (p_contact.phone, lower(p_contact.email))
       and not exists (
         select from pgdrip.contacts as c
          where (c.phone = s.address or lower(c.email) = s.address)
            and c.contact_id <> p_contact.contact_id)
    returning s.address, s.reason
  )
  insert into pgdrip.erased_suppressions (address_hash, reason)
  select pgdrip.address_hash(g.address), g.reason from gone as g
  on conflict do nothing;
end
$$;

comment on function pgdrip.hash_suppressions(pgdrip.contacts) is
  'Private: keeps the suppressions of a person who goes as keyed hashes only';

create or replace function pgdrip.erase_contact(p_contact bigint, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_contact pgdrip.contacts;
begin
  perform pgdrip.assert_reason(p_reason);
  select c.* into v_contact from pgdrip.contacts as c
   where c.contact_id = p_contact for no key update;
  if v_contact.erased_at is not null then
    return false;
  end if;
  perform pgdrip.lock_contact(p_contact);
  perform pgdrip.exit_all(array(
    select e.enrollment_id from pgdrip.enrollments as e where e.contact_id = p_contact), 'erased');
  update pgdrip.enrollments as e set end_reason = pgdrip.mask(e.end_reason)
   where e.contact_id = p_contact and e.end_reason <> pgdrip.mask(e.end_reason);
  delete from pgdrip.contact_triggers as t where t.contact_id = p_contact;
  delete from pgdrip.contact_events as v where v.contact_id = p_contact;
  perform pgdrip.hash_suppressions(v_contact);
  update pgdrip.contacts as c
     set phone = null, email = null, name = null, timezone = null, attributes = '{}',
         sender_id = null, erased_at = pgdrip.clock()
   where c.contact_id = p_contact;
  perform pgdrip.scrub_history(array[p_contact]);
  update pgdrip.adoptions as a set detail = 'erased'
   where a.legacy_table = 'leads' and a.object_id = p_contact and a.detail is not null;
  perform pgdrip.note('erase', format('contact %s', p_contact), p_reason);
  return true;
end
$$;

comment on function pgdrip.erase_contact(bigint, text) is
  'Takes a person away for good and leaves ids, hashes and times: ends what is in flight, keeps a suppression as a keyed hash; false: erased already; 22004, 22023, MD001';
