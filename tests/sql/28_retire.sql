-- Retirement and moves: whose work goes where, and what stays with a sender that leaves.
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
create function pg_temp.tick() returns integer language sql as $$ select pgdrip.tick('runner-1', '1') $$;
create temp table held (enrollment_id bigint, token bigint, sender text);
create function pg_temp.take(p_limit integer default 100) returns bigint language sql as $$
  with taken as (insert into held select c.enrollment_id, c.token, c.sender from pgdrip.claim('runner-1', p_limit) as c
                 returning 1) select count(*) from taken
$$;
create function pg_temp.start() returns bigint language sql as $$
  select count(*) from (select pgdrip.begin_send(array_agg(enrollment_id), array_agg(token)) from held) as b
$$;
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
create function pg_temp.clean() returns void language sql as $$
  select pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next');
  delete from held;
  delete from pgdrip.wheels;
  update pgdrip.contacts set sender_id = null;
  delete from pgdrip.senders
$$;
select pgdrip.apply_sequence('{"name": "seq", "trigger": "SEQ", "pool": "p", "channel": "webhook", "status": "active",
  "steps": [{"day": 1, "body": "One"}, {"day": 2, "body": "Two", "delay": "1 hour"}]}');

-- Retirement

select throws_ok($$select pgdrip.retire_sender(null)$$, '22004', null, 'NULL is no sender to retire');
select throws_ok($$select pgdrip.retire_sender('nobody')$$, 'MD001', null, 'an unknown sender cannot be retired');
select pg_temp.clean();
select pg_temp.sender('a');
select pg_temp.people(401, 406);
select throws_ok($$select pgdrip.retire_sender('a')$$, 'MD003', 'sender ''a'' has live work', 'live work must go somewhere');
select throws_ok($$select pgdrip.retire_sender('a', 'nowhere')$$, '22023', null, 'to a pool that exists');
select throws_ok($$select pgdrip.retire_sender('a', 'p')$$, 'MD003', null, 'with another sender in service');
select pg_temp.sender('b'), pg_temp.sender('off', '{"channel": "log"}');
select pgdrip.pause_sender('b', 'x');
select throws_ok($$select pgdrip.retire_sender('a', 'p')$$, 'MD003', null, 'a paused one does not count');
select pgdrip.resume_sender('b');
update pgdrip.senders set health = 'blocked' where name = 'a';
select throws_ok($$select pgdrip.retire_sender('a', 'p')$$, 'MD003', null, 'the work of a blocked one is not moved');
update pgdrip.senders set health = 'healthy' where name = 'a';
select throws_ok($$select pgdrip.delete_sender('a')$$, 'MD003', null, 'only a retired sender is deleted');
-- 1 begun, 1 leased, 1 paused, 1 uncertain, 2 due
select pg_temp.take(3);
select pgdrip.begin_send(array[enrollment_id], array[token]) from held where token in (select min(token) from held);
select pgdrip.begin_send(array[enrollment_id], array[token]) from held where token in (select max(token) from held);
select pgdrip.report(array[enrollment_id], array[token], '{uncertain}') from held where token in (select max(token) from held);
create temp table uncertain as select * from held where token = (select max(token) from held);
delete from held where token in (select token from uncertain);
select pgdrip.pause_enrollment((select min(enrollment_id) from pgdrip.due where token is null), 'asked');
select is(pgdrip.retire_sender('a', 'p'), true, 'a sender is retired');
select is(pg_temp.work(), '{"a": 3, "b": 3}', 'what is not under way goes to others, what is paused too');
select results_eq($$select status, status_reason from pgdrip.senders where name = 'a'$$, $$values ('retiring', 'retired')$$,
  'it retires while anything is under way');
