-- Reading definitions: every mistake is MD008 and names the place where it is.

create or replace function pgdrip.refuse_definition(p_place text, p_problem text, p_hint text)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '%: %', p_place, p_problem using errcode = 'MD008', hint = p_hint;
end
$$;

comment on function pgdrip.refuse_definition(text, text, text) is
  'Refuses a definition (MD008), saying where and why';

create or replace function pgdrip.assert_keys(
  p_object   jsonb,
  p_place    text,
  p_known    text[],
  p_required text[] default '{}'
)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  if p_object is null or jsonb_typeof(p_object) <> 'object' then
    perform pgdrip.refuse_definition(p_place, 'must be an object',
      format('Its keys are: %s.', array_to_string(p_known, ', ')));
  end if;
  select k into v_key from jsonb_object_keys(p_object) as k where k <> all (p_known) limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place, format('unknown key %s', quote_literal(v_key)),
      format('Known keys: %s.', array_to_string(p_known, ', ')));
  end if;
  select k into v_key from unnest(p_required) as k
   where pgdrip.is_blank(p_object ->> k) limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place, format('%s is missing or blank', v_key),
      format('%s needs: %s.', p_place, array_to_string(p_required, ', ')));
  end if;
end
$$;

comment on function pgdrip.assert_keys(jsonb, text, text[], text[]) is
  'Refuses (MD008) what is no object, has unknown keys or lacks required ones';

create or replace function pgdrip.definition_integer(
  p_object jsonb,
  p_place  text,
  p_key    text,
  p_min    integer,
  p_max    integer,
  p_default integer default null
)
  returns integer
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := p_object ->> p_key;
begin
  if v_text is null then
    return p_default;
  end if;
  if v_text !~ '^[0-9]{1,9}$' or v_text::integer not between p_min and p_max then
    perform pgdrip.refuse_definition(p_place,
      format('%s must be a whole number from %s to %s, not %s',
             p_key, p_min, p_max, quote_literal(left(v_text, 40))),
      'Write it as a plain number.');
  end if;
  return v_text::integer;
end
$$;

comment on function pgdrip.definition_integer(jsonb, text, text, integer, integer, integer) is
  'A whole number of a definition, or the default where it is missing; MD008';

create or replace function pgdrip.definition_span(
  p_object  jsonb,
  p_place   text,
  p_key     text,
  p_default interval default null
)
  returns interval
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set intervalstyle = postgres
as $$
declare
  v_text text := p_object ->> p_key;
  v_span interval;
begin
  if v_text is null then
    return p_default;
  end if;
  begin
    v_span := v_text::interval;
  exception when invalid_datetime_format or datetime_field_overflow or
                 interval_field_overflow then
    v_span := null;
  end;
  if v_span is null or not pgdrip.is_span(v_span) or v_text !~ '[[:alpha:]:]'
     or jsonb_typeof(p_object -> p_key) <> 'string' then
    perform pgdrip.refuse_definition(p_place,
      format('%s must be a wait, not %s', p_key, quote_literal(left(v_text, 40))),
      'With its unit: days, hours, minutes, seconds, none negative, as ''12 hours''.');
  end if;
  return v_span;
end
$$;

comment on function pgdrip.definition_span(jsonb, text, text, interval) is
  'An interval of days and time of a definition, or the default where it is missing; MD008';

create or replace function pgdrip.definition_word(
  p_object  jsonb,
  p_place   text,
  p_key     text,
  p_words   text[],
  p_default text
)
  returns text
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := coalesce(p_object ->> p_key, p_default);
begin
  if v_text <> all (p_words) then
    perform pgdrip.refuse_definition(p_place,
      format('%s must be %s, not %s', p_key, array_to_string(p_words, ' or '),
             quote_literal(left(v_text, 40))), 'Words are in lower case.');
  end if;
  return v_text;
end
$$;

comment on function pgdrip.definition_word(jsonb, text, text, text[], text) is
  'One of the given words, or the default where it is missing; MD008';

