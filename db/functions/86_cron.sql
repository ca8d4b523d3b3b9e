-- Jobs of pg_cron, for databases that tick without a runner. What calls the schema cron
-- is executed as text, since most databases have none.

create or replace procedure pgdrip.tick_for_a_minute()
  language plpgsql
as $$
begin
  -- No search_path is pinned: a procedure that pins one cannot commit.
  if not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('pgdrip.tick', 0)) then
    return;
  end if;
  for i in 1 .. 11 loop
    perform pgdrip.tick('pg_cron', pgdrip.schema_version());
    commit;
    perform pg_catalog.pg_sleep(5);
    commit;
  end loop;
  perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('pgdrip.tick', 0));
end
$$;

comment on procedure pgdrip.tick_for_a_minute() is
  'Private: what pg_cron before 1.5, which knows minutes only, runs each minute: a tick every 5 seconds; one at a time';

create or replace function pgdrip.assert_cron()
  returns text
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_version text := (
    select substring(e.extversion from '^[0-9]+[.][0-9]+') from pg_extension as e
     where e.extname = 'pg_cron');
begin
  if v_version is null then
    raise exception 'this database has no pg_cron'
      using errcode = 'MD003',
            hint = 'create extension pg_cron, in the database that cron.database_name names; without it a runner ticks.';
  end if;
  return v_version;
end
$$;

comment on function pgdrip.assert_cron() is
  'Private: major and minor version of pg_cron; none MD003';

create or replace function pgdrip.cron_jobs(p_version text)
  returns jsonb
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_array(
    case when string_to_array(p_version, '.')::integer[] >= array[1, 5]
         then jsonb_build_object('name', 'pgdrip tick', 'schedule', '5 seconds', 'command',
                'select pgdrip.tick(''pg_cron'', pgdrip.schema_version())')
         else jsonb_build_object('name', 'pgdrip tick', 'schedule', '* * * * *', 'command',
                'call pgdrip.tick_for_a_minute()') end,
    jsonb_build_object('name', 'pgdrip maintain', 'schedule', '17 * * * *', 'command',
      'select pgdrip.maintain()'),
    jsonb_build_object('name', 'pgdrip prune', 'schedule', '47 3 * * *', 'command',
      'delete from cron.job_run_details where jobid in'
      || ' (select jobid from cron.job where jobname like ''pgdrip %'')'
      || ' and end_time < pgdrip.clock() - interval ''7 days'''))
$$;

comment on function pgdrip.cron_jobs(text) is
  'Private: the jobs for a version of pg_cron, as 1.4: [{name, schedule, command}, …]';

create or replace function pgdrip.schedule_jobs()
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_jobs integer;
begin
  -- A job of the same name is replaced, so that once more changes nothing.
  execute format('select count(%s.schedule(j.name, j.schedule, j.command))
                    from jsonb_to_recordset($1) as j(name text, schedule text, command text)',
                 to_regnamespace('cron'))
    into v_jobs using pgdrip.cron_jobs(pgdrip.assert_cron());
  perform pgdrip.note('schedule', 'the jobs of pg_cron');
  return v_jobs;
end
$$;

comment on function pgdrip.schedule_jobs() is
  'Installs what pg_cron does in the place of a runner: ticks (enroll, receipts, moves), maintenance, pruning of its own run details; returns how many jobs; runners may tick at the same time; no pg_cron MD003';

create or replace function pgdrip.unschedule_jobs()
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_jobs integer;
begin
  perform pgdrip.assert_cron();
  execute format('select count(%1$s.unschedule(j.jobid)) from %1$s.job as j
                   where j.jobname like %2$L and j.database = current_database()',
                 to_regnamespace('cron'), 'pgdrip %')
    into v_jobs;
  perform pgdrip.note('unschedule', 'the jobs of pg_cron');
  return v_jobs;
end
$$;

comment on function pgdrip.unschedule_jobs() is
  'Takes the jobs of schedule_jobs() away and returns how many there were; no pg_cron MD003';
