-- The verdict table of report(): each outcome against a token that is on the row, that was
-- superseded, and whose step is live no longer. Each case is a pool of its own.
begin;
select no_plan();

create temp table this_case (enrollment_id bigint, contact_id bigint, sender text, sequence text);
create temp sequence cases;

create function pg_temp.new_case(p_step jsonb default '{}', p_sender jsonb default '{}')
  returns void language plpgsql as $$
declare
  v_n text := nextval('cases');
  v_contact bigint;
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from this_case;
  perform pgdrip.apply_sender(jsonb_build_object('name', 'device-' || v_n, 'pool', 'pool-' || v_n,
    'channel', 'webhook') || p_sender);
  perform pgdrip.apply_sequence(jsonb_build_object('name', 'WARM-' || v_n, 'trigger', 'WARM-' || v_n,
    'channel', 'webhook', 'pool', 'pool-' || v_n, 'status', 'active', 'steps', jsonb_build_array(
      jsonb_build_object('day', 1, 'body', 'One') || p_step,
      jsonb_build_object('day', 3, 'body', 'Three', 'delay', '12 hours'))));
  v_contact := pgdrip.upsert_contact('+60110000' || lpad(v_n, 4, '0'), p_pool => 'pool-' || v_n);
  insert into this_case select pgdrip.add_trigger(v_contact, 'WARM-' || v_n), v_contact,
    'device-' || v_n, 'WARM-' || v_n;
end $$;

create function pg_temp.take(p_begin boolean default true) returns bigint language plpgsql as $$
declare
  v_token bigint := (select token from pgdrip.claim('runner-1', 1));
begin
  if p_begin then
    perform pgdrip.begin_send(array[(select enrollment_id from this_case)], array[v_token]);
  end if;
  return v_token;
end $$;

create function pg_temp.tell(p_token bigint, p_outcome text, p_code text default null,
                             p_detail text default null, p_provider_id text default null)
  returns text language sql as $$
  select r.verdict from pgdrip.report(array[(select enrollment_id from this_case)], array[p_token],
    array[p_outcome], array[p_provider_id], array[p_code], array[p_detail]) as r
$$;

create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;

create function pg_temp.live() returns pgdrip.due language sql as $$
  select d from pgdrip.due as d join this_case using (enrollment_id)
$$;

create function pg_temp.run() returns pgdrip.enrollments language sql as $$
  select e from pgdrip.enrollments as e join this_case using (enrollment_id)
$$;

-- The story of a begun token whose lease ran out and whose step is claimed anew.
create function pg_temp.supersede(p_begin_again boolean) returns bigint[] language plpgsql as $$
declare
  v_first bigint := pg_temp.take();
begin
  perform pg_temp.wait('3 minutes');
  perform pgdrip.claim('runner-2', 1);
  return array[v_first, coalesce((pg_temp.live()).token, pg_temp.take(false))]
         || case when p_begin_again then array(select pgdrip.begin_send(
              array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token])) end;
end $$;

create temp table got (token bigint, later bigint);
create function pg_temp.got(p_tokens bigint[]) returns void language sql as $$
  delete from got; insert into got values (p_tokens[1], p_tokens[2])
$$;

-- sent, token on the row
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.wait('20 seconds');
select is(pg_temp.tell(token, 'sent', p_provider_id => 'wamid-1'), 'advanced',
  'a confirmed step that has a successor advances') from got;
select is((pg_temp.live()).step, 3, 'the same row is now the next step');
select is((pg_temp.live()).due_at, pgdrip.clock() + interval '12 hours',
  'the next step waits its delay from the actual completion');
select is((pg_temp.run()).last_confirmed_step, 1, 'the enrollment remembers the confirmed step');
select ok((pg_temp.live()).token is null and (pg_temp.live()).begun_at is null
  and (pg_temp.live()).attempt = 0, 'the next step starts without token, begin or attempt');
