-- Assignment: contacts are spread by capacity, whoever has less than its share comes first.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- Who gets which sender

select pgdrip.apply_sender('{"name": "a", "channel": "log", "rate_per_hour": 10}');
select pgdrip.apply_sender('{"name": "b", "channel": "log", "rate_per_hour": 20}');
select pgdrip.apply_sender('{"name": "c", "channel": "log", "rate_per_day": 960}');
select pgdrip.apply_sender('{"name": "d", "channel": "log", "rate_per_hour": 90, "ramp": {"1": 30}}');
select pgdrip.apply_sender('{"name": "e", "channel": "log", "pool": "other"}');
select pgdrip.apply_sender('{"name": "f", "channel": "webhook", "gap_min": "30 seconds"}');
select pgdrip.apply_sender('{"name": "g", "channel": "webhook", "rate_per_hour": 120}');

create function pg_temp.shares(p_pool text, p_channel text, p_calls integer, p_each integer)
  returns table (name text, share numeric) language sql as $$
  select s.name, count(*) * 100.0 / (p_calls * p_each)
    from generate_series(1, p_calls) as i,
         unnest(pgdrip.choose_senders(array_fill(p_pool, array[p_each + i - i]),
                                      array_fill(p_channel, array[p_each]))) as c(sender_id)
    left join pgdrip.senders as s using (sender_id) group by s.name
$$;

select results_eq(format($$
  select name, abs(share - case name when 'a' then 10 when 'b' then 20 when 'c' then 40
                                     when 'd' then 30 end) <= 2
    from pg_temp.shares('default', 'log', %s, %s) order by name $$, d.calls, d.each),
  $$values ('a', true), ('b', true), ('c', true), ('d', true)$$,
  format('%s calls for %s spread by capacity within 2 %%', d.calls, d.each))
  from (values (1, 1000), (1000, 1), (100, 10), (37, 27)) as d(calls, each);
select results_eq($$select name, abs(share - 50) <= 2 from pg_temp.shares('default', 'webhook', 1, 500)
                     order by name$$,
  $$values ('f', true), ('g', true)$$, 'a gap counts as the capacity it leaves');
select results_eq($$
  select s.name, count(*) between 98 and 102 from generate_series(1, 500) as i,
         unnest(pgdrip.choose_senders(array['default', 'other', 'default', null],
                                      array['log', 'log', 'webhook', i::text])) as c(sender_id)
    join pgdrip.senders as s using (sender_id) where s.name = 'b' group by 1 $$,
  $$values ('b', true)$$, 'the spread holds where pools and channels alternate');
select is(pgdrip.choose_senders(array['default', null, 'nowhere', 'other'],
                                array['log', null, 'log', 'webhook'])
          = array[null, null, null, null]::bigint[], false, 'a wanted sender is found');
select is((pgdrip.choose_senders(array['default', null, 'nowhere', 'other'],
                                 array['log', null, 'log', 'webhook']))[2:4],
          array[null, null, null]::bigint[],
          'nobody is chosen where none is wanted, the pool is empty or the channel is another');
update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 1 where name = 'c';
update pgdrip.senders set health = 'blocked' where name = 'd';
select pgdrip.pause_sender('a', 'repair');
select results_eq($$select name from pg_temp.shares('default', 'log', 1, 1000)$$, array['b'],
                  'paused, blocked and failing senders get nobody while another is healthy');
select pgdrip.pause_sender('b', 'repair');
select results_eq($$select name from pg_temp.shares('default', 'log', 1, 10)$$, array['c'],
                  'a failing sender serves where nobody is healthy');


-- Capacity

create function pg_temp.capacity(p_limits jsonb) returns numeric language sql as $$
  select pgdrip.sender_capacity(pgdrip.read_sender(
    '{"name": "x", "channel": "log"}'::jsonb || p_limits), pgdrip.clock()) / 1000.0
$$;
select is(pg_temp.capacity('{"rate_per_hour": 80}'), 80.0, 'a rate is a capacity');
select is(pg_temp.capacity('{"rate_per_hour": 80, "rate_per_day": 480}'), 20.0, 'the tighter limit counts');
select is(pg_temp.capacity('{"rate_per_hour": 80, "gap_min": "1 minute", "gap_max": "3 minutes"}'), 30.0,
          'a gap counts by its mean');
select is(pg_temp.capacity('{"rate_per_hour": 84, "hours": {"from": "21:00", "to": "05:00", "days": ["mon", "tue"],
  "zone": "UTC"}}'), 8.0, 'hours count as the part of the week they are open');
select is(pg_temp.capacity('{"rate_per_day": 336, "hours": {"from": "08:00", "to": "20:00", "days": ["mon"],
  "zone": "UTC"}}'), 2.0, 'a daily rate counts on the days of the hours');
select is(pg_temp.capacity('{}'), 3600.0, 'an unlimited sender counts as one message a second');

-- Load

delete from pgdrip.senders;
delete from pgdrip.wheels;
create function pg_temp.senders(p_rates integer[]) returns void language sql as $$
  select pgdrip.apply_sender(jsonb_build_object('name', 'n' || n, 'channel', 'webhook', 'rate_per_hour', r))
    from unnest(p_rates) with ordinality as i(r, n)
