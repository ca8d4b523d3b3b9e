-- Claiming in one session: what is handed out, what triage makes of the rest, and limits.
begin;
select no_plan();

-- what a message holds
select stage.new_case('{"subject": "For {{name|you}}", "body": "Hi {{name|there}}, {{city}}",
  "media": {"type": "image", "url": "https://example.com/{{city}}.png"}}',
  '{"secret": "HOOK_SECRET", "config": {"url": "https://example.com"}}',
  p_contact => '{"name": "Lim", "attributes": {"city": "Ipoh"}}');
create temp table m as select * from pgdrip.claim('runner-1', 10, '1 minute');
select is((select count(*) from m), 1::bigint, 'what is due is handed out');
select ok(m.enrollment_id = t.enrollment_id and sequence = 'WARM-1' and step = 1 and attempt = 1
  and channel = 'webhook' and sender = 'device-1', 'a message says what it is') from m, stage.this_case as t;
select ok(recipient = '+601100000001' and subject = 'For Lim' and body = 'Hi Lim, Ipoh'
  and content = '{"media": {"type": "image", "url": "https://example.com/Ipoh.png"}}', 'to whom it goes, rendered') from m;
select is(sender_config, '{"url": "https://example.com", "secret": "HOOK_SECRET"}',
  'with the name of the secret, never the secret') from m;
select is(idempotency_key, enrollment_id || ':1', 'its key names enrollment and step') from m;
select ok(due_at = pgdrip.clock() and lease_until = pgdrip.clock() + interval '1 minute'
  and send_by = pgdrip.clock() + interval '10 seconds', 'it must begin within 10 s of the claim') from m;
select is((stage.live()).content_hash, pgdrip.content_hash(subject, body, content),
  'the hash of what was rendered is kept') from m;
select is(m.token >> 40, epoch, 'the token carries the epoch') from m, pgdrip.control;
select is_empty($$select pgdrip.claim('runner-2')$$, 'what is leased is not handed out again');
select stage.wait('1 minute');
create temp table again as select * from pgdrip.claim('runner-2', 10, '5 seconds');
select ok(a.token > m.token and a.idempotency_key = m.idempotency_key and a.attempt = 1,
  'a lease that ran out before the send is claimable again, no attempt burned') from again as a, m;
select is(a.send_by, a.lease_until, 'a short lease bounds the begin') from again as a;
select ok((stage.last()).event = 'abandoned' and (stage.last()).token = m.token
  and (stage.last()).code = 'lease_expired', 'the journal keeps the token that ran out') from m;
select stage.new_case('{"delay": "1 second"}');
select is_empty($$select pgdrip.claim('runner-1')$$, 'nothing is handed out before it is due');
select is_empty($$select pgdrip.claim('runner-1', p_channels => '{log,smtp}')$$, 'nor of other channels');
select stage.wait('1 second');
select is_empty($$select pgdrip.claim('runner-1', p_channels => '{log,smtp}')$$, 'even when it is due');
select is((select count(*) from pgdrip.claim('runner-1', p_channels => '{webhook}')), 1::bigint,
  'a runner gets the channels it asks for');

-- never begun
select stage.new_case();
create function pg_temp.abandon(p_times integer) returns void language plpgsql as $$
begin
  for i in 1 .. p_times loop
    perform pgdrip.claim('runner-1', 1, '10 seconds');
    perform stage.wait('10 seconds');
  end loop;
end $$;
select pg_temp.abandon(19);
select is((select count(*) from pgdrip.claim('runner-1', 1, '10 seconds')), 1::bigint, 'nineteen runners may lose a message');
select stage.wait('10 seconds');
select is_empty($$select pgdrip.claim('runner-1')$$, 'the twentieth is the last');
select is((stage.live()).parked_reason, 'never_begun', 'the message is parked then');
select is((select count(*) from pgdrip.deliveries join stage.this_case using (enrollment_id) where event = 'abandoned'),
  20::bigint, 'each of them is in the journal');

