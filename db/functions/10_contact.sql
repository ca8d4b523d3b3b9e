-- Contacts: known by phone or e-mail within a pool. Writes contacts and contact_triggers.

create or replace function pgdrip.is_timezone(p_zone text)
  returns boolean
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform timestamptz 'epoch' at time zone p_zone;
  return p_zone ~ '^(UTC|[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+){1,2})$';
exception when invalid_parameter_value then
  return false;
end
$$;

comment on function pgdrip.is_timezone(text) is 'Whether the server knows this IANA zone';

create or replace function pgdrip.contact_problem(
  p_phone    text,
  p_email    text,
  p_name     text,
  p_timezone text
)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_phone is null and p_email is null
      then 'phone and email must not both be missing'
    when p_phone !~ '^\+[1-9][0-9]{6,14}$'
      then format('phone %s is not E.164: + and 7 to 15 digits, as +60123456789',
                  quote_literal(left(p_phone, 40)))
    when p_email !~ '^[^[:space:]@[:cntrl:]]{1,64}@[^[:space:]@[:cntrl:]]{1,189}$'
      or octet_length(p_email) > 254
      then format('email %s is not an address', quote_literal(left(p_email, 40)))
    when octet_length(p_name) > 1000 then 'name is longer than 1000 bytes'
    when p_timezone is not null and not pgdrip.is_timezone(p_timezone)
      then format('timezone %s is not an IANA zone, as Asia/Kuala_Lumpur',
                  quote_literal(left(p_timezone, 40)))
  end
$$;

comment on function pgdrip.contact_problem(text, text, text, text) is
  'What is wrong with a contact''s data, in words; NULL: nothing';

create or replace function pgdrip.contact_name(p_name text)
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select nullif(btrim(regexp_replace(p_name, '[\u0001-\u001f]+', ' ', 'g')), '')
$$;

comment on function pgdrip.contact_name(text) is
  'A name on one line; NULL for one that is blank';

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
  'The first ten bits of the sha256 of an address in lower case, 0 to 1023';

create or replace function pgdrip.sweep_again(p_contacts bigint[])
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  update pgdrip.contact_triggers as t set sweep_at = pgdrip.clock()
   where t.trigger_id = any (array(
     select l.trigger_id from pgdrip.contact_triggers as l
      where l.contact_id = any (p_contacts) and l.sweep_at is null
      order by l.trigger_id for no key update))
$$;

comment on function pgdrip.sweep_again(bigint[]) is
  'Private: lets enroll_waiting look anew at the words of contacts, which may have got the address they lacked';

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
  set enable_seqscan = off
  set jit = off
as $$
declare
  v_problem    text := pgdrip.contact_problem(p_phone, p_email, p_name, p_timezone);
  v_sender     bigint;
  v_ids        bigint[];
  v_attributes jsonb;
begin
  perform pgdrip.assert_named('p_pool', p_pool);
  if p_phone is null and p_email is null then
    raise exception '%', v_problem
      using errcode = '22004', hint = 'Pass p_phone, p_email or both.';
  elsif v_problem is not null then
    raise exception '%', v_problem
      using errcode = '22023', hint = 'Nothing was stored; correct it and call again.';
  end if;
  if p_sender is not null then
    select s.sender_id into v_sender from pgdrip.senders as s where s.name = p_sender;
    if not found then
      raise exception 'no sender is named %', quote_literal(p_sender)
        using errcode = 'MD001', hint = 'Apply the sender first.';
    end if;
  end if;
  -- Two callers with the same new address: the second inserts nothing and updates. Whoever
  -- is erased meanwhile is made anew.
  while v_ids is null loop
    insert into pgdrip.contacts (pool, phone, email, bucket)
    select p_pool, p_phone, p_email, pgdrip.contact_bucket(coalesce(p_phone, p_email))
     where not exists (
       select from pgdrip.contacts as c
        where c.pool = p_pool and (c.phone = p_phone or lower(c.email) = lower(p_email)))
    on conflict do nothing;
    select array_agg(l.contact_id), jsonb_agg(l.attributes) -> 0 || coalesce(p_attributes, '{}')
      into v_ids, v_attributes
      from (select c.contact_id, c.attributes from pgdrip.contacts as c
             where c.pool = p_pool and (c.phone = p_phone or lower(c.email) = lower(p_email))
             order by c.contact_id for no key update) as l;
  end loop;
  if cardinality(v_ids) > 1 then
    raise exception 'phone and email belong to two contacts, % and %', v_ids[1], v_ids[2]
      using errcode = 'MD003', hint = 'Decide which of them is meant and pass only its address.';
  end if;
  perform pgdrip.assert_object('p_attributes', v_attributes);
  -- Trigger rows before the address: who holds one may be waiting for the other.
  perform pgdrip.sweep_again(v_ids);
  update pgdrip.contacts as c
     set phone      = coalesce(p_phone, c.phone),
         email      = coalesce(p_email, c.email),
         name       = coalesce(pgdrip.contact_name(p_name), c.name),
         timezone   = coalesce(p_timezone, c.timezone),
         sender_id  = coalesce(v_sender, c.sender_id),
         attributes = v_attributes
   where c.contact_id = v_ids[1];
  perform pgdrip.suppress_again(array[p_phone, p_email]);
  return v_ids[1];
