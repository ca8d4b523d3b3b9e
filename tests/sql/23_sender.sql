-- Senders: what a definition may say, that no rolling hour or day exceeds the rate however
-- the claims fall, and that contacts are spread by capacity.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- Definitions

create function pg_temp.sender(p_more jsonb default '{}') returns jsonb
language sql as $$ select '{"name": "s", "channel": "log"}'::jsonb || p_more $$;

create function pg_temp.refuses(p_more jsonb, p_fact text) returns setof text
language sql as $$
  select throws_ok(format('select pgdrip.apply_sender(%L)', pg_temp.sender(p_more)),
                   'MD008', null, p_fact)
$$;

select throws_ok('select pgdrip.apply_sender(null)', '22004', null, 'a sender is not NULL');
select pg_temp.refuses(d.more::jsonb, d.fact)
  from (values
    ('{"name": "  "}', 'a sender has a visible name'),
    ('{"name": null}', 'a sender''s name is not null'),
    ('{"channel": "pigeon"}', 'a sender''s channel is a known one'),
    ('{"chanel": "log"}', 'an unknown key of a sender is refused'),
    ('{"rate_per_hour": -1}', 'a rate is not negative'),
    ('{"rate_per_hour": 0}', 'a rate in a definition is not zero'),
    ('{"rate_per_hour": 1.5}', 'a rate is a whole number'),
    ('{"rate_per_hour": "many"}', 'a rate is a number'),
    ('{"rate_per_hour": 99999999999}', 'a rate fits an integer'),
    ('{"rate_per_hour": 5, "burst": 6}', 'a burst is not above the hourly rate'),
    ('{"burst": 2}', 'a burst needs an hourly rate'),
    ('{"gap_min": "-5 seconds", "gap_max": "5 seconds"}', 'a gap is not negative'),
    ('{"gap_min": "15 seconds", "gap_max": "5 seconds"}', 'gap_max is not below gap_min'),
    ('{"gap_min": "1 month"}', 'a gap has no months'),
    ('{"gap_min": "5"}', 'a gap says its unit'),
    ('{"ramp": {}}', 'a ramp begins with day 1'),
    ('{"ramp": {"1": 50, "7": 20}}', 'a ramp grows'),
    ('{"ramp": {"1": 20, "x": 50}}', 'the keys of a ramp are days'),
    ('{"ramp": [20, 50]}', 'a ramp is an object'),
    ('{"hours": {"from": "09:00", "to": "17:00"}}', 'a sender''s hours name their zone'),
    ('{"hours": {"from": "25:00", "to": "17:00", "zone": "UTC"}}', 'hours end at 24'),
    ('{"hours": {"from": "09:00", "to": "17:00", "zone": "Mars/Base"}}',
     'a sender''s zone is an IANA one'),
    ('{"advance_on": "read"}', 'advance_on is accepted or delivered'),
    ('{"on_unconfirmed": "shrug"}', 'on_unconfirmed is a known word'),
    ('{"confirm_within": "soon"}', 'confirm_within is a wait'),
    ('{"secret": "p@ss word"}', 'secret is the name of a variable or file'),
    ('{"config": {"password": "x"}}', 'a config holds no password'),
    ('{"config": {"API-Token": "x"}}', 'a config holds no token'),
    ('{"config": [1]}', 'a config is an object'),
    ('{"config": {"a":[[[[[[[[[1]]]]]]]]]}}', 'a config is not deeply nested')
  ) as d(more, fact);
select pg_temp.refuses(jsonb_build_object('name', repeat('n', 201)), 'a sender''s name has 200 bytes');
select pg_temp.refuses(jsonb_build_object('config', jsonb_build_object('a', repeat('x', 17000))),
                       'a config has 16 kB');
select pg_temp.refuses(format('{"config": {"a": %s1%s}}', repeat('[', 6000), repeat(']', 6000))::jsonb,
                       'a config that no client could decode is refused');
select is_empty('select from pgdrip.senders', 'a refused sender leaves nothing behind');

select is(pgdrip.apply_sender(pg_temp.sender()), 'created', 'a new sender is created');
select is(pgdrip.apply_sender(pg_temp.sender()), 'unchanged', 'the same again changes nothing');
select is(pgdrip.apply_sender(pg_temp.sender('{"rate_per_hour": 80}')), 'changed',
          'another rate changes it');
select pg_temp.refuses('{"channel": "webhook"}', 'the channel of a sender is fixed');
select pg_temp.refuses('{"pool": "other"}', 'the pool of a sender is fixed');
select is(pgdrip.apply_sender('{"name": "\"; drop table x; -- %I $$", "channel": "log"}'),
          'created', 'a strange name is data');
select results_eq(
  'select is_limited from pgdrip.senders where name like ''%; drop table%''',
  array[false], 'a sender without limits is unlimited');

-- Status

select throws_ok($$select pgdrip.pause_sender('nobody', 'why')$$, 'MD001', null,
                 'an unknown sender cannot be paused');
select throws_ok($$select pgdrip.resume_sender('nobody')$$, 'MD001', null,
                 'an unknown sender cannot be resumed');
select throws_ok($$select pgdrip.pause_sender(null, 'why')$$, '22004', null,
                 'NULL cannot be paused');
select throws_ok($$select pgdrip.pause_sender('s', null)$$, '22004', null,
                 'a pause has a reason');
select throws_ok($$select pgdrip.pause_sender('s', ' ')$$, '22023', null,
                 'the reason of a pause is visible');
select is(pgdrip.resume_sender('s'), false, 'resuming a sender in service changes nothing');
select is(pgdrip.pause_sender('s', 'repair'), true, 'a sender is paused');
select is(pgdrip.pause_sender('s', 'again'), false, 'pausing it twice changes nothing');
update pgdrip.senders set health = 'down', faults = 2 where name = 's';
select is(pgdrip.pause_sender('s', 'again'), false,
          'pausing a paused sender that is down changes nothing');
select results_eq($$select status_reason from pgdrip.senders where name = 's'$$,
                  array['repair'], 'and keeps the first reason');
select is(pgdrip.resume_sender('s'), true, 'it is resumed');
select results_eq($$select status, health, faults from pgdrip.senders where name = 's'$$,
                  $$values ('active', 'healthy', 0)$$, 'and counts as healthy again');
update pgdrip.senders set health = 'blocked' where name = 's';
select is(pgdrip.resume_sender('s'), true, 'a blocked sender is resumed by an operator');
update pgdrip.senders set status = 'retired', status_reason = 'sold' where name = 's';
select throws_ok($$select pgdrip.resume_sender('s')$$, 'MD003', null,
                 'a retired sender is not resumed');

-- Who gets which sender

delete from pgdrip.senders;
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
update pgdrip.senders set health = 'down', faults = 1 where name = 'c';
update pgdrip.senders set health = 'blocked' where name = 'd';
select pgdrip.pause_sender('a', 'repair');
select results_eq($$select name from pg_temp.shares('default', 'log', 1, 1000)$$, array['b'],
                  'paused, blocked and failing senders get nobody while another is healthy');
select pgdrip.pause_sender('b', 'repair');
select results_eq($$select name from pg_temp.shares('default', 'log', 1, 10)$$, array['c'],
                  'a failing sender serves where nobody is healthy');

select * from finish();
rollback;