select is(pg_temp.tell(token, 'sent'), 'advanced', 'the same token and outcome again has the same verdict')
  from got;
select is((select r.next_due_at from pgdrip.report(array[enrollment_id], array[token], '{sent}') as r),
  pgdrip.clock() + interval '12 hours', 'and the same next due time') from got, this_case;
select is((pg_temp.live()).step, 3, 'a repeated report does not advance twice');
select is((select count(*) from pgdrip.deliveries join this_case using (enrollment_id)), 1::bigint,
  'a repeated report is not journalled twice');
select is(pg_temp.tell(token, 'failed', 'permanent'), 'contradiction',
  'another outcome of a told token is a contradiction') from got;
select is(pg_temp.tell(token, 'uncertain'), 'contradiction', 'uncertain after sent is a contradiction')
  from got;
select is((pg_temp.run()).status, 'active', 'a contradiction changes nothing');
select ok(content_hash = sha256('One') and provider_id = 'wamid-1' and begun_at is not null,
  'the journal keeps the hash of the text, the provider id and when the send began')
  from pgdrip.deliveries join this_case using (enrollment_id);
select pg_temp.wait('12 hours');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'sent'), 'completed', 'the last confirmed step completes the enrollment')
  from got;
select is((pg_temp.run()).status, 'completed', 'the enrollment is completed');
select ok(pg_temp.live() is null, 'a completed enrollment has no live step');
select is_empty('select 1 from pgdrip.contact_triggers join this_case using (contact_id)',
  'completion removes the trigger that was used');
select is(pg_temp.tell(token, 'sent'), 'completed', 'completed is told again to who asks again') from got;

select pg_temp.new_case(p_sender => '{"advance_on": "delivered", "confirm_within": "2 hours"}');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'sent', p_provider_id => 'wamid-2'), 'awaiting',
  'where only delivery counts, sent awaits the receipt') from got;
select ok((pg_temp.live()).awaits = 'receipt' and (pg_temp.live()).step = 1
  and (pg_temp.live()).due_at = pgdrip.clock() + interval '2 hours',
  'the step stays live with the deadline of its confirmation');
select is(pg_temp.tell(token, 'sent'), 'awaiting', 'awaiting is told again to who asks again') from got;
select is(pg_temp.tell(token, 'failed', 'permanent'), 'contradiction',
  'failed after an awaiting sent is a contradiction') from got;
select is((pg_temp.run()).last_confirmed_step, 0, 'awaiting confirms nothing');

select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.wait('3 minutes');
select is(pg_temp.tell(token, 'sent'), 'late', 'sent after the lease ran out, not claimed again, is late')
  from got;
select ok((pg_temp.live()).step = 3, 'a late sent advances all the same');

select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'uncertain', null, 'connection reset'), 'parked',
  'an uncertain outcome parks the step') from got;
select ok((pg_temp.live()).parked_reason = 'uncertain' and (pg_temp.live()).token = token,
  'the parked step keeps its token') from got;
select is(pg_temp.tell(token, 'uncertain'), 'parked', 'uncertain again is parked again') from got;
select is((select count(*) from pgdrip.claim('runner-1', 10)), 0::bigint,
  'an uncertain step is not claimed again');
select is(pg_temp.tell(token, 'sent'), 'late', 'sent after uncertain resolves it') from got;
select is((pg_temp.live()).step, 3, 'and the enrollment goes on');

select pg_temp.new_case(p_sender => '{"advance_on": "delivered"}');
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.wait('3 minutes');
select is(pg_temp.tell(token, 'sent'), 'late', 'a late sent is told as late where a receipt is awaited') from got;
select is((pg_temp.live()).awaits, 'receipt', 'and it awaits the receipt');

-- a simple client skips begin_send
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take(false)]);
select is(pg_temp.tell(token, 'sent'), 'advanced', 'a client that skips begin_send may report sent') from got;
select is(attempt, 1, 'its attempt counts') from pgdrip.deliveries join this_case using (enrollment_id);

