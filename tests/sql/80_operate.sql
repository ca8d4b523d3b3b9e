-- Operating: the pause of everything, uncertain deliveries, and the engine lock.
begin;
select no_plan();

create function pg_temp.lead(p_number integer) returns bigint language sql as $$
  select pgdrip.add_trigger(pgdrip.upsert_contact('+6011' || 1000000 + p_number), 'WARM')
$$;
create function pg_temp.due(p_enrollment bigint) returns pgdrip.due language sql as $$
  select d from pgdrip.due as d where d.enrollment_id = p_enrollment
$$;
create function pg_temp.take() returns bigint language plpgsql as $$
declare
  v record;
begin
  select * into v from pgdrip.claim('runner-1', 1);
  perform pgdrip.begin_send(array[v.enrollment_id], array[v.token]);
  return v.token;
end $$;
create function pg_temp.tell(p_enrollment bigint, p_token bigint, p_outcome text) returns text
  language sql as $$
  select r.verdict from pgdrip.report(array[p_enrollment], array[p_token], array[p_outcome]) as r
$$;

select pgdrip.apply_sender('{"name": "device-0001", "channel": "webhook", "rate_per_hour": 8, "burst": 4}');
select pgdrip.apply_sequence('{"name": "WARM Sequence", "trigger": "WARM", "channel": "webhook",
  "status": "active", "steps": [{"day": 1, "body": "One"}, {"day": 3, "body": "Three"}]}');
select pg_temp.lead(1);

-- everything
select throws_ok('select pgdrip.pause_all(null)', '22004', null, 'a pause needs a reason');
select throws_ok($$select pgdrip.pause_all(E' \t')$$, '22023', null, 'a blank reason is none');
select is(pgdrip.resume_all(), false, 'what is not paused is not resumed');
create temp table held as select * from pgdrip.claim('runner-1', 1);
select is(pgdrip.pause_all('gateway is being moved'), true, 'everything is paused');
select is(pgdrip.pause_all('again'), false, 'once');
select is_empty($$select pgdrip.claim('runner-1')$$, 'nothing is handed out then');
select is_empty('select pgdrip.begin_send(array[enrollment_id], array[token]) from held',
  'and nothing that was handed out may begin');
select is(pgdrip.next_wake(), null, 'nothing will be due at any time');
select is((select code from pgdrip.deliveries), 'all_paused', 'the journal says why it was refused');
select is(pgdrip.resume_all(), true, 'everything is resumed');
select is((select count(*) from pgdrip.claim('runner-1')), 1::bigint, 'and goes on where it was');
select pgdrip.release(array[enrollment_id], array[token]) from pgdrip.due;
select results_eq($$select action, object, reason from pgdrip.audit where object = 'everything' order by audit_id$$,
  $$values ('pause', 'everything', 'gateway is being moved'), ('resume', 'everything', null)$$,
  'the audit says what was done and why');

-- resolve_uncertain
select throws_ok($$select pgdrip.resolve_uncertain(null, 'sent')$$, '22004', null, 'a NULL token is refused');
select throws_ok($$select pgdrip.resolve_uncertain(1, null)$$, '22004', null, 'a NULL outcome is refused');
select throws_ok($$select pgdrip.resolve_uncertain(1, 'failed')$$, '22023', null, 'an unknown outcome is refused');
select throws_ok($$select pgdrip.resolve_uncertain(1, 'sent')$$, 'MD001', null, 'a token nobody issued is refused');
create temp table tried (token bigint);
insert into tried values (pg_temp.take());
select throws_ok(format($$select pgdrip.resolve_uncertain(%s, 'sent')$$, token), 'MD003', null,
  'a send under way is not uncertain') from tried;
select is(pg_temp.tell(1, token, 'uncertain'), 'parked', 'an uncertain send is parked') from tried;
select is(u.recipient, '+60111000001', 'and listed') from pgdrip.uncertain_deliveries as u join tried using (token);
select is(pgdrip.resolve_uncertain(token, 'not_sent'), 'retry', 'one that was not sent is due again') from tried;
select ok((pg_temp.due(1)).parked_reason is null and (pg_temp.due(1)).due_at <= pgdrip.clock()
  and (pg_temp.due(1)).token is null, 'at once');
select throws_ok(format($$select pgdrip.resolve_uncertain(%s, 'sent')$$, token), 'MD003', null,
  'it is resolved once') from tried;
select is(pg_temp.tell(1, token, 'sent'), 'contradiction', 'who reports it sent after all contradicts') from tried;
update tried set token = pg_temp.take();
select pg_temp.tell(1, token, 'uncertain') from tried;
select is(pgdrip.resolve_uncertain(token, 'sent'), 'advanced', 'one that was sent advances') from tried;
select ok((pg_temp.due(1)).step = 3 and (pg_temp.due(1)).due_at = pgdrip.clock() + interval '2 days',
  'the next step waits from the resolution');
select is(pg_temp.tell(1, token, 'sent'), 'advanced', 'its late report is answered likewise') from tried;
select is_empty('select * from pgdrip.check()', 'every invariant holds');

-- the engine lock
select is(pgdrip.unlock('just so'), false, 'an engine that is not locked is not unlocked');
select pgdrip.set_clock(pgdrip.clock() + interval '1 day');
select pg_temp.lead(n) from generate_series(2, 30) as n;
create temp table leased as select * from pgdrip.claim('runner-1', 3);
select pgdrip.begin_send(array[min(enrollment_id)], array[min(token)]) from leased;
create temp table beside as select * from pgdrip.due where enrollment_id = 1;
select throws_ok('select pgdrip.unlock(null)', '22004', null, 'unlocking needs a reason');
create function pg_temp.moved(p_set text) returns text language plpgsql as $$
declare
  v_state text := 'works';
