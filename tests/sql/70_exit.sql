-- Leaving early and standing still: exit, pause, resume, suppression.
begin;
select no_plan();

-- exit
select stage.new_case();
select is(pgdrip.exit_enrollment(enrollment_id, 'bought'), true, 'an enrollment is ended') from stage.this_case;
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'bought'
  and (stage.run()).ended_at = pgdrip.clock() and stage.live() is null, 'with time and reason, and without a live step');
select is(pgdrip.exit_enrollment(enrollment_id, 'again'), false, 'once') from stage.this_case;
select is((select count(*) from pgdrip.contact_triggers join stage.this_case using (contact_id)), 1::bigint,
  'an exit leaves the trigger');
select is_empty('select 1 from pgdrip.deliveries join stage.this_case using (enrollment_id)', 'what was not leased leaves no event');
select stage.new_case();
select stage.take();
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is((stage.last()).event, 'abandoned', 'a leased message is abandoned');
select stage.new_case();
select stage.take(), stage.start();
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select ok((stage.last()).event = 'uncertain' and (stage.last()).code = 'exited'
  and (stage.last()).begun_at is not null, 'a begun one is uncertain');
select stage.new_case();
select stage.take(), stage.start(), stage.tell('uncertain');
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is((select count(*) from pgdrip.deliveries join stage.this_case using (enrollment_id)), 1::bigint,
  'what is uncertain already is not journalled again');

-- pause and resume
select stage.new_case();
select is(pgdrip.pause_enrollment(enrollment_id, 'on holiday'), true, 'an enrollment is paused') from stage.this_case;
select is(pgdrip.pause_enrollment(enrollment_id, 'on holiday'), false, 'once') from stage.this_case;
select ok((stage.live()).parked_reason = 'enrollment_paused' and (stage.run()).paused_reason = 'on holiday',
  'its step is parked');
select is_empty($$select pgdrip.claim('runner-1')$$, 'nothing of it is handed out');
select is_empty('select * from pgdrip.check()', 'a paused enrollment is no stuck one');
select stage.wait('1 day');
select is(pgdrip.resume_enrollment(enrollment_id), true, 'it is resumed') from stage.this_case;
select is(pgdrip.resume_enrollment(enrollment_id), false, 'once') from stage.this_case;
select ok(pgdrip.next_wake() <= pgdrip.clock(), 'the runners are woken');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'what is overdue goes out at once');
select pgdrip.pause_enrollment(enrollment_id, 'x') from stage.this_case;
select ok((stage.live()).parked_reason is null and (stage.live()).lease_until is not null, 'a leased step is not taken from its runner');
select ok(not stage.start(), 'but it may not begin');
select pgdrip.claim('runner-1');
select is((stage.live()).parked_reason, 'enrollment_paused', 'and is parked when it comes back');
select pgdrip.resume_enrollment(enrollment_id) from stage.this_case;
select stage.take(), stage.start();
select pgdrip.pause_enrollment(enrollment_id, 'x') from stage.this_case;
select is(stage.tell('sent'), 'advanced', 'what had begun before the pause is confirmed');
select stage.wait('12 hours');
select is_empty($$select pgdrip.claim('runner-1')$$, 'and nothing further goes out');
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is(pgdrip.pause_enrollment(enrollment_id, 'x'), false, 'an ended enrollment is not paused') from stage.this_case;
select is(pgdrip.resume_enrollment(enrollment_id), false, 'nor resumed') from stage.this_case;

-- suppression
select stage.new_case();
select is(pgdrip.suppress('+60110000' || lpad(number::text, 4, '0'), 'asked'), true, 'an address is suppressed') from stage.this_case;
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'suppressed', 'what is in flight to it ends');
select is(pgdrip.suppress('+60110000' || lpad(number::text, 4, '0'), 'asked'), false, 'once') from stage.this_case;
select throws_ok(format('select pgdrip.enroll(%L, %s)', 'WARM-' || number, contact_id), 'MD004', null,
  'it is not enrolled again') from stage.this_case;
select is(pgdrip.unsuppress('+60110000' || lpad(number::text, 4, '0'), 'asked again'), true, 'it may be messaged again') from stage.this_case;
select is(pgdrip.unsuppress('+60110000' || lpad(number::text, 4, '0'), 'asked again'), false, 'once') from stage.this_case;
select is_empty($$select 1 from pgdrip.audit where object like '%+60%'$$, 'the audit does not hold the address');
select stage.new_case();
update pgdrip.contacts set email = 'Some.One@Example.com' where contact_id = (select contact_id from stage.this_case);
select pgdrip.suppress('some.one@example.COM', 'bounced');
select is((stage.run()).status, 'active', 'suppressing the e-mail leaves what goes to the phone');
update pgdrip.contacts set phone = null where contact_id = (select contact_id from stage.this_case);
select pgdrip.claim('runner-1');
select is((stage.run()).end_reason, 'suppressed', 'e-mails are compared without case');

select throws_ok(format('select pgdrip.%s(%s)', f, a), s, null, format('%s(%s) is refused', f, a))
  from (values ('exit_enrollment', $$null, 'x'$$, '22004'), ('exit_enrollment', $$1, null$$, '22004'),
    ('exit_enrollment', $$1, ' '$$, '22023'), ('exit_enrollment', $$4711, 'x'$$, 'MD001'),
    ('pause_enrollment', $$null, 'x'$$, '22004'), ('pause_enrollment', $$1, null$$, '22004'),
    ('pause_enrollment', $$4711, 'x'$$, 'MD001'), ('resume_enrollment', 'null', '22004'),
    ('resume_enrollment', '4711', 'MD001'), ('suppress', $$null, 'x'$$, '22004'),
    ('suppress', $$'+60123456789', null$$, '22004'), ('suppress', $$'6.01E+10', 'x'$$, '22023'),
    ('suppress', $$'', 'x'$$, '22023'), ('unsuppress', $$'nobody', 'x'$$, '22023')) as t(f, a, s);
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
