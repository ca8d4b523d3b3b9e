-- Retention: which months of history go, what is remembered of them, what is refused after.
begin;
select no_plan();

create function pg_temp.months() returns text language sql as $$
  select string_agg(right(c.relname, 7), ' ' order by c.relname) from pg_class as c
    join pg_inherits as i on i.inhrelid = c.oid
   where i.inhparent = 'pgdrip.deliveries'::regclass and c.relname <> 'deliveries_default'
$$;
create function pg_temp.maintain(p_clock timestamptz) returns pgdrip.maintenance language sql as $$
  select pgdrip.set_clock(p_clock);
  select pgdrip.maintain()
$$;
-- One message: claimed, begun and reported; the provider calls it by its name here.
create function pg_temp.deliver(p_outcome text default 'sent', p_code text default null)
  returns text language sql as $$
  select stage.take();
  select stage.start();
  select stage.tell(p_outcome, p_code, 'id-' || (stage.live()).enrollment_id || '-' || (stage.live()).step)
$$;
create function pg_temp.violations() returns text language sql as $$
  select coalesce(string_agg(c.invariant, ' '), 'none') from pgdrip.check() as c
$$;
create function pg_temp.funnel() returns text language sql as $$
  select string_agg(format('%s: %s sent %s delivered %s read %s skipped %s failed', step, sent,
                           delivered, read, skipped, failed), ', ' order by step)
    from pgdrip.sequence_funnel where sequence = (select 'WARM-' || number from stage.this_case)
$$;

-- The setting
select throws_ok($$select pgdrip.set_retention('1 month')$$, '22023', null, 'months are refused');
select throws_ok($$select pgdrip.set_retention('23 hours')$$, '22023', null, 'so is less than a day');
select throws_ok($$select pgdrip.set_retention('-90 days')$$, '22023', null, 'and what is negative');
select throws_ok($$select pgdrip.set_retention('90 days', null)$$, '22004', null, 'what becomes of it is said or left out');
select is(pgdrip.set_retention(null), false, 'history is kept for ever unless somebody says otherwise');
select throws_ok($$update pgdrip.control set retention = '1 hour'$$, '23514', null, 'the table refuses what the function would');

-- January: a run of two messages, the second confirmed in February; a run that fails.
select pg_temp.maintain('2026-01-30 09:00+00');
select stage.new_case('{}', '{}', '{"steps": [{"day": 1, "body": "One"}, {"day": 3, "body": "Three"}]}');
create temp table first_case as select * from stage.this_case;
create temp table tokens (name text, token bigint);
insert into tokens select 'January', stage.take();
select stage.start(), stage.tell('sent', null, 'january');
select pgdrip.record_receipt('webhook', 'january', 'read');
select pgdrip.set_clock('2026-02-03 09:00+00');
select is(pg_temp.deliver(), 'completed', 'a run ends in February');
select is(pg_temp.funnel(), '1: 1 sent 1 delivered 1 read 0 skipped 0 failed, 3: 1 sent 0 delivered 0 read 0 skipped 0 failed',
  'the funnel counts it');
select pgdrip.set_retention('30 days');
select is(pgdrip.set_retention('30 days'), false, 'the same retention again is no change');
select is((select string_agg(reason, ' ' order by audit_id) from pgdrip.audit where action = 'retention'), '30 days',
  'the audit knows of it');
select pg_temp.maintain('2026-03-01 09:00+00');
select is(pg_temp.months(), '2026_01 2026_02 2026_03 2026_04 2026_05', 'a month is kept until its last day is old enough');
select pgdrip.record_event(contact_id, 'clicked', '{}', '2026-01-15 00:00+00') from stage.this_case;
select is((pg_temp.maintain('2026-03-03 09:00+00')).months_retired, 1, 'then maintain() drops it');
select is(pg_temp.months(), '2026_02 2026_03 2026_04 2026_05', 'January and no other');
select hasnt_table('pgdrip', 'deliveries_2026_01'::name, 'nothing is left of it');
select is(pruned_until, '2026-02-01 00:00+00'::timestamptz, 'the engine knows since when history is whole') from pgdrip.control;
select is_empty($$select 1 from pgdrip.provider_refs where provider_id = 'january'$$, 'what providers told of it goes along');
select is((select count(*) from pgdrip.provider_refs), 1::bigint, 'the id of February stays');
select is_empty('select 1 from pgdrip.contact_events', 'so do events of contacts with nothing in flight');
select is(pg_temp.violations(), 'none', 'no invariant misses what retention took from a run that is still told in part');
select is(pg_temp.funnel(), '1: 1 sent 1 delivered 1 read 0 skipped 0 failed, 3: 1 sent 0 delivered 0 read 0 skipped 0 failed',
  'the funnel still counts it');
select results_eq($$select step, current_state from pgdrip.sequence_progress join stage.this_case using (enrollment_id)$$,
  $$values (3, 'Sent')$$, 'sequence_progress tells of what is known, and calls nothing skipped that is not');
