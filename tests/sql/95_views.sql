-- The views: every current_state, and the numbers beside it.
begin;
select no_plan();

create temp table this_case (enrollment_id bigint, contact_id bigint, number integer);
create temp sequence cases;
create function pg_temp.new_case(p_step jsonb default '{}', p_sender jsonb default '{}')
  returns void language plpgsql as $$
declare
  v_n integer := nextval('cases');
  v_pool text := 'pool-' || v_n;
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from this_case;
  perform pgdrip.apply_sender(jsonb_build_object('name', 'device-' || v_n, 'pool', v_pool,
    'channel', 'webhook') || p_sender);
  perform pgdrip.apply_sequence(jsonb_build_object('name', 'WARM-' || v_n, 'trigger', 'WARM',
    'channel', 'webhook', 'pool', v_pool, 'status', 'active', 'steps', jsonb_build_array(
      jsonb_build_object('day', 1, 'body', 'One') || p_step,
      jsonb_build_object('day', 3, 'body', 'Three', 'delay', '12 hours'))));
  insert into this_case
  select pgdrip.enroll('WARM-' || v_n, c), c, v_n
    from pgdrip.upsert_contact('+60110000' || lpad(v_n::text, 4, '0'), p_pool => v_pool) as c;
end $$;
create function pg_temp.take() returns bigint language plpgsql as $$
declare
  v_token bigint := (select token from pgdrip.claim('runner-1', 1));
begin
  perform pgdrip.begin_send(array[(select enrollment_id from this_case)], array[v_token]);
  return v_token;
end $$;
create function pg_temp.tell(p_outcome text, p_code text default null) returns text language sql as $$
  select r.verdict from pgdrip.report(array[(select enrollment_id from this_case)], array[pg_temp.take()],
    array[p_outcome], array['wamid-' || (select number from this_case)], array[p_code], array['because']) as r
$$;
create function pg_temp.receipt(p_status text) returns boolean language sql as $$
  select pgdrip.record_receipt('webhook', 'wamid-' || number, p_status) from this_case
$$;
-- current_state of both steps
create function pg_temp.states() returns text language sql as $$
  select string_agg(p.current_state, ', ' order by p.step)
    from pgdrip.sequence_progress as p join this_case using (enrollment_id)
$$;
create function pg_temp.statuses() returns text language sql as $$
  select string_agg(p.step_status || ' ' || p.message_status, ', ' order by p.step)
    from pgdrip.sequence_progress as p join this_case using (enrollment_id)
$$;
create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;

select pg_temp.new_case('{"delay": "1 hour"}');
select is(pg_temp.states(), 'Scheduled, Waiting', 'a step that is due later is Scheduled, the one after it Waiting');
select is(pg_temp.statuses(), 'active pending, upcoming none', 'the live step is active, the next upcoming');
select pg_temp.wait('1 hour');
select is(pg_temp.states(), 'Ready to send, Waiting', 'a step that is due is Ready to send');
create temp table held as select * from pgdrip.claim('runner-1');
select is(pg_temp.states(), 'Sending, Waiting', 'a claimed step is Sending');
select is(pg_temp.statuses(), 'active leased, upcoming none', 'though it is only leased');
select pgdrip.begin_send(array[enrollment_id], array[token]) from held;
select is(pg_temp.statuses(), 'active sending, upcoming none', 'until its send begins');
select pgdrip.report(array[enrollment_id], array[token], '{sent}', '{wamid-1}') from held;
select is(pg_temp.states(), 'Sent, Scheduled', 'a reported step is Sent, the next Scheduled');
select is(pg_temp.statuses(), 'completed sent, active pending', 'and completed');
select ok(sent_at = pgdrip.clock() and completed_at = pgdrip.clock() and attempts = 1
  and due_at = sent_at and recipient = '+601100000001', 'with its times, attempts and recipient')
  from pgdrip.sequence_progress join this_case using (enrollment_id, contact_id) where step = 1;
