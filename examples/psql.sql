-- A day of an operator in psql: psql -f examples/psql.sql, on a database to play with.
-- Each query that looks is fit for \watch 2; \d+ of a view explains its columns.
\set ON_ERROR_STOP on
\pset null '·'
\pset pager off

\echo 'Morning: a sender, a sequence, three people.'
select pgdrip.apply_sender('{"name": "desk", "channel": "log", "rate_per_hour": 3600, "burst": 10}');
select outcome, version from pgdrip.apply_sequence('{
  "name": "Morning", "trigger": "MORNING", "channel": "log", "status": "active",
  "steps": [{"day": 1, "body": "Hi {{name|there}}!"},
            {"day": 2, "delay": "1 hour", "body": "Still there, {{name|friend}}?"}]}');
select n, pgdrip.add_trigger(
         pgdrip.upsert_contact(p_phone => '+6012000000' || n, p_name => 'Person ' || n),
         'MORNING') as enrollment_id
  from generate_series(1, 3) as n;

\echo 'Is all well? One row for the queue, one for each sender.'
\d+ pgdrip.queue_health
\x on
select * from pgdrip.queue_health;
\x off
select sender, status, health, backlog, used_hour, limit_hour from pgdrip.sender_load;
select name, labels, value from pgdrip.metrics() where name like 'pgdrip_due%';

\echo 'When would the steps go out? Nothing is written.'
select step, due_at, send_at, body from pgdrip.simulate('Morning', pgdrip.clock());

\echo 'Something is wrong with the text: hold the sequence, look, let it go on.'
select pgdrip.pause_sequence('Morning', 'the text is being checked');
select sequence, status, step, why
  from pgdrip.explain_contact(pgdrip.find_contact('+60120000001'));
select pgdrip.resume_sequence('Morning');

\echo 'A runner, by hand: three are claimed, one goes out, one fails, one stays unclear.'
create temporary table held as
  select row_number() over (order by enrollment_id) as place, enrollment_id, token, recipient
    from pgdrip.claim('by hand');
select pgdrip.begin_send(array_agg(enrollment_id), array_agg(token)) from held;
select r.verdict
  from (select array_agg(enrollment_id order by place) as ids,
               array_agg(token order by place) as tokens from held) as h,
       pgdrip.report(h.ids, h.tokens, '{sent,failed,uncertain}',
                     p_codes => '{null,contact,null}') as r;

\echo 'What failed, and what nobody knows.'
select sequence, step, class, code, verdict from pgdrip.failures;
select sequence, step, runner, code from pgdrip.uncertain_deliveries;

\echo 'The gateway says that the unclear one did not go out; the failed one is worth a try.'
select pgdrip.resolve_uncertain(token, 'not_sent') from pgdrip.uncertain_deliveries;
select pgdrip.retry_failed(enrollment_id, 'the number was mended')
  from pgdrip.enrollments where status = 'failed' and end_reason = 'contact';

\echo 'Somebody asks to be left alone.'
select pgdrip.suppress('+60120000003', 'asked by phone');
select status, why from pgdrip.explain_contact(pgdrip.find_contact('+60120000003'));

\echo 'A thousand more at once; \\copy takes the place of insert for a file of yours.'
begin;
select pgdrip.stage_import();
insert into pg_temp.import_lines (phone, name, trigger)
select '+6012346' || to_char(i, 'FM0000'), 'Guest ' || i, 'MORNING'
  from generate_series(1, 1000) as i;
select pgdrip.merge_import();
select line, field, reason from pg_temp.import_lines where reason is not null;
commit;
select pgdrip.enroll_waiting();

\echo 'Evening: where everybody stands, and whether every invariant holds.'
select contact_id, step, step_status, current_state
  from pgdrip.sequence_progress
 where sequence = 'Morning' and recipient like '+601200000%' order by contact_id, step;
select step, upcoming, active, sent, skipped, failed
  from pgdrip.sequence_funnel where sequence = 'Morning' order by step;
select * from pgdrip.check();

\echo 'Keep a year of history, and do what is to be done each day.'
select pgdrip.set_retention('365 days');
select partitions_created, months_retired, history_held_by from pgdrip.maintain();
select action, object, reason from pgdrip.audit order by audit_id;