end
$$;

comment on function pgdrip.upsert_contact(text, text, text, jsonb, text, text, text) is
  'Stores a contact and returns its id: NULL keeps what is there, attributes merge; 22004, 22023, 23514, MD001, MD003';

create or replace function pgdrip.find_contact(p_address text)
  returns bigint
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  perform pgdrip.assert_given('p_address', p_address);
  v_ids := array(
    select c.contact_id from pgdrip.contacts as c
     where c.phone = p_address or lower(c.email) = lower(p_address)
     order by c.contact_id);
  if cardinality(v_ids) = 1 then
    return v_ids[1];
  elsif v_ids <> '{}' then
    raise exception 'contacts % have the address %', array_to_string(v_ids, ', '),
      quote_literal(left(p_address, 80))
      using errcode = 'MD003', hint = 'They are of several pools; say which by its id.';
  end if;
  raise exception 'no contact has the address %', quote_literal(left(p_address, 80))
    using errcode = 'MD001', hint = 'A phone is E.164 with its plus, as +60123456789.';
end
$$;

comment on function pgdrip.find_contact(text) is
  'The id of the contact with that phone or e-mail, over all pools; 22004, MD001, several MD003';

create or replace function pgdrip.assert_contact(p_contact bigint)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_contact', p_contact);
  if not exists (select from pgdrip.contacts as c where c.contact_id = p_contact) then
    raise exception 'no contact has id %', p_contact
      using errcode = 'MD001', hint = 'upsert_contact() returns ids.';
  end if;
end
$$;

comment on function pgdrip.assert_contact(bigint) is
  'Refuses a contact that does not exist (MD001) or is NULL (22004)';

create or replace function pgdrip.import_contacts(
  p_contacts jsonb,
  p_pool     text default 'default'
)
  returns setof pgdrip.import_result
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_items jsonb;
  v_lines integer[];
  v_good  jsonb;
begin
  perform pgdrip.assert_given('p_contacts', p_contacts);
  perform pgdrip.assert_named('p_pool', p_pool);
  if jsonb_typeof(p_contacts) <> 'array' or jsonb_array_length(p_contacts) > 10000
     or p_contacts @? 'strict $[*] ? (@.type() != "object")' then
    raise exception 'p_contacts must be an array of at most 10000 objects'
      using errcode = '22023', hint = 'Import in batches.';
  end if;
  -- Inside, a line is the place in the array; what the caller calls it is only told back.
  select coalesce(jsonb_agg(i.item || jsonb_build_object('line', i.ord) order by i.ord), '[]'),
         array_agg(coalesce((i.item ->> 'line')::integer, i.ord::integer) order by i.ord)
    into v_items, v_lines
    from jsonb_array_elements(p_contacts) with ordinality as i(item, ord);
  -- Known addresses first, in id order, so that nobody else changes them meanwhile.
  perform from pgdrip.contacts as c
    where c.contact_id in (
      select k.contact_id from jsonb_array_elements(v_items) as i(item)
        join pgdrip.contacts as k on k.pool = p_pool and k.phone = i.item ->> 'phone'
      union all
      select k.contact_id from jsonb_array_elements(v_items) as i(item)
        join pgdrip.contacts as k
          on k.pool = p_pool and lower(k.email) = lower(i.item ->> 'email'))
    order by c.contact_id for no key update;

  return query
    select v_lines[r.line], null::bigint, r.reason
      from pgdrip.import_problems(v_items, p_pool) as r where r.reason is not null;
  select jsonb_agg(i.item) into v_good
    from jsonb_array_elements(v_items) as i(item)
    join pgdrip.import_problems(v_items, p_pool) as r
      on r.line = (i.item ->> 'line')::integer and r.reason is null;
  return query
    select v_lines[r.line], r.contact_id, r.reason
      from pgdrip.import_good(coalesce(v_good, '[]'), p_pool) as r;
end
$$;

comment on function pgdrip.import_contacts(jsonb, text) is
  'Merges [{line, phone, email, name, timezone, sender, attributes, triggers}, …]; bad ones come back with a reason; triggers are written, not enrolled';