create or replace function pgdrip.definition_boolean(
  p_object  jsonb,
  p_place   text,
  p_key     text,
  p_default boolean
)
  returns boolean
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.definition_word(
    p_object, p_place, p_key, array['true', 'false'], p_default::text)::boolean
$$;

comment on function pgdrip.definition_boolean(jsonb, text, text, boolean) is
  'true or false, or the default where it is missing; MD008';

create or replace function pgdrip.definition_condition(
  p_object jsonb,
  p_place  text,
  p_key    text
)
  returns jsonb
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_object -> p_key) <> 'object' or p_object -> p_key @? '$.**{9}' then
    perform pgdrip.refuse_definition(p_place,
      format('%s must map attributes to values', p_key), 'As {"city": "KL"}.');
  end if;
  return nullif(p_object -> p_key, '{}');
end
$$;

comment on function pgdrip.definition_condition(jsonb, text, text) is
  'Attributes that must all be so; NULL where it is missing or empty; MD008';

create or replace function pgdrip.definition_time(p_object jsonb, p_place text, p_key text)
  returns time
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := p_object ->> p_key;
begin
  if v_text !~ '^([01][0-9]|2[0-3]):[0-5][0-9]$' and v_text <> '24:00' then
    perform pgdrip.refuse_definition(p_place,
      format('%s must be a time of day, not %s', p_key, quote_literal(left(v_text, 40))),
      'Write hours and minutes, as ''09:00''.');
  end if;
  return case when v_text = '24:00' then time '00:00' else v_text::time end;
end
$$;

comment on function pgdrip.definition_time(jsonb, text, text) is
  'A time of day written HH:MM, 24:00 being 00:00 of the next day; MD008';

create or replace function pgdrip.definition_window(p_object jsonb, p_place text)
  returns jsonb
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_names    text[] := array['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
  v_days     jsonb := coalesce(p_object -> 'days', to_jsonb(v_names));
  v_holidays jsonb := coalesce(p_object -> 'holidays', '[]');
  v_zone     text := coalesce(p_object ->> 'zone', 'contact');
begin
  if p_object is null then
    return null;
  end if;
  perform pgdrip.assert_keys(p_object, p_place,
    array['days', 'from', 'to', 'zone', 'holidays'], array['from', 'to']);
  if jsonb_typeof(v_days) <> 'array' or v_days = '[]' or not v_days <@ to_jsonb(v_names) then
    perform pgdrip.refuse_definition(p_place, 'days must be a list of weekdays',
      format('Of: %s.', array_to_string(v_names, ', ')));
  end if;
  if jsonb_typeof(v_holidays) <> 'array' or v_holidays @? 'strict $[*] ? (!(@.type() == "string"))'
     or v_holidays @? '$[*] ? (!(@ like_regex "^20[0-9]{2}-[0-9]{2}-[0-9]{2}$"))'
     or v_holidays @? '$[*] ? ((@.datetime("YYYY-MM-DD").type() == "date") is unknown)'
     or jsonb_array_length(v_holidays) > 366 then
    perform pgdrip.refuse_definition(p_place, 'holidays must be a list of at most 366 dates',
      'Write them as ''2026-12-25''.');
  end if;
  if v_zone <> 'contact' and not pgdrip.is_timezone(v_zone) then
    perform pgdrip.refuse_definition(p_place,
      format('zone %s is not known', quote_literal(left(v_zone, 40))),
      'Write contact, or an IANA name as Asia/Kuala_Lumpur.');
  end if;
  return jsonb_build_object('zone', v_zone, 'holidays', v_holidays,
    'from', pgdrip.definition_time(p_object, p_place, 'from'),
    'to', pgdrip.definition_time(p_object, p_place, 'to'),
    'days', (select jsonb_agg(array_position(v_names, d) order by array_position(v_names, d))
               from jsonb_array_elements_text(v_days) as d));
end
$$;

comment on function pgdrip.definition_window(jsonb, text) is
  'A send window with days as ISO numbers; NULL for NULL; MD008';
