-- check(): each violation is planted past the functions, seen by its name, and undone.
begin;
select no_plan();

create function pg_temp.found(p_plant text) returns text language plpgsql as $$
declare
  v_found text;
begin
  execute p_plant;
  select string_agg(distinct c.invariant, ',' order by c.invariant) into v_found
    from pgdrip.check() as c;
  raise sqlstate 'ZZ000';
exception when sqlstate 'ZZ000' then
  return v_found;
end $$;

create function pg_temp.deliver() returns bigint language sql as $$
  select count(r.verdict) from (
    select array_agg(c.enrollment_id) as ids, array_agg(c.token) as tokens,
           array_agg('sent'::text) as outcomes from pgdrip.claim('runner-1') as c) as m,
    lateral (select count(*) from pgdrip.begin_send(m.ids, m.tokens)) as b,
    lateral pgdrip.report(m.ids, m.tokens, m.outcomes) as r
$$;

select pgdrip.set_clock('2026-01-05 10:00+00');
select pgdrip.apply_sender('{"name": "device-0001", "channel": "webhook", "rate_per_hour": 80,
  "rate_per_day": 800, "burst": 10}');
select pgdrip.apply_sequence('{"name": "WARM Sequence", "trigger": "WARM", "channel": "webhook",
  "status": "active", "window": {"from": "09:00", "to": "21:00", "zone": "UTC"},
  "steps": [{"day": 1, "body": "One"}, {"day": 3, "body": "Three", "delay": "2 hours"}]}');
select pgdrip.apply_sequence('{"name": "Once", "trigger": "ONCE", "channel": "webhook",
  "status": "active", "steps": [{"day": 1, "body": "One"}]}');
-- 1: step 1 sent, step 3 waits · 2: step 1 waits · 3: completed
select pgdrip.add_trigger(pgdrip.upsert_contact('+60110000001'), 'WARM');
select pgdrip.add_trigger(pgdrip.upsert_contact('+60110000003'), 'ONCE');
create temp table word as select * from pgdrip.contact_triggers where trigger = 'ONCE';
select pg_temp.deliver();
select pgdrip.set_clock('2026-01-05 10:01+00');
select pgdrip.add_trigger(pgdrip.upsert_contact('+60110000002'), 'WARM');
select results_eq('select enrollment_id, status, last_confirmed_step from pgdrip.enrollments order by 1',
  $$values (1::bigint, 'active', 1), (2::bigint, 'completed', 1), (3::bigint, 'active', 0)$$,
  'one enrollment is between its steps, one is completed, one has just begun');
select is(pg_temp.found('select 1'), null, 'nothing is wrong with them');

select is(pg_temp.found('delete from pgdrip.due where enrollment_id = 3'), 'NO_STUCK_ENROLLMENT',
  'an active enrollment without a live step is seen');
select is(pg_temp.found($$update pgdrip.enrollments set status = 'exited', ended_at = pgdrip.clock(),
  end_reason = 'x' where enrollment_id = 3$$), 'TERMINAL_HAS_NO_DUE', 'a live step of an ended enrollment is seen');
select is(pg_temp.found(format($$update pgdrip.due set parked_reason = %L where enrollment_id = 3$$, r)),
    'NO_STUCK_ENROLLMENT', format('a row parked %s whose cause is gone is seen', r))
  from unnest(array['sequence_paused', 'enrollment_paused', 'uncertain']) as r;
select is(pg_temp.found($$select pgdrip.pause_sequence('WARM Sequence', 'x');
  update pgdrip.due set parked_reason = 'sequence_paused'$$), null, 'a row whose cause holds is right');
select is(pg_temp.found('update pgdrip.due set sender_id = 4711 where enrollment_id = 3'),
  'NO_STUCK_ENROLLMENT', 'a row of a sender that does not exist is seen');
select is(pg_temp.found($$update pgdrip.senders set status = 'retired', status_reason = 'x'$$),
  'NO_STUCK_ENROLLMENT', 'a row of a retired sender is seen');
select is(pg_temp.found('update pgdrip.due set step = 1 where enrollment_id = 1'), 'STEP_ORDER',
  'a live step that is confirmed already is seen');
select is(pg_temp.found('update pgdrip.due set step = 2 where enrollment_id = 3'), 'STEP_ORDER',
  'a live step that its version does not have is seen');
select is(pg_temp.found('delete from pgdrip.wakes; update pgdrip.paces set next_at = null'),
  'NO_WORK_HELD_WHILE_SLEEPING', 'a sender that knows of no work but has some is seen');
