-- Faults and failover: what costs a message nothing, and whose work goes where.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- The pool of the sequence "seq"; its senders are named as they come.
create function pg_temp.sender(p_name text, p_more jsonb default '{}') returns text language sql as $$
  select pgdrip.apply_sender(jsonb_build_object('name', p_name, 'pool', 'p', 'channel', 'webhook') || p_more)
$$;
create function pg_temp.people(p_from integer, p_to integer, p_sender text default null) returns void language sql as $$
  select pgdrip.add_trigger(pgdrip.upsert_contact('+6015' || 1000000 + n, p_pool => 'p', p_sender => p_sender), 'SEQ')
    from generate_series(p_from, p_to) as n
$$;
create function pg_temp.work() returns jsonb language sql as $$
  select jsonb_object_agg(coalesce(x.name, 'nobody'), x.n) from (
    select s.name, count(*) as n from pgdrip.due as d left join pgdrip.senders as s using (sender_id) group by s.name) as x
$$;
create function pg_temp.of(p_name text) returns pgdrip.senders language sql as $$
  select s from pgdrip.senders as s where s.name = p_name
$$;
create function pg_temp.pace(p_sender pgdrip.senders) returns pgdrip.paces language sql as $$
  select p from pgdrip.paces as p where p.sender_id = p_sender.sender_id
$$;
create function pg_temp.tick() returns integer language sql as $$ select pgdrip.tick('runner-1', '1') $$;
create temp table held (enrollment_id bigint, token bigint, sender text);
create function pg_temp.take(p_limit integer default 100) returns bigint language sql as $$
  with taken as (insert into held select c.enrollment_id, c.token, c.sender from pgdrip.claim('runner-1', p_limit) as c
                 returning 1) select count(*) from taken
$$;
create function pg_temp.start() returns bigint language sql as $$
  select count(*) from (select pgdrip.begin_send(array_agg(enrollment_id), array_agg(token)) from held) as b
$$;
-- A second apart, by their tokens.
create function pg_temp.start_apart() returns void language plpgsql as $$
declare
  v_held held;
begin
  for v_held in select * from held order by token loop
    perform stage.wait('1 second');
    perform pgdrip.begin_send(array[v_held.enrollment_id], array[v_held.token]);
  end loop;
end $$;
create function pg_temp.tell(p_outcomes text[], p_codes text[] default null) returns text[] language plpgsql as $$
declare
  v_ids bigint[]; v_tokens bigint[]; v_verdicts text[];
begin
  select array_agg(enrollment_id order by token), array_agg(token order by token) into v_ids, v_tokens
    from (select * from held order by token limit cardinality(p_outcomes)) as h;
  v_verdicts := array(select r.verdict from pgdrip.report(v_ids, v_tokens, p_outcomes, null, p_codes) as r);
  delete from held where token = any (v_tokens);
  return v_verdicts;
end $$;
create function pg_temp.fails(p_code text default 'sender') returns text[] language sql as $$
  select pg_temp.take(1); select pg_temp.start(); select pg_temp.tell('{failed}', array[p_code])
$$;
create function pg_temp.clean() returns void language sql as $$
  select pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next');
  delete from held;
  delete from pgdrip.wheels;
  update pgdrip.contacts set sender_id = null;
  delete from pgdrip.senders
$$;
select pgdrip.apply_sequence('{"name": "seq", "trigger": "SEQ", "pool": "p", "channel": "webhook", "status": "active",
  "steps": [{"day": 1, "body": "One"}, {"day": 2, "body": "Two", "delay": "1 hour"}]}');

-- The circuit breaker

select pg_temp.sender('a', '{"fault_threshold": 3}');
select pg_temp.people(1, 10);
select is(pg_temp.fails(), '{deferred}', 'a sender fault defers the message');
select ok((s).health = 'healthy' and (s).faults = 1 and (s).down_at is null, 'one fault of three is counted, no more')
  from pg_temp.of('a') as s;
select pg_temp.fails();
select ok((s).health = 'healthy' and (s).faults = 2, 'nor does the second park it') from pg_temp.of('a') as s;
select stage.wait('1 second');
select pg_temp.take(1), pg_temp.start();
select pg_temp.tell('{sent}');
select is((pg_temp.of('a')).faults, 0, 'a send that comes through begins the count anew');
select stage.wait('1 second');
select pg_temp.fails(), pg_temp.fails();
select stage.wait('1 second');
select pg_temp.fails();
select ok((s).health = 'down' and (s).faults = 3 and (s).down_at = pgdrip.clock()
  and p.ready_at = pgdrip.clock() + interval '1 minute', 'the third in a row parks it for a minute') from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select is(pg_temp.take(), 0::bigint, 'it is handed out nothing');
