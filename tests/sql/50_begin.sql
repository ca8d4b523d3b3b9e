-- Between claim and report: begin, heartbeat, release.
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

select pg_temp.new_case();
select pg_temp.take();
select ok(pg_temp.start(), 'a leased message may begin');
select ok((pg_temp.live()).begun_at = pgdrip.clock() and (pg_temp.live()).attempt = 1, 'an attempt counts at its begin');
select pg_temp.wait('10 seconds');
select ok(pg_temp.start(), 'the same token is granted again before send_by');
select ok((pg_temp.live()).begun_at = pgdrip.clock() - interval '10 seconds' and (pg_temp.live()).attempt = 1,
  'and is one attempt');
select pg_temp.wait('1 microsecond');
select ok(not pg_temp.start(), 'past send_by not even that');
select ok((pg_temp.live()).begun_at is not null, 'what has begun stays begun');

select pg_temp.new_case();
select pg_temp.take(), pg_temp.wait('10.000001 seconds');
create temp table old as select (pg_temp.live()).token;
select ok(not pg_temp.start(), 'a begin past send_by is refused');
select ok((pg_temp.live()).token is null and (pg_temp.live()).lease_until is null
  and (pg_temp.live()).attempt = 0, 'the message is due again, no attempt burned');
select ok((pg_temp.last()).event = 'refused' and (pg_temp.last()).code = 'too_late'
  and (pg_temp.last()).token = token, 'the journal says why') from old;
select is((select verdict from pgdrip.report(array[enrollment_id], array[token], '{sent}')), 'stale',
  'a refused token is stale') from old, this_case;
select is((select count(*) from pgdrip.claim('runner-2')), 1::bigint, 'another runner takes it at once');

create function pg_temp.refused(p_cause text) returns text language plpgsql as $$
begin
  perform pg_temp.new_case();
  perform pg_temp.take();
  execute p_cause;
  return case when (pg_temp.live()).token is not null and pg_temp.start() then 'granted'
              else (pg_temp.last()).code end;
end $$;
select is(pg_temp.refused($$select pgdrip.pause_sequence('WARM-' || number, 'x') from this_case$$),
  'sequence_paused', 'a paused sequence begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_enrollment(enrollment_id, 'x') from this_case$$),
  'enrollment_paused', 'a paused enrollment begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_sender('device-' || number, 'x') from this_case$$),
  'sender_paused', 'a paused sender begins nothing');
select is(pg_temp.refused($$update pgdrip.senders set health = 'blocked', faults = 1$$),
  'sender_paused', 'a blocked sender begins nothing');
update pgdrip.senders set health = 'healthy', faults = 0;
select is(pg_temp.refused($$insert into pgdrip.suppressions (address, reason)
  select '+60110000' || lpad(number::text, 4, '0'), 'x' from this_case$$), 'suppressed', 'SUPPRESSED_NEVER_SENT: a suppressed address begins nothing');
select is(pg_temp.refused($$select pgdrip.pause_all('x')$$), 'all_paused', 'while everything is paused nothing begins');
select pgdrip.resume_all();
select is(pg_temp.refused($$select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case$$), 'exited',
  'an exited enrollment begins nothing');
select is(pg_temp.refused('select 1'), 'granted', 'without a cause it begins');

select pg_temp.new_case();
select pg_temp.take();
select is_empty('select pgdrip.begin_send(array[enrollment_id], array[4711]) from this_case', 'a strange token begins nothing');
select is_empty(format('select pgdrip.begin_send(array[4711], array[%s])', (pg_temp.live()).token), 'nor on a strange enrollment');
select is((select count(*) from pgdrip.begin_send(array[enrollment_id, enrollment_id], array[token, token])), 1::bigint,
  'a token given twice is granted once') from (select (pg_temp.live()).*) as d;
select is_empty($$select pgdrip.begin_send('{}', '{}')$$, 'nothing given, nothing granted');
select pg_temp.wait('2 minutes');
select ok(not pg_temp.start(), 'an expired lease begins nothing');

-- heartbeat
create function pg_temp.beat(p_lease interval default '2 minutes') returns boolean language sql as $$
  select exists (select from pgdrip.heartbeat(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token], p_lease))
$$;
select pg_temp.new_case();
select pg_temp.take(), pg_temp.start(), pg_temp.wait('1 minute');
select ok(pg_temp.beat(), 'a heartbeat keeps a lease');
select is((pg_temp.live()).lease_until, pgdrip.clock() + interval '2 minutes', 'from now on');
select ok(pg_temp.beat('1 second') and (pg_temp.live()).lease_until = pgdrip.clock() + interval '2 minutes',
  'and never shortens it');
select is((pg_temp.live()).send_by, pgdrip.clock() - interval '50 seconds', 'it does not prolong the time to begin');
select pg_temp.wait('2 minutes');
select ok(not pg_temp.beat(), 'a heartbeat never revives a lease that ran out');
select is_empty('select pgdrip.heartbeat(array[enrollment_id], array[4711]) from this_case', 'a strange token keeps nothing');

-- release
create function pg_temp.free() returns boolean language sql as $$
  select exists (select from pgdrip.release(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token]))
$$;
select pg_temp.new_case();
select pg_temp.take();
select ok(pg_temp.free(), 'a message that has not begun is given back');
select ok((pg_temp.live()).token is null and (pg_temp.live()).attempt = 0 and (pg_temp.live()).never_begun = 0
  and (pg_temp.last()).code = 'released', 'no attempt burned');
select is((select count(*) from pgdrip.claim('runner-2')), 1::bigint, 'it is due again at once');
select pg_temp.start();
select ok(not pg_temp.free(), 'a message that has begun is not');
select ok((pg_temp.live()).begun_at is not null, 'it stays begun');
select ok(not exists (select from pgdrip.release(array[enrollment_id], array[4711])), 'a strange token gives back nothing') from this_case;

select throws_ok(format('select pgdrip.%s(%s)', f, a), s, null, format('%s(%s) is refused', f, a))
  from unnest(array['begin_send', 'heartbeat', 'release']) as f,
       (values ('null, null', '22004'), ($$'{1}', null$$, '22004'), ($$'{1}', '{null}'$$, '22004'),
               ($$'{null}', '{1}'$$, '22004'), ($$'{1,2}', '{1}'$$, '22023'), ($$'{}', '{1}'$$, '22023')) as t(a, s);
select throws_ok($$select pgdrip.heartbeat('{1}', '{1}', $$ || l, s, null, format('a lease of %s is refused', l))
  from (values ('null)', '22004'), ($$'0')$$, '22023'), ($$'2 hours')$$, '22023')) as t(l, s);
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
