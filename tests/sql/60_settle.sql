-- Settling: how a step moves, how an enrollment ends, and what becomes of the trigger.
begin;
select no_plan();

create function pg_temp.settle(p_move text, p_reason text default null) returns pgdrip.settlement
  language sql as $$
  select s from stage.this_case as t, lateral pgdrip.settle(array[jsonb_populate_record(null::pgdrip.settlement,
    jsonb_build_object('enrollment_id', t.enrollment_id, 'move', p_move, 'reason', p_reason))], pgdrip.clock()) as s
$$;
create function pg_temp.words() returns text[] language sql as $$
  select array(select trigger from pgdrip.contact_triggers join stage.this_case using (contact_id) order by 1)
$$;

select stage.new_case();
select is((pg_temp.settle('skip')).verdict, 'skipped', 'a skip is told as skipped');
select ok((stage.live()).step = 3 and (stage.run()).last_confirmed_step = 0, 'STEP_ORDER: it moves on and confirms nothing');
select is((pg_temp.settle('confirm')).verdict, 'completed', 'the last step completes');
select ok((stage.run()).status = 'completed' and (stage.run()).last_confirmed_step = 3
  and (stage.run()).end_reason = 'completed', 'and confirms itself');
select stage.new_case();
select is((pg_temp.settle('confirm')).next_step, 3, 'a confirm names the next step');
select is((stage.run()).last_confirmed_step, 1, 'STEP_ONCE: the confirmed step is remembered');
select is((pg_temp.settle('fail', 'x')).next_step, null, 'a failure has none');
select ok(stage.live() is null and (stage.run()).status = 'failed' and (stage.run()).end_reason = 'x',
  'TERMINAL_HAS_NO_DUE: it ends the enrollment');
select stage.new_case();
select pg_temp.settle('note');
select ok((stage.live()).step = 1 and (stage.run()).status = 'active', 'a note moves nothing');
select pg_temp.settle('park', 'failed');
select is((stage.live()).parked_reason, 'failed', 'a park leaves the row with its reason');
select pg_temp.settle('retry');
select is((stage.live()).parked_reason, null, 'a retry frees it');

-- due times of the next step
select stage.new_case(p_contact => '{"timezone": "America/New_York"}',
  p_sequence => '{"steps": [{"day": 1, "body": "One"}, {"day": 2, "body": "Two"}]}');
select pgdrip.set_clock('2026-03-07 17:00+00');
select pg_temp.settle('confirm');
select is((stage.live()).due_at, '2026-03-08 16:00+00', 'DELAY_EXACT: a day is a day on the contact''s clock, 23 hours in spring');
select stage.new_case(p_sequence => '{"window": {"from": "09:00", "to": "21:00", "zone": "UTC"},
  "steps": [{"day": 1, "body": "One"}, {"day": 2, "delay": "12 hours", "body": "Two"}]}');
select pg_temp.settle('confirm');
select is((stage.live()).due_at, '2026-03-08 09:00+00', 'a due time is moved into the window');
select stage.new_case(p_sequence => '{"steps": [{"day": 1, "body": "One"}, {"day": 2, "at": "08:00", "body": "Two"}]}');
select pg_temp.settle('confirm');
select is((stage.live()).due_at, '2026-03-09 08:00+00', 'after the delay the time of day is waited for');

-- triggers
create function pg_temp.finish_case() returns void language sql as $$
  select pg_temp.settle('confirm'); select pg_temp.settle('confirm')
$$;
select stage.new_case();
select pgdrip.add_trigger(contact_id, 'WARM-' || number || 'A') from stage.this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number || 'A'], 'TRIGGER_REMOVAL_EXACT: completion removes the used word and no other') from stage.this_case;
select stage.new_case(p_sequence => '{"on_complete": {"remove_trigger": false}}');
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number], 'remove_trigger: false keeps it') from stage.this_case;
select stage.new_case(p_sequence => '{"on_complete": {"add_trigger": "HOT"}}');
select pgdrip.apply_sequence(jsonb_build_object('name', 'HOT', 'trigger', 'HOT', 'channel', 'webhook', 'status', 'active',
  'pool', 'pool-' || number, 'steps', '[{"day": 1, "body": "Hot"}]'::jsonb)) from stage.this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), '{HOT}', 'add_trigger adds its word');
select is(pgdrip.enroll_waiting(), 1, 'which the next sweep enrolls');
select stage.new_case();
select pgdrip.remove_trigger(contact_id, 'WARM-' || number), pgdrip.add_trigger(contact_id, 'WARM-' || number) from stage.this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), array['WARM-' || number], 'a word removed and added anew is not the one that was used') from stage.this_case;
select stage.new_case(p_sequence => '{"on_complete": {"remove_trigger": false}}');
select pgdrip.apply_sequence(jsonb_build_object('name', 'Beside', 'trigger', 'WARM-' || number, 'channel', 'webhook',
  'status', 'active', 'pool', 'pool-' || number, 'steps', '[{"day": 1, "body": "Beside"}]'::jsonb)) from stage.this_case;
create temp table beside as
  select e.enrollment_id from stage.this_case, lateral (select pgdrip.enroll('Beside', contact_id) as enrollment_id) as e;
update pgdrip.enrollments set trigger_id = (stage.run()).trigger_id where enrollment_id = (select enrollment_id from beside);
select pgdrip.settle(array[jsonb_populate_record(null::pgdrip.settlement,
  jsonb_build_object('enrollment_id', enrollment_id, 'move', 'confirm'))], pgdrip.clock()) from beside;
select is(pg_temp.words(), array['WARM-' || number], 'a word that a live enrollment runs by stays') from stage.this_case;
select pg_temp.finish_case();
select is(pg_temp.words(), '{}', 'and goes with the last of them, as the completed one asked');
select * from finish();
rollback;