create or replace function pgdrip.import_problems(p_contacts jsonb, p_pool text)
  returns setof pgdrip.import_result
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  with items as (
    select i.ord, (i.item ->> 'line')::integer as line,
           i.item ->> 'phone' as phone, lower(i.item ->> 'email') as email, i.item
      from jsonb_array_elements(p_contacts) with ordinality as i(item, ord)
  ),
  judged as (
    select i.ord, i.line, i.phone, i.email, coalesce(p.contact_id, m.contact_id) as contact_id,
           coalesce(
      pgdrip.contact_problem(
        i.phone, i.item ->> 'email', i.item ->> 'name', i.item ->> 'timezone'),
      case
        when p.contact_id <> m.contact_id
          then format('phone and email belong to two contacts, %s and %s',
                      p.contact_id, m.contact_id)
        when i.item ->> 'sender' is not null and s.sender_id is null
          then format('no sender is named %s', quote_literal(i.item ->> 'sender'))
        when jsonb_typeof(i.item -> 'attributes') <> 'object' then 'attributes are no object'
        when octet_length((coalesce(p.attributes, m.attributes, '{}')
                           || coalesce(i.item -> 'attributes', '{}'))::text) > 16384
          or i.item -> 'attributes' @? '$.**{9}' then 'attributes exceed 16 kB or 8 levels'
        when jsonb_typeof(i.item -> 'triggers') <> 'array' then 'triggers are no list'
        when exists (select from jsonb_array_elements_text(i.item -> 'triggers') as t(word)
                      where not pgdrip.is_word(t.word))
          then 'a trigger is blank, not trimmed or has a comma'
      end) as reason
      from items as i
      left join pgdrip.contacts as p on p.pool = p_pool and p.phone = i.phone
      left join pgdrip.contacts as m on m.pool = p_pool and lower(m.email) = i.email
      left join pgdrip.senders as s on s.name = i.item ->> 'sender'
  )
  -- Only a good line makes a later one the second of its kind.
  select j.line, j.contact_id, coalesce(j.reason, case
    when row_number() over (partition by j.phone, j.reason is null order by j.ord) > 1
         and j.phone is not null
      or row_number() over (partition by j.email, j.reason is null order by j.ord) > 1
         and j.email is not null
      then 'an earlier line has the same address' end)
    from judged as j
$$;

comment on function pgdrip.import_problems(jsonb, text) is
  'Private: for each element of an import the contact it means and what is wrong with it';

create or replace function pgdrip.import_good(p_contacts jsonb, p_pool text)
  returns setof pgdrip.import_result
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgdrip.contacts (pool, phone, email, bucket)
  select p_pool, i.item ->> 'phone', i.item ->> 'email',
         pgdrip.contact_bucket(coalesce(i.item ->> 'phone', i.item ->> 'email'))
    from jsonb_array_elements(p_contacts) as i(item)
   where not exists (
     select from pgdrip.contacts as c where c.pool = p_pool and c.phone = i.item ->> 'phone')
     and not exists (
     select from pgdrip.contacts as c
      where c.pool = p_pool and lower(c.email) = lower(i.item ->> 'email'))
  on conflict do nothing;

  perform pgdrip.sweep_again(array(
    select r.contact_id from pgdrip.import_problems(p_contacts, p_pool) as r));
  update pgdrip.contacts as c
     set phone      = coalesce(i.item ->> 'phone', c.phone),
         email      = coalesce(i.item ->> 'email', c.email),
         name       = coalesce(pgdrip.contact_name(i.item ->> 'name'), c.name),
         timezone   = coalesce(i.item ->> 'timezone', c.timezone),
         sender_id  = coalesce(s.sender_id, c.sender_id),
         attributes = c.attributes || coalesce(i.item -> 'attributes', '{}')
    from jsonb_array_elements(p_contacts) as i(item)
    join pgdrip.import_problems(p_contacts, p_pool) as r
      on r.line = (i.item ->> 'line')::integer
    left join pgdrip.senders as s on s.name = i.item ->> 'sender'
   where c.contact_id = r.contact_id;

  perform pgdrip.suppress_again(array(
    select a.address from jsonb_array_elements(p_contacts) as i(item),
           lateral (values (i.item ->> 'phone'), (i.item ->> 'email')) as a(address)));
  insert into pgdrip.contact_triggers (contact_id, trigger)
  select distinct r.contact_id, t.word
    from jsonb_array_elements(p_contacts) as i(item)
    join pgdrip.import_problems(p_contacts, p_pool) as r
      on r.line = (i.item ->> 'line')::integer,
         jsonb_array_elements_text(i.item -> 'triggers') as t(word)
  on conflict do nothing;

  return query
    select r.line, r.contact_id, r.reason
      from pgdrip.import_problems(p_contacts, p_pool) as r;
end
$$;

comment on function pgdrip.import_good(jsonb, text) is
  'Private: stores the elements of an import that import_problems found nothing wrong with';