-- failed transient, token on the row
select pg_temp.new_case('{"max_attempts": 2, "backoff": "1 minute"}');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'failed', 'http_503', 'no answer'), 'retry',
  'a transient failure is tried again') from got;
select ok((pg_temp.live()).due_at between pgdrip.clock() + interval '45 seconds'
  and pgdrip.clock() + interval '75 seconds', 'after its backoff, jittered by a quarter');
select ok(class = 'transient' and code = 'http_503' and detail = 'no answer',
  'the journal keeps code, class and detail') from pgdrip.deliveries join this_case using (enrollment_id);
select is(pg_temp.tell(token, 'failed', 'http_503'), 'retry', 'a failure told twice is one failure') from got;
select is(pg_temp.tell(token, 'sent'), 'contradiction', 'sent after failed is a contradiction') from got;
select is((pg_temp.live()).attempt, 1, 'one attempt is used up');
select pg_temp.wait('75 seconds');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'failed', 'http_503'), 'failed',
  'with its attempts used up a transient failure counts as permanent') from got;
select ok((pg_temp.run()).status = 'failed' and (pg_temp.run()).end_reason = 'http_503',
  'the enrollment fails and says why');
select ok(pg_temp.live() is null, 'a failed enrollment has no live step');

select pg_temp.new_case('{"backoff": "50 minutes", "max_attempts": 9}');
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'failed', 'transient') from got;
select pg_temp.wait('75 minutes');
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'failed', 'transient') from got;
select ok((pg_temp.live()).due_at between pgdrip.clock() + interval '45 minutes'
  and pgdrip.clock() + interval '75 minutes', 'the backoff doubles up to one hour');

-- failed permanent, contact, content, token on the row
create function pg_temp.fail(p_class text, p_on_failure text) returns text language plpgsql as $$
begin
  perform pg_temp.new_case(jsonb_build_object('on_failure', p_on_failure));
  return pg_temp.tell(pg_temp.take(), 'failed', p_class, 'because');
end $$;
select is(pg_temp.fail(c, 'stop'), 'failed', format('a %s failure fails under stop', c))
  from unnest(array['permanent', 'contact', 'content']) as c;
select is((pg_temp.run()).status, 'failed', 'stop ends the enrollment');
select is(pg_temp.fail(c, 'skip'), 'skipped', format('a %s failure is skipped under skip', c))
  from unnest(array['permanent', 'contact', 'content']) as c;
select ok((pg_temp.live()).step = 3 and (pg_temp.run()).last_confirmed_step = 0,
  'skip goes on to the next step and confirms nothing');
select is(pg_temp.fail(c, 'park'), 'parked', format('a %s failure is parked under park', c))
  from unnest(array['permanent', 'contact', 'content']) as c;
select ok((pg_temp.live()).parked_reason = 'failed' and (pg_temp.run()).status = 'active',
  'park keeps the enrollment for an operator');

-- failed sender, blocked, token on the row
select pg_temp.new_case('{"max_attempts": 1}');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'failed', 'http_401', 'logged out'), 'deferred',
  'a fault of the sender defers the message') from got;
select ok((pg_temp.live()).attempt = 0 and (pg_temp.live()).due_at <= pgdrip.clock()
  and (pg_temp.live()).parked_reason is null and (pg_temp.live()).token is null,
  'it burns no attempt and the message stays due');
select ok(s.health = 'down' and s.faults = 1 and p.ready_at > pgdrip.clock()
  and s.last_error = 'http_401: logged out', 'the sender rests')
  from pgdrip.senders as s join pgdrip.paces as p using (sender_id) join this_case on s.name = sender;
select is((select count(*) from pgdrip.claim('runner-1', 10)), 0::bigint,
  'nothing is handed out for a resting sender');
select pg_temp.wait('1 minute');
select pg_temp.got(array[pg_temp.take()]);
select isnt(token, null, 'after its rest one message probes it') from got;
select is(pg_temp.tell(token, 'sent'), 'advanced', 'a probe that comes through is a send like any other')
  from got;
