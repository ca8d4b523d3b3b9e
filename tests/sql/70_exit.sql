-- Leaving early and standing still: exit, pause, resume, suppression.
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

-- exit
select pg_temp.new_case();
select is(pgdrip.exit_enrollment(enrollment_id, 'bought'), true, 'an enrollment is ended') from this_case;
select ok((pg_temp.run()).status = 'exited' and (pg_temp.run()).end_reason = 'bought'
  and (pg_temp.run()).ended_at = pgdrip.clock() and pg_temp.live() is null, 'with time and reason, and without a live step');
select is(pgdrip.exit_enrollment(enrollment_id, 'again'), false, 'once') from this_case;
select is((select count(*) from pgdrip.contact_triggers join this_case using (contact_id)), 1::bigint,
  'an exit leaves the trigger');
select is_empty('select 1 from pgdrip.deliveries join this_case using (enrollment_id)', 'what was not leased leaves no event');
select pg_temp.new_case();
select pg_temp.take();
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select is((pg_temp.last()).event, 'abandoned', 'a leased message is abandoned');
select pg_temp.new_case();
select pg_temp.take(), pg_temp.start();
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select ok((pg_temp.last()).event = 'uncertain' and (pg_temp.last()).code = 'exited'
  and (pg_temp.last()).begun_at is not null, 'a begun one is uncertain');
select pg_temp.new_case();
select pg_temp.take(), pg_temp.start(), pg_temp.tell('uncertain');
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select is((select count(*) from pgdrip.deliveries join this_case using (enrollment_id)), 1::bigint,
  'what is uncertain already is not journalled again');

-- pause and resume
select pg_temp.new_case();
select is(pgdrip.pause_enrollment(enrollment_id, 'on holiday'), true, 'an enrollment is paused') from this_case;
select is(pgdrip.pause_enrollment(enrollment_id, 'on holiday'), false, 'once') from this_case;
select ok((pg_temp.live()).parked_reason = 'enrollment_paused' and (pg_temp.run()).paused_reason = 'on holiday',
  'its step is parked');
select is_empty($$select pgdrip.claim('runner-1')$$, 'nothing of it is handed out');
select is_empty('select * from pgdrip.check()', 'a paused enrollment is no stuck one');
select pg_temp.wait('1 day');
select is(pgdrip.resume_enrollment(enrollment_id), true, 'it is resumed') from this_case;
select is(pgdrip.resume_enrollment(enrollment_id), false, 'once') from this_case;
select ok(pgdrip.next_wake() <= pgdrip.clock(), 'the runners are woken');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'what is overdue goes out at once');
select pgdrip.pause_enrollment(enrollment_id, 'x') from this_case;
select ok((pg_temp.live()).parked_reason is null and (pg_temp.live()).lease_until is not null, 'a leased step is not taken from its runner');
select ok(not pg_temp.start(), 'but it may not begin');
select pgdrip.claim('runner-1');
select is((pg_temp.live()).parked_reason, 'enrollment_paused', 'and is parked when it comes back');
select pgdrip.resume_enrollment(enrollment_id) from this_case;
select pg_temp.take(), pg_temp.start();
select pgdrip.pause_enrollment(enrollment_id, 'x') from this_case;
select is(pg_temp.tell('sent'), 'advanced', 'what had begun before the pause is confirmed');
select pg_temp.wait('12 hours');
select is_empty($$select pgdrip.claim('runner-1')$$, 'and nothing further goes out');
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select is(pgdrip.pause_enrollment(enrollment_id, 'x'), false, 'an ended enrollment is not paused') from this_case;
select is(pgdrip.resume_enrollment(enrollment_id), false, 'nor resumed') from this_case;

-- suppression
select pg_temp.new_case();
select is(pgdrip.suppress('+60110000' || lpad(number::text, 4, '0'), 'asked'), true, 'an address is suppressed') from this_case;
select ok((pg_temp.run()).status = 'exited' and (pg_temp.run()).end_reason = 'suppressed', 'what is in flight to it ends');
select is(pgdrip.suppress('+60110000' || lpad(number::text, 4, '0'), 'asked'), false, 'once') from this_case;
select throws_ok(format('select pgdrip.enroll(%L, %s)', 'WARM-' || number, contact_id), 'MD004', null,
  'it is not enrolled again') from this_case;
select is(pgdrip.unsuppress('+60110000' || lpad(number::text, 4, '0'), 'asked again'), true, 'it may be messaged again') from this_case;
select is(pgdrip.unsuppress('+60110000' || lpad(number::text, 4, '0'), 'asked again'), false, 'once') from this_case;
select is_empty($$select 1 from pgdrip.audit where object like '%+60%'$$, 'the audit does not hold the address');
select pg_temp.new_case();
update pgdrip.contacts set email = 'Some.One@Example.com' where contact_id = (select contact_id from this_case);
select pgdrip.suppress('some.one@example.COM', 'bounced');
select is((pg_temp.run()).status, 'active', 'suppressing the e-mail leaves what goes to the phone');
update pgdrip.contacts set phone = null where contact_id = (select contact_id from this_case);
select pgdrip.claim('runner-1');
select is((pg_temp.run()).end_reason, 'suppressed', 'e-mails are compared without case');

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
