-- Makes the functions of the router from those of a shard, so that names, arguments and
-- results are the same. What one call cannot pass on as it is stands in 30_calls.sql.

create or replace function pgdrip.routes()
  returns table (name text, way text)
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select n.name, w.way
    from (values
      -- To the shard of a contact or of an enrollment, which the first of them names.
      ('p_contact', array[
        'add_trigger', 'enroll', 'explain_contact', 'explain_enroll', 'export_contact',
        'record_event', 'remove_trigger']),
      ('p_enrollment', array[
        'exit_enrollment', 'pause_enrollment', 'resume_enrollment', 'retry_failed']),
      -- To every shard: true where one says so, or the sum of the numbers.
      ('all', array[
        'activate_sequence', 'archive_sequence', 'enroll_waiting', 'pause_all', 'pause_sender',
        'pause_sequence', 'resume_all', 'resume_sender', 'resume_sequence']),
      -- For 30_calls.sql.
      ('call', array[
        'check', 'erase_contact', 'find_contact', 'forget_address', 'import_contacts',
        'is_suppressed', 'knows_address', 'knows_message', 'record_receipt', 'record_reply',
        'report', 'suppress', 'unsuppress', 'upsert_contact']),
      ('runner', array['begin_send', 'claim', 'heartbeat', 'next_wake', 'release', 'tick']),
      ('definition', array['apply_group', 'apply_sender', 'apply_sequence']),
      ('shard', array[
        'delete_sender', 'maintain', 'merge_import', 'move_sender', 'resolve_uncertain',
        'retire_sender', 'stage_import', 'unlock'])) as w(way, names),
         unnest(w.names) as n(name)
$$;

comment on function pgdrip.routes() is
  'Private: which way each function of a shard is called by the router; what is not here is not there';

create or replace function pgdrip.route_body(p_way text, p_name text, p_names text, p_result text)
  returns text
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_way in ('p_contact', 'p_enrollment') then format($f$
declare
  v_place integer := pgdrip.place_of_id(%1$L, %2$s);
begin
  loop
    begin
      %3$s
    exception when sqlstate 'MD001' then
      if not pgdrip.is_elsewhere(%1$L, %2$s, v_place, sqlerrm) then
        raise;
      end if;
      v_place := pgdrip.place_of_id(%1$L, %2$s);
    end;
  end loop;
end
$f$, substr(p_way, 3), p_way,
      case when p_result like 'SETOF %'
           then format('return query select * from shards.%I(v_place, %s); return;', p_name, p_names)
           else format('return shards.%I(v_place, %s);', p_name, p_names) end)
    when p_way = 'all' then format($f$
declare
  v_place   integer;
  v_answers %1$s[] := '{}';
  v_lost    integer[] := '{}';
  v_unknown text;
begin
  foreach v_place in array pgdrip.places() loop
    begin
      v_answers := v_answers || shards.%2$I(v_place%3$s);
    exception
      when connection_exception then
        v_lost := v_lost || pgdrip.shard_at(v_place);
      when sqlstate 'MD001' then
        v_unknown := sqlerrm;
    end;
  end loop;
  perform pgdrip.assert_all_answered(v_lost);
  if v_answers = '{}' then
    raise exception '%%', v_unknown
      using errcode = 'MD001', hint = 'No shard knows it.';
  end if;
  return (select %4$s(a) from unnest(v_answers) as a);
end
$f$, p_result, p_name, coalesce(', ' || nullif(p_names, ''), ''),
      case p_result when 'boolean' then 'bool_or' else 'sum' end)
    else format($f$
begin
  raise exception '%1$s() is not for the router'
    using errcode = 'MD003', hint = %2$L;
end
$f$, p_name, case p_way
      when 'runner' then 'Runners connect straight to their shard; pgdrip shard status lists them.'
      when 'definition' then 'pgdrip shard apply gives a definition to the shards that need it.'
      else 'Connect to the shard that is meant; pgdrip shard status lists them.' end)
  end