-- begun and lapsed
select stage.new_case();
select stage.take(), stage.start();
create temp table lost as select (stage.live()).token;
select stage.wait('2 minutes');
select is_empty($$select pgdrip.claim('runner-1')$$, 'UNCERTAIN_NOT_RESENT: a begun send whose lease ran out is not sent again');
select ok((stage.live()).parked_reason = 'uncertain' and (stage.live()).token = token
  and (stage.last()).event = 'uncertain', 'it is uncertain') from lost;
select stage.new_case('{"on_uncertain": "retry", "max_attempts": 2}');
select stage.take(), stage.start(), stage.wait('2 minutes');
select is_empty($$select pgdrip.claim('runner-1')$$, 'under retry the first claim after it finds it uncertain');
select is((select attempt from pgdrip.claim('runner-1')), 2, 'and the next tries it again');
select stage.start(), stage.wait('2 minutes');
select pgdrip.claim('runner-1');
select is((stage.live()).parked_reason, 'uncertain', 'while attempts last');

-- suppressed, window, expiry, rendering
select stage.new_case();
insert into pgdrip.suppressions (address, reason) select '+60110000' || lpad(number::text, 4, '0'), 'x' from stage.this_case;
select is_empty($$select pgdrip.claim('runner-1')$$, 'a suppressed address gets nothing');
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'suppressed', 'its enrollment is exited');

select pgdrip.set_clock('2026-02-01 20:59+00');
select stage.new_case(p_sequence => '{"window": {"from": "09:00", "to": "21:00", "zone": "UTC"}}');
select stage.wait('1 minute');
select is_empty($$select pgdrip.claim('runner-1')$$, 'IN_WINDOW: nothing is handed out when the window is closed');
select ok((stage.live()).due_at >= '2026-02-02 09:00+00' and (stage.live()).due_at < '2026-02-02 10:00+00',
  'OVERDUE_SENT_OR_EXPIRED: it becomes due in the first hour of the next window');
select pgdrip.set_clock('2026-02-02 10:00+00');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'and goes out then');
select pgdrip.set_clock('2026-02-02 00:59+00');
select stage.new_case(p_sequence => '{"window": {"from": "09:00", "to": "21:00"}}',
  p_contact => '{"timezone": "Asia/Kuala_Lumpur"}');
select is((stage.live()).due_at, '2026-02-02 01:00+00', 'a window without a zone is in the contact''s zone');

create function pg_temp.expire(p_on_expire text) returns integer language plpgsql as $$
begin
  perform stage.new_case(jsonb_build_object('expire_after', '2 days', 'on_expire', p_on_expire));
  perform stage.wait('2 days 1 second');
  return (select count(*) from pgdrip.claim('runner-1'));
end $$;
select is(pg_temp.expire('send_late'), 1, 'send_late sends what is too old');
select is(pg_temp.expire('skip'), 0, 'skip does not');
select ok((stage.live()).step = 3 and (stage.live()).due_at = pgdrip.clock() + interval '12 hours'
  and (stage.run()).last_confirmed_step = 0, 'it goes on to the next step');
select ok((stage.last()).event = 'skipped' and (stage.last()).code = 'expired', 'and says so');
select is(pg_temp.expire('stop'), 0, 'stop does not send it either');
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'expired', 'and ends the enrollment');
select stage.new_case('{"expire_after": "2 days", "on_expire": "skip"}');
select stage.wait('2 days');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'to the day it is not too old');

select stage.new_case('{"body": "Hi {{city}}"}');
select is_empty($$select pgdrip.claim('runner-1')$$, 'a message that lacks a value is not sent');
select ok((stage.run()).status = 'failed' and (stage.last()).class = 'content'
  and (stage.last()).code = 'missing_variable', 'it fails as content');
select stage.new_case('{"body": "Hi {{city}}", "on_missing": "skip"}');
select pgdrip.claim('runner-1');
select is((stage.live()).step, 3, 'on_missing skip leaves the step out');
select stage.new_case('{"body": "Hi {{city}}", "on_failure": "park"}');
select pgdrip.claim('runner-1');
select is((stage.live()).parked_reason, 'failed', 'on_failure park keeps it');
select stage.new_case();
update pgdrip.contacts set phone = null, email = 'someone@example.com' where contact_id = (select contact_id from stage.this_case);
select is((select recipient from pgdrip.claim('runner-1')), 'someone@example.com', 'RECIPIENT_VERBATIM: the address of now is used');

