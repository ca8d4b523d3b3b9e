-- Between claim and report: begin, heartbeat, release.
begin;
select no_plan();

select stage.new_case();
select stage.take();
select ok(stage.start(), 'a leased message may begin');
select ok((stage.live()).begun_at = pgdrip.clock() and (stage.live()).attempt = 1, 'an attempt counts at its begin');
select stage.wait('10 seconds');
select ok(stage.start(), 'the same token is granted again before send_by');
select ok((stage.live()).begun_at = pgdrip.clock() - interval '10 seconds' and (stage.live()).attempt = 1,
  'and is one attempt');
select stage.wait('1 microsecond');
select ok(not stage.start(), 'past send_by not even that');
select ok((stage.live()).begun_at is not null, 'what has begun stays begun');

select stage.new_case();
select stage.take(), stage.wait('10.000001 seconds');
create temp table old as select (stage.live()).token;
select ok(not stage.start(), 'a begin past send_by is refused');
select ok((stage.live()).token is null and (stage.live()).lease_until is null
  and (stage.live()).attempt = 0, 'the message is due again, no attempt burned');
select ok((stage.last()).event = 'refused' and (stage.last()).code = 'too_late'
  and (stage.last()).token = token, 'the journal says why') from old;
select is((select verdict from pgdrip.report(array[enrollment_id], array[token], '{sent}')), 'stale',
  'a refused token is stale') from old, stage.this_case;
select is((select count(*) from pgdrip.claim('runner-2')), 1::bigint, 'another runner takes it at once');

create function pg_temp.refused(p_cause text) returns text language plpgsql as $$
begin
  perform stage.new_case();
  perform stage.take();
  execute p_cause;
  return case when (stage.live()).token is not null and stage.start() then 'granted'
              else (stage.last()).code end;
end $$;
select is(pg_temp.refused($$select pgdrip.pause_sequence('WARM-' || number, 'x') from stage.this_case$$),
  'sequence_paused', 'a paused sequence begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_enrollment(enrollment_id, 'x') from stage.this_case$$),
  'enrollment_paused', 'a paused enrollment begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_sender('device-' || number, 'x') from stage.this_case$$),
  'sender_paused', 'a paused sender begins nothing');
select is(pg_temp.refused($$update pgdrip.senders set health = 'blocked', faults = 1$$),
  'sender_paused', 'a blocked sender begins nothing');
update pgdrip.senders set health = 'healthy', faults = 0, down_at = null;
select is(pg_temp.refused($$insert into pgdrip.suppressions (address, reason)
  select '+60110000' || lpad(number::text, 4, '0'), 'x' from stage.this_case$$), 'suppressed', 'SUPPRESSED_NEVER_SENT: a suppressed address begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_all('x')$$), 'all_paused', 'while everything is paused nothing begins');
select pgdrip.resume_all();
select is(pg_temp.refused($$select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case$$), 'exited',
  'an exited enrollment begins nothing');
select is(pg_temp.refused('select 1'), 'granted', 'without a cause it begins');

select stage.new_case();
select stage.take();
select is_empty('select pgdrip.begin_send(array[enrollment_id], array[4711]) from stage.this_case', 'a strange token begins nothing');
select is_empty(format('select pgdrip.begin_send(array[4711], array[%s])', (stage.live()).token), 'nor on a strange enrollment');
select is((select count(*) from pgdrip.begin_send(array[enrollment_id, enrollment_id], array[token, token])), 1::bigint,
  'a token given twice is granted once') from (select (stage.live()).*) as d;
select is_empty($$select pgdrip.begin_send('{}', '{}')$$, 'nothing given, nothing granted');
select stage.wait('2 minutes');
select ok(not stage.start(), 'an expired lease begins nothing');

-- heartbeat
create function pg_temp.beat(p_lease interval default '2 minutes') returns boolean language sql as $$
  select exists (select from pgdrip.heartbeat(array[(stage.live()).enrollment_id], array[(stage.live()).token], p_lease))
$$;
select stage.new_case();
select stage.take(), stage.start(), stage.wait('1 minute');
select ok(pg_temp.beat(), 'a heartbeat keeps a lease');
select is((stage.live()).lease_until, pgdrip.clock() + interval '2 minutes', 'from now on');
select ok(pg_temp.beat('1 second') and (stage.live()).lease_until = pgdrip.clock() + interval '2 minutes',
  'and never shortens it');
select is((stage.live()).send_by, pgdrip.clock() - interval '50 seconds', 'it does not prolong the time to begin');
select stage.wait('2 minutes');
select ok(not pg_temp.beat(), 'a heartbeat never revives a lease that ran out');
select is_empty('select pgdrip.heartbeat(array[enrollment_id], array[4711]) from stage.this_case', 'a strange token keeps nothing');

-- release
create function pg_temp.free() returns boolean language sql as $$
  select exists (select from pgdrip.release(array[(stage.live()).enrollment_id], array[(stage.live()).token]))
$$;
select stage.new_case();
select stage.take();
select ok(pg_temp.free(), 'a message that has not begun is given back');
select ok((stage.live()).token is null and (stage.live()).attempt = 0 and (stage.live()).never_begun = 0
  and (stage.last()).code = 'released', 'no attempt burned');
select is((select count(*) from pgdrip.claim('runner-2')), 1::bigint, 'it is due again at once');
select stage.start();
select ok(not pg_temp.free(), 'a message that has begun is not');
select ok((stage.live()).begun_at is not null, 'it stays begun');
select ok(not exists (select from pgdrip.release(array[enrollment_id], array[4711])), 'a strange token gives back nothing') from stage.this_case;

select throws_ok(format('select pgdrip.%s(%s)', f, a), s, null, format('%s(%s) is refused', f, a))
  from unnest(array['begin_send', 'heartbeat', 'release']) as f,
       (values ('null, null', '22004'), ($$'{1}', null$$, '22004'), ($$'{1}', '{null}'$$, '22004'),
               ($$'{null}', '{1}'$$, '22004'), ($$'{1,2}', '{1}'$$, '22023'), ($$'{}', '{1}'$$, '22023')) as t(a, s);
select throws_ok($$select pgdrip.heartbeat('{1}', '{1}', $$ || l, s, null, format('a lease of %s is refused', l))
  from (values ('null)', '22004'), ($$'0')$$, '22023'), ($$'2 hours')$$, '22023')) as t(l, s);
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
