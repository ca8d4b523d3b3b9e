-- Settling: how a step moves, how an enrollment ends, and what becomes of the trigger.
begin;
select no_plan();

create temp table this_case (enrollment_id bigint, contact_id bigint, number integer);
create temp sequence cases;
create function pg_temp.new_case(p_step jsonb default '{}', p_sender jsonb default '{}',
                                 p_sequence jsonb default '{}', p_contact jsonb default '{}')
  returns void language plpgsql as $$
declare
  v_n integer := nextval('cases');
  v_pool text := 'pool-' || v_n;
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from this_case;
  perform pgdrip.apply_sender(jsonb_build_object('name', 'device-' || v_n, 'pool', v_pool,
    'channel', 'webhook') || p_sender);
  perform pgdrip.apply_sequence(jsonb_build_object('name', 'WARM-' || v_n, 'trigger', 'WARM-' || v_n,
    'channel', 'webhook', 'pool', v_pool, 'status', 'active', 'steps', jsonb_build_array(
      jsonb_build_object('day', 1, 'body', 'One') || p_step,
      jsonb_build_object('day', 3, 'body', 'Three', 'delay', '12 hours'))) || p_sequence);
  insert into this_case select pgdrip.add_trigger(c, 'WARM-' || v_n), c, v_n
    from pgdrip.upsert_contact('+60110000' || lpad(v_n::text, 4, '0'), p_pool => v_pool,
      p_name => p_contact ->> 'name', p_timezone => p_contact ->> 'timezone',
      p_attributes => coalesce(p_contact -> 'attributes', '{}')) as c;
end $$;
create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;
create function pg_temp.live() returns pgdrip.due language sql as $$
  select d from pgdrip.due as d join this_case using (enrollment_id)
$$;
create function pg_temp.run() returns pgdrip.enrollments language sql as $$
  select e from pgdrip.enrollments as e join this_case using (enrollment_id)
$$;
create function pg_temp.sender() returns pgdrip.senders language sql as $$
  select s from pgdrip.senders as s join this_case on s.name = 'device-' || number
$$;
create function pg_temp.last() returns pgdrip.deliveries language sql as $$
  select j from pgdrip.deliveries as j join this_case using (enrollment_id) order by j.token desc, j.at desc limit 1
$$;
create function pg_temp.take(p_lease interval default '2 minutes') returns bigint language sql as $$
  select token from pgdrip.claim('runner-1', 100, p_lease)
$$;
create function pg_temp.start() returns boolean language sql as $$
  select exists (select from pgdrip.begin_send(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token]))
$$;
create function pg_temp.tell(p_outcome text, p_code text default null, p_provider_id text default null)
  returns text language sql as $$
  select r.verdict from pgdrip.report(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token],
    array[p_outcome], array[p_provider_id], array[p_code]) as r
$$;

create function pg_temp.settle(p_move text, p_reason text default null) returns pgdrip.settlement
  language sql as $$
  select s from this_case as t, lateral pgdrip.settle(array[jsonb_populate_record(null::pgdrip.settlement,
    jsonb_build_object('enrollment_id', t.enrollment_id, 'move', p_move, 'reason', p_reason))], pgdrip.clock()) as s
$$;
create function pg_temp.words() returns text[] language sql as $$
  select array(select trigger from pgdrip.contact_triggers join this_case using (contact_id) order by 1)
$$;

select pg_temp.new_case();
select is((pg_temp.settle('skip')).verdict, 'skipped', 'a skip is told as skipped');
select ok((pg_temp.live()).step = 3 and (pg_temp.run()).last_confirmed_step = 0, 'STEP_ORDER: it moves on and confirms nothing');
select is((pg_temp.settle('confirm')).verdict, 'completed', 'the last step completes');
select ok((pg_temp.run()).status = 'completed' and (pg_temp.run()).last_confirmed_step = 3
  and (pg_temp.run()).end_reason = 'completed', 'and confirms itself');
select pg_temp.new_case();
select is((pg_temp.settle('confirm')).next_step, 3, 'a confirm names the next step');
select is((pg_temp.run()).last_confirmed_step, 1, 'STEP_ONCE: the confirmed step is remembered');
select is((pg_temp.settle('fail', 'x')).next_step, null, 'a failure has none');
select ok(pg_temp.live() is null and (pg_temp.run()).status = 'failed' and (pg_temp.run()).end_reason = 'x',
  'TERMINAL_HAS_NO_DUE: it ends the enrollment');
