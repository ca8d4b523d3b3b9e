-- Asking gateways: which sends and senders to ask about, and what an answer does.
begin;
select no_plan();

create function pg_temp.uncertain() returns bigint language sql as $$
  select stage.take(); select stage.start(); select stage.tell('uncertain');
  select (stage.live()).token
$$;
create function pg_temp.asked(p_older interval default '10 minutes', p_channels text[] default '{webhook}')
  returns setof pgdrip.uncertain_send language sql as $$
  select * from pgdrip.uncertain_sends(p_channels, p_older, 0, 1000)
$$;
create function pg_temp.probed(p_is_up boolean, p_detail text default null) returns text language sql as $$
  select pgdrip.record_probe((stage.sender()).name, p_is_up, p_detail)
$$;

-- Arguments

select throws_ok($$select pgdrip.uncertain_sends(null, '1 h', 0, 1)$$, '22004', null, 'channels are needed');
select throws_ok($$select pgdrip.uncertain_sends('{log}', null, 0, 1)$$, '22004', null, 'an age is needed');
select throws_ok($$select pgdrip.uncertain_sends('{log}', '1 h', null, 1)$$, '22004', null, 'a beginning is needed');
select throws_ok($$select pgdrip.uncertain_sends('{log}', '1 h', 0, null)$$, '22004', null, 'a limit is needed');
select throws_ok($$select pgdrip.uncertain_sends('{log}', '-1 h', 0, 1)$$, '22023', null, 'an age is not negative');
select throws_ok(format('select pgdrip.senders_to_probe(%L, %L, %s)', '{log}', '', n), '22023', null,
  format('%s is no limit', n)) from unnest(array[0, -1, 1001]) as n;
select throws_ok($$select pgdrip.record_probe(null, true)$$, '22004', null, 'a sender is needed');
select throws_ok($$select pgdrip.record_probe('x', null)$$, '22004', null, 'an answer is needed');
select throws_ok($$select pgdrip.record_probe('nobody', true)$$, 'MD001', null, 'an unknown sender is refused');

-- Uncertain sends

select stage.new_case('{"body": "Hi {{name|there}}"}', '{"secret": "HOOK", "config": {"url": "https://x"}}',
  p_contact => '{"name": "Aisyah"}');
select pg_temp.uncertain();
select is_empty($$select pg_temp.asked()$$, 'one that just began may still be on its way');
select stage.wait('10 minutes');
select results_eq($$select u.enrollment_id, u.token, u.step, u.channel, u.sender, u.sender_config, u.body, u.idempotency_key
                      from pg_temp.asked() as u$$,
  $$select d.enrollment_id, d.token, 1, 'webhook', (stage.sender()).name,
           '{"url": "https://x", "secret": "HOOK"}'::jsonb, 'Hi Aisyah', d.enrollment_id || ':1'
      from stage.live() as d$$, 'after that it is listed as it was sent');
select is(u.begun_at, pgdrip.clock() - interval '10 minutes', 'with the time when it began') from pg_temp.asked() as u;
select is_empty($$select pg_temp.asked(p_channels => '{log,gowa}')$$, 'but not for other channels');
select is_empty($$select pgdrip.uncertain_sends('{webhook}', '0', (stage.live()).token, 10)$$, 'nor again on the next page');
update pgdrip.contacts set name = 'Aminah' where contact_id = (select contact_id from stage.this_case);
select is(u.body, null, 'a text that would be another one now is not told') from pg_temp.asked() as u;

select is(stage.tell('sent', null, 'wamid-9'), 'late', 'a report that it was sent settles it');
select is_empty($$select pg_temp.asked()$$, 'and it is asked about no more');
select stage.wait('12 hours');
select pg_temp.uncertain();
select is(u.known_ids, '{wamid-9}', 'the other messages to the contact are known by their ids') from pg_temp.asked('0') as u;

-- Senders to probe

select stage.new_case(p_sender => '{"secret": "HOOK", "config": {"url": "https://y"}}');
select results_eq($$select s.sender, s.channel, s.config, s.health
    from pgdrip.senders_to_probe('{webhook}', '', 1000) as s where s.sender = (stage.sender()).name$$,
  $$select (stage.sender()).name, 'webhook', '{"url": "https://y", "secret": "HOOK"}'::jsonb, 'healthy'$$,
  'a sender is listed with what the channel needs');
select is_empty($$select pgdrip.senders_to_probe('{webhook}', (stage.sender()).name, 1000)$$, 'the next page begins after it');
select is_empty($$select pgdrip.senders_to_probe('{gowa}', '', 1000)$$, 'other channels have others');

-- What a probe does