select ok(s.health = 'healthy' and s.faults = 0, 'and takes the sender back into service')
  from pgdrip.senders as s join this_case on s.name = sender;

select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'failed', 'blocked', 'account banned'), 'deferred',
  'a block of the sender defers the message') from got;
select is(s.health, 'blocked', 'a blocked sender is out of service')
  from pgdrip.senders as s join this_case on s.name = sender;
select pg_temp.wait('30 days');
select is((select count(*) from pgdrip.claim('runner-1', 10)), 0::bigint,
  'until an operator resumes it');

-- uncertain and unclassified, token on the row
select pg_temp.new_case('{"on_uncertain": "retry", "max_attempts": 2}');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'uncertain'), 'retry', 'under retry an uncertain outcome is tried again') from got;
select pg_temp.wait('75 seconds');
select pg_temp.got(array[pg_temp.take()]);
select is(pg_temp.tell(token, 'uncertain'), 'parked', 'while attempts last; then it is parked') from got;
select pg_temp.new_case();
select is(pg_temp.tell(pg_temp.take(), 'failed', 'http_599', 'odd'), 'parked',
  'a failure with an unclassified code counts as uncertain');
select ok(event = 'uncertain' and code = 'http_599' and detail = 'odd', 'and keeps its code and detail')
  from pgdrip.deliveries join this_case using (enrollment_id);
select pg_temp.new_case();
select is(pg_temp.tell(pg_temp.take(), 'failed'), 'parked', 'a failure without a code counts as uncertain');
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'uncertain') from got;
select is(pg_temp.tell(token, 'failed', 'permanent'), 'failed',
  'failed after uncertain resolves it') from got;
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'uncertain') from got;
select is(pg_temp.tell(token, 'failed', 'transient'), 'retry',
  'a transient failure told after uncertain is tried again') from got;
select ok((pg_temp.live()).parked_reason is null, 'and the step is due once more');

-- token superseded, later claim not begun
create function pg_temp.superseded(p_begin_again boolean) returns void language plpgsql as $$
begin
  perform pg_temp.new_case('{"on_uncertain": "retry"}');
  perform pg_temp.got(pg_temp.supersede(p_begin_again));
end $$;
select pg_temp.superseded(false);
select ok(later <> token, 'a begun and lapsed step is claimed again under retry with a new token') from got;
select is(pg_temp.tell(token, 'sent'), 'late',
  'sent of a begun and superseded token, the later one not begun, is late') from got;
select ok((pg_temp.live()).step = 3, 'it advances');
select is_empty(format('select pgdrip.begin_send(array[%s], array[%s])', enrollment_id, later),
  'the later token is void') from got, this_case;
select is(pg_temp.tell(later, 'sent'), 'stale', 'a report of the voided token is stale') from got;
select is((pg_temp.run()).last_confirmed_step, 1, 'and confirms nothing further');
select is(pg_temp.tell(token, 'sent'), 'late', 'late is told again to who asks again') from got;

create function pg_temp.superseded_by(p_code text, p_begin_again boolean) returns text language plpgsql as $$
begin
  perform pg_temp.superseded(p_begin_again);
  return pg_temp.tell((select token from got), case when p_code is null then 'uncertain' else 'failed' end, p_code);
end $$;
select is(pg_temp.superseded_by(c, b), case when c is null then 'retry' else 'stale' end,
    format('a superseded token that reports %s, the later one %s, changes nothing',
           coalesce(c, 'uncertain'), case when b then 'begun' else 'not begun' end))
  from unnest(array['transient', 'permanent', 'contact', 'content', 'sender', 'blocked', null]) as c,
       unnest(array[false, true]) as b;
select is(s.health, 'healthy', 'a stale fault does not touch the sender')
  from pgdrip.senders as s where name = (select sender from this_case);