select is(pg_temp.found($$delete from pgdrip.wakes; update pgdrip.paces set next_at = '2026-02-01'$$),
  'NO_WORK_HELD_WHILE_SLEEPING', 'a sender that looks too late is seen');
select is(pg_temp.found($$delete from pgdrip.wakes; update pgdrip.paces set floor_at = '2026-02-01'$$),
  'NO_WORK_HELD_WHILE_SLEEPING', 'a sender that looks past its work is seen');

select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, verdict, step,
  attempt, content_hash) values (pgdrip.clock(), 1, 99, 'sent', 'late', 1, 1, '')$$), 'STEP_ONCE',
  'a step confirmed by two tokens is seen');
select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt,
  due_at, begun_at) values (pgdrip.clock(), 3, 99, 'abandoned', 1, 1, pgdrip.clock(),
  pgdrip.clock() - interval '1 second')$$), 'NOT_BEFORE_DUE', 'a send begun before it was due is seen');
select is(pg_temp.found($$update pgdrip.enrollments set last_confirmed_step = 1 where enrollment_id = 3;
  update pgdrip.due set step = 3 where enrollment_id = 3$$), 'ADVANCE_ONLY_ON_CONFIRM',
  'a step that was passed without a confirmation is seen');
select is(pg_temp.found($$update pgdrip.due set due_at = due_at - interval '1 second' where enrollment_id = 1$$),
  'DELAY_EXACT', 'a step due before its delay is over is seen');
select is(pg_temp.found($$update pgdrip.due set due_at = due_at + interval '1 second' where enrollment_id = 1$$),
  null, 'a step put off is right');
select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, verdict, step,
  attempt) values (pgdrip.clock(), 3, 99, 'sent', 'stale', 1, 1)$$), 'CONTENT_HASH',
  'a send without the hash of its text is seen');
select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt,
  begun_at) values (pgdrip.clock(), 3, 98, 'uncertain', 1, 1, pgdrip.clock());
  update pgdrip.due set token = 99, begun_at = pgdrip.clock() where enrollment_id = 3$$),
  'UNCERTAIN_NOT_RESENT', 'an uncertain step begun again is seen');
select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt,
  begun_at) values (pgdrip.clock(), 3, 98, 'uncertain', 1, 1, pgdrip.clock()),
  (pgdrip.clock(), 3, 99, 'abandoned', 1, 2, pgdrip.clock())$$), 'UNCERTAIN_NOT_RESENT',
  'an uncertain step that had been begun again is seen in the journal');
select is(pg_temp.found($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt,
  begun_at) values (pgdrip.clock(), 3, 98, 'uncertain', 1, 1, pgdrip.clock()),
  (pgdrip.clock(), 3, 98, 'resolved', 1, 1, pgdrip.clock());
  update pgdrip.due set token = 99, begun_at = pgdrip.clock() where enrollment_id = 3$$),
  null, 'an uncertain step begun again after it was resolved is right');
select is(pg_temp.found($$insert into pgdrip.contact_triggers overriding system value select * from word$$),
  'TRIGGER_REMOVAL_EXACT', 'a used trigger that outlived the completion is seen');
select is(pg_temp.found($$select pgdrip.add_trigger(2, 'ONCE')$$), null,
  'the same word added anew is right');

select is(pg_temp.found($$insert into pgdrip.suppressions (address, reason, created_at)
  values ('+60110000001', 'x', '2026-01-05 09:59+00')$$), 'SUPPRESSED_NEVER_SENT',
  'a send begun after the suppression is seen');
select is(pg_temp.found($$insert into pgdrip.suppressions (address, reason)
  values ('+60110000001', 'x')$$), null, 'a send begun before the suppression is right');
create function pg_temp.begun(p_at timestamptz, p_first integer, p_count integer, p_step interval)
  returns void language sql as $$
  insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, sender_id, begun_at)
  select p_at + n * p_step, 3, p_first + n, 'abandoned', 1, 1, 1, p_at + n * p_step
    from generate_series(0, p_count - 1) as n
$$;
select is(pg_temp.found($$select pg_temp.begun('2026-01-05 21:00:11+00', 100, 1, '0')$$), 'IN_WINDOW',
  'a send begun outside the window is seen');
select is(pg_temp.found($$select pg_temp.begun('2026-01-05 21:00:09+00', 100, 1, '0')$$), null,
  'the seconds between claim and begin are granted');
select is(pg_temp.found($$select pg_temp.begun('2026-01-05 11:30+00', 100, 80, '45 seconds')$$), null,
  'eighty sends in an hour are right');