$$;

comment on function pgdrip.route_body(text, text, text, text) is
  'Private: the body of a function that passes its call on, or refuses it';

create or replace function pgdrip.make_proxy(
  p_name    text,
  p_typed   text,
  p_names   text,
  p_result  text,
  p_query   text
)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create function shards.%I(%s) returns %s language plproxy as %L', p_name || '_raw', p_typed,
    p_result, format(' cluster ''pgdrip''; run on p_place; %s; ', p_query));
  execute format('comment on function shards.%I is ''%s of the shard at a place''',
                 p_name || '_raw', p_name);
  execute format('create function shards.%I(%s) returns %s language plpgsql as %L', p_name, p_typed,
    p_result, format($f$
declare
  v_state   text;
  v_message text;
  v_hint    text;
begin
  return %1$s;
exception when internal_error or connection_exception or admin_shutdown or crash_shutdown
  or cannot_connect_now or data_exception or integrity_constraint_violation
  or sqlstate 'MD001' or sqlstate 'MD002' or sqlstate 'MD003' or sqlstate 'MD004'
  or sqlstate 'MD005' or sqlstate 'MD006' or sqlstate 'MD007' or sqlstate 'MD008' then
  get stacked diagnostics v_state = returned_sqlstate, v_message = message_text,
                          v_hint = pg_exception_hint;
  perform pgdrip.raise_as_told(p_place, v_state, v_message, v_hint);
end
$f$, format(case when p_result ilike 'setof %' then 'query select * from shards.%I(%s)'
                 else 'shards.%I(%s)' end, p_name || '_raw', p_names)));
  execute format('comment on function shards.%I is ''%s of the shard at a place, errors as it tells them; 08006''',
                 p_name, p_name);
end
$$;

comment on function pgdrip.make_proxy(text, text, text, text, text) is
  'Private: makes the PL/Proxy function that asks one shard, and the one that tells its errors';

create or replace function pgdrip.proxy_function(p_function jsonb)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.make_proxy(
           p_function ->> 'name',
           concat_ws(', ', 'p_place integer', nullif(p_function ->> 'plain', '')),
           concat_ws(', ', 'p_place', nullif(n.names, '')), p_function ->> 'result',
           format(case when p_function ->> 'result' ~ '^SETOF pgdrip'
                       then 'select * from pgdrip.%I(%s)' else 'select pgdrip.%I(%s) as answer' end,
                  p_function ->> 'name', n.names))
    from (select coalesce(string_agg(i, ', '), '') as names
            from jsonb_array_elements_text(p_function -> 'names') as i) as n
$$;

comment on function pgdrip.proxy_function(jsonb) is
  'Private: makes what calls a function of one shard';

create or replace function pgdrip.make_route(p_function jsonb, p_way text)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name  text := p_function ->> 'name';
  v_names text := (select string_agg(n, ', ')
                     from jsonb_array_elements_text(p_function -> 'names') as n);
begin
  execute format(
    'create function pgdrip.%I(%s) returns %s language plpgsql volatile security definer'
    ' set search_path = pg_catalog, pg_temp as %L',
    v_name, p_function ->> 'arguments', p_function ->> 'result',
    pgdrip.route_body(p_way, v_name, coalesce(v_names, ''), p_function ->> 'result'));
  execute format('comment on function pgdrip.%I is %L', v_name, case
    when p_way in ('runner', 'definition', 'shard') then 'Refused by the router (MD003): '
    else 'Passed on to ' || case p_way when 'all' then 'every shard: ' else 'its shard: ' end end
    || (p_function ->> 'comment'));
end
$$;

comment on function pgdrip.make_route(jsonb, text) is
  'Private: makes the router''s own function of a name';

create or replace function pgdrip.make_view(p_view jsonb)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name  text := p_view ->> 'name';
  v_shown text;
  v_typed text;