select is_empty('select * from pgdrip.check()', 'nothing is stuck meanwhile');
select is(pgdrip.retire_sender('a', 'p'), false, 'retiring twice changes nothing');
select throws_ok($$select pgdrip.resume_sender('a')$$, 'MD003', null, 'it is not resumed');
select throws_ok($$select pgdrip.pause_sender('a', 'x')$$, 'MD003', null, 'nor paused');
select throws_ok($$select pgdrip.delete_sender('a')$$, 'MD003', null, 'nor deleted yet');
select is_empty($$select pgdrip.begin_send(array_agg(enrollment_id), array_agg(token)) from held
  where token = (select max(token) from held)$$, 'what was leased is not begun any more');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 2, "b": 4}', 'it goes to the others with the next tick');
select is(pg_temp.tell('{sent}'), '{advanced}', 'a report of what was begun is taken');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 1, "b": 5}', 'and the next step belongs to another');
select is((pg_temp.of('a')).status, 'retired', 'then it is retired');
select throws_ok($$select pgdrip.delete_sender('a')$$, 'MD003', null, 'an uncertain send keeps it from being deleted');
select pgdrip.resolve_uncertain(token, 'not_sent') from uncertain;
select pg_temp.tick();
select is(pg_temp.work(), '{"b": 6}', 'once it is resolved its step moves, too');
select is_empty('select * from pgdrip.check()', 'every invariant holds');
select is(pgdrip.delete_sender('a'), true, 'then it is deleted');
select is((select count(*) from pgdrip.sender_load where sender like 'a%'), 0::bigint, 'and gone');
select throws_ok($$select pgdrip.delete_sender('a')$$, 'MD001', null, 'once');
select throws_ok($$select pgdrip.delete_sender(name)$$ || $$ from pgdrip.senders where name like 'a (%'$$, 'MD001', null,
  'its former name is none to call it by');
select is((select array_agg(distinct s.name) from pgdrip.deliveries as j join pgdrip.senders as s using (sender_id)
            where j.event = 'uncertain' and j.code is null), array['a (former ' || max(sender_id) || ')'],
  'history shows its name') from pgdrip.senders where name like 'a (%';
select is(pg_temp.sender('a'), 'created', 'its name is free');
select set_eq($$select action from pgdrip.audit where object = 'sender ''a''' and action in ('retire', 'delete')$$,
  array['retire', 'delete'], 'the audit keeps both');
select throws_ok($$select pgdrip.delete_sender('a')$$, 'MD003', null, 'the new one is not the old one');
select is(pgdrip.retire_sender('a'), true, 'a sender without work needs no target');
select is((pg_temp.of('a')).status, 'retired', 'and is retired at once');

select pg_temp.clean();
select pg_temp.sender('a');
select pg_temp.people(451, 452);
select pg_temp.take(), pg_temp.start();
select pgdrip.report(array[enrollment_id], array[token], '{uncertain}') from held where token in (select max(token) from held);
truncate uncertain;
insert into uncertain select * from held where token in (select max(token) from held);
select pg_temp.sender('b');
select pgdrip.retire_sender('a', 'p');
select pg_temp.tell('{failed}', '{blocked}');
select pgdrip.exit_enrollment(enrollment_id, 'x') from pgdrip.due where parked_reason is null;
select pg_temp.tick();
select is((pg_temp.of('a')).status, 'retired', 'a sender that was blocked while it retired is retired, too');
select pgdrip.resolve_uncertain(token, 'not_sent') from uncertain;
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 1}', 'what comes back to it is not moved off a blocked number');
select is((pg_temp.of('a')).status, 'retiring', 'so it retires once more');
select is_empty('select * from pgdrip.check()', 'and nothing is stuck');
select pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'x');
select pg_temp.tick();
select is((pg_temp.of('a')).status, 'retired', 'until an operator ends it');

