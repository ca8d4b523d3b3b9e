-- Corners that an attack found: each was wrong once.

begin;
select no_plan();

create function pg_temp.sequence(p_name text, p_steps jsonb, p_more jsonb default '{}') returns text
  language sql as $$
  select (pgdrip.apply_sequence(jsonb_build_object('name', p_name, 'trigger', p_name, 'channel', 'log',
    'status', 'active', 'steps', p_steps) || p_more)).outcome
$$;
create function pg_temp.enroll(p_name text, p_number integer, p_start_at timestamptz default null)
  returns bigint language sql as $$
  select pgdrip.enroll(p_name, pgdrip.upsert_contact('+6012345' || (5000 + p_number),
    p_attributes => '{"x": 1}'), p_start_at)
$$;
create function pg_temp.take() returns bigint language sql as $$
  select token from pgdrip.claim('tester', 1)
$$;
create function pg_temp.begun(p_enrollment bigint, p_token bigint) returns bigint language sql as $$
  select pgdrip.begin_send(array[p_enrollment], array[p_token])
$$;
create function pg_temp.told(p_enrollment bigint, p_token bigint, p_outcome text, p_code text default null)
  returns text language sql as $$
  select verdict from pgdrip.report(array[p_enrollment], array[p_token], array[p_outcome], null, array[p_code])
$$;
create function pg_temp.live(p_enrollment bigint) returns pgdrip.due language sql as $$
  select d from pgdrip.due as d where d.enrollment_id = p_enrollment
$$;
create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;
create temp table t (enrollment bigint, one bigint, two bigint);

select pgdrip.apply_sender('{"name": "free", "channel": "log"}');

-- What a definition must not say
select throws_ok(format('select pg_temp.sequence(%L, %L)', 'Bad', steps), 'MD008', null, what)
  from (values ('[{"day": 1, "body": "x", "media": {"a{{x|": "y}}b"}}]', 'a variable that reaches from one text into the next'),
               ('[{"day": 1, "body": "x", "delay": [[1]]}]', 'a delay that is no text'),
               ('[{"day": 1, "body": "x", "delay": " 5 "}]', 'a delay without a unit')) as d(steps, what);
select throws_ok($$ select pgdrip.apply_sender('{"name": "r", "channel": "log", "ramp": {"1": 1, "2": null}}') $$,
  'MD008', null, 'a ramp that ends in nothing');
select throws_ok($$ select pg_temp.sequence('Dry', '[{"day": 1, "body": "x"}]', '{"dry_run": "banana"}') $$,
  'MD008', null, 'a dry run that is neither');
select lives_ok($$ select pgdrip.claim('r', 1, '1 minute', array[['a', 'b'], ['c', 'd']]) $$, 'while nested channels are channels');
select throws_ok($$ select pgdrip.record_event(pgdrip.upsert_contact('+60123454999'), 'x', p_at => pgdrip.clock() + interval '1 day') $$,
  '22023', null, 'an event that is yet to come');

-- Two tokens of one step in one report
select pg_temp.sequence('Twice', '[{"day": 1, "body": "x", "on_uncertain": "retry", "backoff": "1 second"},
  {"day": 3, "body": "y"}]');
insert into t select pg_temp.enroll('Twice', 1);
update t set one = pg_temp.take();
select pg_temp.begun(enrollment, one), pg_temp.wait('3 minutes') from t;
select count(*) from pgdrip.claim('tester', 1);
update t set two = coalesce((pg_temp.live(enrollment)).token, pg_temp.take());
select is((select array_agg(r.verdict order by r.token) from t, pgdrip.report(array[enrollment, enrollment],
             array[one, two], array['sent', 'failed'], null, array[null, 'permanent']) as r),
          array['late', 'stale'], 'only one of them moves it: what was sent');
select is((select (pg_temp.live(enrollment)).step from t), 3, 'on to the next step');
select is_empty('select * from pgdrip.check()', 'and every invariant holds');
select pgdrip.exit_enrollment(enrollment, 'next') from t;