begin
  -- Readers may see every sender, and no person.
  select string_agg(format(case c ->> 'name' when 'last_error' then 'pgdrip.mask(%1$I) as %1$I'
                                            else '%1$I' end, c ->> 'name'), ', '),
         string_agg(format('%I %s', c ->> 'name', c ->> 'type'), ', ')
    into v_shown, v_typed
    from jsonb_array_elements(p_view -> 'columns') as c;
  execute format('create type shards.%I as (%s)', v_name || '_row', v_typed);
  execute format('create type pgdrip.%I as (%s, shard integer)', v_name || '_of_shard', v_typed);
  execute format('comment on type pgdrip.%I is ''Private: a row of %s and the shard it is from''',
                 v_name || '_of_shard', v_name);
  perform pgdrip.make_proxy(v_name, 'p_place integer', 'p_place',
    format('setof shards.%I', v_name || '_row'), format('select %s from pgdrip.%I', v_shown, v_name));
  execute format($f$
create function pgdrip.%1$I() returns setof pgdrip.%2$I language plpgsql volatile
  security definer set search_path = pg_catalog, pg_temp as $p$
declare
  v_place integer;
begin
  foreach v_place in array pgdrip.places() loop
    begin
      return query select x.*, pgdrip.shard_at(v_place) from shards.%3$I(v_place) as x;
    exception when connection_exception then
      raise warning '%%', sqlerrm || ' and is missing here';
    end;
  end loop;
end
$p$ $f$, 'each_' || v_name, v_name || '_of_shard', v_name);
  execute format('comment on function pgdrip.%I() is ''Private: %s of every shard that answers; a warning names the others''',
                 'each_' || v_name, v_name);
end
$$;

comment on function pgdrip.make_view(jsonb) is
  'Private: makes what reads a view of every shard';

create or replace function pgdrip.make_routes(p_catalog jsonb)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set client_min_messages = warning
as $$
declare
  v_one jsonb;
  v_way text;
begin
  drop schema shards cascade;
  create schema shards;
  comment on schema shards is 'Private: one PL/Proxy function for each call that goes to a shard';
  for v_one in
    select t from jsonb_array_elements(p_catalog -> 'types') as t
     where exists (select from jsonb_array_elements(p_catalog -> 'functions') as f
                     join pgdrip.routes() as r on r.name = f ->> 'name'
                    where f ->> 'result' = any (array[
                      'pgdrip.' || (t ->> 'name'), 'SETOF pgdrip.' || (t ->> 'name')]))
  loop
    execute format('drop type if exists pgdrip.%I cascade', v_one ->> 'name');
    execute format('create type pgdrip.%I as (%s)', v_one ->> 'name', v_one ->> 'columns');
    execute format('comment on type pgdrip.%I is %L', v_one ->> 'name', v_one ->> 'comment');
  end loop;
  for v_one, v_way in
    select f, r.way from jsonb_array_elements(p_catalog -> 'functions') as f
      join pgdrip.routes() as r on r.name = f ->> 'name'
  loop
    execute format('drop routine if exists pgdrip.%I cascade', v_one ->> 'name');
    if v_way not in ('runner', 'definition', 'shard') then
      perform pgdrip.proxy_function(v_one);
    end if;
    if v_way <> 'call' then
      perform pgdrip.make_route(v_one, v_way);
    end if;
  end loop;
  for v_one in
    select v from jsonb_array_elements(p_catalog -> 'views') as v
     where v ->> 'name' in ('failures', 'queue_health', 'sender_load', 'sequence_funnel',
                            'uncertain_deliveries')
  loop
    execute format('drop type if exists pgdrip.%I cascade', (v_one ->> 'name') || '_of_shard');
    perform pgdrip.make_view(v_one);
  end loop;
end
$$;

comment on function pgdrip.make_routes(jsonb) is
  'Private: makes types and functions anew from api_catalog() of a shard';
