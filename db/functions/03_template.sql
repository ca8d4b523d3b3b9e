-- Templates: compiled once when published, rendered in one pass when claimed.
-- What a value holds is never read as a template, and never as HTML or JSON.

create or replace function pgdrip.compile_template(p_text text, p_escape text)
  returns jsonb
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_literals text[] := regexp_split_to_array(p_text, '\{\{[^{}]*\}\}');
  v_inner    text[] := array(
    select m[1] from regexp_matches(p_text, '\{\{([^{}]*)\}\}', 'g') as m);
begin
  if octet_length(p_text) > 65536 or cardinality(v_inner) > 200 then
    raise exception 'template is larger than 64 kB or has more than 200 variables'
      using errcode = 'MD008', hint = 'Shorten it.';
  end if;
  -- JSON and style sheets close two braces at once; only text is held to pairs.
  if exists (select from unnest(v_literals) as l
              where l ~ '\{\{' or p_escape = 'text' and l ~ '\}\}') then
    raise exception 'template has {{ without }} or }} without {{'
      using errcode = 'MD008', hint = 'Write {{name}} or {{name|there}}.';
  end if;
  -- In JSON a variable may not reach from one string into the next.
  if p_escape <> 'text' and exists (
       select from unnest(v_inner) as i
        where replace(replace(i, '\\', ''), '\"', '') like '%"%') then
    raise exception 'template has a variable that spans two texts'
      using errcode = 'MD008', hint = 'Close each {{ within its own text.';
  end if;
  if exists (select from unnest(v_inner) as i
              where trim(split_part(i, '|', 1)) !~ '^[A-Za-z_][A-Za-z0-9_]{0,62}$') then
    raise exception 'template has a variable without a plain name'
      using errcode = 'MD008',
            hint = 'Letters, digits and underscores; a fallback follows after |.';
  end if;
  return (
    select jsonb_agg(jsonb_build_array(
             l.literal, nullif(trim(split_part(i.inner_text, '|', 1)), ''),
             case when i.inner_text like '%|%'
                  then substr(i.inner_text, strpos(i.inner_text, '|') + 1) end,
             p_escape) order by l.ord)
      from unnest(v_literals) with ordinality as l(literal, ord)
      left join unnest(v_inner) with ordinality as i(inner_text, ord) using (ord));
end
$$;

comment on function pgdrip.compile_template(text, text) is
  'Compiles {{variable|fallback}} text to [[literal, variable, fallback, escape], …]; escape is text, json or html; MD008';

create or replace function pgdrip.template_variables(p_template jsonb, p_required boolean)
  returns text[]
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct p.part ->> 1), '{}')
    from jsonb_array_elements(p_template) as p(part)
   where p.part ->> 1 is not null and (not p_required or p.part ->> 2 is null)
$$;

comment on function pgdrip.template_variables(jsonb, boolean) is
  'The variables of a compiled template: all, or those without a fallback';

create or replace function pgdrip.visible_text(p_value text)
  returns text
  language sql
  immutable
  parallel safe
return nullif(btrim(regexp_replace(left(p_value, 1000),
  '[\u0001-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+',
  ' ', 'g')), '');

comment on function pgdrip.visible_text(text) is
  'A text cut to 1000 characters and trimmed, without control or direction characters; NULL: nothing to see';

create or replace function pgdrip.escape_value(p_value text, p_escape text)
  returns text
  language plpgsql
  immutable
  strict
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_value text := p_value;
begin
  if p_escape = 'html' then
    v_value := replace(replace(replace(replace(v_value,
      '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;');
  end if;
  v_value := to_json(v_value)::text;
  return substr(v_value, 2, length(v_value) - 2);
end
$$;

comment on function pgdrip.escape_value(text, text) is
  'A text as the inside of a JSON string, and of HTML in it where p_escape is html';

create or replace function pgdrip.clean_value(p_value text, p_escape text)
  returns text
  language sql
  immutable
  parallel safe
return case p_escape when 'text' then pgdrip.visible_text(p_value)
                     else pgdrip.escape_value(pgdrip.visible_text(p_value), p_escape) end;

comment on function pgdrip.clean_value(text, text) is
  'A contact''s value made safe to print: cut to 1000 characters, trimmed, no control or direction characters, escaped; NULL: nothing to print';

create or replace function pgdrip.render_template(p_template jsonb, p_values jsonb)
  returns text
  language plpgsql
  immutable
  strict
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := '';
  v_part jsonb;
begin
  -- A loop of plain expressions: a query here would be planned for each message.
  for i in 0 .. jsonb_array_length(p_template) - 1 loop
    v_part := p_template -> i;
    v_text := v_text || (v_part ->> 0);
    if v_part ->> 1 is not null then
      v_text := v_text || coalesce(
        pgdrip.clean_value(p_values ->> (v_part ->> 1), v_part ->> 3), v_part ->> 2, '');
    end if;
  end loop;
  return v_text;
end
$$;

comment on function pgdrip.render_template(jsonb, jsonb) is
  'A compiled template with the values put in; NULL for NULL';

create or replace function pgdrip.contact_values(p_contact pgdrip.contacts)
  returns jsonb
  language sql
  stable
  parallel safe
return p_contact.attributes || jsonb_strip_nulls(jsonb_build_object(
  'name', p_contact.name, 'phone', p_contact.phone, 'email', p_contact.email));

comment on function pgdrip.contact_values(pgdrip.contacts) is
  'What templates may print of a contact: its attributes, name, phone and email';

create or replace function pgdrip.has_values(p_required text[], p_values jsonb)
  returns boolean
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_variable text;
begin
  foreach v_variable in array p_required loop
    if pgdrip.clean_value(p_values ->> v_variable, 'text') is null then
      return false;
    end if;
  end loop;
  return true;
end
$$;

comment on function pgdrip.has_values(text[], jsonb) is
  'Whether every variable that has no fallback has a value';

create or replace function pgdrip.recipient(
  p_address text,
  p_phone   text,
  p_email   text
)
  returns text
  language sql
  immutable
  parallel safe
return case p_address when 'phone' then p_phone
                      when 'email' then p_email
                      else coalesce(p_phone, p_email) end;

comment on function pgdrip.recipient(text, text, text) is
  'The address a channel (by channels.address) reaches a contact at; NULL: none';
