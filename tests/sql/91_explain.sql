-- Explaining: every way a contact may stand, in words.
begin;
select no_plan();

create function pg_temp.why() returns text language sql as $$
  select string_agg(x.why, ' · ' order by x.enrollment_id) from stage.this_case, lateral pgdrip.explain_contact(contact_id) as x
$$;
select is(pgdrip.in_words(t, '2026-01-01 00:00+00'), w, w) from (values
  (timestamptz '2026-01-01 00:01+00', 'in 60 s'), ('2026-01-01 00:03+00', 'in 3 min'), ('2026-01-01 12:00+00', 'in 12 h'),
  ('2026-01-04 00:00+00', 'in 3 days'), ('2025-12-31 23:57+00', '3 min ago'), ('2026-01-01 00:00+00', '0 s ago')) as x(t, w);
select stage.new_case('{"delay": "12 hours"}', '{"rate_per_hour": 80}');
select results_eq($$select sequence, x.enrollment_id = t.enrollment_id, status, step, due_at, sender, why
    from stage.this_case as t, lateral pgdrip.explain_contact(contact_id) as x$$,
  $$select 'WARM-1', true, 'active', 1, pgdrip.clock() + interval '12 hours', 'device-1', 'due in 12 h'$$,
  'where a contact stands is one row');
select stage.wait('12 hours');
select is(pg_temp.why(), 'due 0 s ago; the next free runner takes it', 'what is due waits for a runner');
select stage.take();
select is(pg_temp.why(), 'runner runner-1 has claimed it, in 2 min', 'or has one');
select stage.start();
select is(pg_temp.why(), 'runner runner-1 is sending it', 'or is being sent');
select stage.tell('uncertain');
select is(pg_temp.why(), format('a send was begun 0 s ago and its outcome is unknown: resolve_uncertain(%s, …)', (stage.live()).token),
  'or nobody knows');
select pgdrip.resolve_uncertain((stage.live()).token, 'not_sent');
select matches(pg_temp.why(), '^due 0 s ago; its sender is at its limit, ready again in', 'a sender at its limit');
select pgdrip.pause_sender('device-' || number, 'being charged') from stage.this_case;
select is(pg_temp.why(), 'due 0 s ago; its sender is paused: being charged', 'a paused sender');
select pgdrip.resume_sender('device-' || number) from stage.this_case;
select stage.wait('1 hour');
select stage.take(), stage.start(), stage.tell('failed', 'http_401');
select is(pg_temp.why(), 'due 60 min ago; its sender is down after http_401', 'a sender at fault');
select pgdrip.pause_sequence('WARM-' || number, 'holiday') from stage.this_case;
select is(pg_temp.why(), 'the sequence is paused: holiday', 'a paused sequence');
select pgdrip.pause_enrollment(enrollment_id, 'asked') from stage.this_case;
select is(pg_temp.why(), 'this enrollment is paused: asked', 'a paused enrollment');
select pgdrip.pause_all('maintenance');
select is(pg_temp.why(), 'everything is paused: maintenance', 'everything paused');
select pgdrip.resume_all();
select pgdrip.exit_enrollment(enrollment_id, 'bought') from stage.this_case;
select is(pg_temp.why(), 'exited 0 s ago: bought', 'and an end');
select stage.new_case('{"on_failure": "park"}');
select stage.take(), stage.tell('failed', 'permanent');
select is(pg_temp.why(), 'it failed and its step says to park then', 'a parked failure');
select stage.new_case(p_sender => '{"advance_on": "delivered", "confirm_within": "1 hour"}');
select stage.take(), stage.tell('sent');
select is(pg_temp.why(), 'sent; a receipt is awaited, the deadline is in 60 min', 'an awaited receipt');
select stage.wait('1 hour');
select pgdrip.claim('runner-1');
select is(pg_temp.why(), 'no receipt came in time', 'one that did not come');
select stage.new_case();
select pgdrip.exit_all(array(select enrollment_id from stage.this_case), 'x');
select pgdrip.pause_sender('device-' || number, 'x') from stage.this_case;
update stage.this_case set contact_id = pgdrip.upsert_contact('+60119999999', p_pool => 'pool-' || number);
select pgdrip.add_trigger(contact_id, 'WARM-' || number) from stage.this_case;
select is(pg_temp.why(), format('no sender of pool pool-%s on channel webhook is in service', number), 'a want of senders') from stage.this_case;
select stage.new_case(p_sequence => '{"status": "draft"}');
insert into stage.this_case (contact_id, number)
select contact_id, currval('stage.cases') from pgdrip.contacts where pool = 'pool-' || currval('stage.cases');
select results_eq('select status, why from stage.this_case, lateral pgdrip.explain_contact(contact_id)',
  $$values ('not enrolled', 'the sequence is a draft or archived')$$, 'a word that started nothing says why');
select pgdrip.activate_sequence('WARM-' || number) from stage.this_case;
select is(pg_temp.why(), 'it enters with the next sweep', 'or that it will');
select throws_ok('select pgdrip.explain_contact(null)', '22004', null, 'NULL is refused');
select throws_ok('select pgdrip.explain_contact(4711)', 'MD001', null, 'a contact nobody knows is refused');
select * from finish();
rollback;
