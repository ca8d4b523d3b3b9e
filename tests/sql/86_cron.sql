-- Jobs of pg_cron: which ones for which version, and that its ticks are no runner's.
begin;
select no_plan();

create function pg_temp.job(p_version text, p_name text) returns text language sql as $$
  select j.schedule || ': ' || j.command
    from jsonb_to_recordset(pgdrip.cron_jobs(p_version)) as j(name text, schedule text, command text)
   where j.name = p_name
$$;
select is(pg_temp.job(v, 'pgdrip tick'), '* * * * *: call pgdrip.tick_for_a_minute()',
          format('pg_cron %s knows minutes only: a procedure ticks within each', v))
  from unnest(array['1.0', '1.3', '1.4']) as v;
select is(pg_temp.job(v, 'pgdrip tick'),
          '5 seconds: select pgdrip.tick(''pg_cron'', pgdrip.schema_version())',
          format('pg_cron %s ticks every 5 seconds', v))
  from unnest(array['1.5', '1.6', '1.10', '2.0']) as v;
select results_eq(
  $$select j.name from jsonb_to_recordset(pgdrip.cron_jobs('1.4')) as j(name text)$$,
  $$select j.name from jsonb_to_recordset(pgdrip.cron_jobs('1.5')) as j(name text)$$,
  'jobs are called the same in every version, so that an upgrade replaces them');
select is(pg_temp.job('1.5', 'pgdrip maintain'), '17 * * * *: select pgdrip.maintain()',
          'history is looked after each hour');
select throws_ok('select pgdrip.schedule_jobs()', 'MD003', 'this database has no pg_cron',
                 'without pg_cron nothing is scheduled');
select throws_ok('select pgdrip.unschedule_jobs()', 'MD003', 'this database has no pg_cron',
                 'and nothing is taken away');

select is(runners_alive, 0::bigint, 'nobody ticks') from pgdrip.queue_health;
select lives_ok(split_part(pg_temp.job('1.5', 'pgdrip tick'), ': ', 2), 'the job of pg_cron 1.5 can be run');
select is(runners_alive, 0::bigint, 'pg_cron ticks and sends nothing, so it is no runner') from pgdrip.queue_health;
select is(runner, 'pg_cron', 'though it is among those who ticked') from pgdrip.runner_health;
select pgdrip.tick('desk', pgdrip.schema_version());
select is(runners_alive, 1::bigint, 'a runner is one') from pgdrip.queue_health;
select * from finish();
rollback;
