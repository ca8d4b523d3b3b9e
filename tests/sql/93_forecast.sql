-- Forecasts: held against what happens when the engine itself goes through with it.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

create sequence pg_temp.numbers;
-- A pool of its own with senders of these limits and a sequence of these steps.
create function pg_temp.pool(p_pool text, p_senders jsonb, p_steps jsonb, p_more jsonb default '{}')
  returns void language sql as $$
  select pgdrip.apply_sender(jsonb_build_object('name', p_pool || n, 'pool', p_pool, 'channel', 'webhook') || l)
    from jsonb_array_elements(p_senders) with ordinality as i(l, n);
  select pgdrip.apply_sequence(jsonb_build_object('name', p_pool, 'trigger', p_pool, 'pool', p_pool,
    'channel', 'webhook', 'status', 'active', 'steps', p_steps) || p_more);
$$;
create function pg_temp.people(p_pool text, p_count integer) returns void language sql as $$
  select pgdrip.add_trigger(pgdrip.upsert_contact('+6014' || 1000000 + nextval('pg_temp.numbers'),
                            p_pool => p_pool), p_pool)
    from generate_series(1, p_count)
$$;
-- Sends until nothing is due any more; when the last message went.
create function pg_temp.run() returns timestamptz language plpgsql as $$
declare
  v_ids    bigint[];
  v_tokens bigint[];
  v_last   timestamptz;
begin
  while pgdrip.next_wake() is not null loop
    perform pgdrip.set_clock(greatest(pgdrip.next_wake(), pgdrip.clock()));
    select array_agg(enrollment_id), array_agg(token) into v_ids, v_tokens from pgdrip.claim('r', 1000);
    if v_ids is not null then
      perform pgdrip.report(v_ids, v_tokens, array_fill('sent'::text, array[cardinality(v_ids)]));
      v_last := pgdrip.clock();
    end if;
  end loop;
  return v_last;
end $$;
-- How far a forecast is off what then happens, in percent of the time it takes.
create function pg_temp.error(p_pool text, p_count integer) returns numeric language plpgsql as $$
declare
  v_start  timestamptz := pgdrip.clock();
  v_told   timestamptz := (pgdrip.forecast(p_pool, p_count)).done_at;
  v_done   timestamptz;
begin
  perform pg_temp.people(p_pool, p_count);
  v_done := pg_temp.run();
  return round(100 * extract(epoch from v_told - v_done) / extract(epoch from v_done - v_start), 1);
end $$;
create function pg_temp.agrees(p_pool text, p_count integer, p_fact text) returns text language sql as $$
  select cmp_ok(e, '<=', 10.0, format('%s: %s %% off', p_fact, e))
    from (select abs(pg_temp.error(p_pool, p_count)) as e) as x
$$;

select throws_ok($$select pgdrip.forecast(null, 1)$$, '22004', null, 'a forecast is for a sequence');
select throws_ok($$select pgdrip.forecast('nobody', 1)$$, 'MD001', null, 'one that exists');
select pg_temp.pool('none', '[]', '[{"day": 1, "body": "1"}]');
select throws_ok($$select pgdrip.forecast('none', null)$$, '22004', null, 'for so many contacts');
select throws_ok($$select pgdrip.forecast('none', 0)$$, '22023', null, 'at least one');
select throws_ok($$select pgdrip.forecast('none', -5)$$, '22023', null, 'not fewer than none');
select results_eq($$select * from pgdrip.forecast('none', 5)$$, $$values (null::timestamptz, 'none', 0::numeric)$$,
  'without a sender nothing is ever through');

select pg_temp.pool('free', '[{}]', '[{"day": 1, "body": "1"}, {"day": 3, "body": "3"}]');
select results_eq($$select done_at, bottleneck_pool, per_hour from pgdrip.forecast('free', 1000000)$$,
  $$values (pgdrip.clock() + interval '48 hours', null, null::numeric)$$,
  'an unlimited sender holds nobody up: only the delays do');

