-- What the keys of a definition do to a message on its way: waits, conditions, variants,
-- caps, priorities, versions, goals.

begin;
select no_plan();

create function pg_temp.sequence(p_name text, p_more jsonb, p_steps jsonb) returns void
  language sql as $$
  select pgdrip.apply_sequence(jsonb_build_object('name', p_name, 'trigger', p_name,
    'channel', 'log', 'status', 'active', 'steps', p_steps) || p_more)
$$;
create function pg_temp.contact(p_number integer, p_attributes jsonb default '{}')
  returns bigint language sql as $$
  select pgdrip.upsert_contact('+6012345' || (6000 + p_number), p_attributes => p_attributes)
$$;
-- Claims all that is due and sends it; what was sent, in order.
create function pg_temp.send() returns text[] language plpgsql as $$
declare
  v_sent text[] := '{}';
  v_row  pgdrip.claimed_message;
begin
  for v_row in select * from pgdrip.claim('tester', 1000) loop
    perform pgdrip.begin_send(array[v_row.enrollment_id], array[v_row.token]);
    perform pgdrip.report(array[v_row.enrollment_id], array[v_row.token], array['sent']);
    v_sent := v_sent || (v_row.sequence || ' ' || v_row.step || ': ' || v_row.body);
  end loop;
  return v_sent;
end $$;
create function pg_temp.at(p_at text) returns text[] language plpgsql as $$
begin
  perform pgdrip.set_clock(p_at::timestamptz);
  return pg_temp.send();
end $$;

select pgdrip.apply_sender('{"name": "free", "channel": "log"}');

-- Waiting for an event

select pg_temp.sequence('Wait', '{}', '[
  {"day": 1, "body": "one", "wait_for": {"event": "clicked", "timeout": "3 days", "then": 6, "else": 9}},
  {"day": 3, "body": "three"}, {"day": 6, "delay": "1 hour", "body": "six"},
  {"day": 9, "delay": "2 hours", "body": "nine"}]');
select pgdrip.set_clock('2026-01-05 09:00+00');
select pgdrip.enroll('Wait', pg_temp.contact(n)) from generate_series(1, 3) as n;
select is(pg_temp.send(), array['Wait 1: one', 'Wait 1: one', 'Wait 1: one'], 'the waiting step itself goes out');
select is((select array_agg(distinct d.awaits || ' ' || (d.due_at at time zone 'UTC')::text) from pgdrip.due as d),
          array['event 2026-01-08 09:00:00'], 'then its row awaits the event until the time-out');
select is((select array_agg(distinct p.current_state) from pgdrip.sequence_progress as p where p.step = 1),
          array['Sent'], 'meanwhile the step is sent');
select is_empty('select * from pgdrip.check()', 'and nothing is stuck');
select pgdrip.set_clock('2026-01-05 10:00+00');
select is(pgdrip.record_event(1, 'opened'), 0, 'another event moves nobody');
select is(pgdrip.record_event(1, 'clicked'), 1, 'the event moves the contact it happened to');
select is(pgdrip.record_event(1, 'clicked'), 0, 'once');
select is(pg_temp.at('2026-01-05 11:00+00'), array['Wait 6: six'], 'on to the then branch, its delay after the event');
select is(pg_temp.at('2026-01-08 08:59+00'), array['Wait 9: nine'], 'while the others wait on');
select is(pg_temp.at('2026-01-08 09:00+00'), '{}'::text[], 'the time-out sends nothing');
select is(pg_temp.at('2026-01-08 11:00+00'), array['Wait 9: nine', 'Wait 9: nine'],
          'but leads to the else branch, its delay after the time-out');
select is((select array_agg(distinct e.status) from pgdrip.enrollments as e), array['completed'], 'and so to the end');
select is_empty('select * from pgdrip.check()', 'with every invariant kept');

select pgdrip.enroll('Wait', pg_temp.contact(4));
create temp table early as select * from pgdrip.claim('tester');
select pgdrip.begin_send(array_agg(enrollment_id), array_agg(token)) from early;
select is(pgdrip.record_event(4, 'clicked'), 0, 'an event between the send and its report finds nobody waiting');
select pgdrip.report(array_agg(enrollment_id), array_agg(token), array['sent']) from early;
select is((select d.step from pgdrip.due as d), 6, 'but the report finds the event');
select pgdrip.exit_enrollment(4, 'tested');

select throws_ok($$ select pg_temp.sequence('Back', '{}', '[{"day": 1, "body": "x"},
  {"day": 3, "body": "x", "wait_for": {"event": "e", "timeout": "1 day", "then": 1}}]') $$,
  'MD008', null, 'a branch never goes back');
select throws_ok($$ select pg_temp.sequence('Off', '{}', '[{"day": 1, "body": "x",
  "wait_for": {"event": "e", "timeout": "1 day", "else": 4}}, {"day": 3, "body": "x"}]') $$,
  'MD008', null, 'nor to a step that is not there');

-- Conditions

