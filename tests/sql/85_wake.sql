-- Keeping going: next_wake, maintain, tick.
begin;
select no_plan();

select is((pgdrip.maintain()).partitions_created, 3, 'the first maintain makes the partitions of three months');
select is(pgdrip.next_wake(), null, 'without work there is nothing to wake for');
select stage.new_case('{"delay": "3 hours"}');
select is(pgdrip.next_wake(), pgdrip.clock() + interval '3 hours', 'an unlimited sender wakes when its next step is due');
select stage.new_case('{"delay": "3 hours"}', '{"rate_per_hour": 80}');
select ok(exists (select from pgdrip.wakes where sender_id = (stage.sender()).sender_id
  and due_at = pgdrip.clock() + interval '3 hours'), 'a limited one hears of new work by a wake');
select pgdrip.claim('runner-1');
select is((select count(*) from pgdrip.wakes where sender_id = (stage.sender()).sender_id), 0::bigint, 'a claim drains the wakes');
select is((stage.pace()).next_at, pgdrip.clock() + interval '3 hours', 'into the hint of the sender');
select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999999', p_pool => 'pool-' || number),
  pgdrip.clock() - interval '1 hour') from stage.this_case;
select is(pgdrip.next_wake(), pgdrip.clock() + interval '2 hours', 'earlier work wakes earlier');
select pgdrip.claim('runner-1');
select stage.wait('2 hours');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'and is handed out when it is due');
update pgdrip.paces set next_at = null;
select stage.new_case(p_sender => '{"rate_per_hour": 80, "burst": 2}');
select stage.take();
select is(pgdrip.next_wake(), pgdrip.clock() + interval '2 minutes', 'a lease wakes when it runs out');
select stage.start(), stage.tell('sent');
select is(pgdrip.next_wake(), pgdrip.clock() + interval '2 minutes', 'a hint may be early, never late');
select stage.wait('2 minutes');
select is_empty($$select pgdrip.claim('runner-1')$$, 'a claim for nothing');
select is(pgdrip.next_wake(), pgdrip.clock() + interval '11 hours 58 minutes', 'sets it right');
select stage.new_case(p_sender => '{"rate_per_hour": 80}');
select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999998', p_pool => 'pool-' || number)) from stage.this_case;
select stage.take();
select is(pgdrip.next_wake(), pgdrip.clock() + interval '45.125 seconds', 'a sender at its limit wakes when it is ready again');
select pgdrip.pause_sender('device-' || number, 'x') from stage.this_case;
select ok(pgdrip.next_wake() > pgdrip.clock() + interval '1 hour', 'a paused sender wakes nobody');
select pgdrip.resume_sender('device-' || number) from stage.this_case;
select ok(pgdrip.next_wake() <= pgdrip.clock(), 'a resumed one at once');
select pgdrip.pause_all('x');
select is(pgdrip.next_wake(), null, 'nothing wakes while everything is paused');
select pgdrip.resume_all();

-- the floor
create function pg_temp.claim_for_nothing() returns bigint language plpgsql as $$
declare v_count bigint := 0;
begin
  for i in 1 .. 200 loop
    update pgdrip.paces set next_at = pgdrip.clock();  -- look again
    v_count := v_count + (select count(*) from pgdrip.claim('runner-1'));
  end loop;
  return v_count;
end $$;
select stage.new_case('{"delay": "3 hours"}', '{"rate_per_hour": 100000, "burst": 100}');
select is(pg_temp.claim_for_nothing(), 0::bigint, 'claims for nothing');
select is((stage.pace()).floor_at, pgdrip.clock() + interval '3 hours', 'raise the floor to the first row of a sender');
select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999997', p_pool => 'pool-' || number),
  pgdrip.clock() - interval '1 hour') from stage.this_case;
select pgdrip.claim('runner-1');
select is((stage.pace()).floor_at, pgdrip.clock() + interval '2 hours', 'word of earlier work lowers it');
select stage.wait('2 hours');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'which is handed out when it is due');
select is(pg_temp.claim_for_nothing(), 0::bigint, 'as long as it is leased');
select is((stage.pace()).floor_at, pgdrip.clock(), 'the floor stays below it');
select stage.wait('2 minutes');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'so that it is found again when the lease has run out');
select stage.wait('1 hour');
select is((select count(*) from pgdrip.claim('runner-1')), 2::bigint, 'nothing above it is lost');