select pg_temp.pool('one', '[{"rate_per_hour": 80}]', '[{"day": 1, "body": "1"}]');
select results_eq($$select bottleneck_pool, per_hour from pgdrip.forecast('one', 100)$$,
  $$values ('one', 80.0)$$, 'the pool of the sequence is the bottleneck, with the rate of its senders');
select is_empty('select from pgdrip.due', 'a forecast enrolls nobody');
select is((pgdrip.forecast('one', 1)).done_at, pgdrip.clock(), 'one contact is through at once');
select pg_temp.agrees('one', 40, 'one sender, one step');

select pg_temp.pool('fleet', '[{"rate_per_hour": 80}, {"rate_per_hour": 40}, {"rate_per_hour": 20, "burst": 5}]',
  '[{"day": 1, "body": "1"}, {"day": 3, "body": "3", "delay": "1 hour"}, {"day": 6, "body": "6", "delay": "30 minutes"}]');
select pg_temp.agrees('fleet', 7, 'a few contacts over unequal senders');
select pg_temp.agrees('fleet', 40, 'many, whose later steps queue behind first ones');
select pg_temp.people('fleet', 30);
select pg_temp.agrees('fleet', 30, 'behind others that wait there');

select pg_temp.pool('gap', '[{"gap_min": "3 minutes", "gap_max": "5 minutes"}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('gap', 100, 'a sender with a gap, whose jitter evens out');
select pg_temp.pool('day', '[{"rate_per_hour": 30, "rate_per_day": 20}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('day', 50, 'a sender with a daily limit');
select pg_temp.pool('ramp', '[{"rate_per_hour": 80, "ramp": {"1": 1, "2": 4}}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('ramp', 60, 'a sender that ramps up');
select pg_temp.pool('hours', '[{"rate_per_hour": 8, "hours": {"from": "09:00", "to": "12:00", "zone": "UTC",
  "days": ["mon", "wed", "thu"]}}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('hours', 60, 'a sender with hours');
select pg_temp.pool('window', '[{"rate_per_hour": 8}]',
  '[{"day": 1, "body": "1"}, {"day": 2, "body": "2", "at": "10:00"}]',
  '{"window": {"from": "09:00", "to": "12:00", "zone": "Asia/Kuala_Lumpur"}}');
select pg_temp.agrees('window', 50, 'a sequence with a window');
select pg_temp.pool('long', '[{"rate_per_hour": 600, "burst": 10}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('long', 250, 'a batch of more than is played one by one');
select pgdrip.apply_group('{"name": "account", "rate": 10, "per": "1 hour"}');
select pg_temp.pool('group', '[{"group": "account"}, {"rate_per_hour": 80, "group": "account"}, {"rate_per_hour": 5}]',
  '[{"day": 1, "body": "1"}, {"day": 2, "body": "2"}]');
select pg_temp.agrees('group', 120, 'senders that share the rate of a group');
select pgdrip.apply_group('{"name": "brisk", "rate": 1, "per": "2 seconds"}');
select pg_temp.pool('brisk', '[{"group": "brisk"}, {"group": "brisk"}, {"group": "brisk"}]', '[{"day": 1, "body": "1"}]');
select pg_temp.agrees('brisk', 60, 'less than a message each in the span of the rate');
select pgdrip.apply_group('{"name": "known", "distinct_contacts_per_day": 10}');
select pg_temp.pool('known', '[{"rate_per_hour": 20, "group": "known"}, {"rate_per_hour": 20, "group": "known"}]', '[{"day": 1, "body": "1"}]');
select is((pgdrip.forecast('known', 40)).per_hour, 0.4, 'nor more contacts a day than the group may write to');
select pg_temp.agrees('known', 40, 'senders whose group may write to so many contacts a day');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select pgdrip.pause_sender('one1', 'x');
select is((pgdrip.forecast('one', 5)).done_at, null, 'a paused sender lets nobody through');
select pg_temp.pool('slow', '[{"rate_per_day": 1}]', '[{"day": 1, "body": "1"}]');
select is((pgdrip.forecast('slow', 5000)).done_at, null, 'what takes ten years has no end');

select * from finish();
rollback;
