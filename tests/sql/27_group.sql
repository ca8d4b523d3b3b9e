-- Groups of senders: one account's rate, and how many different contacts it writes to a day.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

create function pg_temp.refuses(p_definition jsonb, p_fact text) returns setof text
language sql as $$
  select throws_ok(format('select pgdrip.apply_group(%L)', p_definition), 'MD008', null, p_fact)
$$;

-- Definitions

select throws_ok('select pgdrip.apply_group(null)', '22004', null, 'a group is not NULL');
select pg_temp.refuses(d.definition::jsonb, d.fact)
  from (values
    ('{"rate": 1, "per": "1 day"}', 'a group has a name'),
    ('{"name": "g"}', 'a group limits something'),
    ('{"name": "g", "rate": 5}', 'a rate says per what'),
    ('{"name": "g", "per": "1 day"}', 'a span needs a rate'),
    ('{"name": "g", "rate": 0, "per": "1 day"}', 'a group''s rate is not zero'),
    ('{"name": "g", "rate": -1, "per": "1 day"}', 'a group''s rate is not negative'),
    ('{"name": "g", "rate": 1, "per": "1 month"}', 'a span has no months'),
    ('{"name": "g", "rate": 1, "per": "0.5 seconds"}', 'a span is a second at least'),
    ('{"name": "g", "rate": 1, "per": "31 days"}', 'a span is 30 days at most'),
    ('{"name": "g", "distinct_contacts_per_day": 0}', 'a group may write to someone'),
    ('{"name": "g", "limit": 5}', 'an unknown key of a group is refused'),
    ('{"name": ["g"], "rate": 1, "per": "1 day"}', 'a group''s name is a text')
  ) as d(definition, fact);
select throws_ok($$select pgdrip.apply_sender('{"name": "s", "channel": "log", "group": "none"}')$$,
  'MD008', null, 'a sender''s group must be there');
select is(pgdrip.apply_group('{"name": "g", "rate": 5, "per": "1 hour"}'), 'created', 'a group is created');
select is(pgdrip.apply_group('{"name": "g", "rate": 5, "per": "1 hour"}'), 'unchanged', 'the same again changes nothing');
select is(pgdrip.apply_group('{"name": "g", "rate": 6, "per": "1 hour"}'), 'changed', 'another rate does');

-- A stage: one pool, senders in groups, contacts, and an independent log of claims.

