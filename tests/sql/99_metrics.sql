-- metrics(): each number is what happened, and nothing is told twice.
begin;
select no_plan();

-- The value of a sample, its labels as name=value.
create function pg_temp.value(p_name text, p_labels jsonb default '{}') returns numeric language sql as $$
  select value from pgdrip.metrics() where name = 'pgdrip_' || p_name and labels @> p_labels
$$;

select is_empty($$select name, labels from pgdrip.metrics() group by 1, 2 having count(*) > 1$$, 'no sample is told twice');
select is_empty($$select name from pgdrip.metrics() group by 1 having count(distinct (help, type)) > 1$$,
  'a name has one help and one type');
select is_empty($$select name from pgdrip.metrics() where name !~ '^pgdrip_[a-z_]+$' or help = '' or value is null
  or type not in ('gauge', 'counter') or (type = 'counter') <> (name ~ '_total$')$$, 'names are those of Prometheus');
select is_empty($$select name from pgdrip.metrics(), jsonb_each(labels) as l
  where jsonb_typeof(l.value) <> 'string'$$, 'labels are texts');
select is(pg_temp.value('maintenance_age_seconds'), null, 'what never ran has no age');
select is(pg_temp.value('history_months_ahead'), 0::numeric, 'without maintain() no month is ahead');
select pgdrip.maintain(), pgdrip.set_clock('2026-01-05 09:05+00');
select is(pg_temp.value('maintenance_age_seconds'), 300::numeric, 'maintain() was five minutes ago');
select is(pg_temp.value('history_months_ahead'), 2::numeric, 'and made two months ahead');

-- The engine
select is(pg_temp.value('engine_paused') + pg_temp.value('engine_locked'), 0::numeric, 'the engine works');
select pgdrip.pause_all('x');
select is(pg_temp.value('engine_paused'), 1::numeric, 'or is paused');
select pgdrip.resume_all();
update pgdrip.control set timeline = 'another';
select is(pg_temp.value('engine_locked'), 1::numeric, 'or locked');
select pgdrip.unlock('x');
select is(pg_temp.value('runners_alive'), 0::numeric, 'nobody runs');
select pgdrip.tick('runner-1', '1.0');
select is(pg_temp.value('runners_alive'), 1::numeric, 'who ticks is alive');
select stage.wait('61 seconds');
select is(pg_temp.value('runner_silence_seconds', '{"runner": "runner-1", "version": "1.0"}'), 61::numeric, 'silence is measured');
select is(pg_temp.value('runners_alive'), 0::numeric, 'and ends a life');

-- The queue
select stage.new_case(p_sender => '{"rate_per_hour": 60, "burst": 1}');
select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999999', p_pool => 'pool-' || number)) from stage.this_case;
select is(pg_temp.value('due_steps', '{"channel": "webhook"}'), 2::numeric, 'two steps are due');
select is_empty($$select labels from pgdrip.metrics() where name = 'pgdrip_due_steps' and labels ->> 'channel' <> 'webhook'$$,
  'a channel without senders is not spoken of');
select stage.wait('30 seconds');
select is(pg_temp.value('due_age_seconds'), 30::numeric, 'for half a minute');
select is(pg_temp.value('ready_age_seconds'), 30::numeric, 'and a runner could have sent them');
select is(pg_temp.value('claims_total'), 0::numeric, 'none has');
select stage.take();
select is(pg_temp.value('claims_total'), 1::numeric, 'a claim is counted');
select is(pg_temp.value('enrollments_total'), 2::numeric, 'so are enrollments');
select is(pg_temp.value('due_steps'), 1::numeric, 'what is claimed is due no more');
select is(pg_temp.value('ready_age_seconds'), 0::numeric, 'behind a limit no runner is missed');
select is(pg_temp.value('due_age_seconds'), 30::numeric, 'though something is due');
select is(pg_temp.value('senders_at_limit', jsonb_build_object('pool', 'pool-' || number)), 1::numeric, 'the sender is at its limit')
  from stage.this_case;