select ok((pg_temp.live()).token = later and (pg_temp.live()).begun_at is not null,
  'the live token stays as it was') from got;
select pg_temp.superseded(true);
select is(pg_temp.tell(token, 'sent'), 'stale',
  'sent of a superseded token whose successor has begun is stale') from got;
select is((pg_temp.live()).step, 1, 'it does not advance');
select is(pg_temp.tell(later, 'sent'), 'advanced', 'the successor advances') from got;
select is((select count(*) from pgdrip.deliveries join this_case using (enrollment_id)
            where event = 'sent'), 2::bigint, 'both sends are in the journal');
-- never begun, lease expired, claimed again
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take(false)]);
select pg_temp.wait('3 minutes');
update got set later = pg_temp.take(false);
select is(pg_temp.tell(token, 'sent'), 'stale', 'a token that was never begun and is superseded is stale') from got;
select is((pg_temp.live()).token, later, 'and the later token stays valid') from got;

-- step no longer live
create function pg_temp.gone() returns void language plpgsql as $$
begin
  perform pg_temp.superseded(true);
  perform pg_temp.tell((select later from got), 'sent');
end $$;
create function pg_temp.gone_by(p_code text) returns text language plpgsql as $$
begin
  perform pg_temp.gone();
  return pg_temp.tell((select token from got), 'failed', p_code);
end $$;
select pg_temp.gone();
select is(pg_temp.tell(token, 'sent'), 'stale', 'sent of a step that is live no longer is stale') from got;
select ok((pg_temp.live()).step = 3 and (pg_temp.run()).last_confirmed_step = 1, 'the enrollment stays where it is');
select is(pg_temp.gone_by(c), 'stale', format('a %s failure of a step that is live no longer is stale', c))
  from unnest(array['transient', 'permanent', 'contact', 'content', 'sender', 'blocked']) as c;
select ok((pg_temp.live()).step = 3 and (pg_temp.run()).status = 'active', 'and ends nothing');
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select pgdrip.exit_enrollment(enrollment_id, 'asked to stop') from this_case;
select is(pg_temp.tell(token, 'uncertain'), 'parked', 'a begun send that was exited is uncertain') from got;
select is(pg_temp.tell(token, 'sent'), 'stale', 'sent after the exit is stale') from got;
select is((select count(*) from pgdrip.deliveries join this_case using (enrollment_id) where event = 'sent'),
  1::bigint, 'but resolves the uncertain send in the journal');
select is(pg_temp.tell(token, 'failed', 'permanent'), 'contradiction', 'once resolved it is settled') from got;
select is((pg_temp.run()).status, 'exited', 'the enrollment stays exited');

-- tokens nobody issued, other enrollments' tokens, several rows
select pg_temp.new_case();
select is(pg_temp.tell(4711, 'sent'), 'unknown', 'a token never issued is unknown');
select pg_temp.got(array[pg_temp.take()]);
select is((select verdict from pgdrip.report(array[enrollment_id + 1], array[token], '{sent}')), 'unknown',
  'a token with another enrollment is unknown') from got, this_case;
select is((pg_temp.live()).step, 1, 'neither changes anything');
select results_eq(format($$select verdict from pgdrip.report(array[%1$s, 999999, %1$s, %1$s],
    array[%2$s, 1, %2$s, 12], '{sent,sent,sent,failed}')$$, enrollment_id, token),
  $$values ('advanced'), ('unknown'), ('advanced'), ('unknown')$$,
  'verdicts come in the order of the call; one bad row does not fail the batch') from got, this_case;
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select results_eq(format($$select verdict from pgdrip.report(array[%1$s, %1$s], array[%2$s, %2$s],
    '{sent,failed}', null, '{null,permanent}')$$, enrollment_id, token),
  $$values ('advanced'), ('contradiction')$$,
  'of two outcomes of one token in one call the first counts') from got, this_case;
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select results_eq(format($$select verdict from pgdrip.report(array[%1$s, %1$s], array[%2$s, %2$s],
    '{uncertain,sent}')$$, enrollment_id, token),
  $$values ('contradiction'), ('advanced')$$,
  'an outcome that says something counts before an uncertain one of the same call')
  from got, this_case;