select pg_temp.receipt('delivered');
select is(pg_temp.states(), 'Delivered, Scheduled', 'a receipt makes it Delivered');
select pg_temp.receipt('read');
select is(pg_temp.states(), 'Read, Scheduled', 'then Read');
select pg_temp.receipt('delivered');
select is(pg_temp.states(), 'Read, Scheduled', 'and it stays Read');
select pgdrip.record_reply('webhook', '+601100000001', 'Yes please');
select is(pg_temp.states(), 'Read, Replied', 'a reply makes what was still to come Replied');

select pg_temp.new_case(p_sender => '{"advance_on": "delivered", "confirm_within": "1 hour"}');
select pg_temp.tell('sent');
select is(pg_temp.states(), 'Sent, Waiting', 'a step that awaits its receipt is Sent');
select is(pg_temp.statuses(), 'active sent, upcoming none', 'but not completed');
select pg_temp.wait('1 hour');
select pgdrip.claim('runner-1');
select ok(position('Uncertain' in pg_temp.states()) = 0, 'without a receipt in time it stays Sent');
select pg_temp.receipt('failed');
select is(pg_temp.states(), 'Failed, Skipped', 'a receipt that it failed makes it Failed');
select is(pg_temp.statuses(), 'failed failed, skipped none', 'in every column');

select pg_temp.new_case();
select pg_temp.tell('sent');
select pg_temp.receipt('failed');
select is(pg_temp.states(), 'Failed, Scheduled', 'a send that the provider could not deliver is Failed, the sequence goes on');

select pg_temp.new_case('{"on_failure": "skip"}');
select pg_temp.tell('failed', 'contact');
select is(pg_temp.states(), 'Skipped, Scheduled', 'a step given up under skip is Skipped');
select ok(step_status = 'skipped' and error_class = 'contact' and error_detail = 'because',
  'with the class and detail of its failure')
  from pgdrip.sequence_progress join this_case using (enrollment_id) where step = 1;

select pg_temp.new_case();
select pg_temp.tell('failed', 'content');
select is(pg_temp.states(), 'Failed, Skipped', 'a failed step is Failed, what would have followed Skipped');
select is(pg_temp.statuses(), 'failed failed, skipped none', 'in every column');
select pg_temp.new_case('{"on_failure": "park"}');
select pg_temp.tell('failed', 'content');
select is(pg_temp.states(), 'Failed, Waiting', 'a parked failure is Failed');
select pg_temp.new_case();
select pg_temp.tell('failed', 'transient');
select is(pg_temp.states(), 'Scheduled, Waiting', 'a failure that is tried again is Scheduled');
select ok(attempts = 1 and error_class = 'transient', 'with its attempts so far')
  from pgdrip.sequence_progress join this_case using (enrollment_id) where step = 1;

select pg_temp.new_case();
select pg_temp.tell('uncertain');
select is(pg_temp.states(), 'Uncertain, Waiting', 'an uncertain step is Uncertain');
select is(pg_temp.statuses(), 'active uncertain, upcoming none', 'and stays active');
select is((select count(*) from pgdrip.uncertain_deliveries join this_case using (enrollment_id)), 1::bigint,
  'uncertain_deliveries lists it');
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select is(pg_temp.states(), 'Uncertain, Skipped', 'it stays Uncertain after the exit');

select pg_temp.new_case();
select pgdrip.pause_enrollment(enrollment_id, 'asked') from this_case;
select is(pg_temp.states(), 'Paused, Paused', 'a paused enrollment is Paused');
select pgdrip.resume_enrollment(enrollment_id) from this_case;
select is(pg_temp.states(), 'Ready to send, Waiting', 'until it is resumed');
select pgdrip.pause_sequence('WARM-' || number, 'holiday') from this_case;
select is(pg_temp.states(), 'Paused, Paused', 'what a paused sequence holds is Paused');
select pgdrip.resume_sequence('WARM-' || number) from this_case;
select pgdrip.pause_all('maintenance');
select is(pg_temp.states(), 'Paused, Paused', 'so is everything while everything is paused');
select ok(is_paused, 'and queue_health says so') from pgdrip.queue_health;
select pgdrip.resume_all();
select pgdrip.exit_enrollment(enrollment_id, 'x') from this_case;
select is(pg_temp.states(), 'Skipped, Skipped', 'what an exit left unsent is Skipped');