select stage.wait('3 minutes');
select is(pg_temp.value('due_steps'), 2::numeric, 'a lease that ran out makes a step due again');
select ok(pg_temp.value('ready_age_seconds') between 100 and 180, 'a sender that is ready again waits for a runner');
select pgdrip.pause_sender('device-' || number, 'x') from stage.this_case;
select is(pg_temp.value('ready_age_seconds'), 0::numeric, 'a paused one does not');
select is(pg_temp.value('senders', jsonb_build_object('pool', 'pool-' || number, 'channel', 'webhook', 'state', 'paused')), 1::numeric,
  'senders are counted by state') from stage.this_case;
select pgdrip.resume_sender('device-' || number) from stage.this_case;
select stage.new_case();
select stage.take(), stage.start();
select stage.tell('uncertain');
select is(pg_temp.value('parked_steps', '{"reason": "uncertain"}'), 1::numeric, 'uncertain sends are counted');
select is(pg_temp.value('parked_steps', '{"reason": "no_sender"}'), 0::numeric, 'a reason that nothing has is zero');
select set_eq($$select labels ->> 'reason' from pgdrip.metrics() where name = 'pgdrip_parked_steps'$$,
  $$select (regexp_matches(pg_get_constraintdef(oid), '''([a-z_]+)''::text', 'g'))[1] from pg_constraint
     where conname = 'due_parked_reason_known' except select 'restored'$$, 'each reason that is used is known');
insert into pgdrip.contact_triggers (contact_id, trigger)
select pgdrip.upsert_contact('+60119999998', p_pool => 'pool-' || number), 'WARM-' || number from stage.this_case;
select is(pg_temp.value('waiting_triggers'), 1::numeric, 'a word written by COPY waits');
select pgdrip.enroll_waiting();
select is(pg_temp.value('waiting_triggers'), 0::numeric, 'until the sweep');

-- Failures
select stage.new_case();
select stage.take(), stage.start();
select stage.tell('failed', 'http_413');
select stage.new_case();
select stage.take(), stage.start();
select stage.tell('failed', 'http_599');
select is(pg_temp.value('recent_failures', '{"class": "content"}'), 1::numeric, 'a failure is counted by its class');
select is(pg_temp.value('recent_failures', '{"class": "unknown"}'), 1::numeric, 'one without a rule as unknown');
select is(pg_temp.value('recent_failures', '{"class": "sender"}'), 0::numeric, 'a class that nothing has is zero');
select stage.new_case();
select stage.take(), stage.start(), stage.wait('5 minutes');
select pgdrip.claim('runner-1');
select is(pg_temp.value('recent_failures', '{"class": "unknown"}'), 1::numeric, 'a runner that fell silent is no failure');
select stage.wait('15 minutes');
select is(pg_temp.value('recent_failures', '{"class": "content"}'), 0::numeric, 'after a quarter of an hour it is no news');

-- Tables
select ok(pg_temp.value('history_bytes') > 0, 'the history has a size');
select is(pg_temp.value('history_months_overdue'), 0::numeric, 'no month is too old while history is kept for ever');
select pgdrip.set_retention('10 days'), pgdrip.set_clock('2026-03-05 09:00+00');
select is(pg_temp.value('history_months_overdue'), 1::numeric, 'one is with a retention');
select is((select count(*) from pgdrip.metrics() where name in ('pgdrip_rows', 'pgdrip_dead_rows')), 8::bigint, 'rows are estimated');
select ok(pg_temp.value('snapshot_age_transactions') >= 0, 'the oldest snapshot has an age');
select pgdrip.set_clock('2027-01-01 00:00+00');
select is_empty($$select 1 from pgdrip.metrics() where name = 'pgdrip_runner_silence_seconds'$$, 'who is silent for a day is gone');
select * from finish();
rollback;