-- maintain
select stage.new_case(p_sender => '{"rate_per_hour": 80}');
select pgdrip.claim('runner-1', p_channels => '{log}');
delete from pgdrip.wakes;
update pgdrip.paces set next_at = null;
select is_empty($$select pgdrip.claim('runner-1')$$, 'a lost hint holds work up');
select is((pgdrip.maintain()).hints_repaired, 1, 'maintain repairs it');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'and the work goes out');
select is((pgdrip.maintain()).hints_repaired, 0, 'what is right is left alone');
select has_table('pgdrip', 'deliveries_' || to_char(pgdrip.clock() + m * interval '1 month', 'YYYY_MM'),
  format('history has a partition %s months ahead', m)) from generate_series(0, 2) as m;
select is((select count(*) from pgdrip.deliveries_default where at >= date_trunc('month', pgdrip.clock() + interval '1 month')), 0::bigint,
  'nothing of the months ahead is in the default partition');
select stage.wait('40 days');
select is((pgdrip.maintain()).partitions_created, 1, 'a month later one more partition is made');
select stage.start(), stage.take();
select stage.tell('sent');
select is_empty($$select 1 from pgdrip.deliveries_default where at >= pgdrip.clock() - interval '1 day'$$,
  'events go into the partition of their month');
select is_empty($$select obj_description(c.oid) from pg_class as c where c.relname like 'deliveries_2%'
  and c.relkind = 'r' and obj_description(c.oid) is null$$, 'every partition is commented');
select pgdrip.record_receipt('webhook', 'never-known', 'read', pgdrip.clock() - interval '31 days');
select pgdrip.record_receipt('webhook', 'not-known-yet', 'read', pgdrip.clock() - interval '29 days');
select is((pgdrip.maintain()).receipts_pruned, 1, 'early receipts are kept for 30 days');
select stage.new_case();
select pgdrip.exit_all(array(select enrollment_id from stage.this_case), 'x');
update pgdrip.senders set health = 'blocked', faults = 1 where name = (select 'device-' || number from stage.this_case);
update stage.this_case set enrollment_id = pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+60119999997', p_pool => 'pool-' || number));
select is((stage.live()).parked_reason, 'no_sender', 'a step without a sender in service is parked');
update pgdrip.senders set health = 'healthy', faults = 0 where name = (select 'device-' || number from stage.this_case);
select is((pgdrip.maintain()).senders_adopted, 1, 'and adopted when there is one again');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'then it goes out');

-- tick
select throws_ok($$select pgdrip.tick(null, '1')$$, '22004', null, 'a runner has a name');
select throws_ok($$select pgdrip.tick('r', '')$$, '22023', null, 'and a version');
insert into pgdrip.contact_triggers (contact_id, trigger)
select pgdrip.upsert_contact('+60119999996', p_pool => 'pool-' || number), 'WARM-' || number from stage.this_case;
select is(pgdrip.tick('runner-1', '1.0'), 1, 'a tick enrolls who waits');
create temp table since as select started_at from pgdrip.runners;
select stage.wait('10 seconds');
select is(pgdrip.tick('runner-1', '1.0'), 0, 'once');
select ok(r.seen_at = pgdrip.clock() and r.started_at = s.started_at and r.version = '1.0', 'and says that the runner lives')
  from pgdrip.runners as r, since as s;
select is(runners_alive, 1::bigint, 'queue_health counts it') from pgdrip.queue_health;
select pgdrip.tick('runner-1', '1.1');
select ok(r.started_at = pgdrip.clock() and r.version = '1.1', 'a new version has started anew') from pgdrip.runners as r;
select stage.wait('61 minutes');
select is(runners_alive, 0::bigint, 'who is silent for a minute is not alive') from pgdrip.queue_health;
select pgdrip.tick('runner-1', '1.1');
select is(maintained_at, pgdrip.clock(), 'a tick maintains hourly') from pgdrip.control;
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