select is(r.verdict, 'unknown', 'a token older than that is unknown')
  from tokens, pgdrip.report(array[(select enrollment_id from stage.this_case)], array[token], '{sent}') as r;
select throws_ok(format('select pgdrip.resolve_uncertain(%s, %L)', token, 'sent'), 'MD001', null, 'to the operator, too') from tokens;

-- The rest of it
select is((pg_temp.maintain('2026-04-01 09:00+00')).months_retired, 1, 'February goes when its time comes');
select is(pg_temp.violations(), 'none', 'LEDGER_SUMS: the sums stand for its events');
select is_empty('select 1 from pgdrip.sequence_progress', 'nothing is told of a run without history');
select is((select row(keep, is_detached, pruned_until, oldest_at)::text from pgdrip.history_retention),
          (select row(interval '30 days', false, pruned_until, pruned_until)::text from pgdrip.control),
          'a view says how long history is kept and since when it is whole');
create function pg_temp.counted() returns text language sql as $$
  select pgdrip.tally('history');
  select string_agg(t::text, ' ' order by t.step)
    from (select x.step, sum(x.sent), sum(x.skipped), sum(x.failed)
            from pgdrip.step_tally as x group by x.step) as t
$$;
select is(pg_temp.counted(), '(1,1,0,0) (3,1,0,0)',
          'what tally() never saw it takes from the sums');
select is(pg_temp.funnel(), '1: 1 sent 1 delivered 1 read 0 skipped 0 failed, 3: 1 sent 0 delivered 0 read 0 skipped 0 failed',
  'the funnel forgets nobody');
select results_eq($$select step, month_at, sent, last_confirmed from pgdrip.history_sums order by step$$,
  $$values (1, '2026-01-01 00:00+00'::timestamptz, 1::bigint, 0::bigint), (3, '2026-02-01 00:00+00', 1, 1)$$,
  'each month is remembered by step');
create function pg_temp.after(p_damage text) returns text language plpgsql as $$
declare
  v_found text;
begin
  execute p_damage;
  v_found := pg_temp.violations();
  raise sqlstate 'ZZ000';
exception when sqlstate 'ZZ000' then
  return v_found;
end $$;
select is(pg_temp.after('delete from pgdrip.history_sums where step = 3'), 'LEDGER_SUMS', 'LEDGER_SUMS: sums that are lost are seen');
select is(pg_temp.after('update pgdrip.history_sums set last_confirmed = 2 where step = 3'), 'LEDGER_SUMS',
  'LEDGER_SUMS: so are sums that are too high');
select is(pg_temp.after('update pgdrip.control set pruned_until = null'), 'ADVANCE_ONLY_ON_CONFIRM LEDGER_SUMS',
  'only what retention took is excused');

-- Live enrollments keep their history
select stage.new_case('{"on_failure": "park"}');
select is(pg_temp.deliver('uncertain'), 'parked', 'a send of April is uncertain');
select is((pg_temp.maintain('2026-06-20 09:00+00')).months_retired, 1, 'March is empty and goes');
select is(pg_temp.months(), '2026_04 2026_05 2026_06 2026_07 2026_08', 'April stays for a live enrollment, and May behind it');
select is(((pgdrip.maintain()).history_held_by), enrollment_id, 'maintain() says which one') from stage.this_case;
select is(pgdrip.resolve_uncertain((stage.live()).token, 'not_sent'), 'retry', 'it can be settled');
select is(pg_temp.deliver('failed', 'permanent'), 'parked', 'it fails, parked');
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is((pgdrip.maintain()).months_retired, 1, 'its April goes when it has ended');
select is((pg_temp.maintain('2026-07-01 09:00+00')).months_retired, 1, 'and May in July');

-- A failed run is taken up again only with its history
select stage.new_case();
select pgdrip.set_retention('10 days');
select is(pg_temp.deliver(), 'advanced', 'a run of July');
select pgdrip.set_clock('2026-08-02 09:00+00');
select is(pg_temp.deliver('failed', 'permanent'), 'failed', 'fails in August');
create temp table half as select * from stage.this_case;
select stage.new_case();
select is(pg_temp.deliver('failed', 'permanent'), 'failed', 'another one, too');
select pgdrip.set_clock('2026-08-12 09:00+00');
select is((pgdrip.maintain()).months_retired, 2, 'June and July go');
select is(pg_temp.violations(), 'none', 'every invariant holds');
select throws_ok(format('select pgdrip.retry_failed(%s, %L)', enrollment_id, 'x'), 'MD003',
  format('the history of enrollment %s is no longer kept', enrollment_id), 'half a history is none') from half;