select pg_temp.sequence('If', '{"exit_when": {"status": "customer"}}', '[
  {"day": 1, "delay": "1 minute", "body": "one", "only_if": {"city": "KL"}},
  {"day": 3, "delay": "1 hour", "body": "three", "skip_if": {"vip": true}},
  {"day": 6, "delay": "1 hour", "body": "six", "skip_if": {}}]');
select pgdrip.set_clock('2026-01-12 09:00+00');
create temp table who as select 'kl' as name, pg_temp.contact(11, '{"city": "KL", "vip": true}') as id
  union all select 'other', pg_temp.contact(12, '{"city": "PJ"}')
  union all select 'buys', pg_temp.contact(13, '{"city": "KL"}');
select pgdrip.enroll('If', id) from who;
select pgdrip.upsert_contact('+60123456013', p_attributes => '{"status": "customer"}');
select is(pg_temp.at('2026-01-12 09:01+00'), array['If 1: one'], 'only_if lets through whom it names');
select is((select e.status || ' ' || e.end_reason from pgdrip.enrollments as e join who on id = contact_id where who.name = 'buys'),
          'exited exit_condition', 'exit_when ends the enrollment before the send');
select is((select p.current_state from pgdrip.sequence_progress as p join who on id = contact_id where who.name = 'other' and p.step = 1),
          'Skipped', 'a skipped step is recorded as skipped');
select is(pg_temp.at('2026-01-12 10:01+00'), array['If 3: three'], 'the next step counts from the skip');
select is(pg_temp.at('2026-01-12 11:01+00'), array['If 6: six', 'If 6: six'], 'skip_if skips whom it names; an empty one nobody');
select is((select array_agg(e.last_confirmed_step order by e.contact_id) from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id) where q.name = 'If'),
          array[6, 6, 0], 'a skipped step is not confirmed');
select is_empty('select * from pgdrip.check()', 'and every invariant holds');

-- Variants

select pg_temp.sequence('Vary', '{}', '[
  {"day": 1, "variants": [{"weight": 1, "body": "a"}, {"weight": 3, "body": "b {{name|x}}"}]},
  {"day": 3, "delay": "1 hour", "variants": [{"weight": 1, "body": "a"}, {"weight": 3, "body": "b"}]}]');
select pgdrip.enroll('Vary', pg_temp.contact(100 + n)) from generate_series(1, 400) as n;
select pgdrip.set_clock('2026-01-13 09:00+00');
create temp table sent as select unnest(pg_temp.send()) as line;
select ok(count(*) filter (where line = 'Vary 1: a') between 75 and 125 and count(*) = 400,
          'variants are chosen by their weights') from sent;
select is(count(*), 400::bigint, 'and recorded') from pgdrip.deliveries where variant in (1, 2);
select pg_temp.at('2026-01-13 10:00+00');
select is_empty($$ select enrollment_id from pgdrip.deliveries where variant is not null
  group by enrollment_id having count(*) <> 2 or count(distinct variant) <> 1 $$,
  'an enrollment keeps its variant over the steps');

-- Caps and priority

select pg_temp.sequence('Cap', '{"cap": {"max": 1, "per": "1 day"}}', '[{"day": 1, "body": "cap"}]');
select pg_temp.sequence('Skip', '{"cap": {"max": 1, "per": "1 day", "on_cap": "skip"}}', '[{"day": 1, "body": "skip"}]');
select pg_temp.sequence('Leave', '{"cap": {"max": 1, "per": "1 day", "on_cap": "stop"}}', '[{"day": 1, "body": "stop"}]');
select pg_temp.sequence('First', '{"priority": 10}', '[{"day": 1, "body": "first"}]');
select pgdrip.set_clock('2026-02-01 09:00+00');
select pgdrip.enroll(s, pg_temp.contact(600)) from unnest(array['Cap', 'Skip', 'Leave', 'First']) as s;
select is((select body from pgdrip.claim('peeker', 1)), 'first', 'among the due rows of a sender the higher priority goes first');
select pgdrip.release(array_agg(enrollment_id), array_agg(token)) from pgdrip.due where runner = 'peeker';
select is(pg_temp.send(), array['First 1: first'], 'a cap counts the messages of all sequences');
select pg_temp.send() from generate_series(1, 3);
select is((select array_agg(q.name || ' ' || e.status || ' ' || coalesce(e.end_reason, '') order by q.name)
             from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
            where e.contact_id = pg_temp.contact(600)),
          array['Cap active ', 'First completed completed', 'Leave exited capped', 'Skip completed completed'],
          'on_cap defers, skips or stops');
select is((select d.due_at from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
            join pgdrip.sequences as q using (sequence_id) where q.name = 'Cap'),
          '2026-02-02 09:00+00'::timestamptz, 'deferred until there is room');
select is(pg_temp.at('2026-02-02 09:00+00'), array['Cap 1: cap'], 'and then sent');
select is_empty('select * from pgdrip.check()', 'with every invariant kept');