$$;
create function pg_temp.people(p_from integer, p_to integer) returns void language sql as $$
  select pgdrip.add_trigger(pgdrip.upsert_contact('+6013' || n), 'LOAD')
    from generate_series(1000000 + p_from, 1000000 + p_to) as n
$$;
create function pg_temp.loads() returns integer[] language sql as $$
  select array_agg(x.n order by x.sender_id) from (
    select s.sender_id, count(d.enrollment_id)::integer as n
      from pgdrip.senders as s left join pgdrip.due as d using (sender_id) group by s.sender_id) as x
$$;
select pgdrip.apply_sequence('{"name": "LOAD", "trigger": "LOAD", "channel": "webhook", "status": "active",
  "steps": [{"day": 1, "body": "Hi"}]}');
select pg_temp.senders(array[10, 20, 30]);
select pg_temp.people(1, 120);
select ok((select bool_and(abs(l.n - e.n) <= 2) from unnest(pg_temp.loads()) with ordinality as l(n, i)
  join unnest(array[20, 40, 60]) with ordinality as e(n, i) using (i)),
  'contacts enrolled one by one are spread by capacity');
select is((select count(*) from pgdrip.wheels), 1::bigint, 'the shares are worked out once a minute');
select pgdrip.apply_sender('{"name": "late", "channel": "webhook", "rate_per_hour": 60}');
select is((select count(*) from pgdrip.wheels), 0::bigint, 'a new sender makes them void');
select pg_temp.people(121, 180);
select is((pg_temp.loads())[4], 60, 'who joins later gets everybody until its load is even');
select pg_temp.people(181, 300);
select ok((select bool_and(abs(l.n - e.n) <= 5) from unnest(pg_temp.loads()) with ordinality as l(n, i)
  join unnest(array[25, 50, 75, 150]) with ordinality as e(n, i) using (i)),
  'and its share from then on');
select stage.wait('61 seconds');
select pg_temp.people(301, 301);
select is((select count(*) from pgdrip.wheels), 2::bigint, 'after a minute they are worked out anew');
select stage.wait('61 seconds');
select pgdrip.tick('runner-1', '1');
select is((select count(*) from pgdrip.wheels), 0::bigint, 'and the tick drops those that are old');

select pg_temp.people(302, 302);
update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 1 where name in ('n1', 'n2', 'late');
create temp table before as select pg_temp.loads() as l;
select pg_temp.people(303, 322);
select is(array(select a - b from before, unnest(l, pg_temp.loads()) as x(b, a)), array[0, 0, 20, 0],
  'who fell ill since they were worked out gets nobody');
select is((select count(*) from pgdrip.wheels) <= 2, true, 'though they are seldom worked out for that');

-- Nobody, and adoption

update pgdrip.senders set health = 'blocked' where name = 'n3';
select pgdrip.pause_sender(name, 'x') from pgdrip.senders where name <> 'n3';
select pg_temp.people(323, 340);
select is((select count(*) from pgdrip.due where parked_reason = 'no_sender' and sender_id is null), 18::bigint,
  'where nobody is in service work is parked, not failed');
select is((select count(*) from pgdrip.enrollments where status <> 'active'), 0::bigint, 'no enrollment ends of it');
select is_empty('select * from pgdrip.check()', 'and nothing is stuck');
select pgdrip.resume_sender('n2');
select is((select count(*) from pgdrip.due where parked_reason is not null), 0::bigint,
  'it is adopted when a sender is back');
select ok(bool_and(e.sender_id = d.sender_id), 'for good')
  from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id);
select pgdrip.pause_sender('n2', 'x');
select pg_temp.people(341, 345);
update pgdrip.senders set status = 'active', status_reason = null where name = 'n2';
select pgdrip.tick('runner-1', '1');
select is((select count(*) from pgdrip.due where parked_reason is not null), 0::bigint,
  'or by the next tick');
-- Whoever a contact has stays its sender, though others have less to do

select pgdrip.apply_sequence(jsonb_build_object('name', n, 'trigger', n, 'pool', 'kept', 'channel', 'log',
  'status', 'active', 'steps', '[{"day": 1, "body": "Hello"}]'::jsonb)) from unnest(array['FIRST', 'SECOND']) as n;
select pgdrip.apply_sender('{"name": "old", "channel": "log", "pool": "kept"}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011999000' || n, p_pool => 'kept'), 'FIRST') from generate_series(1, 5) as n;
select pgdrip.apply_sender(jsonb_build_object('name', 'new ' || n, 'channel', 'log', 'pool', 'kept')) from generate_series(1, 9) as n;
select pgdrip.add_trigger(c.contact_id, 'SECOND') from pgdrip.contacts as c where c.pool = 'kept';
select results_eq($$select s.name, count(*) from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
                      join pgdrip.senders as s on s.sender_id = e.sender_id where q.name = 'SECOND' group by 1$$,
  $$values ('old', 5::bigint)$$, 'a contact keeps its sender over sequences');

select is_empty('select * from pgdrip.check()', 'every invariant holds');

select * from finish();
rollback;