-- QUARANTINE_POISON: a message that the gateway blames on its sender, in front of others
select stage.new_case(p_sender => '{"rate_per_hour": 1000}');
select pgdrip.enroll('WARM-' || number, pgdrip.upsert_contact('+6011766000' || n, p_pool => 'pool-' || number))
  from stage.this_case, generate_series(1, 9) as n;
create function pg_temp.probe() returns bigint language plpgsql as $$
declare m pgdrip.claimed_message; v_probes integer := 0;
begin
  update pgdrip.senders set health = 'down', down_at = pgdrip.clock(), faults = 1 where sender_id = (stage.sender()).sender_id;
  loop
    perform pgdrip.set_clock(pgdrip.clock() + interval '2 hours');
    select * into m from pgdrip.claim('runner-1');
    v_probes := v_probes + 1;
    perform pgdrip.begin_send(array[m.enrollment_id], array[m.token]);
    if m.enrollment_id = (stage.live()).enrollment_id then
      perform pgdrip.report(array[m.enrollment_id], array[m.token], array['failed'], p_codes => array['sender']);
    else
      perform pgdrip.report(array[m.enrollment_id], array[m.token], array['sent']);
    end if;
    exit when (stage.sender()).health = 'healthy' or v_probes = 60;
  end loop;
  return v_probes;
end $$;
select cmp_ok(pg_temp.probe(), '<', 60::bigint, 'does not keep it down: probes are not always the oldest');

-- QUARANTINE_POISON: one bad row among good ones
select stage.new_case('{"body": "Hi {{city}}"}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011777000' || n, p_pool => 'pool-' || number,
  p_attributes => '{"city": "Ipoh"}'), 'WARM-' || number) from stage.this_case, generate_series(1, 9) as n;
select is((select count(*) from pgdrip.claim('runner-1')), 9::bigint, 'one row that cannot be rendered holds up no other');

-- limits
select stage.new_case(p_sender => '{"rate_per_hour": 80}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011888' || lpad(n::text, 4, '0'), p_pool => 'pool-' || number),
  'WARM-' || number) from stage.this_case, generate_series(1, 199) as n;
create function pg_temp.claims(p_times integer, p_step interval) returns integer language plpgsql as $$
declare
  v_sum integer := 0;
begin
  for i in 1 .. p_times loop
    v_sum := v_sum + (select count(*) from pgdrip.claim('runner-1'));
    perform stage.wait(p_step);
  end loop;
  return v_sum;
end $$;
select is(pg_temp.claims(3, '0'), 1, 'without a burst one message goes at a time');
create function pg_temp.claims_within(p_span interval) returns integer language plpgsql as $$
declare
  v_end timestamptz := pgdrip.clock() + p_span;
  v_sum integer := 0;
begin
  while pgdrip.set_clock(greatest(pgdrip.clock(), pgdrip.next_wake())) < v_end loop
    v_sum := v_sum + (select count(*) from pgdrip.claim('runner-1', 1, '1 hour'));
  end loop;
  perform pgdrip.set_clock(v_end);
  return v_sum;
end $$;
select is(1 + pg_temp.claims_within('1 hour'), 80, 'RATE_AT_CLAIM: eighty in the hour, asked whenever it is ready');
select is(pg_temp.claims_within('1 hour'), 80, 'and eighty in the next');
select stage.new_case(p_sender => '{"rate_per_hour": 80, "burst": 10}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011999' || lpad(n::text, 4, '0'), p_pool => 'pool-' || number),
  'WARM-' || number) from stage.this_case, generate_series(1, 199) as n;
select is(pg_temp.claims(1, '0'), 10, 'a burst goes at once');
select cmp_ok(10 + pg_temp.claims(361, '10 seconds'), '<=', 80, 'and is part of the hour');
select stage.new_case(p_sender => '{"rate_per_day": 5}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011666' || lpad(n::text, 4, '0'), p_pool => 'pool-' || number),
  'WARM-' || number) from stage.this_case, generate_series(1, 19) as n;