begin
  execute 'update pgdrip.control set ' || p_set;
  begin
    perform pgdrip.claim('runner-1');
  exception when others then
    v_state := sqlstate;
  end;
  raise sqlstate 'ZZ000';
exception when sqlstate 'ZZ000' then
  return v_state;
end $$;
select is(pg_temp.moved('loss_window = loss_window'), 'works', 'on its own server the engine works');
select is(pg_temp.moved('system_identifier = system_identifier - 1'), 'MD005', 'on another server it is locked');
select is(pg_temp.moved($$timeline = '000000FF'$$), 'MD005', 'on another timeline it is locked');
select is(pg_temp.moved('database_oid = 1'), 'MD005', 'in another database it is locked');

update pgdrip.control set system_identifier = system_identifier - 1;
select throws_ok($$select pgdrip.claim('runner-1')$$, 'MD005', null, 'a locked engine hands out nothing');
select throws_ok(format('select pgdrip.begin_send(array[%s], array[%s])', enrollment_id, token), 'MD005', null,
  'begins nothing') from leased limit 1;
select throws_ok(format($$select pgdrip.report(array[%s], array[%s], '{sent}')$$, enrollment_id, token), 'MD005',
  null, 'takes no report') from leased limit 1;
select ok(is_locked, 'and says so') from pgdrip.queue_health;
select matches(why, 'locked', 'to whoever asks after a contact') from pgdrip.explain_contact(1);
create temp table before_unlock as select epoch from pgdrip.control;
select lives_ok($$select pgdrip.unlock('failover, gateway compared')$$, 'unlock lets it work again');
select is(pgdrip.is_unlocked(), true, 'it is unlocked');
select is(c.epoch, b.epoch + 1, 'its epoch is raised') from pgdrip.control as c, before_unlock as b;
select is((select count(*) from pgdrip.due where lease_until is not null), 0::bigint, 'every lease is cleared');
select is((select count(*) from pgdrip.due as d join leased using (enrollment_id)
            where d.parked_reason = 'uncertain'), 3::bigint, 'what was leased or begun is uncertain');
-- A burst of 4 and 8 per hour for 15 minutes: 6 could have gone out.
select is((select count(*) from pgdrip.due where parked_reason = 'uncertain'), 6::bigint,
  'and per sender the oldest that it could have sent in the loss window');
select ok(d.parked_reason is null and d.due_at = b.due_at, 'what is not due yet stays as it is')
  from pgdrip.due as d join beside as b using (enrollment_id);
select is((select count(*) from pgdrip.uncertain_deliveries where token is null), 0::bigint,
  'each has a token to resolve it by');
select is(pg_temp.tell(enrollment_id, token, 'sent'), 'stale', 'a report of an old epoch never advances')
  from leased;
select is((select count(*) from pgdrip.deliveries as j join leased using (enrollment_id, token)
            where j.event = 'sent'), 3::bigint, 'but is recorded');
select is(d.step, 1, 'the step stays where it was') from pgdrip.due as d join leased using (enrollment_id);
select is(pgdrip.resolve_uncertain(d.token, 'sent'), 'advanced', 'an operator resolves it')
  from pgdrip.due as d join leased using (enrollment_id);
select ok((select min(token) >> 40 from pgdrip.claim('runner-1')) = (select epoch from pgdrip.control),
  'new tokens carry the new epoch');
select is((select reason from pgdrip.audit where action = 'unlock'), 'failover, gateway compared',
  'the audit says who unlocked and why');
select is_empty('select * from pgdrip.check()', 'every invariant holds after the unlock');

-- nothing leased: what is overdue may have gone out without our knowing
select pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next');
select pgdrip.set_clock(pgdrip.clock() + interval '1 day');
select pg_temp.lead(n) from generate_series(31, 60) as n;
update pgdrip.control set database_oid = 1;
select pgdrip.unlock('restored from a dump');
select is((select count(*) from pgdrip.due where parked_reason = 'uncertain'), 6::bigint,
  'of overdue rows only as many as the sender could have sent are uncertain');
select is((select count(*) from pgdrip.uncertain_deliveries where token is not null), 6::bigint,
  'they have tokens, though nobody remembers a claim');
select is(pgdrip.resolve_uncertain(token, 'not_sent'), 'retry', 'and are resolved by them')
  from pgdrip.uncertain_deliveries;
select is_empty('select * from pgdrip.check()', 'every invariant holds after the restore');

-- retry_failed: an enrollment that failed, and one that its step parked
create function pg_temp.retried(p_step jsonb) returns text language plpgsql as $$
declare
  v_case  bigint;
  v_twice text;
begin
  perform stage.new_case(p_step);
  perform stage.take();
  perform stage.start();
  perform stage.tell('failed', 'permanent');
  v_case := (select c.enrollment_id from stage.this_case as c);
  delete from pgdrip.wakes;
  v_twice := pgdrip.retry_failed(v_case, 'mended') || ' ' || pgdrip.retry_failed(v_case, 'again');
  return concat_ws(' ', v_twice, (select count(*) from pgdrip.wakes as w join pgdrip.enrollments as e using (sender_id)
      where e.enrollment_id = v_case and w.due_at = pgdrip.clock()),
    (select string_agg(a.reason, ' ') from pgdrip.audit as a
      where a.object = format('enrollment %s', v_case)));
end $$;
select pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next');
select is(pg_temp.retried('{}'), 'true false 1 mended', 'what failed is due again, its sender woken once, the audit told once');
select is(pg_temp.retried('{"on_failure": "park"}'), 'true false 1 mended', 'and so is what its step parked');
select is_empty('select * from pgdrip.check()', 'every invariant holds after that');
select * from finish();
rollback;
