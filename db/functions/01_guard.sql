-- Guards: what the checks of the tables ask, which schema this is, whether the engine may
-- work, and what arguments must be.

-- Bound when created, so that the planner puts them into the checks: a call for each row and
-- check costs more than the rest of an update.
create or replace function pgdrip.is_blank(p_text text)
  returns boolean
  language sql
  immutable
  parallel safe
return p_text is null
    or p_text ~ '^[\s\u0085\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*$';

comment on function pgdrip.is_blank(text) is
  'Whether a text holds nothing a person could see; true for NULL';

create or replace function pgdrip.is_span(p_span interval)
  returns boolean
  language sql
  immutable
  parallel safe
return isfinite(p_span)
   and extract(year from p_span) = 0
   and extract(month from p_span) = 0
   and extract(day from p_span) between 0 and 36500
   and extract(epoch from p_span) - 86400 * extract(day from p_span)
       between 0 and 87600 * 3600;

comment on function pgdrip.is_span(interval) is
  'Whether an interval is a wait: finite, days and time only, neither negative';

create or replace function pgdrip.is_word(p_word text)
  returns boolean
  language sql
  immutable
  parallel safe
return not pgdrip.is_blank(p_word)
   and p_word = btrim(p_word, E' \t\n\r\u00a0')
   and p_word !~ '[,[:cntrl:]]'
   and octet_length(p_word) <= 200;

comment on function pgdrip.is_word(text) is
  'Whether a text is one trigger word: visible, trimmed, no comma, at most 200 bytes';

create or replace function pgdrip.schema_version()
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select '1'
$$;

comment on function pgdrip.schema_version() is
  'Which API this database speaks; a runner refuses one it does not know';

-- A restored dump, a promoted standby and a copied database differ in one of the three.
create or replace function pgdrip.is_unlocked()
  returns boolean
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select c.system_identifier = s.system_identifier
     and c.timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8)
     and c.database_oid = d.oid
    from pgdrip.control as c, pg_control_system() as s, pg_database as d
   where d.datname = current_database()
$$;

comment on function pgdrip.is_unlocked() is
  'Whether this is the server, timeline and database that the engine last worked in';

create or replace function pgdrip.assert_working()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' then
    raise exception 'cannot work on a read-only server'
      using errcode = '25006', hint = 'Connect to the primary.';
  end if;
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'isolation level must be read committed, not %',
      current_setting('transaction_isolation')
      using errcode = 'MD003', hint = 'Each runner call is its own short transaction.';
  end if;
  if not pgdrip.is_unlocked() then
    raise exception 'the engine is locked: this database was restored, copied or failed over'
      using errcode = 'MD005',
            hint = 'What it remembers may be older than what was sent. See unlock().';
  end if;
  perform set_config('synchronous_commit', 'on', true);
end
$$;

comment on function pgdrip.assert_working() is
  'Refuses read-only servers (25006), other isolation levels (MD003) and a locked engine (MD005); makes the commit durable';

create or replace function pgdrip.assert_given(p_name text, p_value anyelement)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null then
    raise exception '% must not be NULL', p_name
      using errcode = '22004', hint = format('Pass a value for %s.', p_name);
  end if;
end
$$;

comment on function pgdrip.assert_given(text, anyelement) is 'Refuses NULL (22004)';

create or replace function pgdrip.assert_named(p_name text, p_value text)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given(p_name, p_value);
  if pgdrip.is_blank(p_value) or octet_length(p_value) > 63 or p_value ~ '[[:cntrl:]]' then
    raise exception '% must be 1 to 63 bytes of visible text', p_name
      using errcode = '22023', hint = 'Use a short plain name.';
  end if;
end
$$;

comment on function pgdrip.assert_named(text, text) is
  'Refuses what is no short name: NULL (22004), blank, over 63 bytes, control characters (22023)';

create or replace function pgdrip.assert_reason(p_reason text)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_reason', p_reason);
  if pgdrip.is_blank(p_reason) or octet_length(p_reason) > 2000 then
    raise exception 'p_reason must be 1 to 2000 bytes of visible text'
      using errcode = '22023', hint = 'Say why, for whoever looks later.';
  end if;
