-- What comes in: receipts and replies.
begin;
select no_plan();

create function pg_temp.receipt(p_status text, p_at timestamptz default null) returns boolean language sql as $$
  select pgdrip.record_receipt('webhook', 'wamid-' || number, p_status, p_at) from stage.this_case
$$;
create function pg_temp.send() returns text language sql as $$
  select stage.take(); select stage.start();
  select stage.tell('sent', null, 'wamid-' || number) from stage.this_case
$$;
create function pg_temp.awaiting(p_on_unconfirmed text default 'park') returns text language plpgsql as $$
begin
  perform stage.new_case(p_sender => jsonb_build_object('advance_on', 'delivered',
    'confirm_within', '1 hour', 'on_unconfirmed', p_on_unconfirmed));
  return pg_temp.send();
end $$;
create function pg_temp.receipt_row() returns text language sql as $$
  select receipt from pgdrip.provider_refs join stage.this_case using (enrollment_id)
$$;

-- receipts only move up
select stage.new_case();
select is(pg_temp.send(), 'advanced', 'where acceptance counts, the step advances');
select is(pg_temp.receipt(s), r, format('%s: %s', s, case when r then 'is news' else 'is none' end))
  from (values ('sent', true), ('sent', false), ('delivered', true), ('sent', false), ('failed', false),
               ('read', true), ('read', false), ('delivered', false)) as t(s, r);
select is(pg_temp.receipt_row(), 'read', 'the furthest receipt stays');
select ok((stage.live()).step = 3 and (stage.live()).due_at = pgdrip.clock() + interval '12 hours',
  'receipts do not move a step that did not await them');
select stage.new_case();
select pg_temp.send();
select pg_temp.receipt('delivered', '2025-12-31 23:00+00');
select is(receipt_at, '2025-12-31 23:00+00', 'a receipt has the time the provider tells')
  from pgdrip.provider_refs join stage.this_case using (enrollment_id);

-- a step that awaits its receipt
select is(pg_temp.awaiting(), 'awaiting', 'where delivery counts, the step waits');
select stage.wait('10 minutes');
select is(pg_temp.receipt('sent'), true, 'a receipt that it was sent is news');
select is((stage.live()).awaits, 'receipt', 'but no delivery');
select is(pg_temp.receipt('delivered'), true, 'a delivery');
select ok((stage.live()).step = 3 and (stage.live()).due_at = pgdrip.clock() + interval '12 hours',
  'confirms the step; the next waits from the receipt');
select is_empty('select * from pgdrip.check()', 'and every invariant holds');
select pg_temp.awaiting();
select pg_temp.receipt('failed');
select ok((stage.run()).status = 'failed' and (stage.run()).end_reason = 'not_delivered',
  'a receipt that it failed ends the enrollment');

-- no receipt in time
create function pg_temp.unconfirmed(p_on_unconfirmed text) returns void language plpgsql as $$
begin
  perform pg_temp.awaiting(p_on_unconfirmed);
  perform stage.wait('1 hour');
  perform pgdrip.claim('runner-1');
end $$;
select pg_temp.unconfirmed('advance');
select is((stage.live()).step, 3, 'advance goes on when no receipt came in time');
select pg_temp.unconfirmed('stop');
select ok((stage.run()).status = 'failed' and (stage.run()).end_reason = 'unconfirmed', 'stop ends it');
select pg_temp.unconfirmed('park');
select is((stage.live()).parked_reason, 'unconfirmed', 'park waits for an operator');
select is((select verdict from pgdrip.report(array[j.enrollment_id], array[j.token], '{sent}')), 'awaiting',
  'its report told again is answered as before') from (select (stage.last()).*) as j;
select is((stage.live()).parked_reason, 'unconfirmed', 'and changes nothing');
select is(pg_temp.receipt('delivered'), true, 'a late receipt');
select is((stage.live()).step, 3, 'still confirms it');

-- a receipt that overtakes the report
select stage.new_case(p_sender => '{"advance_on": "delivered"}');
select is(pg_temp.receipt('read'), false, 'a receipt nobody knows yet is kept');
select is(pg_temp.send(), 'awaiting', 'when the report comes');
select ok((stage.live()).step = 3 and pg_temp.receipt_row() = 'read', 'it is matched');
select is(pgdrip.record_receipt('log', 'wamid-' || number, 'read'), false, 'ids of another channel are other ids') from stage.this_case;

-- replies
select stage.new_case();
select is(pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), 'Yes'), 1, 'a reply ends the enrollment') from stage.this_case;
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'replied', 'as replied');
select stage.new_case();
select is(pgdrip.record_reply('log', '+60110000' || lpad(number::text, 4, '0'), 'Yes'), 0, 'a reply on another channel does not') from stage.this_case;
select is(pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), 'Yes',
  pgdrip.clock() - interval '1 second'), 0, 'nor one from before the enrollment') from stage.this_case;
select is(pgdrip.record_reply('webhook', '+60119999999', 'Yes'), 0, 'a stranger ends nothing');
select stage.new_case(p_sequence => '{"stop_on_reply": false}');
select is(pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), 'Yes'), 0,
  'where the sequence does not stop on reply it goes on') from stage.this_case;
select is(pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), 'please stop calling'), 0,
  'an opt-out word inside a sentence is a reply like any other') from stage.this_case;
select is((stage.run()).status, 'active', 'it still goes on');
select pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), ' stop. ') from stage.this_case;
select is((stage.run()).end_reason, 'suppressed', 'an opt-out word as the whole message ends it all the same');
create function pg_temp.opts_out(p_text text) returns boolean language plpgsql as $$
begin
  perform stage.new_case();
  perform pgdrip.record_reply('webhook', '+60110000' || lpad(number::text, 4, '0'), p_text) from stage.this_case;
  return exists (select from pgdrip.suppressions, stage.this_case
                  where address = '+60110000' || lpad(number::text, 4, '0'));
end $$;
select ok(pg_temp.opts_out(w), format('%s opts out', w))
  from unnest(array['STOP', 'Unsubscribe', 'BERHENTI', 'berhenti!', 'opt out']) as w;
select ok(not pg_temp.opts_out(w), format('%s does not', quote_literal(w))) from unnest(array['', 'stopping', 'no']) as w;

select throws_ok(format('select pgdrip.%s(%s)', f, a), s, null, format('%s(%s) is refused', f, left(a, 40)))
  from (values ('record_receipt', $$null, 'x', 'sent'$$, '22004'), ('record_receipt', $$'log', null, 'sent'$$, '22004'),
    ('record_receipt', $$'log', 'x', null$$, '22004'), ('record_receipt', $$'log', 'x', 'opened'$$, '22023'),
    ('record_receipt', $$'log', ' ', 'sent'$$, '22023'), ('record_receipt', $$'log', repeat('x', 513), 'sent'$$, '22023'),
    ('record_receipt', $$'log', 'x', 'sent', 'infinity'$$, '22023'),
    ('record_reply', $$null, '+60123456789', 'x'$$, '22004'), ('record_reply', $$'log', null, 'x'$$, '22004'),
    ('record_reply', $$'log', '+60123456789', null$$, '22004'), ('record_reply', $$'log', '12', 'x'$$, '22023'),
    ('record_reply', $$'log', '+60123456789', 'x', '-infinity'$$, '22023')) as t(f, a, s);
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');
select * from finish();
rollback;