-- Trying again goes to the step that failed, whatever was told late
delete from t;
select pg_temp.sequence('Late', '[{"day": 1, "body": "x"}, {"day": 4, "delay": "1 minute", "body": "y"}]');
insert into t select pg_temp.enroll('Late', 2);
update t set one = pg_temp.take();
select pg_temp.wait('3 minutes');
update t set two = pg_temp.take();
select pg_temp.begun(enrollment, two), pg_temp.told(enrollment, two, 'sent') from t;
select pg_temp.wait('2 minutes');
update t set two = pg_temp.take();
select is((select pg_temp.told(enrollment, two, 'failed', 'permanent') from t), 'failed', 'the second step fails');
select pg_temp.wait('1 minute');
select is((select pg_temp.told(enrollment, one, 'failed', 'permanent') from t), 'stale', 'an old claim of the first is told late');
select pgdrip.retry_failed(enrollment, 'again') from t;
select is((select (pg_temp.live(enrollment)).step from t), 4, 'the second step is tried again, not the confirmed first');
select is_empty('select * from pgdrip.check()', 'in order');
select pgdrip.exit_enrollment(enrollment, 'next') from t;

-- A step parked as failed
delete from t;
select pg_temp.sequence('Park', '[{"day": 1, "body": "x", "on_failure": "park"}]');
insert into t select pg_temp.enroll('Park', 3);
update t set one = pg_temp.take();
select is((select pg_temp.told(enrollment, one, 'failed', 'permanent') from t), 'parked', 'a step may be parked when it fails');
select is((select pgdrip.retry_failed(enrollment, 'mended') from t), true, 'and taken up again');
select isnt(pg_temp.take(), null, 'at once');
select pgdrip.exit_enrollment(enrollment, 'next') from t;

-- Released, told, and sent
delete from t;
select pg_temp.sequence('Free', '[{"day": 1, "body": "x"}]');
insert into t select pg_temp.enroll('Free', 4);
update t set one = pg_temp.take();
select pgdrip.release(array[enrollment], array[one]), pg_temp.told(enrollment, one, 'uncertain') from t;
update t set two = pg_temp.take();
select pg_temp.begun(enrollment, two) from t;
select is_empty('select * from pgdrip.check()', 'what never began is not sent again by a later claim');
select pg_temp.told(enrollment, two, 'sent') from t;

-- A back-off of years
delete from t;
select pg_temp.sequence('Slow', '[{"day": 1, "body": "x", "backoff": "87600 hours", "max_attempts": 100}]');
insert into t select pg_temp.enroll('Slow', 5);
do $$
begin
  for i in 1 .. 40 loop
    update t set one = pg_temp.take();
    perform pg_temp.told(enrollment, one, 'failed', 'transient') from t;
    perform pg_temp.wait('2 hours');
  end loop;
end $$;
select is((select (pg_temp.live(enrollment)).attempt from t), 40, 'waits an hour at most, however often');
select pgdrip.exit_enrollment(enrollment, 'next') from t;

-- Migrating keeps what was agreed on
delete from t;
select pg_temp.sequence('Move', '[{"day": 1, "body": "x"}]', '{"in_flight": "migrate"}');
insert into t select pg_temp.enroll('Move', 6, pgdrip.clock() + interval '240 hours');
create temp table agreed as select (pg_temp.live(enrollment)).due_at as due_at from t;
select pg_temp.sequence('Move', '[{"day": 1, "body": "changed"}, {"day": 5, "body": "y"}]', '{"in_flight": "migrate"}');
select is((select (pg_temp.live(enrollment)).due_at from t), (select due_at from agreed), 'a start at a given time stays');
select pg_temp.wait('240 hours');
update t set one = pg_temp.take();
select is((select pg_temp.told(enrollment, one, 'failed', 'transient') from t), 'retry', 'a try fails');
select pg_temp.sequence('Move', '[{"day": 3, "delay": "10 days", "body": "z", "max_attempts": 1}]', '{"in_flight": "migrate"}');
select is((select ((pg_temp.live(enrollment)).step, (pg_temp.live(enrollment)).attempt)::text from t), '(3,0)', 'another step begins with all its attempts');
select pgdrip.exit_enrollment(enrollment, 'next') from t;

delete from t;
select pg_temp.sequence('Hop', '[{"day": 1, "body": "x", "skip_if": {"x": 1}}, {"day": 4, "body": "y"}]', '{"in_flight": "migrate"}');
insert into t select pg_temp.enroll('Hop', 7);
select count(*) from pgdrip.claim('tester', 10);
delete from agreed;
insert into agreed select (pg_temp.live(enrollment)).due_at from t;
select pg_temp.sequence('Hop', '[{"day": 1, "body": "x", "skip_if": {"x": 1}}, {"day": 4, "body": "other"}]', '{"in_flight": "migrate"}');
select is((select (pg_temp.live(enrollment)).due_at from t), (select due_at from agreed), 'after a skipped step its wait stays');
select is((select due_at - pgdrip.clock() from agreed), interval '3 days', 'of three days');

select * from finish();
rollback;
