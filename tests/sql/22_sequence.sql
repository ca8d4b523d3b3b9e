-- Sequences: what publishing refuses, immutable versions, pause and resume.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

create function pg_temp.definition(p_more jsonb default '{}') returns jsonb language sql as $$
  select jsonb_strip_nulls('{"name": "WARM", "trigger": "WARMEXAMA", "channel": "webhook", "status": "active", "steps": [
    {"day": 1, "body": "Hi {{name|there}}"}, {"day": 3, "body": "Still there?"},
    {"day": 6, "delay": "12 hours", "body": "Last call"}]}'::jsonb || p_more)
$$;
create function pg_temp.step(p_more jsonb) returns jsonb language sql as $$
  select pg_temp.definition(jsonb_build_object('steps', jsonb_build_array('{"day": 1, "body": "Hi"}'::jsonb || p_more)))
$$;
create function pg_temp.refuses(p_definition jsonb, p_message text, p_fact text) returns text language sql as $$
  select throws_matching(format('select pgdrip.apply_sequence(%L)', p_definition), p_message, p_fact)
$$;
create function pg_temp.state(p_definition jsonb) returns text language plpgsql as $$
begin
  perform pgdrip.apply_sequence(p_definition);
  return 'fine';
exception when others then
  return sqlstate;
end $$;

-- What publishing refuses

select throws_ok('select pgdrip.apply_sequence(null)', '22004', null, 'a definition is given');
create temp table mistakes as
select pg_temp.definition(d.more::jsonb) as definition, d.message, d.fact
  from (values
    ('{"name": null}', 'name is missing', 'a sequence has a name'),
    ('{"name": "\u00a0"}', 'name is missing', 'its name is visible'),
    ('{"trigger": null}', 'trigger is missing', 'a sequence has a trigger'),
    ('{"trigger": ""}', 'trigger is missing', 'an empty trigger is refused'),
    ('{"trigger": "  "}', 'trigger is missing', 'a blank trigger is refused'),
    ('{"trigger": "\u00a0"}', 'trigger is missing', 'a no-break space is a blank trigger'),
    ('{"trigger": "\u200b"}', 'trigger is missing', 'a zero-width space is a blank trigger'),
    ('{"trigger": " WARM"}', 'one visible, trimmed word', 'a trigger is trimmed'),
    ('{"trigger": "WARM,HOT"}', 'one visible, trimmed word', 'a trigger is no comma list'),
    ('{"channel": null}', 'channel is missing', 'a sequence has a channel'),
    ('{"channel": "pigeon"}', 'unknown channel ''pigeon''', 'a channel is known'),
    ('{"steps": null}', 'steps is missing', 'a sequence has steps'),
    ('{"steps": []}', '1 to 1000 steps', 'a list of steps is not empty'),
    ('{"steps": {"day": 1}}', '1 to 1000 steps', 'steps are a list'),
    ('{"steps": "none"}', '1 to 1000 steps', 'steps are no text'),
    ('{"steps": [1]}', 'must be an object', 'a step is an object'),
    ('{"steps": [{"day": 3, "body": "a"}, {"day": 1, "body": "b"}]}', 'day 1 follows day 3', 'steps are in order'),
    ('{"steps": [{"day": 1, "body": "a"}, {"day": 1, "body": "b"}]}', 'day 1 follows day 1', 'no day comes twice'),
    ('{"stepz": []}', 'unknown key ''stepz''', 'an unknown key is named'),
    ('{"status": "on"}', 'status must be', 'a status is known'),
    ('{"pool": " "}', 'pool', 'a pool is visible'),
    ('{"reentry": "always"}', 'must be an object', 're-entry is never or after a wait'),
    ('{"reentry": {"after": "1 month"}}', 'must be a wait', 're-entry waits for days, not months'),
    ('{"reentry": {}}', 'after is missing', 're-entry says after what'),
    ('{"stop_on_reply": "maybe"}', 'stop_on_reply must be', 'a switch is true or false'),
    ('{"on_complete": {"add_trigger": "A,B"}}', 'one visible, trimmed word', 'completion adds one word'),
    ('{"on_complete": {"add": "A"}}', 'unknown key', 'completion knows its keys'),
    ('{"in_flight": "stay"}', 'in_flight must be', 'what becomes of those in flight is a known word'),
    ('{"priority": "high"}', 'priority must be', 'a priority is a number'),
    ('{"priority": 1000}', 'priority must be', 'a priority has a limit'),
    ('{"goal": " "}', 'goal is blank', 'a goal is visible'),
    ('{"exit_when": "customer"}', 'exit_when must map', 'a condition maps attributes to values'),
    ('{"exit_when": [1]}', 'exit_when must map', 'a condition is no list'),
    ('{"cap": {"max": 1}}', 'per is missing', 'a cap has a span'),
    ('{"cap": {"max": 0, "per": "1 day"}}', 'max must be', 'a cap lets something through'),
    ('{"cap": {"max": 1, "per": "0 days"}}', 'per must not be zero', 'the span of a cap is not zero'),
    ('{"cap": {"max": 1, "per": "1 month"}}', 'per must be a wait', 'the span of a cap has no months'),
    ('{"cap": {"max": 1, "per": "1 day", "on_cap": "drop"}}', 'on_cap must be', 'what is over the cap is not dropped'),
    ('{"steps": [{"day": 1, "body": "a"}, {"day": 3, "body": "b", "wait_for": {"event": "e", "timeout": "1 day", "then": 1}}]}',
     'no later step', 'no branch goes back'),
    ('{"steps": [{"day": 1, "body": "a"}, {"day": 3, "body": "b", "wait_for": {"event": "e", "timeout": "1 day", "else": 3}}]}',
     'no later step', 'nor to its own step'),
    ('{"steps": [{"day": 1, "body": "a", "wait_for": {"event": "e", "timeout": "1 day", "then": 2}}, {"day": 3, "body": "b"}]}',
     'no later step', 'nor to a step that is not there'),
    ('{"window": {"from": "09:00"}}', 'to is missing', 'a window has an end'),
    ('{"window": {"from": "25:00", "to": "21:00"}}', 'time of day', 'a window begins within the day'),
    ('{"window": {"from": "09:00", "to": "21:00", "zone": "Mars/Base"}}', 'zone ''Mars/Base'' is not known', 'a zone is known')
  ) as d(more, message, fact);
