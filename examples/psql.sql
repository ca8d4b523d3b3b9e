-- A session with psql: psql -f examples/psql.sql, or line by line. The tests run it.
select pgdrip.apply_sender('{"name": "psql", "channel": "log", "rate_per_hour": 80}');
select outcome, version from pgdrip.apply_sequence('{
  "name": "From psql", "trigger": "PSQL", "channel": "log", "status": "active",
  "steps": [{"day": 1, "body": "Hi {{name|there}}"}, {"day": 3, "body": "Still there?"}]}');

-- Named arguments; what has a default may be left out.
select pgdrip.upsert_contact(p_phone => '+60123450001', p_name => 'Aisyah');
select pgdrip.add_trigger(pgdrip.find_contact('+60123450001'), 'PSQL');
select sequence, status, why
  from pgdrip.explain_contact(pgdrip.find_contact('+60123450001'));

-- When would it go out, and what waits now? Put \watch 2 behind the second in psql.
select step, send_at, body from pgdrip.simulate('From psql', pgdrip.clock());
select due_now, in_flight, parked, runners_alive from pgdrip.queue_health;

-- Hold it, see why it waits, let it go on.
select pgdrip.pause_sequence(p_sequence => 'From psql', p_reason => 'the text is wrong');
select why from pgdrip.explain_contact(pgdrip.find_contact('+60123450001'));
select pgdrip.resume_sequence('From psql');

-- A thousand contacts at once: \copy instead of insert in psql.
begin;
select pgdrip.stage_import();
insert into pg_temp.import_lines (phone, name, trigger)
select '+6012346' || to_char(i, 'FM0000'), 'Guest ' || i, 'PSQL'
  from generate_series(1, 1000) as i;
select pgdrip.merge_import();
select line, field, reason from pg_temp.import_lines where reason is not null;
commit;
select pgdrip.enroll_waiting();

select sequence, step, active, upcoming from pgdrip.sequence_funnel order by step;
select * from pgdrip.check();
