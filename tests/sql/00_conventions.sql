-- The written rules of the house, read from the catalog; an empty list is a rule kept.
begin;
select no_plan();

create temp view relations as
select c.oid, c.relname as name, c.relkind as kind, c.relispartition as is_partition,
       (c.relkind in ('r', 'p')) as is_table
  from pg_catalog.pg_class as c
 where c.relnamespace = 'pgdrip'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'c');
create temp view functions as
select p.proname as name, p.oid::regprocedure as signature, l.lanname as language, p.oid,
       p.provolatile, p.proconfig, p.prosqlbody, p.proargnames, p.proargmodes, p.proargtypes,
       p.prorettype, p.proretset, p.proparallel, p.prosecdef, p.proowner, p.prokind, p.pronargdefaults, p.proallargtypes, p.pronargs,
       coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) as prosrc
  from pg_catalog.pg_proc as p join pg_catalog.pg_language as l on l.oid = p.prolang
 where p.pronamespace = 'pgdrip'::regnamespace;
create temp view columns as
select r.name as relation, r.is_table, r.kind, a.attname as name, a.atttypid::regtype as type, a.attnotnull as is_required,
       col_description(r.oid, a.attnum) as comment
  from relations as r join pg_catalog.pg_attribute as a on a.attrelid = r.oid
 where a.attnum > 0 and not a.attisdropped and not r.is_partition and r.kind <> 'S';
create temp view constraints as
select c.*, c.conname as name, r.name as relation
  from relations as r join pg_catalog.pg_constraint as c on c.conrelid = r.oid
 where r.is_table and not r.is_partition and c.contype <> 'n';

-- Comments

select isnt(obj_description('pgdrip'::regnamespace, 'pg_namespace'), null, 'the schema is commented');
select is_empty($$select name from relations where obj_description(oid, 'pg_class') is null
                     and kind <> 'c' and not is_partition
                     and not exists (select from pg_catalog.pg_depend as d where d.objid = relations.oid and d.deptype = 'i')$$,
                'every table, view and sequence is commented');
select is_empty($$select name from relations where kind = 'c'
                     and obj_description((select t.oid from pg_catalog.pg_type as t where t.typrelid = relations.oid), 'pg_type') is null$$,
                'every type is commented');
select is_empty($$select signature from functions where obj_description(oid, 'pg_proc') is null$$, 'every function is commented');
select is_empty($$select relation, name from columns where is_table and type = 'jsonb'::regtype and comment is null
                     and (relation, name) not in (('steps', 'subject'))$$,
                'every column with inner structure is commented');
select is_empty($$select relation, name from columns where is_table and type::text like '%[]' and comment is null
                     and (relation, name) not in (('paces', 'day_counts'))$$, 'every list is commented');
select is_empty($$select signature from functions where obj_description(oid, 'pg_proc') ~* '(todo|fixme|previously|formerly)'$$,
                'no comment tells history');

-- Functions