select is(pg_temp.found($$select pg_temp.begun('2026-01-05 11:30+00', 100, 81, '44 seconds')$$),
  'RATE_AT_CLAIM', 'eighty-one in a rolling hour are seen');
select is(pg_temp.found($$select pg_temp.begun(t, 100 + 80 * i::integer, 80, '45 seconds') from unnest(array[
    timestamptz '2026-01-06 10:00+00', '2026-01-06 11:00+00', '2026-01-06 12:00+00', '2026-01-06 13:00+00',
    '2026-01-06 14:00+00', '2026-01-06 15:00+00', '2026-01-06 16:00+00', '2026-01-06 17:00+00',
    '2026-01-06 18:00+00', '2026-01-07 09:00+00']) with ordinality as u(t, i)$$), null,
  'eight hundred sends in a day are right');
select is(pg_temp.found($$select pg_temp.begun(t, 100 + 80 * i::integer, 80, '45 seconds') from unnest(array[
    timestamptz '2026-01-06 10:00+00', '2026-01-06 11:00+00', '2026-01-06 12:00+00', '2026-01-06 13:00+00',
    '2026-01-06 14:00+00', '2026-01-06 15:00+00', '2026-01-06 16:00+00', '2026-01-06 17:00+00',
    '2026-01-06 18:00+00', '2026-01-06 19:00+00']) with ordinality as u(t, i);
    select pg_temp.begun('2026-01-06 20:30+00', 10000, 1, '0')$$),
  'RATE_AT_CLAIM', 'eight hundred and one in 24 hours are seen');
create function pg_temp.in_group(p_limits jsonb, p_count integer, p_step interval) returns void language sql as $$
  select pgdrip.set_clock('2026-01-01 00:00+00');
  update pgdrip.sequence_versions set send_window = null;
  select pgdrip.apply_group('{"name": "account"}' || p_limits);
  update pgdrip.senders set rate_per_hour = null, rate_per_day = null, burst = 1,
    limits_at = pgdrip.clock(), group_id = (select group_id from pgdrip.sender_groups);
  insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, sender_id, begun_at)
  select b, (select min(e.enrollment_id) from pgdrip.enrollments as e) + n % 3, 100 + n, 'abandoned', 1, 1, 1, b
    from generate_series(0, p_count - 1) as n,
         lateral (select '2026-01-15 10:00+00'::timestamptz + n * p_step as b) as t
$$;
select is(pg_temp.found($$select pg_temp.in_group('{"rate": 3, "per": "1 hour"}', 9, '20 minutes')$$), null,
  'a group within its rate is right');
select is(pg_temp.found($$select pg_temp.in_group('{"rate": 3, "per": "1 hour"}', 9, '19 minutes')$$),
  'RATE_AT_CLAIM', 'a group above its rate is seen');
select is(pg_temp.found($$select pg_temp.in_group('{"distinct_contacts_per_day": 3}', 9, '19 minutes')$$), null,
  'three contacts again and again are three');
select is(pg_temp.found($$select pg_temp.in_group('{"distinct_contacts_per_day": 2}', 9, '12 hours')$$), null,
  'two contacts in any 24 hours are right');
select is(pg_temp.found($$select pg_temp.in_group('{"distinct_contacts_per_day": 2}', 9, '11 hours')$$),
  'RATE_AT_CLAIM', 'three within 24 hours are seen');

-- What needs no check because a constraint refuses it.
select throws_ok('insert into pgdrip.due select * from pgdrip.due', '23505', null,
  'ONE_LIVE_STEP: a second live step is refused');
select throws_ok($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt)
  values (pgdrip.clock(), 1, 1, 'failed', 1, 1)$$, '23514', null,
  'FAILURE_HAS_CLASS: a failure without a class is refused');
select throws_ok($$update pgdrip.enrollments set status = 'completed' where enrollment_id = 3$$, '23514', null,
  'an end without time and reason is refused');
select throws_ok($$update pgdrip.due set lease_until = pgdrip.clock() where enrollment_id = 3$$, '23514', null,
  'a lease without a token is refused');
select throws_ok($$update pgdrip.due set due_at = 'infinity' where enrollment_id = 3$$, '23514', null,
  'a due time without an end is refused');
select is_empty($$select c.relname, a.privilege_type from pg_class as c, lateral aclexplode(c.relacl) as a
  where c.relname like 'deliveries%' and c.relkind in ('r', 'p') and c.relnamespace = 'pgdrip'::regnamespace
    and a.privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE')$$,
  'HISTORY_IMMUTABLE: nobody has been granted to change the journal');

select is(pg_temp.found('select 1'), null, 'in the end nothing is wrong');
select * from finish();
rollback;