select pg_temp.new_case();
select pgdrip.exit_all(array(select enrollment_id from this_case), 'x');
select pgdrip.pause_sender('device-' || number, 'x') from this_case;
update this_case set enrollment_id = pgdrip.enroll('WARM-' || number,
  pgdrip.upsert_contact('+60119999999', p_pool => 'pool-' || number));
select is(pg_temp.states(), 'Waiting, Waiting', 'a step without a sender is Waiting');
select set_eq('select distinct current_state from pgdrip.sequence_progress',
  array['Waiting', 'Read', 'Replied', 'Skipped', 'Uncertain', 'Failed'],
  'what is over keeps its state');

-- failures
select results_eq('select class, code, is_unclassified from pgdrip.failures group by 1, 2, 3 order by 2',
  $$values ('contact', 'contact', false), ('content', 'content', false), ('transient', 'transient', false)$$,
  'failures lists each failure with its class');
select pg_temp.new_case();
select pg_temp.tell('failed', 'http_599');
select ok(is_unclassified and class is null and code = 'http_599' and detail = 'because',
  'a code that nobody has classified stands out') from pgdrip.failures join this_case using (enrollment_id);
select pg_temp.new_case();
select pg_temp.take();
select pg_temp.wait('5 minutes');
select pgdrip.claim('runner-1');
select is_empty('select 1 from pgdrip.failures join this_case using (enrollment_id) where is_unclassified',
  'a lease that ran out is no unclassified code');

-- funnel, load, health
select pg_temp.new_case();
select pg_temp.tell('sent');
select results_eq($$select step, upcoming, active, sent, skipped, failed from pgdrip.sequence_funnel
  where sequence = (select 'WARM-' || number from this_case) order by step$$,
  $$values (1, 0::bigint, 0::bigint, 1::bigint, 0::bigint, 0::bigint), (3, 0, 1, 0, 0, 0)$$,
  'the funnel counts where enrollments stand');
select pg_temp.new_case(p_sender => '{"rate_per_hour": 80, "rate_per_day": 800}');
select pg_temp.tell('sent');
select ok(limit_hour = 80 and used_hour = 1 and limit_day = 800 and used_day = 1 and ready_at > pgdrip.clock()
  and backlog = 0 and in_flight = 0, 'sender_load sets what was sent against the limits')
  from pgdrip.sender_load join this_case on sender = 'device-' || number;
select pg_temp.wait('12 hours');
select is(backlog, 1::bigint, 'and counts what waits') from pgdrip.sender_load join this_case on sender = 'device-' || number;
select pg_temp.tell('failed', 'sender');
select ok(health = 'down' and down_at = pgdrip.clock() and faults = 1 and last_error = 'sender: because' and backlog = 1
  and oldest_due_at <= pgdrip.clock() and used_hour = 1 and used_day = 2, 'and tells of an outage, and what was spent on it')
  from pgdrip.sender_load join this_case on sender = 'device-' || number;
select pgdrip.resume_sender('device-' || number), pg_temp.wait('1 minute') from this_case;
select ok(used_hour is null and used_day is null and limit_hour is null, 'nothing is counted of an unlimited sender')
  from pgdrip.sender_load where sender = 'device-1';
select ok(due_now = 1 and in_flight = 0 and parked = 0 and not is_locked and not is_paused,
  'queue_health counts what is due') from pgdrip.queue_health;
select pg_temp.take();
select ok(due_now = 0 and in_flight = 1, 'and in flight') from pgdrip.queue_health;
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select is_empty($$select c.relname, a.attname from pg_catalog.pg_class as c
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
   where c.relnamespace = 'pgdrip'::regnamespace and c.relkind = 'v' and not exists (
           select from pg_catalog.pg_description as x where x.objoid = c.oid and x.objsubid = a.attnum)
     and c.relname in ('sequence_progress', 'sequence_funnel', 'sender_load', 'queue_health', 'failures',
                       'uncertain_deliveries')$$, '\d+ explains each column of the views');
select * from finish();
rollback;