select pg_temp.new_case();
select pg_temp.settle('note');
select ok((pg_temp.live()).step = 1 and (pg_temp.run()).status = 'active', 'a note moves nothing');
select pg_temp.settle('park', 'failed');
select is((pg_temp.live()).parked_reason, 'failed', 'a park leaves the row with its reason');
select pg_temp.settle('retry');
select is((pg_temp.live()).parked_reason, null, 'a retry frees it');

-- due times of the next step
select pg_temp.new_case(p_contact => '{"timezone": "America/New_York"}',
  p_sequence => '{"steps": [{"day": 1, "body": "One"}, {"day": 2, "body": "Two"}]}');
select pgdrip.set_clock('2026-03-07 17:00+00');
select pg_temp.settle('confirm');
select is((pg_temp.live()).due_at, '2026-03-08 16:00+00', 'DELAY_EXACT: a day is a day on the contact''s clock, 23 hours in spring');
select pg_temp.new_case(p_sequence => '{"window": {"from": "09:00", "to": "21:00", "zone": "UTC"},
  "steps": [{"day": 1, "body": "One"}, {"day": 2, "delay": "12 hours", "body": "Two"}]}');
select pg_temp.settle('confirm');
select is((pg_temp.live()).due_at, '2026-03-08 09:00+00', 'a due time is moved into the window');
select pg_temp.new_case(p_sequence => '{"steps": [{"day": 1, "body": "One"}, {"day": 2, "at": "08:00", "body": "Two"}]}');
select pg_temp.settle('confirm');
select is((pg_temp.live()).due_at, '2026-03-09 08:00+00', 'after the delay the time of day is waited for');

-- triggers
create function pg_temp.finish_case() returns void language sql as $$
  select pg_temp.settle('confirm'); select pg_temp.settle('confirm')
$$;
select pg_temp.new_case();
select pgdrip.add_trigger(contact_id, 'WARM-' || number || 'A') from this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number || 'A'], 'TRIGGER_REMOVAL_EXACT: completion removes the used word and no other') from this_case;
select pg_temp.new_case(p_sequence => '{"on_complete": {"remove_trigger": false}}');
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number], 'remove_trigger: false keeps it') from this_case;
select pg_temp.new_case(p_sequence => '{"on_complete": {"add_trigger": "HOT"}}');
select pgdrip.apply_sequence(jsonb_build_object('name', 'HOT', 'trigger', 'HOT', 'channel', 'webhook', 'status', 'active',
  'pool', 'pool-' || number, 'steps', '[{"day": 1, "body": "Hot"}]'::jsonb)) from this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), '{HOT}', 'add_trigger adds its word');
select is(pgdrip.enroll_waiting(), 1, 'which the next sweep enrolls');
select pg_temp.new_case();
select pgdrip.remove_trigger(contact_id, 'WARM-' || number), pgdrip.add_trigger(contact_id, 'WARM-' || number) from this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number], 'a word removed and added anew is not the one that was used') from this_case;
select pg_temp.new_case(p_sequence => '{"on_complete": {"remove_trigger": false}}');
select pgdrip.apply_sequence(jsonb_build_object('name', 'Beside', 'trigger', 'WARM-' || number, 'channel', 'webhook',
  'status', 'active', 'pool', 'pool-' || number, 'steps', '[{"day": 1, "body": "Beside"}]'::jsonb)) from this_case;
create temp table beside as
  select e.enrollment_id from this_case, lateral (select pgdrip.enroll('Beside', contact_id) as enrollment_id) as e;
update pgdrip.enrollments set trigger_id = (pg_temp.run()).trigger_id where enrollment_id = (select enrollment_id from beside);
select pgdrip.settle(array[jsonb_populate_record(null::pgdrip.settlement,
  jsonb_build_object('enrollment_id', enrollment_id, 'move', 'confirm'))], pgdrip.clock()) from beside;
select is(pg_temp.words(), array['WARM-' || number], 'a word that a live enrollment runs by stays') from this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), '{}', 'and goes with the last of them, as the completed one asked');
select * from finish();
rollback;
