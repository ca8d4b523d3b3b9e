-- Senders: what a definition may say, and what an operator does with a sender.
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
    ('{"config": {"smtp": {"Passphrase": "x"}}}', 'a config holds no password further down'),
    ('{"config": {"servers": [{"api_key": "x"}]}}', 'a config holds no key in a list'),
    ('{"config": {"auth": "x"}}', 'a config holds no key named auth'),
    ('{"config": {"url": "https://user:pass@example.com/"}}', 'a url in a config holds no password'),
    ('{"config": {"a": {"urls": ["smtp://key@example.com"]}}}', 'a url in a config holds no user'),
    ('{"config": {"url": "https://example.com/?v=1&access_token=x"}}', 'a url in a config passes no token'),
    ('{"config": {"header": "Bearer abcdefgh"}}', 'a config holds no header with a key'),
    ('{"config": {"pem": "-----BEGIN RSA PRIVATE KEY-----"}}', 'a config holds no private key'),
    ('{"config": [1]}', 'a config is an object'),
    ('{"fault_threshold": 0}', 'no sender is parked by no fault'),
    ('{"fault_threshold": 101}', 'a sender is parked by a hundred faults at the latest'),
    ('{"failover_after": "-1 hour"}', 'failover_after is not negative'),
    ('{"failover_after": "1 month"}', 'failover_after has no months'),
    ('{"failover_after": 3600}', 'failover_after says its unit'),
    ('{"group": "nobody"}', 'a sender''s group is a known one'),
    ('{"config": {"a":[[[[[[[[[1]]]]]]]]]}}', 'a config is not deeply nested'),
    ('{"config": {"api key": "x"}}', 'a key with a space is still a key'),
    ('{"config": {"user_pass": "x"}}', 'nor is a password one by another ending'),
    ('{"config": {"userPwd": "x"}}', 'in whatever case'),
    ('{"config": {"url": " //me:hunter2@x.org"}}', 'nor one in a URL without its scheme'),
    ('{"name": {"a": 1}}', 'a name is a text'),
    ('{"pool": ["p"]}', 'so is a pool'),
    (E'{"pool": "p\\nq"}', 'a pool has no control characters'),
    ('{"name": "s (former 1)"}', 'no sender takes the name of a former one')
  ) as d(more, fact);
select pg_temp.refuses(jsonb_build_object('name', repeat('n', 201)), 'a sender''s name has 200 bytes');
select pg_temp.refuses(jsonb_build_object('config', jsonb_build_object('a', repeat('x', 17000))),
                       'a config has 16 kB');
select pg_temp.refuses(format('{"config": {"a": %s1%s}}', repeat('[', 6000), repeat(']', 6000))::jsonb,
                       'a config that no client could decode is refused');
select is_empty('select from pgdrip.senders', 'a refused sender leaves nothing behind');
select throws_like($$select pgdrip.apply_sender(pg_temp.sender('{"config": {"url": "https://me:hunter2@x.org"}}'))$$,
  '%config: url looks like%', 'a refusal names the key');
select lives_ok(format('select pgdrip.read_sender(%L)', pg_temp.sender(d.config::jsonb)), d.fact)
  from (values
    ('{"config": {"url": "https://example.com:8080/a@b?to=c@d"}}', 'a port and an @ in a path are no password'),
    ('{"config": {"from": "Desk <desk@example.com>"}}', 'an e-mail address is no credential'),
    ('{"config": {"basic": "basic plan"}}', 'a plain word is no header'),
    ('{"config": {"bypass": "no"}}', 'nor a password whatever ends like one')
  ) as d(config, fact);

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
update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 2 where name = 's';
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
select pg_temp.refuses('{"rate_per_hour": 80}', 'a retired sender is not applied again');
select is(pgdrip.apply_sender('{"name": "t", "channel": "log", "fault_threshold": 3, "failover_after": "1 hour"}'),
          'created', 'a sender says how many faults it bears and when its work moves');
select is(pgdrip.apply_sender('{"name": "t", "channel": "log", "fault_threshold": 3, "failover_after": "60 minutes"}'),
          'unchanged', 'the same said otherwise changes nothing');
select is(pgdrip.apply_sender('{"name": "t", "channel": "log", "fault_threshold": 4, "failover_after": "60 minutes"}'),
          'changed', 'another threshold changes it');
select is(pgdrip.apply_sender('{"name": "t", "channel": "log", "fault_threshold": 4}'),
          'changed', 'leaving failover_after out takes it away');
select results_eq($$select fault_threshold, failover_after from pgdrip.senders where name = 't'$$,
  $$values (4, null::interval)$$, 'as it says');

select * from finish();
rollback;