insert into mistakes
select pg_temp.step(d.more::jsonb), d.message, d.fact
  from (values
    ('{"day": null}', 'day is missing', 'a step has a day'),
    ('{"day": 0}', 'day must be', 'there is no day 0'),
    ('{"day": -1}', 'day must be', 'nor a day before'),
    ('{"day": 40000}', 'day must be', 'nor a day in a hundred years'),
    ('{"day": "one"}', 'day must be', 'a day is a number'),
    ('{"delay": "-1 hour"}', 'delay must be a wait', 'no delay is negative'),
    ('{"delay": "1 mon -29 days"}', 'delay must be a wait', 'nor in disguise'),
    ('{"delay": "infinity"}', 'delay must be a wait', 'nor infinite'),
    ('{"delay": "12"}', 'delay must be a wait', 'nor without a unit'),
    ('{"at": "24:30"}', 'at must be a time of day', 'a time lies within the day'),
    ('{"body": " "}', 'body is missing or blank', 'a body is visible'),
    ('{"body": null}', 'body is missing or blank', 'a step has a body or a template'),
    ('{"body": "Hi {{name"}', '\{\{ without \}\}', 'an open variable is refused'),
    ('{"body": "Hi name}}"}', '\}\} without \{\{', 'a closed one that never opened too'),
    ('{"body": "Hi {{na me}}"}', 'without a plain name', 'a variable has a plain name'),
    ('{"body": "Hi {{nmae}}"}', 'variable \{\{nmae\}\} is misspelt', 'a misspelt name is found when published'),
    ('{"body": "Hi {{Name}}"}', 'variable \{\{Name\}\} is misspelt', 'capitals too'),
    ('{"body": "Hi {{nam}}"}', 'variable \{\{nam\}\} is misspelt', 'a lost letter too'),
    ('{"body": "Call {{phones}}"}', 'variable \{\{phones\}\} is misspelt', 'a letter too many too'),
    ('{"subject": "Hi\r\nBcc: x"}', 'subject must be one line', 'a subject has no line break'),
    ('{"max_attempts": 0}', 'max_attempts must be', 'one attempt is the least'),
    ('{"backoff": "0 seconds"}', 'backoff must not be zero', 'a retry waits'),
    ('{"on_failure": "shrug"}', 'on_failure must be', 'words are known'),
    ('{"on_uncertain": "resend"}', 'on_uncertain must be', 'also for the uncertain'),
    ('{"on_missing": "guess"}', 'on_missing must be', 'and the missing'),
    ('{"expire_after": "1 month"}', 'expire_after must be a wait', 'expiry counts days'),
    ('{"only_if": "KL"}', 'only_if must map', 'a step''s condition maps attributes to values'),
    ('{"skip_if": {"a":[[[[[[[[[1]]]]]]]]]}}', 'skip_if must map', 'and is not deeply nested'),
    ('{"variants": [{"weight": 1, "body": "b"}, {"weight": 1, "body": "c"}]}', 'variants must be', 'a step has a body or variants, not both'),
    ('{"body": null, "variants": [{"weight": 1, "body": "b"}]}', 'variants must be', 'there are two variants at least'),
    ('{"body": null, "variants": [{"weight": 0, "body": "b"}, {"weight": 1, "body": "c"}]}', 'weight must be', 'a variant has a weight'),
    ('{"body": null, "variants": [{"weight": 1, "body": " "}, {"weight": 1, "body": "c"}]}', 'body is missing', 'and a body'),
    ('{"body": null, "variants": [{"weight": 1, "body": "{{nmae}}"}, {"weight": 1, "body": "c"}]}', 'misspelt', 'a misspelt name is found in variants too'),
    ('{"wait_for": {"timeout": "1 day"}}', 'event is missing', 'a wait is for an event'),
    ('{"wait_for": {"event": "e"}}', 'timeout is missing', 'a wait has an end'),
    ('{"wait_for": {"event": "e", "timeout": "-1 day"}}', 'timeout must be a wait', 'that is not before it'),
    ('{"on_expire": "drop"}', 'on_expire must be', 'an expired step is not dropped without a word'),
    ('{"media": {"a":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}', '16 levels', 'what is deeply nested is refused')
  ) as d(more, message, fact);
