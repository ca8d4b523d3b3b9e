-- Plants, in the schema that the setting test.schema names, something under the name of
-- each function, aggregate, operator, type and relation of PostgreSQL and of the engine.
-- Whatever of it runs fails with SQLSTATE TRAP0.

do $plant$
declare
  v_into    text := current_setting('test.schema');
  v_body    text := $body$language plpgsql as
    'begin raise exception ''planted'' using errcode = ''TRAP0''; end'$body$;
  v_command text;
begin
  for v_command in
    select format('create function %s.%I(%s) returns %s %s', v_into, p.proname,
                  array_to_string(array(select format_type(a, null)
                                          from unnest(p.proargtypes) as a), ', '),
                  case when p.proretset then 'setof ' else '' end
                  || format_type(p.prorettype, null), v_body)
      from pg_proc as p
     where p.pronamespace in ('pg_catalog'::regnamespace, 'pgdrip'::regnamespace)
       and p.prokind in ('f', 'a')
       and not exists (
         select from pg_type as t
          where t.oid = any (p.proargtypes || p.prorettype) and t.typtype = 'p')
    union all
    -- Operators, which call those.
    select format('create operator %s.%s (leftarg = %s, rightarg = %s, function = %s.%I)',
                  v_into, o.oprname, format_type(o.oprleft, null),
                  format_type(o.oprright, null), v_into, p.proname)
      from pg_operator as o join pg_proc as p on p.oid = o.oprcode
     where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprleft <> 0
       and not exists (select from pg_type as t
                        where t.oid in (o.oprleft, o.oprright) and t.typtype = 'p')
    union all
    -- Domains, whose check calls one.
    select format('create domain %s.%I as integer check (%s.pg_backend_pid() = 0)',
                  v_into, t.typname, v_into)
      from pg_type as t
     where t.typnamespace = 'pg_catalog'::regnamespace
       and t.typtype in ('b', 'd', 'r') and t.typelem = 0
    union all
    -- Views, which call one; and casts that turn a text into one of their rows.
    select format('create view %s.%I as select %s from (select %s.pg_backend_pid()'
                  ' offset 0) as x', v_into, c.relname, a.columns, v_into)
           || format('; grant all on %s.%I to public', v_into, c.relname)
           || format('; create function %1$s.%2$I(text) returns %1$s.%3$I %4$s',
                     v_into, 'cast_' || c.relname, c.relname, v_body)
           || format('; create cast (text as %1$s.%2$I) with function %1$s.%3$I(text)'
                     ' as implicit', v_into, c.relname, 'cast_' || c.relname)
      from pg_class as c
     cross join lateral (
        select string_agg(format('null::%s as %I', format_type(k.atttypid, k.atttypmod),
                                 k.attname), ', ') as columns
          from pg_attribute as k join pg_type as t on t.oid = k.atttypid
         where k.attrelid = c.oid and k.attnum > 0 and not k.attisdropped
           and t.typtype <> 'p') as a
     where c.relnamespace in ('pgdrip'::regnamespace, 'pg_catalog'::regnamespace)
       and c.relkind in ('r', 'p', 'v')
       and c.relname not in ('pg_statistic', 'pg_statistic_ext_data')  -- pseudo-types
  loop
    execute v_command;
  end loop;
end
$plant$;
