-- What the operator page reads: counts made beforehand, and the views beside them.
begin;
select no_plan();

select throws_ok($$select pgdrip.tally('weather')$$, '22023', null, 'only what has a name is counted');
select throws_ok($$select pgdrip.tally(null)$$, '22004', null, 'which is to be said');

-- The history

select is((select count(*) from pgdrip.minute_tally()), 0::bigint, 'where nothing was sent there is nothing to tell');
select is(pgdrip.tally('history'), false, 'and nothing to count');
select stage.wait('10 minutes');
select stage.new_case('{"max_attempts": 2}');
select stage.take(); select stage.start(); select stage.tell('failed', 'transient');
select is((select count from pgdrip.minute_tally() where event = 'failed' and class = 'transient'), 1::bigint,
          'an event shows at once');
select is((select sum(failed) from pgdrip.sender_day), null, 'though it is not counted yet');
select is(pgdrip.tally('history'), true, 'the minutes before it are counted');
select is((select counted_at from pgdrip.tallies where name = 'history'),
          date_trunc('minute', pgdrip.clock() - interval '1 minute'), 'up to the last one that is over');
select stage.wait('5 minutes');
select stage.take(); select stage.start();
select is(stage.tell('sent', null, 'wamid-1'), 'advanced', 'the second attempt succeeds');
select stage.wait('5 minutes');
select pgdrip.tally('history');
select is((select array[sum(count) filter (where event = 'failed'), sum(count) filter (where event = 'sent')]
             from pgdrip.minute_tally()), array[1::numeric, 1], 'each event is counted once');
select pgdrip.tally('history');
select is((select sum(count) from pgdrip.minute_tally()), 2::numeric, 'however often it is counted');
select is((select row(t.step, t.sent, t.skipped, t.failed)::text from pgdrip.step_tally as t), '(1,1,0,0)',
          'a step that needed two attempts was sent once');
select is((select row(d.sent, d.failed)::text from pgdrip.sender_day as d), '(1,1)', 'its sender sent one and failed once');
select stage.wait('12 hours');
select stage.take(); select stage.start(); select stage.tell('failed', 'contact');
select stage.wait('3 minutes'); select pgdrip.tally('history');
select is((select failed from pgdrip.step_tally where step = 3), 1::bigint, 'a step that ends its enrollment has failed');
select results_eq(
  $$select step, sent, skipped, failed from pgdrip.step_tally order by step$$,
  $$select step, sent, skipped, failed from pgdrip.sequence_funnel order by step$$,
  'the counts are those of the funnel, which scans');
select is((select array_agg(f.step) from pgdrip.failure_details as f where f.is_retryable), array[3], 'and it can be tried again');
select pgdrip.retry_failed(enrollment_id, 'the number is right') from stage.this_case;
select is_empty($$select from pgdrip.failure_details where is_retryable$$, 'once it is tried again it cannot be twice');
select stage.wait('26 hours'); select pgdrip.tally('history');
select is((select count(*) from pgdrip.minute_counts), 0::bigint, 'minutes of yesterday are forgotten');
select is((select sum(sent) from pgdrip.step_counts), 1::numeric, 'what became of steps is not');

select stage.new_case('{"on_failure": "park"}');
select stage.take(); select stage.start(); select stage.tell('failed', 'contact');
select is((select f.is_retryable from pgdrip.failure_details as f join stage.this_case using (contact_id)), true,
          'what its step parks can be tried again, too');

-- A receipt confirms a send that was counted; an operator says that another one arrived.
select stage.new_case(p_sender => '{"advance_on": "delivered"}');
select stage.take(); select stage.start();
select is(stage.tell('sent', null, 'wamid-2'), 'awaiting', 'a send that awaits its receipt');
select stage.wait('3 minutes'); select pgdrip.tally('history');
select pgdrip.record_receipt('webhook', 'wamid-2', 'delivered');
select stage.wait('3 minutes'); select pgdrip.tally('history');
select is((select t.sent from pgdrip.step_tally as t join stage.this_case on t.sequence = 'WARM-' || number where t.step = 1),
          1::bigint, 'is counted when it is sent, and not again when it is delivered');
select stage.new_case();
select stage.take(); select stage.start(); select stage.tell('uncertain');
select stage.wait('3 minutes'); select pgdrip.tally('history');
select pgdrip.resolve_uncertain((stage.live()).token, 'sent');
select stage.wait('3 minutes'); select pgdrip.tally('history');
select is((select t.sent from pgdrip.step_tally as t join stage.this_case on t.sequence = 'WARM-' || number where t.step = 1),
          1::bigint, 'an uncertain send that is resolved as sent is counted then');