select is(pgdrip.retry_failed(enrollment_id, 'x'), true, 'a whole one will do') from stage.this_case;
select is(pg_temp.deliver('failed', 'permanent'), 'failed', 'it fails again');
select is((pg_temp.maintain('2026-09-12 09:00+00')).months_retired, 1, 'August goes');
select throws_ok(format('select pgdrip.retry_failed(%s, %L)', enrollment_id, 'x'), 'MD003',
  format('the history of enrollment %s is no longer kept', enrollment_id), 'without any history nothing is taken up again')
  from stage.this_case;
select is(pg_temp.funnel(), '1: 0 sent 0 delivered 0 read 0 skipped 1 failed, 3: 0 sent 0 delivered 0 read 0 skipped 0 failed',
  'failures are remembered, each once');
select is(pg_temp.counted(), (
            select string_agg(f::text, ' ' order by f.step)
              from (select x.step, sum(x.sent), sum(x.skipped), sum(x.failed)
                      from pgdrip.sequence_funnel as x group by x.step) as f),
          'months that went before tally() came to them count as well');

-- A receipt in the month after its send is counted once
select stage.new_case('{}', '{"advance_on": "delivered", "confirm_within": "10 days"}');
select pgdrip.set_clock('2026-09-30 23:00+00');
select is(pg_temp.deliver(), 'awaiting', 'sent on the last day of September');
select pgdrip.set_clock('2026-10-01 01:00+00');
select pgdrip.record_receipt('webhook', 'id-' || enrollment_id || '-1', 'delivered') from stage.this_case;
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is((pg_temp.maintain('2026-10-12 09:00+00')).months_retired, 1, 'September goes');
select is(pg_temp.funnel(), '1: 1 sent 1 delivered 0 read 0 skipped 0 failed, 3: 0 sent 0 delivered 0 read 0 skipped 0 failed',
  'October tells of it still');
select is((pg_temp.maintain('2026-11-12 09:00+00')).months_retired, 1, 'October goes');
select is(pg_temp.funnel(), '1: 1 sent 1 delivered 0 read 0 skipped 0 failed, 3: 0 sent 0 delivered 0 read 0 skipped 0 failed',
  'then the sums do');
select is(pg_temp.violations(), 'none', 'every invariant holds');

-- Caps count what was sent in their span
select stage.new_case(p_sequence => '{"cap": {"max": 1, "per": "60 days", "on_cap": "defer"}}');
select is(pg_temp.deliver(), 'advanced', 'one message of November is all that a cap of 60 days allows');
select pgdrip.exit_enrollment(enrollment_id, 'x') from stage.this_case;
select is((pg_temp.maintain('2026-12-20 09:00+00')).months_retired, 0, 'a cap keeps history that the retention would not');
select is((pg_temp.maintain('2027-01-30 09:00+00')).months_retired, 1, 'until it no longer counts');

-- Detached
select pgdrip.set_retention('10 days', true);
select is((pgdrip.maintain()).months_retired, 0, 'the cap still keeps December');
select is((pg_temp.maintain('2027-03-02 09:00+00')).months_retired, 1, 'it is detached later');
select has_table('pgdrip', 'deliveries_2026_12'::name, 'and stays as a table');
select matches(obj_description('pgdrip.deliveries_2026_12'::regclass), 'detached: archive', 'that says what to do with it');
select unalike(pg_temp.months(), '%2026_12%', 'no part of the history');
select is((select string_agg(reason, ' / ' order by audit_id) from pgdrip.audit where action = 'retention'),
  '30 days / 10 days / 10 days, then detached', 'the audit tells one from the other');

-- A tick does it, too, in bites
update pgdrip.control set maintained_at = null;
select pgdrip.set_retention(null);
select pg_temp.maintain('2027-06-15 09:00+00');
select pgdrip.set_retention('10 days');
select pgdrip.set_clock('2027-06-15 11:00+00');
select lives_ok($$select pgdrip.tick('runner-1', '1')$$, 'a tick that maintains retires history');
select is(pg_temp.months(), '2027_04 2027_05 2027_06 2027_07 2027_08', 'what a cap of 60 days lets go');
select is((pgdrip.retire_history('2027-09-15 09:00+00', -1)).months, 0, 'a month larger than the bite is left to maintain()');
select ok(exists (select from pgdrip.history_sums where month_at = '2026-01-01 00:00+00'), 'January 2026 is summed up');
select pgdrip.create_partitions('2026-01-05 00:00+00');
insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, verdict, content_hash)
select '2026-01-07 00:00+00', enrollment_id, 1, 'sent', 1, 1, 'advanced', '' from first_case;
select is((pg_temp.maintain('2027-07-15 09:00+00')).months_retired, 4, 'events that are told late go again');
select is(sent, 2::bigint, 'and are added') from pgdrip.history_sums where month_at = '2026-01-01 00:00+00';
select ok(pruned_until > '2027-01-01 00:00+00', 'history is whole no earlier for it') from pgdrip.control;
select is(pg_temp.violations(), 'none', 'every invariant holds');
select * from finish();
rollback;