select is_empty($$select signature from functions
                   where not coalesce(proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
                     and prosqlbody is null and name <> 'tick_for_a_minute'$$,
                'every function pins search_path to pg_catalog, pg_temp, or is bound when created; a procedure that commits cannot');
select is_empty($$select signature from functions where language not in ('sql', 'plpgsql')$$, 'functions are SQL or PL/pgSQL');
select is_empty($$select name from functions group by name having count(*) > 1$$, 'no function is overloaded');
select is_empty($$select signature from functions, unnest(proargnames[1:pronargs]) as a(name) where a.name !~ '^p_[a-z]' $$,
                'every argument starts with p_');
select is_empty($$select signature from functions where pronargs > 0 and proargnames is null$$, 'every argument has a name');
select is_empty($$select signature from functions where 't' = any (proargmodes) or 'o' = any (proargmodes)$$,
                'results are composite types, not lists of output columns');
create temp view granted as
select f.*, r.rolname as role from functions as f
 cross join pg_catalog.pg_roles as r
 where r.rolname in ('pgdrip_reader', 'pgdrip_runner', 'pgdrip_app', 'pgdrip_operator')
   and has_function_privilege(r.oid, f.oid, 'execute');
select is_empty($$select signature from functions where prosecdef and name <> 'clock' except select signature from granted$$,
                'whatever acts with its owner''s rights is there for others to call');
select is_empty($$select signature from granted where not prosecdef
                     and (prosrc ~ '\m(from|join|into|update) pgdrip\.[a-z_]+\M(?!\()' or provolatile = 'v')
                     and name not in ('schedule_jobs', 'unschedule_jobs', 'cron_jobs', 'tick_for_a_minute')$$,
                'whatever others call and reads a table acts with its owner''s rights; pg_cron''s jobs are their caller''s');
select is_empty($$select signature from functions where prosecdef
                     and not proconfig @> array['search_path=pg_catalog, pg_temp']$$,
                'whatever acts with its owner''s rights pins search_path');
select is_empty($$select signature from functions where has_function_privilege('public', oid, 'execute')$$,
                'nothing is for PUBLIC');
select is_empty($$select signature from functions where proowner <> 'pgdrip_owner'::regrole$$, 'the owner owns every function');
select is((select rolcanlogin from pg_catalog.pg_roles where rolname = 'pgdrip_owner'), false, 'the owner cannot log in');
select is_empty($$select signature, array_length(string_to_array(prosrc, E'\n'), 1) from functions
                   where array_length(string_to_array(pg_get_functiondef(oid), E'\n'), 1) > 90$$,
                'no function is longer than about 80 lines');
select is_empty($$select signature from functions where provolatile <> 'v'
                     and prosrc ~ '\m(insert into|delete from|for update|for share|for no key update|nextval)\M|^\s*update\M'$$,
                'what writes or locks is volatile');
select is_empty($$select signature from functions where provolatile = 'i'
                     and regexp_replace(prosrc, '''[^'']*''', '', 'g') ~ '\m(from|join) pgdrip\.[a-z_]+\M(?!\()|pgdrip\.(clock|is_unlocked|is_timezone)\('$$,
                'what reads tables or the clock is not immutable');
select is_empty($$select signature from functions where prosrc ~ '\m(now\(\)|current_timestamp|clock_timestamp|localtime|current_date)'
                     and name <> 'clock'$$, 'clock() is the only source of now');
select is_empty($$select signature from functions where prosrc ~* 'when others'$$, 'no exception is caught unnamed');
select is_empty($$select signature from functions where language = 'sql' and prosrc ~ 'limit p_'$$,
                'what is limited by an argument is PL/pgSQL');
select is_empty($$select signature from functions where prosrc ~ '\mexecute\M\s+(format|''|v_)'
                     and name not in ('create_partitions', 'schedule_jobs', 'unschedule_jobs', 'retire_month')$$,
                'no dynamic SQL outside partition upkeep and pg_cron, which may be absent');
select is_empty($$select signature from functions where prosrc ~ 'errcode = ''(?!22023|22004|23514|25006|55P03|MD00[1-8])'$$,
                'errors carry the SQLSTATEs that are documented');
select is_empty($$select signature from functions
                   where regexp_count(prosrc, 'raise exception') > regexp_count(prosrc, 'hint = ')$$,
                'every error has a hint');
select is_empty($$select tgrelid::regclass from pg_catalog.pg_trigger as t join relations as r on r.oid = t.tgrelid
                   where not t.tgisinternal$$, 'no trigger decides anything');

-- Tables

select is_empty($$select relation, name, type from columns
                   where type::text in ('character varying', 'character', 'timestamp without time zone', 'time with time zone',
                                        'json', 'money', 'real', 'double precision')
                      or type::text like 'character varying%'$$, 'columns are text, timestamptz, jsonb, whole numbers');
select is_empty($$select typname from pg_catalog.pg_type where typnamespace = 'pgdrip'::regnamespace and typtype = 'e'$$, 'no enums');
select is_empty($$select relation, name from columns where is_table and type = 'timestamptz'::regtype
                     and name !~ '(_at|_until|_by|^at|^tat|^now)$'$$, 'instants are named …_at');
select is_empty($$select relation, name from columns where is_table and type = 'boolean'::regtype
                     and name !~ '^(is_|stop_on_|removes_)'$$, 'booleans say a fact');
select is_empty($$select relation, name from columns where is_table and name = 'id'$$, 'ids say of what they are');
select is_empty($$select c.relname from pg_catalog.pg_class as c where c.relnamespace = 'pgdrip'::regnamespace and c.relkind = 'r'
                     and not c.relispartition and c.oid not in (select conrelid from constraints where contype = 'p')$$,
                'every table has a primary key');
select is_empty($$select relation, name from constraints where name not like relation || '\_%'$$,
                'the name of a constraint begins with its table');
select is_empty($$select relation, name from constraints where contype = 'c' and name ~ '_check[0-9]*$'$$,
                'the name of a check is a fact, not PostgreSQL''s');
select is_empty($$select relation, name from constraints
                   where name !~ case contype when 'p' then '_pkey$' when 'u' then '_key$' when 'f' then '_fkey$' else '' end$$,
                'keys are named as keys');
select is_empty($$
  select k.relation, k.name from constraints as k
   where k.contype = 'f' and k.relation not in ('due', 'deliveries') and not exists (
     select from pg_catalog.pg_index as i
      where i.indrelid = k.conrelid
        and (select array_agg(n order by n) from unnest((i.indkey::int2[])[0:cardinality(k.conkey) - 1]) as n)
            = (select array_agg(n order by n) from unnest(k.conkey) as n)) $$,
  'every foreign key has an index that starts with it');
select is_empty($$
  select c.relation, c.name from columns as c
   where c.is_table and c.type = 'timestamptz'::regtype
     and c.relation in ('senders', 'wakes', 'contact_triggers', 'sequences', 'enrollments', 'due', 'deliveries', 'provider_refs', 'receipts', 'control')
     and c.name not in ('limits_at')
     and not exists (select from constraints as k where k.relation = c.relation and k.contype = 'c'
                        and pg_get_constraintdef(k.oid) like '%isfinite(' || c.name || ')%') $$,
  'no instant that clients decode can be infinite');
select is(array(select i.indexrelid::regclass::text from pg_catalog.pg_index as i where i.indrelid = 'pgdrip.due'::regclass order by 1),
          array['pgdrip.due_claim', 'pgdrip.due_parked', 'pgdrip.due_pkey'],
          'due has the indexes of its own and no other');
select is_empty($$select attname from pg_catalog.pg_index as i
                    join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                   where i.indrelid = 'pgdrip.due'::regclass
                     and a.attname in ('lease_until', 'token', 'begun_at', 'send_by', 'runner', 'attempt')$$,
                'no index of due holds what claim and begin write');
select is_empty($$select attname from pg_catalog.pg_index as i
                    join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                   where i.indrelid = 'pgdrip.paces'::regclass
                     and a.attname in ('tat', 'day_slot', 'day_counts', 'ready_at', 'next_at')$$,
                'no index of paces holds what claim writes');
select is_empty($$select c.name, g.privilege_type, g.grantee::regrole
                    from relations as c join pg_catalog.pg_class as p using (oid), aclexplode(p.relacl) as g
                   where g.grantee <> 'pgdrip_owner'::regrole and c.kind <> 'c'
                     and (c.kind, g.privilege_type, g.grantee::regrole::text) <> ('v', 'SELECT', 'pgdrip_reader')$$,
                'nobody but the owner touches a table; readers read views');
select is_empty($$select name from relations as r join pg_catalog.pg_class as c using (oid)
                   where c.relowner <> 'pgdrip_owner'::regrole$$, 'the owner owns every table, view and sequence');

-- The contract

create temp table api (name text, arguments text, result text);
insert into api values
  ('upsert_contact', 'p_phone text DEFAULT NULL::text, p_email text DEFAULT NULL::text, p_name text DEFAULT NULL::text, p_attributes jsonb DEFAULT ''{}''::jsonb, p_timezone text DEFAULT NULL::text, p_pool text DEFAULT ''default''::text, p_sender text DEFAULT NULL::text', 'bigint'),
  ('add_trigger', 'p_contact bigint, p_trigger text', 'SETOF bigint'),
  ('remove_trigger', 'p_contact bigint, p_trigger text', 'boolean'),
  ('enroll', 'p_sequence text, p_contact bigint, p_start_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'bigint'),
  ('enroll_waiting', 'p_limit integer DEFAULT 1000', 'integer'),
  ('explain_enroll', 'p_sequence text, p_contact bigint', 'text'),
  ('pause_enrollment', 'p_enrollment bigint, p_reason text', 'boolean'),
  ('resume_enrollment', 'p_enrollment bigint', 'boolean'),
  ('exit_enrollment', 'p_enrollment bigint, p_reason text', 'boolean'),
  ('apply_sequence', 'p_definition jsonb', 'pgdrip.publication'),
  ('apply_sender', 'p_definition jsonb', 'text'),
  ('apply_group', 'p_definition jsonb', 'text'),
  ('activate_sequence', 'p_sequence text', 'boolean'),
  ('archive_sequence', 'p_sequence text', 'boolean'),
  ('pause_sequence', 'p_sequence text, p_reason text', 'boolean'),
  ('resume_sequence', 'p_sequence text, p_keep_remaining boolean DEFAULT false', 'boolean'),
  ('pause_sender', 'p_sender text, p_reason text', 'boolean'),
  ('resume_sender', 'p_sender text', 'boolean'),
  ('retire_sender', 'p_sender text, p_move_to_pool text DEFAULT NULL::text', 'boolean'),
  ('pause_all', 'p_reason text', 'boolean'),
  ('resume_all', '', 'boolean'),
  ('claim', 'p_runner text, p_limit integer DEFAULT 100, p_lease interval DEFAULT ''00:02:00''::interval, p_channels text[] DEFAULT NULL::text[]', 'SETOF pgdrip.claimed_message'),
  ('begin_send', 'p_enrollments bigint[], p_tokens bigint[]', 'SETOF bigint'),
  ('heartbeat', 'p_enrollments bigint[], p_tokens bigint[], p_lease interval DEFAULT ''00:02:00''::interval', 'SETOF bigint'),
  ('release', 'p_enrollments bigint[], p_tokens bigint[]', 'SETOF bigint'),
  ('report', 'p_enrollments bigint[], p_tokens bigint[], p_outcomes text[], p_provider_ids text[] DEFAULT NULL::text[], p_codes text[] DEFAULT NULL::text[], p_details text[] DEFAULT NULL::text[]', 'SETOF pgdrip.report_verdict'),
  ('next_wake', '', 'timestamp with time zone'),
  ('record_receipt', 'p_channel text, p_provider_id text, p_status text, p_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'boolean'),
  ('record_reply', 'p_channel text, p_address text, p_text text, p_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'integer'),
  ('record_event', 'p_contact bigint, p_event text, p_payload jsonb DEFAULT ''{}''::jsonb, p_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'integer'),
  ('suppress', 'p_address text, p_reason text', 'boolean'),
  ('unsuppress', 'p_address text, p_reason text', 'boolean'),
  ('resolve_uncertain', 'p_token bigint, p_outcome text', 'text'),
  ('retry_failed', 'p_enrollment bigint, p_reason text', 'boolean'),
  ('explain_contact', 'p_contact bigint', 'SETOF pgdrip.contact_explanation'),
  ('check', '', 'SETOF pgdrip.violation'),
  ('forecast', 'p_sequence text, p_contacts integer', null),
  ('simulate', 'p_sequence text, p_start timestamp with time zone, p_contact bigint DEFAULT NULL::bigint', null),
  ('maintain', '', 'pgdrip.maintenance'),
  ('schedule_jobs', '', 'integer'),
  ('unschedule_jobs', '', 'integer'),
  ('unlock', 'p_reason text', 'boolean'),
  ('clock', '', 'timestamp with time zone'),
  ('schema_version', '', 'text');
select is(pg_get_function_arguments(f.oid), a.arguments, format('%s() has the arguments of the contract', a.name))
  from api as a join functions as f on f.name = a.name order by a.name;
select is(pg_get_function_result(f.oid), a.result, format('%s() returns what the contract says', a.name))
  from api as a join functions as f on f.name = a.name where a.result is not null order by a.name;
select is_empty($$select unnest(array['upsert_contact', 'add_trigger', 'remove_trigger', 'enroll', 'enroll_waiting', 'explain_enroll',
  'apply_sequence', 'activate_sequence', 'apply_sender', 'claim', 'begin_send', 'heartbeat', 'release', 'report', 'next_wake',
  'pause_sequence', 'resume_sequence', 'pause_sender', 'resume_sender', 'pause_enrollment', 'resume_enrollment', 'pause_all',
  'resume_all', 'exit_enrollment', 'suppress', 'resolve_uncertain', 'maintain', 'check', 'explain_contact', 'clock',
  'schema_version']) except select name from functions$$, 'the functions of the main way exist');
select results_eq($$select name::text collate "default" from columns where relation = 'claimed_message'$$,
  array['enrollment_id', 'token', 'sequence', 'step', 'attempt', 'channel', 'sender', 'sender_config', 'recipient', 'subject', 'body',
        'content', 'idempotency_key', 'due_at', 'send_by', 'lease_until'], 'claimed_message has the fields of the contract');
select has_view('pgdrip', v, format('view %s exists', v))
  from unnest(array['sequence_progress', 'sequence_funnel', 'sender_load', 'queue_health', 'failures', 'uncertain_deliveries']::name[]) as v;
select is_empty($$select unnest(array['sequence', 'contact_id', 'recipient', 'step', 'step_status', 'message_status', 'due_at', 'sent_at',
  'completed_at', 'attempts', 'error_class', 'error_detail', 'current_state'])
  except select name::text from columns where relation = 'sequence_progress'$$, 'sequence_progress has the columns of the contract');

select * from finish();
rollback;