-- What is live

select stage.new_case();
select is(pgdrip.tally('queue') and pgdrip.tally('live') and pgdrip.tally('enrollments') and pgdrip.tally('forecast')
      and pgdrip.tally('senders') and pgdrip.tally('receipts') and pgdrip.tally('check'), true, 'everything can be counted');
select is((select (content -> 0 ->> 'due_now')::integer from pgdrip.tallies where name = 'queue'), 1, 'what is due');
select is((select c from pgdrip.tallies, jsonb_array_elements(content) as c, stage.this_case
            where name = 'live' and c ->> 'sequence' = 'WARM-' || number) - 'sequence',
          '{"step": 1, "count": 1, "parked": 0, "version": 1}', 'who stands where, in which version');
select is((select c from pgdrip.tallies, jsonb_array_elements(content) as c, stage.this_case
            where name = 'forecast' and c ->> 'sequence' = 'WARM-' || number) - 'sequence',
          '{"hour": 0, "count": 1}', 'what is due in which hour');
select is((select sum((c ->> 'delivered')::integer) from pgdrip.tallies, jsonb_array_elements(content) as c where name = 'receipts'),
          1::bigint, 'what was delivered');
select is((select content from pgdrip.tallies where name = 'check'), '[]', 'and that no invariant is broken');
select stage.new_case('{"delay": "90 minutes"}');
select is((select (content -> 0 ->> 'due_now')::integer from pgdrip.tallies where name = 'queue'), 1,
          'a count stays until the next one');
select pgdrip.tally('queue'), pgdrip.tally('forecast');
select is((select (content -> 0 ->> 'due_now')::integer from pgdrip.tallies where name = 'queue'), 0, 'which replaces it');
select is((select (c ->> 'hour')::integer from pgdrip.tallies, jsonb_array_elements(content) as c, stage.this_case
            where name = 'forecast' and c ->> 'sequence' = 'WARM-' || number), 1, 'hours are counted from now');

-- The views

select is((select row(o.status, o.version, o.steps)::text from pgdrip.sequence_overview as o join stage.this_case on o.sequence = 'WARM-' || number),
          '(active,1,"{1,3}")', 'a sequence with its newest version and steps');
select is((select count(*) from pgdrip.runner_health), 1::bigint, 'where nobody ticks one row says when maintain() ran');
select pgdrip.tick('runner-1', '0.1.0');
select stage.wait('2 minutes'); select pgdrip.tick('runner-2', '0.1.0');
select results_eq($$select runner, is_alive from pgdrip.runner_health order by runner$$,
                  $$values ('runner-1', false), ('runner-2', true)$$, 'a runner is alive for a minute after its tick');
select pgdrip.suppress(phone, 'asked us') from pgdrip.contact_details join stage.this_case using (contact_id);
select is((select row(d.triggers, d.suppressed)::text from pgdrip.contact_details as d join stage.this_case using (contact_id)),
          (select format('({WARM-%s},"{""asked us""}")', number) from stage.this_case), 'a contact with its words and why it is suppressed');
select stage.new_case();
select stage.take(); select stage.start(); select stage.tell('sent', null, 'wamid-9');
select pgdrip.record_receipt('webhook', 'wamid-9', 'read');
select results_eq(
  $$select s.step, s.current_state, s.sender, s.receipt, s.receipt_at
      from pgdrip.contact_steps as s join stage.this_case using (contact_id) order by s.step$$,
  $$select n, case n when 1 then 'Read' else 'Scheduled' end, 'device-' || number, case n when 1 then 'read' end,
           case n when 1 then pgdrip.clock() end from stage.this_case, unnest(array[1, 3]) as n$$,
  'the life of a contact: each step with its sender and the furthest receipt');

-- Time goes on while rows are counted: with a clock that does not stand still.
create or replace function pgdrip.clock() returns timestamptz language plpgsql stable parallel safe
  set search_path = pg_catalog, pg_temp as $$ begin return clock_timestamp(); end $$;
select stage.new_case(); select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999998', p_pool => 'pool-' || number))
  from stage.this_case;
select is((select count(*) from pgdrip.queue_health), 1::bigint, 'queue_health is one row, whatever the clock does');

select * from finish();
rollback;