select pg_temp.clean();
select pg_temp.sender('a', '{"advance_on": "delivered", "confirm_within": "1 hour", "on_unconfirmed": "advance"}');
select pg_temp.people(501, 502);
select pg_temp.take(), pg_temp.start();
select pg_temp.tell('{sent}');
select pg_temp.sender('b');
select pgdrip.retire_sender('a', 'p');
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 2}', 'what awaits its receipt or was begun stays with it');
select stage.wait('1 hour');
select pg_temp.tick();
select pg_temp.tick();
select is(pg_temp.work(), '{"a": 1, "b": 1}', 'until its time is up: the one goes on, the other is uncertain');
select results_eq($$select d.step, d.parked_reason, s.status from pgdrip.due as d join pgdrip.senders as s using (sender_id) order by 1$$,
  $$values (1, 'uncertain', 'retired'), (2, null, 'active')$$, 'as a claim would have settled them');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select pg_temp.clean();
select pg_temp.sender('a'), pg_temp.people(601, 604), pg_temp.sender('x', '{"pool": "q"}');
select pgdrip.retire_sender('a', 'q');
select is(pg_temp.work(), '{"x": 4}', 'an operator may give the work to another pool');

-- Moving to another pool

select throws_ok($$select pgdrip.move_sender('nobody', 'p')$$, 'MD001', null, 'an unknown sender cannot be moved');
select throws_ok($$select pgdrip.move_sender('x', null)$$, '22004', null, 'NULL is no pool');
select throws_ok($$select pgdrip.move_sender('x', 'nowhere')$$, '22023', null, 'a pool to move to exists');
select throws_ok($$select pgdrip.move_sender('a', 'q')$$, 'MD003', null, 'a retired sender does not move');
select is(pgdrip.move_sender('x', 'q'), false, 'a move to its own pool changes nothing');
select pg_temp.clean();
select pg_temp.sender('a', '{"rate_per_hour": 80, "rate_per_day": 800, "burst": 3, "gap_min": "1 second", "gap_max": "2 seconds",
  "ramp": {"1": 50}, "hours": {"from": "00:00", "to": "24:00", "zone": "UTC"}, "advance_on": "delivered", "confirm_within": "2 hours",
  "on_unconfirmed": "stop", "secret": "KEY", "config": {"url": "u"}, "fault_threshold": 4, "failover_after": "1 hour"}');
select pg_temp.people(701, 704);
select pg_temp.take(1), pg_temp.start();
select pg_temp.sender('y', '{"pool": "q"}');
update pgdrip.senders set health = 'down', faults = 5, down_at = pgdrip.clock(), fault_at = pgdrip.clock(), last_error = 'e',
  started_at = started_at - interval '1 day', limits_at = limits_at - interval '1 day' where name = 'a';
create temp table old as select to_jsonb(p) || to_jsonb(s) as row
  from pg_temp.of('a') as s join pgdrip.paces as p using (sender_id);
select is(pgdrip.move_sender('a', 'q'), true, 'a sender moves to another pool');
select is((to_jsonb(p) || to_jsonb(s)) - '{sender_id,pool,next_at,floor_at}'::text[],
          o.row - '{sender_id,pool,next_at,floor_at}'::text[], 'with its limits, its health and all it has spent')
  from pg_temp.of('a') as s join pgdrip.paces as p using (sender_id), old as o;
select is((pg_temp.of('a')).pool, 'q', 'it is there');
select is((select count(*) from pgdrip.due where parked_reason = 'no_sender'), 3::bigint, 'its work waits where nobody else is');
select is((select status from pgdrip.senders where name like 'a (former %'), 'retiring', 'what is under way ends with its former self');
select is(pg_temp.tell('{sent}'), '{awaiting}', 'as it would have');
select is_empty('select * from pgdrip.check()', 'every invariant holds');
select pg_temp.sender('b');
select is((pg_temp.work() ->> 'b')::integer, 3, 'whoever comes to the old pool adopts the rest');
select is((select count(*) from pgdrip.sender_load where sender = 'a'), 1::bigint, 'it is listed once');
select pgdrip.move_sender('y', 'p');
select is(pgdrip.move_sender('y', 'q'), true, 'and may move back');
select is_empty('select * from pgdrip.check()', 'every invariant holds');
select * from finish();
rollback;