select stage.wait('1 minute');
select is(pg_temp.take(), 1::bigint, 'then one message probes it');
select pg_temp.start(), pg_temp.tell('{failed}', '{sender}');
select ok((s).health = 'down' and (s).faults = 4 and (s).down_at = pgdrip.clock() - interval '1 minute'
  and p.ready_at >= pgdrip.clock() + interval '2 minutes', 'a failed probe doubles the rest; it is down since it was parked')
  from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select stage.wait('1 hour');
select pg_temp.take(), pg_temp.start();
select pg_temp.tell('{sent}');
select ok((s).health = 'healthy' and (s).faults = 0 and (s).down_at is null and p.ready_at = 'epoch',
  'a probe that comes through takes it back') from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select is((select count(*) from pgdrip.deliveries where event = 'failed' and verdict <> 'deferred'), 0::bigint, 'no message failed');
select is((select sum(attempt) from pgdrip.due where step = 1), 0::bigint, 'no attempt was spent');
select pg_temp.take(5);
select pg_temp.start_apart();
select pg_temp.tell('{failed,failed,sent,failed,failed}', '{sender,sender,null,sender,sender}');
select ok((s).health = 'healthy' and (s).faults = 2, 'nor does the second park it') from pg_temp.of('a') as s;
select stage.wait('1 second');
select pg_temp.take(1), pg_temp.start();
select pg_temp.tell('{sent}');
select is((pg_temp.of('a')).faults, 0, 'a send that comes through begins the count anew');
select stage.wait('1 second');
select pg_temp.fails(), pg_temp.fails();
select stage.wait('1 second');
select pg_temp.fails();
select ok((s).health = 'down' and (s).faults = 3 and (s).down_at = pgdrip.clock()
  and p.ready_at = pgdrip.clock() + interval '1 minute', 'the third in a row parks it for a minute') from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select is(pg_temp.take(), 0::bigint, 'it is handed out nothing');
select stage.wait('1 minute');
select is(pg_temp.take(), 1::bigint, 'then one message probes it');
select pg_temp.start(), pg_temp.tell('{failed}', '{sender}');
select ok((s).health = 'down' and (s).faults = 4 and (s).down_at = pgdrip.clock() - interval '1 minute'
  and p.ready_at >= pgdrip.clock() + interval '2 minutes', 'a failed probe doubles the rest; it is down since it was parked')
  from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select stage.wait('1 hour');
select pg_temp.take(), pg_temp.start();
select pg_temp.tell('{sent}');
select ok((s).health = 'healthy' and (s).faults = 0 and (s).down_at is null and p.ready_at = 'epoch',
  'a probe that comes through takes it back') from pg_temp.of('a') as s, pg_temp.pace(s) as p;
select is((select count(*) from pgdrip.deliveries where event = 'failed' and verdict <> 'deferred'), 0::bigint, 'no message failed');
select is((select sum(attempt) from pgdrip.due where step = 1), 0::bigint, 'no attempt was spent');
select pg_temp.take(5);
select pg_temp.start_apart();
select pg_temp.tell('{failed,failed,sent,failed,failed}', '{sender,sender,null,sender,sender}');
select ok((s).health = 'healthy' and (s).faults = 2, 'in one report only the faults in a row count')
  from pg_temp.of('a') as s;
select pg_temp.clean();
select pg_temp.sender('a', '{"fault_threshold": 3}');
select pg_temp.people(11, 14);
select pg_temp.take(4), pg_temp.start();
select pg_temp.tell('{failed}', '{sender}'), pg_temp.tell('{failed}', '{sender}'), pg_temp.tell('{failed}', '{sender}');
select is((pg_temp.of('a')).health, 'down', 'faults of sends begun together count one by one until it is parked');
select pg_temp.tell('{failed}', '{sender}');
select is((pg_temp.of('a')).faults, 3, 'those told after that are no news');
select pg_temp.clean();
select pg_temp.sender('a', '{"fault_threshold": 100}');
select pg_temp.people(15, 16);
select pg_temp.fails('blocked');
select is((pg_temp.of('a')).health, 'blocked', 'whoever is blocked is parked at once');
select is((pg_temp.of('a')).down_at, null, 'and counts as blocked, not as down');

