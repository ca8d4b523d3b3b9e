-- Explaining: every way a contact may stand, in words.
begin;
select no_plan();

create temp table this_case (enrollment_id bigint, contact_id bigint, number integer);
create temp sequence cases;
create function pg_temp.new_case(p_step jsonb default '{}', p_sender jsonb default '{}',
                                 p_sequence jsonb default '{}', p_contact jsonb default '{}')
  returns void language plpgsql as $$
declare
  v_n integer := nextval('cases');
  v_pool text := 'pool-' || v_n;
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from this_case;
  perform pgdrip.apply_sender(jsonb_build_object('name', 'device-' || v_n, 'pool', v_pool,
    'channel', 'webhook') || p_sender);
  perform pgdrip.apply_sequence(jsonb_build_object('name', 'WARM-' || v_n, 'trigger', 'WARM-' || v_n,
    'channel', 'webhook', 'pool', v_pool, 'status', 'active', 'steps', jsonb_build_array(
      jsonb_build_object('day', 1, 'body', 'One') || p_step,
      jsonb_build_object('day', 3, 'body', 'Three', 'delay', '12 hours'))) || p_sequence);
  insert into this_case select pgdrip.add_trigger(c, 'WARM-' || v_n), c, v_n
    from pgdrip.upsert_contact('+60110000' || lpad(v_n::text, 4, '0'), p_pool => v_pool,
      p_name => p_contact ->> 'name', p_timezone => p_contact ->> 'timezone',
      p_attributes => coalesce(p_contact -> 'attributes', '{}')) as c;
end $$;
create function pg_temp.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;
create function pg_temp.live() returns pgdrip.due language sql as $$
  select d from pgdrip.due as d join this_case using (enrollment_id)
$$;
create function pg_temp.run() returns pgdrip.enrollments language sql as $$
  select e from pgdrip.enrollments as e join this_case using (enrollment_id)
$$;
create function pg_temp.sender() returns pgdrip.senders language sql as $$
  select s from pgdrip.senders as s join this_case on s.name = 'device-' || number
$$;
create function pg_temp.last() returns pgdrip.deliveries language sql as $$
  select j from pgdrip.deliveries as j join this_case using (enrollment_id) order by j.token desc, j.at desc limit 1
$$;
create function pg_temp.take(p_lease interval default '2 minutes') returns bigint language sql as $$
  select token from pgdrip.claim('runner-1', 100, p_lease)
$$;
create function pg_temp.start() returns boolean language sql as $$
  select exists (select from pgdrip.begin_send(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token]))
$$;
create function pg_temp.tell(p_outcome text, p_code text default null, p_provider_id text default null)
  returns text language sql as $$
  select r.verdict from pgdrip.report(array[(pg_temp.live()).enrollment_id], array[(pg_temp.live()).token],
    array[p_outcome], array[p_provider_id], array[p_code]) as r
$$;

create function pg_temp.why() returns text language sql as $$
  select string_agg(x.why, ' · ' order by x.enrollment_id) from this_case, lateral pgdrip.explain_contact(contact_id) as x
$$;
select is(pgdrip.in_words(t, '2026-01-01 00:00+00'), w, w) from (values
  (timestamptz '2026-01-01 00:01+00', 'in 60 s'), ('2026-01-01 00:03+00', 'in 3 min'), ('2026-01-01 12:00+00', 'in 12 h'),
  ('2026-01-04 00:00+00', 'in 3 days'), ('2025-12-31 23:57+00', '3 min ago'), ('2026-01-01 00:00+00', '0 s ago')) as x(t, w);
select pg_temp.new_case('{"delay": "12 hours"}', '{"rate_per_hour": 80}');
select results_eq($$select sequence, x.enrollment_id = t.enrollment_id, status, step, due_at, sender, why
    from this_case as t, lateral pgdrip.explain_contact(contact_id) as x$$,
  $$select 'WARM-1', true, 'active', 1, pgdrip.clock() + interval '12 hours', 'device-1', 'due in 12 h'$$,
  'where a contact stands is one row');