-- Goals

select pg_temp.sequence('Goal', '{"goal": "purchased"}', '[{"day": 1, "delay": "1 day", "body": "buy"}]');
select pgdrip.enroll('Goal', pg_temp.contact(601));
select is(pgdrip.record_event(pg_temp.contact(601), 'purchased', '{"amount": 5}'), 1, 'a goal ends its enrollment');
select is((select e.end_reason from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id) where q.name = 'Goal'), 'goal', 'with its reason');
select throws_ok($$ select pgdrip.record_event(0, 'x') $$, 'MD001', null, 'events need a contact');
select throws_ok($$ select pgdrip.record_event(1, ' ') $$, '22023', null, 'and a name');
select throws_ok($$ select pgdrip.record_event(1, null) $$, '22004', null, 'that is not NULL');
select throws_ok($$ select pgdrip.record_event(1, 'x', '[]') $$, '23514', null, 'and an object for payload');

-- Versions in flight

create function pg_temp.publish(p_in_flight text, p_days integer[], p_dry boolean default false) returns text
  language sql as $$
  select concat_ws(' ', r.outcome, r.version, r.in_flight, r.stays, r.moves, r.stranded)
    from pgdrip.apply_sequence(jsonb_build_object('name', 'Ver', 'trigger', 'Ver', 'channel', 'log',
      'status', 'active', 'in_flight', p_in_flight, 'dry_run', p_dry,
      'steps', (select jsonb_agg(jsonb_build_object('day', d, 'body', p_in_flight || d, 'delay',
                                 case when d > 1 then '1 hour' else '0 seconds' end) order by d)
                  from unnest(p_days) as d))) as r
$$;
select pgdrip.set_clock('2026-03-01 09:00+00');
select is(pg_temp.publish('pin', array[1, 3, 6]), 'created 1 0 0 0 0', 'a first version');
select pgdrip.enroll('Ver', pg_temp.contact(700));
select is(pg_temp.send(), array['Ver 1: pin1'], 'takes people in');
select is(pg_temp.publish('pin', array[1, 4], true), 'planned 2 1 1 0 0', 'dry_run says that a pinned one stays');
select is(pg_temp.publish('pin', array[1, 4]), 'published 2 1 1 0 0', 'and it does');
select is(pg_temp.at('2026-03-01 10:00+00'), array['Ver 3: pin3'], 'on the version it entered by');
select is(pg_temp.publish('follow', array[1, 4, 9], true), 'planned 3 1 0 1 1', 'dry_run tells of a step that is gone');
select is(pg_temp.publish('follow', array[1, 4, 9]), 'published 3 1 0 1 1', 'following');
select is(pg_temp.at('2026-03-01 11:00+00'), array['Ver 6: pin6'], 'its live step stays as it was');
select is(pg_temp.at('2026-03-01 12:00+00'), array['Ver 9: follow9'], 'then the newest version goes on behind it');
select pgdrip.enroll('Ver', pg_temp.contact(701));
select is(pg_temp.send(), array['Ver 1: follow1'], 'somebody new enters');
select is(pg_temp.publish('migrate', array[1, 2, 5]), 'published 4 1 0 1 1', 'migrating takes who is in flight along at once');
select is((select d.step || ' ' || (d.due_at at time zone 'UTC')::text from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
            join pgdrip.sequences as q using (sequence_id) where q.name = 'Ver'),
          '5 2026-03-01 13:00:00', 'to the step after the one that is gone, timed from the last send');
select is(pg_temp.at('2026-03-01 13:00+00'), array['Ver 5: migrate5'], 'which is sent');
select is_empty('select * from pgdrip.check()', 'and every invariant holds');

-- Trying again what failed

select pg_temp.sequence('Fail', '{}', '[{"day": 1, "body": "x"}, {"day": 3, "delay": "1 hour", "body": "y"}]');
select pgdrip.enroll('Fail', pg_temp.contact(800));
select pg_temp.send();
select pgdrip.set_clock('2026-03-01 14:00+00');
create temp table failing as select * from pgdrip.claim('tester');
select pgdrip.report(array_agg(enrollment_id), array_agg(token), array['failed'], null, array['contact']) from failing;
select is((select e.status from pgdrip.enrollments as e join failing using (enrollment_id)), 'failed', 'a failed enrollment');
select is((select pgdrip.retry_failed(enrollment_id, 'number corrected') from failing), true, 'can be tried again');
select is((select pgdrip.retry_failed(enrollment_id, 'number corrected') from failing), false, 'once');
select is(pg_temp.send(), array['Fail 3: y'], 'at the step that failed');
select throws_ok($$ select pgdrip.retry_failed(enrollment_id, 'again') from failing $$, 'MD003', null, 'but not what completed');
select throws_ok($$ select pgdrip.retry_failed(0, 'again') $$, 'MD001', null, 'nor what is not there');
select is_empty('select * from pgdrip.check()', 'with every invariant kept');

select * from finish();
rollback;