insert into mistakes values
  (pg_temp.step('{"html": "<b>Hi</b>"}') || '{"channel": "gowa"}', 'channel gowa cannot send html', 'a channel sends what it can'),
  (pg_temp.step('{"media": {"type": "image", "url": "https://example.org/a.png"}}') || '{"channel": "smtp", "name": 5}', '', 'x'),
  (pg_temp.step(jsonb_build_object('body', repeat('x', 1000000))), 'larger than 64 kB', 'a body has 64 kB'),
  (pg_temp.step(jsonb_build_object('body', repeat('{{a|}}', 10000))), 'more than 200 variables', 'and 200 variables'),
  (pg_temp.definition(jsonb_build_object('name', repeat('n', 201))), 'longer than 200 bytes', 'a name has 200 bytes'),
  (pg_temp.definition(jsonb_build_object('trigger', repeat('t', 201))), 'one visible, trimmed word', 'a trigger has 200 bytes'),
  (pg_temp.definition(jsonb_build_object('steps', (select jsonb_agg(jsonb_build_object('day', n, 'body', 'Hi'))
                                                     from generate_series(1, 1001) as n))), '1 to 1000 steps', 'there are at most 1000 steps'),
  ('[]', 'must be an object', 'a list is no definition'),
  ('null', 'must be an object', 'null is no definition'),
  ('"WARM"', 'must be an object', 'a text is no definition'),
  (pg_temp.step(format('{"media": {"a": %s1%s}}', repeat('[', 6000), repeat(']', 6000))::jsonb), '16 levels', 'nor what no client could decode');
delete from mistakes where fact = 'x';
select pg_temp.refuses(definition, message, fact) from mistakes;
select is_empty($$select fact, pg_temp.state(definition) from mistakes where pg_temp.state(definition) <> 'MD008'$$,
                'whatever is wrong inside a definition is MD008');
select is_empty('select from pgdrip.sequences', 'and nothing of it is stored');
select lives_ok(format('select pgdrip.apply_sequence(%L)', pg_temp.step('{"body": "Hi {{nmae}}", "on_missing": "skip"}') || '{"name": "skipper"}'),
                'where the missing is skipped, names are free');
select lives_ok(format('select pgdrip.apply_sequence(%L)', pg_temp.step('{"body": "Hi {{nmae|you}}"}') || '{"name": "fallback"}'),
                'also where there is a fallback');

-- Publishing

select is(r, row('planned', 1, 0, 0, 0, 0)::pgdrip.publication, 'a dry run tells what would happen')
  from pgdrip.apply_sequence(pg_temp.definition('{"dry_run": true}')) as r;