-- Failover

select pg_temp.clean();
select pg_temp.sender('a', '{"failover_after": "1 hour"}');
select pg_temp.sender('b', '{"rate_per_hour": 100}'), pg_temp.sender('c', '{"rate_per_hour": 200}');
select pg_temp.sender('sick'), pg_temp.sender('other', '{"pool": "q"}'), pg_temp.sender('elsewhere', '{"channel": "log"}');
update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 1 where name = 'sick';
select pg_temp.people(101, 165, 'a');
select pg_temp.take(5), pg_temp.start();
select pgdrip.exit_all(array(select enrollment_id from held where sender <> 'a'), 'x');
select pg_temp.tell('{failed}', '{sender}');
select is((pg_temp.of('a')).health, 'down', 'a sender is down');
select stage.wait('59 minutes');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 65}', 'before failover_after nothing moves');
select stage.wait('61 seconds');
select pgdrip.failover(10, pgdrip.clock());
select is((pg_temp.work() ->> 'a')::integer, 55, 'then so many as a call may move');
select pg_temp.tick();
select is(pg_temp.work(), jsonb_build_object('a', 4, 'b', (w ->> 'b')::integer, 'c', (w ->> 'c')::integer),
  'its due work goes to healthy senders of its pool and channel; what was begun stays') from pg_temp.work() as w;
select ok(abs((pg_temp.work() ->> 'b')::integer - 20) <= 2, 'evenly by capacity');
select ok(bool_and(e.sender_id = d.sender_id), 'for good') from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id);
select results_eq($$select object, sum(split_part(reason, ' ', 1)::integer) from pgdrip.audit where action = 'failover' group by 1$$,
  $$values ('sender ''a''', 61::bigint)$$, 'the audit tells how many');
select is(pg_temp.tell('{sent,sent}'), '{late,late}', 'a report of what was begun there is taken');
select is((select count(*) from pgdrip.deliveries as j join pgdrip.senders as s using (sender_id)
            where j.event = 'sent' and s.name = 'a'), 2::bigint, 'and told of the sender that sent it');
select cmp_ok((select count(*) from pgdrip.claim('runner-1')), '>', 0::bigint, 'the others are woken');
select pgdrip.resume_sender('a');
create temp table moved as select pg_temp.work() as w;
select pg_temp.tick();
select is(pg_temp.work(), (select w from moved), 'nothing moves back');

select pg_temp.clean();
select pg_temp.sender('a', '{"failover_after": "1 hour"}');
select pg_temp.people(201, 203);
select pg_temp.take(1);
update pgdrip.senders set health = 'down', faults = 1, down_at = pgdrip.clock() where name = 'a';
select stage.wait('2 hours');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 3}', 'without another healthy sender it stays');
select pg_temp.sender('b');
select pg_temp.tick();
select is(pg_temp.work(), '{"b": 3}', 'also a lease that ran out before the send began goes along');
select ok(j.event = 'abandoned' and s.name = 'a' and d.token is null and d.never_begun = 1, 'and leaves its trace')
  from held as h join pgdrip.deliveries as j using (enrollment_id, token) join pgdrip.senders as s using (sender_id)
  join pgdrip.due as d on d.enrollment_id = h.enrollment_id;
select pg_temp.tell('{sent}');
select is((select array_agg(distinct step) from pgdrip.due), '{1}', 'its token moves the step no longer');

select pg_temp.clean();
select pg_temp.sender('a', '{"failover_after": "0 seconds"}');
select pg_temp.people(301, 303);
select pg_temp.sender('b');
update pgdrip.due set due_at = pgdrip.clock() + interval '1 hour' where enrollment_id = (select max(enrollment_id) from pgdrip.due);
update pgdrip.senders set health = 'blocked' where name = 'a';
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 3}', 'nothing moves off a blocked sender');
update pgdrip.senders set health = 'down', faults = 1, down_at = pgdrip.clock() where name = 'a';
select pgdrip.pause_sender('a', 'x');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 3}', 'nor off one that an operator paused');
update pgdrip.senders set status = 'active', status_reason = null where name = 'a';
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 1, "b": 2}', 'what is not due yet stays');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select * from finish();
rollback;