select is(pg_temp.claims(1, '1 minute'), 5, 'a daily rate alone does not pace the hour');
select is(pg_temp.claims(24, '59 minutes'), 0, 'but holds for 24 hours');
select is(pg_temp.claims(3, '1 hour'), 5, 'then the next go out');
select stage.new_case(p_sender => '{"gap_min": "5 seconds", "gap_max": "15 seconds"}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011555' || lpad(n::text, 4, '0'), p_pool => 'pool-' || number),
  'WARM-' || number) from stage.this_case, generate_series(1, 99) as n;
select is(pg_temp.claims(1, '0'), 1, 'with a gap one message goes at a time');
select cmp_ok(pg_temp.claims(60, '1 second'), '>=', 4, 'the gap is at most its longest');
select cmp_ok((select count(*) from pgdrip.due where token is not null), '<=', 13::bigint, 'and at least its shortest');
select stage.new_case(p_sender => '{"hours": {"from": "09:00", "to": "10:00", "zone": "UTC"}}');
select pgdrip.set_clock('2026-06-01 10:00+00');
select is_empty($$select pgdrip.claim('runner-1')$$, 'a sender is idle outside its hours');
select is(pgdrip.next_wake(), '2026-06-02 09:00+00', 'and ready when they begin');
select pgdrip.set_clock('2026-06-02 09:00+00');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'then it works');
select stage.new_case(p_sender => '{"ramp": {"1": 2, "3": 4}}');
select pgdrip.add_trigger(pgdrip.upsert_contact('+6011444' || lpad(n::text, 4, '0'), p_pool => 'pool-' || number),
  'WARM-' || number) from stage.this_case, generate_series(1, 19) as n;
select is(pg_temp.claims(60, '1 minute'), 2, 'a new sender starts slowly');
select stage.wait('2 days');
select is(pg_temp.claims(60, '1 minute'), 4, 'and ramps up with its age');

-- paused and blocked senders
select stage.new_case();
select pgdrip.pause_sender('device-' || number, 'being charged') from stage.this_case;
select is_empty($$select pgdrip.claim('runner-1')$$, 'a paused sender sends nothing');
select is((stage.live()).parked_reason, null, 'its work stays due');
select pgdrip.resume_sender('device-' || number) from stage.this_case;
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'resumed it does');

-- whose turn it is
select stage.new_case();
select setseed(0.5);
select pgdrip.apply_sender(jsonb_build_object('name', 'busy-' || n, 'pool', 'busy', 'channel', 'webhook', 'rate_per_day', 900))
  from generate_series(1, 8) as n;
select pgdrip.apply_sequence('{"name": "busy", "trigger": "busy", "pool": "busy", "channel": "webhook", "status": "active",
  "steps": [{"day": 1, "body": "x"}]}');
select pgdrip.enroll('busy', pgdrip.upsert_contact('+6011555' || lpad(n::text, 4, '0'), p_pool => 'busy'))
  from generate_series(1, 64) as n;
create function pg_temp.senders(p_claims integer) returns setof text language sql as $$
  select c.sender from generate_series(1, p_claims) as n, lateral pgdrip.claim('runner-' || n, 4) as c
$$;
select isnt_empty($$select from pg_temp.senders(12) as s, stage.this_case where s = 'device-' || number$$,
  'senders with limits and a backlog take turns with one that has none');

-- malformed calls
select throws_ok(format('select pgdrip.claim(%s)', a), s, null, format('claim(%s) is refused', left(a, 30)))
  from (values ('null', '22004'), ($$''$$, '22023'), ($$repeat('x', 1000)$$, '22023'),
    ($$E'a\tb'$$, '22023'), ($$'r', null$$, '22004'), ($$'r', 0$$, '22023'), ($$'r', -1$$, '22023'),
    ($$'r', 1001$$, '22023'), ($$'r', 2147483648$$, '42883'), ($$'r', 1, null$$, '22004'),
    ($$'r', 1, '0'$$, '22023'), ($$'r', 1, '-1 s'$$, '22023'), ($$'r', 1, '61 minutes'$$, '22023'),
    ($$'r', 1, '1 month'$$, '22023'), ($$'r', 1, 'soon'$$, '22007'), ($$'r', 1, '1 s', '{null}'$$, '22004'),
    ($$'r', 1, '1 s', '{""}'$$, '22023')) as t(a, s);
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