select pg_temp.wait('12 hours');
select is(pg_temp.why(), 'due 0 s ago; the next free runner takes it', 'what is due waits for a runner');
select pg_temp.take();
select is(pg_temp.why(), 'runner runner-1 has claimed it, in 2 min', 'or has one');
select pg_temp.start();
select is(pg_temp.why(), 'runner runner-1 is sending it', 'or is being sent');
select pg_temp.tell('uncertain');
select is(pg_temp.why(), format('a send was begun 0 s ago and its outcome is unknown: resolve_uncertain(%s, …)', (pg_temp.live()).token),
  'or nobody knows');
select pgdrip.resolve_uncertain((pg_temp.live()).token, 'not_sent');
select matches(pg_temp.why(), '^due 0 s ago; its sender is at its limit, ready again in', 'a sender at its limit');
select pgdrip.pause_sender('device-' || number, 'being charged') from this_case;
select is(pg_temp.why(), 'due 0 s ago; its sender is paused: being charged', 'a paused sender');
select pgdrip.resume_sender('device-' || number) from this_case;
select pg_temp.wait('1 hour');
select pg_temp.take(), pg_temp.start(), pg_temp.tell('failed', 'http_401');
select is(pg_temp.why(), 'due 60 min ago; its sender is down after http_401', 'a sender at fault');
select pgdrip.pause_sequence('WARM-' || number, 'holiday') from this_case;
select is(pg_temp.why(), 'the sequence is paused: holiday', 'a paused sequence');
select pgdrip.pause_enrollment(enrollment_id, 'asked') from this_case;
select is(pg_temp.why(), 'this enrollment is paused: asked', 'a paused enrollment');
select pgdrip.pause_all('maintenance');
select is(pg_temp.why(), 'everything is paused: maintenance', 'everything paused');
select pgdrip.resume_all();
select pgdrip.exit_enrollment(enrollment_id, 'bought') from this_case;
select is(pg_temp.why(), 'exited 0 s ago: bought', 'and an end');
select pg_temp.new_case('{"on_failure": "park"}');
select pg_temp.take(), pg_temp.tell('failed', 'permanent');
select is(pg_temp.why(), 'it failed and its step says to park then', 'a parked failure');
select pg_temp.new_case(p_sender => '{"advance_on": "delivered", "confirm_within": "1 hour"}');
select pg_temp.take(), pg_temp.tell('sent');
select is(pg_temp.why(), 'sent; a receipt is awaited, the deadline is in 60 min', 'an awaited receipt');
select pg_temp.wait('1 hour');
select pgdrip.claim('runner-1');
select is(pg_temp.why(), 'no receipt came in time', 'one that did not come');
select pg_temp.new_case();
select pgdrip.exit_all(array(select enrollment_id from this_case), 'x');
select pgdrip.pause_sender('device-' || number, 'x') from this_case;
update this_case set contact_id = pgdrip.upsert_contact('+60119999999', p_pool => 'pool-' || number);
select pgdrip.add_trigger(contact_id, 'WARM-' || number) from this_case;
select is(pg_temp.why(), format('no sender of pool pool-%s on channel webhook is in service', number), 'a want of senders') from this_case;
select pg_temp.new_case(p_sequence => '{"status": "draft"}');
insert into this_case (contact_id, number)
select contact_id, currval('cases') from pgdrip.contacts where pool = 'pool-' || currval('cases');
select results_eq('select status, why from this_case, lateral pgdrip.explain_contact(contact_id)',
  $$values ('not enrolled', 'the sequence is a draft or archived')$$, 'a word that started nothing says why');
select pgdrip.activate_sequence('WARM-' || number) from this_case;
select is(pg_temp.why(), 'it enters with the next sweep', 'or that it will');
select throws_ok('select pgdrip.explain_contact(null)', '22004', null, 'NULL is refused');
select throws_ok('select pgdrip.explain_contact(4711)', 'MD001', null, 'a contact nobody knows is refused');
select * from finish();
rollback;