select is_empty($$select from pgdrip.sequences where name = 'WARM'$$, 'and does nothing');
select is(r, row('created', 1, 0, 0, 0, 0)::pgdrip.publication, 'a new sequence is created')
  from pgdrip.apply_sequence(pg_temp.definition()) as r;
select is(r.outcome, 'unchanged', 'the same again changes nothing') from pgdrip.apply_sequence(pg_temp.definition()) as r;
select is(r.outcome, 'unchanged', 'nor does it without a status: it keeps its own')
  from pgdrip.apply_sequence(pg_temp.definition('{"status": null}')) as r;
select results_eq($$select status from pgdrip.sequences where name = 'WARM'$$, array['active'], 'which is active');
select is((pgdrip.apply_sequence(pg_temp.definition('{"name": "NEW", "status": null}'))).outcome, 'created', 'without a status');
select results_eq($$select status from pgdrip.sequences where name = 'NEW'$$, array['draft'], 'a new sequence is a draft');
select results_eq($$select s.number, s.next_step from pgdrip.steps as s join pgdrip.sequences as q using (version_id)
                     where q.name = 'WARM' order by 1$$,
  $$values (1, 3), (3, 6), (6, null::integer)$$, 'the steps form a chain by their numbers');
select results_eq($$select s.number, s.next_step, s.delay, s.send_at, s.max_attempts, s.backoff, s.on_failure, s.on_uncertain, s.on_missing,
                           s.expire_after, s.on_expire from pgdrip.read_steps(pg_temp.step('{"day": 9, "delay": "12 hours", "at": "09:00",
                           "max_attempts": 3, "backoff": "2 minutes", "on_failure": "skip", "on_uncertain": "retry", "on_missing": "skip",
                           "expire_after": "2 days", "on_expire": "stop"}'), 'p') as s$$,
  $$values (9, null::integer, interval '12 hours', time '09:00', 3, interval '2 minutes', 'skip', 'retry', 'skip', interval '2 days', 'stop')$$,
  'a step says all it can say');

insert into pgdrip.contacts (phone, bucket) values ('+60155500001', 0);
select pgdrip.enroll('WARM', (select min(contact_id) from pgdrip.contacts));
select is(r, row('published', 2, 1, 1, 0, 0)::pgdrip.publication, 'another content is another version; who is in flight stays')
  from pgdrip.apply_sequence(pg_temp.step('{"body": "New"}')) as r;
select results_eq($$select v.number from pgdrip.enrollments as e join pgdrip.sequence_versions as v using (version_id)$$, array[1],
                  'an enrollment keeps its version');
select is(count(*), 3::bigint, 'the old steps are still there') from pgdrip.steps as s
  join pgdrip.enrollments as e using (version_id);
select throws_ok('delete from pgdrip.steps as s using pgdrip.enrollments as e where e.version_id = s.version_id', '23503', null,
                 'steps in use are not deleted');
select throws_matching(format('select pgdrip.apply_sequence(%L)', pg_temp.definition('{"channel": "log"}')), 'are fixed',
                       'the channel of a sequence is fixed');
select throws_matching(format('select pgdrip.apply_sequence(%L)', pg_temp.definition('{"pool": "other"}')), 'are fixed', 'so is its pool');
select throws_ok($$insert into pgdrip.steps (version_id, number, delay, body) select version_id, 1, '0', '[]' from pgdrip.sequences where name = 'WARM'$$,
                 '23505', null, 'no step number comes twice in a version');
select throws_ok($$update pgdrip.steps set number = 40000 where next_step is null$$, '23514', null, 'no day lies beyond a hundred years');
select throws_ok($$update pgdrip.steps set delay = '-1 hour'$$, '23514', null, 'no stored delay is negative');
select throws_ok($$update pgdrip.steps set delay = '1 mon -29 days'$$, '23514', null, 'nor in disguise');
select is((pgdrip.apply_sequence(pg_temp.definition('{"name": "\"; DROP TABLE x; %I %s $$"}'))).outcome, 'created', 'a strange name is data');

-- Status

select throws_ok($$select pgdrip.activate_sequence('NONE')$$, 'MD001', null, 'an unknown sequence is not activated');
select throws_ok($$select pgdrip.archive_sequence('NONE')$$, 'MD001', null, 'nor archived');
select throws_ok($$select pgdrip.pause_sequence('NONE', 'why')$$, 'MD001', null, 'nor paused');
select throws_ok($$select pgdrip.resume_sequence('NONE')$$, 'MD001', null, 'nor resumed');
select throws_ok($$select pgdrip.activate_sequence(null)$$, '22004', null, 'a sequence to activate is given');
select throws_ok($$select pgdrip.pause_sequence('WARM', null)$$, '22004', null, 'a pause has a reason');
select throws_ok($$select pgdrip.pause_sequence('WARM', E'\u200b')$$, '22023', null, 'that one can see');
select throws_ok($$select pgdrip.resume_sequence('WARM', null)$$, '22004', null, 'resuming says how');
select throws_ok($$select pgdrip.pause_sequence('NEW', 'why')$$, 'MD003', null, 'a draft is not paused');
select throws_ok($$select pgdrip.resume_sequence('NEW')$$, 'MD003', null, 'nor resumed');
select is(pgdrip.activate_sequence('NEW'), true, 'a draft is activated');
select is(pgdrip.activate_sequence('NEW'), false, 'activating it twice changes nothing');
select is(pgdrip.pause_sequence('NEW', 'holiday'), true, 'an active sequence is paused');
select is(pgdrip.pause_sequence('NEW', 'again'), false, 'pausing it twice changes nothing');
select results_eq($$select paused_reason from pgdrip.sequences where name = 'NEW'$$, array['holiday'], 'the first reason stays');
select throws_ok($$select pgdrip.activate_sequence('NEW')$$, 'MD003', null, 'a paused sequence is resumed, not activated');
select is(pgdrip.resume_sequence('NEW'), true, 'it is resumed');
select is(pgdrip.resume_sequence('NEW'), false, 'resuming it twice changes nothing');
select is(pgdrip.archive_sequence('NEW'), true, 'a sequence is archived');
select is(pgdrip.archive_sequence('NEW'), false, 'archiving it twice changes nothing');
select throws_ok($$select pgdrip.resume_sequence('NEW')$$, 'MD003', null, 'an archived one is not resumed');
select is(pgdrip.activate_sequence('NEW'), true, 'but activated again');
select throws_ok($$update pgdrip.sequences set status = 'paused'$$, '23514', null, 'no sequence is paused without time and reason');

-- Resume: due times stay, or all move by the length of the pause

create function pg_temp.due_after_pause(p_keep boolean, p_zone text) returns timestamptz[] language plpgsql as $$
begin
  perform set_config('timezone', p_zone, true);
  perform pgdrip.set_clock('2026-03-07 09:00+00');
  update pgdrip.due set due_at = '2026-03-08 09:00+00', parked_reason = 'sequence_paused'
   where enrollment_id = (select min(enrollment_id) from pgdrip.due);
  update pgdrip.enrollments set enrolled_at = '2026-03-01 09:00+00';
  perform pgdrip.pause_sequence('WARM', 'holiday');
  perform pgdrip.set_clock('2026-03-12 10:30:00.5+00');
  perform pgdrip.resume_sequence('WARM', p_keep);
  return array(select d.due_at from pgdrip.due as d where d.parked_reason is null);
end $$;
select pgdrip.apply_sender('{"name": "one", "channel": "webhook"}');
select is(count(*), 0::bigint, 'a sender adopts what waited for it') from pgdrip.due where parked_reason = 'no_sender';
select is(pg_temp.due_after_pause(false, z), array['2026-03-08 09:00+00'::timestamptz], format('%s: resume keeps due times', z))
  from unnest(array['UTC', 'America/New_York']) as z;
select is(pg_temp.due_after_pause(true, z), array['2026-03-13 10:30:00.5+00'::timestamptz],
          format('%s: or moves them by the length of the pause', z))
  from unnest(array['UTC', 'America/New_York', 'Pacific/Apia']) as z;
select isnt_empty($$select from pgdrip.wakes as w join pgdrip.due as d using (sender_id) where w.due_at <= d.due_at$$,
                  'resuming wakes the senders');

select lives_ok($$select pgdrip.apply_sequence('{"name": "Voice", "trigger": "VOICE", "channel": "gowa",
  "steps": [{"day": 1, "media": {"type": "audio", "url": "https://example.org/hello.ogg"}}]}')$$,
  'media needs no text: a voice message has none');

select * from finish();
rollback;