end
$$;

comment on function pgdrip.assert_reason(text) is
  'Refuses a missing (22004) or blank or overlong (22023) reason';

-- The checks of the tables say the same, but tell the whole row, whoever may see it.
create or replace function pgdrip.assert_object(p_name text, p_value jsonb)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_value) <> 'object' or octet_length(p_value::text) > 16384
     or p_value @? '$.**{9}' then
    raise exception '% must be an object of at most 16 kB and 8 levels', p_name
      using errcode = '23514', hint = format('What is stored counts, too: pass less in %s.', p_name);
  end if;
end
$$;

comment on function pgdrip.assert_object(text, jsonb) is
  'Refuses JSON that is no object, over 16 kB or over 8 levels (23514); NULL passes';

create or replace function pgdrip.assert_time(p_name text, p_value timestamptz)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value not between '2000-01-01 00:00+00' and '2200-01-01 00:00+00' then
    raise exception '% must lie between the years 2000 and 2200', p_name
      using errcode = '22023', hint = 'Infinity is not a time either.';
  end if;
end
$$;

comment on function pgdrip.assert_time(text, timestamptz) is
  'Refuses infinities and far times (22023); NULL passes';

create or replace function pgdrip.assert_lease(p_lease interval)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_lease', p_lease);
  if not pgdrip.is_span(p_lease)
     or p_lease not between interval '1 second' and interval '1 hour' then
    raise exception 'p_lease must be between 1 second and 1 hour'
      using errcode = '22023', hint = 'Longer than the slowest send; 2 minutes is usual.';
  end if;
end
$$;

comment on function pgdrip.assert_lease(interval) is
  'Refuses a lease that is NULL (22004) or not between 1 second and 1 hour (22023)';

create or replace function pgdrip.assert_tokens(p_enrollments bigint[], p_tokens bigint[])
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_enrollments', p_enrollments);
  perform pgdrip.assert_given('p_tokens', p_tokens);
  if exists (select from unnest(p_enrollments) as i where i is null)
     or exists (select from unnest(p_tokens) as i where i is null) then
    raise exception 'p_enrollments and p_tokens must not hold NULL'
      using errcode = '22004', hint = 'Pass them as claim() returned them.';
  end if;
  if cardinality(p_enrollments) <> cardinality(p_tokens)
     or coalesce(array_ndims(p_enrollments), 1) > 1
     or coalesce(array_ndims(p_tokens), 1) > 1 then
    raise exception 'p_enrollments and p_tokens must be flat and of equal length'
      using errcode = '22023', hint = 'One token for each enrollment.';
  end if;
  if cardinality(p_tokens) > 10000 then
    raise exception 'at most 10000 tokens in one call'
      using errcode = '22023', hint = 'Split the call.';
  end if;
end
$$;

comment on function pgdrip.assert_tokens(bigint[], bigint[]) is
  'Refuses arrays that are NULL or hold NULL (22004), or are not flat and equally long (22023)';

create or replace function pgdrip.sequence_named(p_sequence text)
  returns pgdrip.sequences
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences;
begin
  perform pgdrip.assert_given('p_sequence', p_sequence);
  select q.* into v_sequence from pgdrip.sequences as q where q.name = p_sequence;
  if not found then
    raise exception 'no sequence is named %', quote_literal(p_sequence)
      using errcode = 'MD001', hint = 'select name from pgdrip.sequences lists them.';
  end if;
  return v_sequence;
end
$$;

comment on function pgdrip.sequence_named(text) is
  'The sequence of that name; NULL 22004, none MD001';

create or replace function pgdrip.note(p_action text, p_object text, p_reason text default null)
  returns void
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_action', p_action);
  perform pgdrip.assert_given('p_object', p_object);
  insert into pgdrip.audit (action, object, reason)
  values (left(p_action, 63), left(p_object, 500), left(p_reason, 2000));
end
$$;

comment on function pgdrip.note(text, text, text) is
  'Writes one line of the audit, cut to 63, 500 and 2,000 characters; the session''s login stands beside it; 22004';