select is(pg_temp.probed(true), 'unchanged', 'a healthy sender stays so');
select is(pg_temp.probed(false, 'not logged in'), 'parked', 'one that cannot send is parked');
select ok(s.health = 'down' and s.faults = 1 and (stage.pace()).ready_at = pgdrip.clock() + interval '1 minute'
          and s.last_error = 'probe: not logged in', 'like after a fault of its own') from stage.sender() as s;
select is_empty($$select pgdrip.claim('runner-1')$$, 'its work waits');
select is((stage.live()).attempt, 0, 'and loses no attempt');
select is(pg_temp.probed(false), 'unchanged', 'still down is no news');
select is((stage.pace()).ready_at, pgdrip.clock() + interval '2 minutes', 'but lets it rest longer');
select is(pg_temp.probed(true), 'resumed', 'one that can send again is resumed');
select ok(s.health = 'healthy' and s.faults = 0, 'all is forgotten') from stage.sender() as s;
select isnt_empty($$select pgdrip.claim('runner-1')$$, 'and its work goes on at once');

select stage.new_case();
select pgdrip.pause_sender((stage.sender()).name, 'holiday');
select is(pg_temp.probed(x), 'unchanged', format('a paused sender is left alone: %s', x)) from unnest(array[true, false]) as x;
select is((stage.sender()).status, 'paused', 'it stays paused');
select is_empty($$select s from pgdrip.senders_to_probe('{webhook}', '', 1000) as s where s.sender = (stage.sender()).name$$,
  'and nobody is asked about it');

select stage.new_case();
select stage.take(); select stage.start();
select is(stage.tell('failed', 'blocked'), 'deferred', 'a sender was blocked');
select is(pg_temp.probed(x), 'unchanged', format('no probe touches it: %s', x)) from unnest(array[true, false]) as x;
select is((stage.sender()).health, 'blocked', 'it stays blocked');
select is_empty($$select s from pgdrip.senders_to_probe('{webhook}', '', 1000) as s where s.sender = (stage.sender()).name$$,
  'and nobody is asked about it either');

-- The codes of gateways

select is_empty($$select * from pgdrip.error_rules where pgdrip.is_blank(source)$$, 'every rule has a source');
select is(pgdrip.error_class(c, code), class, format('%s %s is %s', c, code, class))
  from (values ('gowa', 'INVALID_JID', 'transient'), ('gowa', 'INVALID_JID_AGAIN', 'contact'),
    ('gowa', 'WA_REACHOUT_TIMELOCK', 'blocked'), ('gowa', 'AUTHENTICATION_ERROR', 'sender'),
    ('gowa', 'http_401', 'sender'), ('gowa', 'INTERNAL_SERVER_ERROR', null), ('gowa', 'http_500', null),
    ('whatsapp_cloud', '131047', 'content'), ('whatsapp_cloud', '130429', 'transient'),
    ('whatsapp_cloud', '131026', 'transient'), ('whatsapp_cloud', '131026_again', 'contact'),
    ('whatsapp_cloud', '131048', 'blocked'), ('whatsapp_cloud', '200', 'sender'), ('whatsapp_cloud', '299', 'sender'),
    ('whatsapp_cloud', '300', null), ('twilio', '21610', 'contact'), ('twilio', '20003', 'sender'),
    ('twilio', '20429', 'transient'), ('twilio', '30007', 'content'), ('twilio', '20500', null),
    ('twilio', 'http_502', null)) as t(c, code, class);
select stage.new_case();
select stage.take(); select stage.start();
select is(stage.tell('failed', 'SOMETHING_NEW'), 'parked', 'a code without a rule counts as uncertain');
select results_eq($$select f.code, f.is_unclassified from pgdrip.failures as f join stage.this_case using (enrollment_id)$$,
  $$values ('SOMETHING_NEW', true)$$, 'and shows, so that somebody classifies it');

select throws_ok(format('select pgdrip.apply_sequence(%L)', jsonb_build_object('name', 'X', 'trigger', 'X',
    'channel', c, 'steps', jsonb_build_array(jsonb_build_object('day', 1, 'body', 'x') || extra))), 'MD008', null,
    format('%s cannot send %s', c, extra))
  from (values ('gowa', '{"subject": "s"}'::jsonb), ('gowa', '{"html": "h"}'), ('gowa', '{"template": {"name": "t"}}'),
    ('whatsapp_cloud', '{"subject": "s"}'), ('whatsapp_cloud', '{"html": "h"}'),
    ('twilio', '{"html": "h"}'), ('twilio', '{"template": {"name": "t"}}')) as t(c, extra);

select * from finish();
rollback;