create temp table claimed (at timestamptz, sender text, contact_id bigint);
create function pg_temp.stage(p_group jsonb, p_senders integer, p_contacts integer) returns void
language plpgsql as $$
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from claimed;
  perform pgdrip.apply_group(p_group);
  perform pgdrip.apply_sender(jsonb_build_object('channel', 'log', 'group', p_group ->> 'name',
    'name', p_group ->> 'name' || i, 'pool', p_group ->> 'name')) from generate_series(1, p_senders) as i;
  perform pgdrip.apply_sequence(jsonb_build_object('channel', 'log', 'status', 'active',
    'name', p_group ->> 'name', 'trigger', p_group ->> 'name', 'pool', p_group ->> 'name',
    'steps', '[{"day": 1, "body": "1"}, {"day": 2, "delay": "2 hours", "body": "2"},
               {"day": 3, "delay": "1 second", "body": "3"}]'::jsonb));
  perform pgdrip.enroll(p_group ->> 'name', pgdrip.upsert_contact(
            '+6011' || lpad(i::text, 7, '0'), p_pool => p_group ->> 'name'))
     from generate_series(1, p_contacts) as i;
end $$;
create function pg_temp.go(p_limit integer default 100) returns bigint language sql as $$
  with m as materialized (select * from pgdrip.claim('r', p_limit)),
  l as (insert into claimed select pgdrip.clock(), m.sender, e.contact_id
          from m join pgdrip.enrollments as e using (enrollment_id)),
  b as materialized (select array_agg(enrollment_id) as e, array_agg(token) as t from m)
  select count(r.token) from b, lateral pgdrip.report(b.e, b.t,
    array_fill('sent'::text, array[cardinality(b.e)])) as r where b.e is not null
$$;
create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;

-- The rate

select pg_temp.stage('{"name": "rate", "rate": 5, "per": "1 hour"}', 3, 20);
select is(pg_temp.go(), 5::bigint, 'senders of a group share its rate');
select is(pg_temp.go(), 0::bigint, 'nothing more within the span');
select cmp_ok(pgdrip.next_wake(), '>', pgdrip.clock() + interval '1 hour', 'the next wake waits for the group');
select pg_temp.wait('1 hour');
select is(pg_temp.go(), 0::bigint, 'a send may follow its claim by 10 s, which the span includes');
select pgdrip.set_clock(pgdrip.next_wake());
select is(pg_temp.go(), 5::bigint, 'at the next wake it goes on');
select is(pgdrip.apply_group('{"name": "rate", "rate": 7, "per": "1 hour"}'), 'changed', 'more is allowed');
select is(pg_temp.go(), 2::bigint, 'takes effect at the next claim');
select pgdrip.apply_group('{"name": "rate", "rate": 3, "per": "2 hours"}');
select is(pg_temp.go(), 0::bigint, 'over another span what was claimed counts on');
select pg_temp.wait('3 hours');
select is(pg_temp.go(), 3::bigint, 'and is over when it has passed');
select is((select count(*) from pgdrip.due where lease_until is not null), 0::bigint, 'whatever did not fit was not leased');

select pgdrip.apply_group('{"name": "rate", "rate": 4, "per": "1 hour"}');
select pg_temp.wait('3 hours');
select pgdrip.apply_group('{"name": "rate", "rate": 4, "per": "2 hours"}');
select is(pg_temp.go(), 4::bigint, 'what was over by the old span counts no more in the new one');
select pgdrip.apply_group('{"name": "rate", "rate": 2, "per": "2 hours"}');
select is(pg_temp.go(1), 0::bigint, 'less is allowed');
select cmp_ok(pgdrip.next_wake(), '>', pgdrip.clock() + interval '2 hours', 'a group that is full now is not asked again');
select pgdrip.apply_sender('{"name": "alone", "channel": "log", "pool": "alone", "rate_per_hour": 3600, "burst": 9}');
select pgdrip.apply_sequence('{"name": "alone", "trigger": "alone", "channel": "log", "status": "active", "pool": "alone",
  "steps": [{"day": 1, "body": "1"}]}');
select pgdrip.enroll('alone', pgdrip.upsert_contact('+60119999999', p_pool => 'alone'));
select is(pg_temp.go(1), 1::bigint, 'nor does it keep others from their turn');
select pg_temp.stage('{"name": "fast", "rate": 1000000, "per": "1 second"}', 2, 20);
select is(pg_temp.go(), 20::bigint, 'a group may be fast');
select pg_temp.stage('{"name": "second", "rate": 6, "per": "1 second"}', 2, 20);
select is(pg_temp.go(), 6::bigint, 'so many a second, from the first one on');
select is(pg_temp.go(), 0::bigint, 'and no more in it');
select pgdrip.set_clock(pgdrip.next_wake());
select is(pg_temp.go(), 6::bigint, 'so many in the next');

-- Different contacts

select pg_temp.stage('{"name": "distinct", "distinct_contacts_per_day": 4}', 2, 10);
select is(pg_temp.go(), 4::bigint, 'so many different contacts');
select is(pg_temp.go(), 0::bigint, 'and no other on that day');
select is((select count(*) from pgdrip.due where due_at > pgdrip.clock()
            and lease_until is null and step = 1), 6::bigint, 'the others wait until there is room');
select pg_temp.wait('2 hours');
select is(pg_temp.go(), 4::bigint, 'contacts of that day may get more');
select pg_temp.wait('1 second');
select is(pg_temp.go(), 4::bigint, 'and still more');
select pg_temp.wait('22 hours');
select is(pg_temp.go(), 0::bigint, 'the day of a contact counts from the last message to it');
select pg_temp.wait('4 hours');
select is(pg_temp.go(), 4::bigint, 'a day later four others have their turn');
select is(pgdrip.apply_group('{"name": "distinct", "distinct_contacts_per_day": 5}'), 'changed', 'room for one more');
select is(pg_temp.go(), 1::bigint, 'is taken at once');
select pg_temp.wait('2 hours');
select is(pg_temp.go(), 5::bigint, 'those of the day go on');
select is((select sum(c) from pgdrip.sender_groups as g, unnest(g.contact_counts) as c
            where g.name = 'distinct'), 5::bigint, 'each contact is counted once, while the window holds it');
select pgdrip.maintain();
select is((select count(*) from pgdrip.group_contacts), 5::bigint, 'maintain keeps whom the window holds');
select pg_temp.wait('100 hours');
select pgdrip.maintain();
select is_empty('select from pgdrip.group_contacts', 'and forgets the others');

-- What was put off comes back when there is more room

select pg_temp.stage('{"name": "raised", "distinct_contacts_per_day": 4}', 2, 10);
select is(pg_temp.go(), 4::bigint, 'four of ten go');
select pg_temp.wait('1 minute');
select pgdrip.apply_group('{"name": "raised", "distinct_contacts_per_day": 3}');
select is(pg_temp.go(), 0::bigint, 'a lower number lets nobody go');
select pgdrip.apply_group('{"name": "raised", "distinct_contacts_per_day": 6}');
select is((select count(*) from pgdrip.due where step = 1 and due_at < pgdrip.clock()), 6::bigint,
  'a higher one makes the others due as they were');
select is(pg_temp.go(), 2::bigint, 'and takes effect at the next claim');
select pgdrip.apply_group('{"name": "raised", "rate": 1000, "per": "1 hour"}');
select is(pg_temp.go(), 4::bigint, 'so does taking the limit away');
select is_empty('select from pgdrip.group_waits', 'then nobody waits');
select pg_temp.stage('{"name": "left", "distinct_contacts_per_day": 4}', 1, 10);
select is(pg_temp.go(), 4::bigint, 'the only sender of a full group');
select pgdrip.apply_sender('{"name": "left1", "pool": "left", "channel": "log"}');
select is(pg_temp.go(), 6::bigint, 'that leaves it sends what it was kept from');

-- Both, at random times

create function pg_temp.run() returns void language plpgsql as $$
begin
  for i in 1 .. 300 loop
    perform pg_temp.go(1 + i % 7);
    perform pg_temp.wait(make_interval(mins => (i * 37) % 41));
  end loop;
end $$;
select pg_temp.stage('{"name": "both", "rate": 9, "per": "3 hours", "distinct_contacts_per_day": 20}', 5, 60);
select pg_temp.run();
select cmp_ok((select max(n) from (select count(*) over (order by at
    range between interval '3 hours' preceding and current row) as n from claimed) as w), '<=', 9::bigint,
  'no rolling span holds more than the rate');
select cmp_ok((select max(n) from (select (select count(distinct y.contact_id) from claimed as y
    where y.at between x.at - interval '24 hours' and x.at) as n from claimed as x) as w), '<=', 20::bigint,
  'no rolling day holds more contacts than allowed');
select is((select count(*) from claimed), 180::bigint, 'and everything goes out');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select * from finish();
rollback;