select is_empty($$select * from pgdrip.report('{}', '{}', '{}')$$, 'an empty report is answered with nothing');

-- details, whatever they hold
select pg_temp.new_case();
select is(pg_temp.tell(pg_temp.take(), 'failed', 'permanent', repeat(E'\u20ac\u0001', 500000)), 'failed',
  'a detail of 1 MB with control characters is taken');
select ok(octet_length(detail) <= 2048 and detail !~ '[[:cntrl:]]', 'cut to 2 kB and cleaned')
  from pgdrip.deliveries join this_case using (enrollment_id);
select pg_temp.new_case();
select is(pg_temp.tell(pg_temp.take(), 'failed', repeat('x', 1000000)), 'parked', 'a code of 1 MB is taken');
select ok(octet_length(code) <= 200, 'and cut')
  from pgdrip.deliveries join this_case using (enrollment_id);

-- malformed calls
select throws_ok($$select pgdrip.report(null, '{1}', '{sent}')$$, '22004', null, 'NULL enrollments are refused');
select throws_ok($$select pgdrip.report('{1}', null, '{sent}')$$, '22004', null, 'NULL tokens are refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', null)$$, '22004', null, 'NULL outcomes are refused');
select throws_ok($$select pgdrip.report('{1}', '{null}', '{sent}')$$, '22004', null, 'a NULL token is refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{null}')$$, '22004', null, 'a NULL outcome is refused');
select throws_ok($$select pgdrip.report('{1}', '{1,2}', '{sent}')$$, '22023', null,
  'tokens of another length are refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{sent,sent}')$$, '22023', null,
  'outcomes of another length are refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{sent}', '{a,b}')$$, '22023', null,
  'provider ids of another length are refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{sent}', null, '{}')$$, '22023', null,
  'codes of another length are refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{SENT}')$$, '22023', null, 'SENT is no outcome');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{""}')$$, '22023', null, 'an empty outcome is refused');
select throws_ok($$select pgdrip.report('{1}', '{1}', '{{sent}}')$$, '22023', null, 'nested arrays are refused');
select pg_temp.new_case();
select pg_temp.got(array[pg_temp.take()]);
select throws_ok(format($$select pgdrip.report(array[%1$s, %1$s], array[%2$s, %2$s], '{sent,Sent}')$$,
  enrollment_id, token), '22023', null, 'one malformed outcome refuses the call') from got, this_case;
select is((pg_temp.live()).step, 1, 'and nothing of it is applied');
select is(pg_temp.tell(token, 'sent'), 'advanced', 'the same report well formed is') from got;

-- senders: faults in a row, stale successes
select pg_temp.new_case(p_sender => '{}');
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'failed', 'sender') from got;
select pg_temp.wait('1 minute');
select pg_temp.got(array[pg_temp.take()]);
select pg_temp.tell(token, 'failed', 'sender') from got;
select is(p.ready_at, pgdrip.clock() + interval '2 minutes', 'each fault in a row doubles the rest')
  from pgdrip.senders as s join pgdrip.paces as p using (sender_id) join this_case on s.name = sender;
select is((pg_temp.live()).attempt, 0, 'however many faults, no attempt of the message is burned');

-- error rules
select is(pgdrip.error_class('webhook', c), c, format('%s is a code of every channel', c))
  from unnest(array['transient', 'permanent', 'contact', 'content', 'sender', 'blocked']) as c;
select is(pgdrip.error_class('webhook', 'http_200'), null, 'what nobody has classified has no class');
select throws_ok($$insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt)
  values (pgdrip.clock(), 1, 1, 'failed', 1, 1)$$, '23514', null, 'no failure is journalled without a class');

select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
