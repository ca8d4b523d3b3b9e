-- Enrollment: exact words, every obstacle named, the whole audience, all or nothing.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

create function pg_temp.publish(p_name text, p_trigger text, p_more jsonb default '{}')
  returns text language sql as $$
  select (pgdrip.apply_sequence('{"channel": "log", "status": "active", "steps": [
            {"day": 1, "body": "Hi {{name|there}}"}, {"day": 3, "delay": "12 hours", "body": "Again"}]}'
          || jsonb_build_object('name', p_name, 'trigger', p_trigger) || p_more)).outcome
$$;
create function pg_temp.contact(p_number integer) returns bigint language sql as $$
  select pgdrip.upsert_contact('+60155500' || lpad(p_number::text, 4, '0'))
$$;
-- As settle() ends a run; nothing else of the run matters here.
create function pg_temp.finish(p_enrollment bigint) returns void language sql as $$
  delete from pgdrip.due where enrollment_id = p_enrollment;
  update pgdrip.enrollments set status = 'completed', ended_at = pgdrip.clock(), end_reason = 'completed'
   where enrollment_id = p_enrollment;
$$;
create temp table person (name text, id bigint);
create function pg_temp.id(p_name text) returns bigint language sql as $$
  select id from person where name = p_name
$$;
insert into person
select n, pg_temp.contact(o::integer)
  from unnest(array['ann', 'bob', 'cid', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jon'])
       with ordinality as p(n, o);

select pgdrip.apply_sender('{"name": "one", "channel": "log", "rate_per_hour": 80}');
select pg_temp.publish('WARM', 'WARM');
select pg_temp.publish('DRAFT', 'DRAFT', '{"status": "draft"}');

-- What enroll refuses

select throws_ok($$select pgdrip.enroll('WARM', 999999)$$, 'MD001', null, 'an unknown contact does not enter');
select throws_ok($$select pgdrip.enroll('NONE', pg_temp.id('ann'))$$, 'MD001', null, 'nobody enters an unknown sequence');
select throws_ok($$select pgdrip.enroll('warm', pg_temp.id('ann'))$$, 'MD001', null, 'names are exact');
select throws_ok($$select pgdrip.enroll(null, pg_temp.id('ann'))$$, '22004', null, 'a sequence is given');
select throws_ok($$select pgdrip.enroll('WARM', null)$$, '22004', null, 'a contact is given');
select throws_ok($$select pgdrip.enroll('DRAFT', pg_temp.id('ann'))$$, 'MD002', null, 'nobody enters a draft');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('ann'), 'infinity')$$, '22023', null, 'infinity is no start');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('ann'), '-infinity')$$, '22023', null, 'nor is minus infinity');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('ann'), now() + interval '300000 years')$$, '22008', null, 'a far start is no time');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('ann'), '3000-01-01')$$, '22023', null, 'a start lies within this age');
select throws_ok($$select pgdrip.enroll('WARM', 1.5)$$, '42883', null, 'an id is a whole number');
select throws_ok($$select pgdrip.add_trigger(999999, 'WARM')$$, 'MD001', null, 'an unknown contact gets no word');
select throws_ok($$select pgdrip.add_trigger(null, 'WARM')$$, '22004', null, 'a word needs a contact');
select throws_ok($$select pgdrip.add_trigger(pg_temp.id('ann'), null)$$, '22004', null, 'a word is not NULL');
select throws_ok(format('select pgdrip.add_trigger(pg_temp.id(''ann''), %L)', d.word), '22023', null, d.fact)
  from (values ('', 'a word is not empty'), ('   ', 'a word is not blank'), (E'\u00a0', 'a no-break space is blank'),
               (E'\u200b', 'a zero-width space is blank'), (' WARM', 'a word is trimmed in front'),
               ('WARM ', 'a word is trimmed behind'), ('WARM,HOT', 'a comma list is not a word'),
               (E'WARM\nHOT', 'a word has no line break'), (repeat('W', 201), 'a word has 200 bytes')
       ) as d(word, fact);
select throws_ok($$select pgdrip.remove_trigger(999999, 'WARM')$$, 'MD001', null, 'an unknown contact loses no word');
select throws_ok($$select pgdrip.remove_trigger(pg_temp.id('ann'), null)$$, '22004', null, 'a word to remove is given');
select throws_ok($$select pgdrip.explain_enroll('NONE', pg_temp.id('ann'))$$, 'MD001', null, 'an unknown sequence is not explained');
select throws_ok($$select pgdrip.explain_enroll(null, 1)$$, '22004', null, 'a sequence to explain is given');
select throws_ok($$select pgdrip.explain_enroll('WARM', null)$$, '22004', null, 'a contact to explain is given');
select throws_ok($$select pgdrip.enroll_waiting(0)$$, '22023', null, 'a limit is not zero');
select throws_ok($$select pgdrip.enroll_waiting(-1)$$, '22023', null, 'a limit is not negative');
select throws_ok($$select pgdrip.enroll_waiting(null)$$, '22004', null, 'a limit is given');
select is_empty('select from pgdrip.enrollments', 'what is refused enrolls nobody');
select is_empty('select from pgdrip.contact_triggers', 'and leaves no word');

-- Tables hold the line against direct writes

select throws_ok($$insert into pgdrip.contact_triggers (contact_id, trigger) values (pg_temp.id('ann'), '')$$,
                 '23514', null, 'a blank word cannot be stored');
select throws_ok($$insert into pgdrip.contact_triggers (contact_id, trigger) values (pg_temp.id('ann'), E'\u00a0')$$,
                 '23514', null, 'nor a no-break space');
select throws_ok($$insert into pgdrip.contact_triggers (contact_id, trigger) values (pg_temp.id('ann'), 'A,B')$$,
                 '23514', null, 'nor a comma list');
select throws_ok($$insert into pgdrip.contact_triggers (contact_id, trigger) values (999999, 'A')$$,
                 '23503', null, 'nor a word of nobody');

-- Entering

create temp table entered as select pgdrip.enroll('WARM', pg_temp.id('ann')) as id;
select is(id, (select max(enrollment_id) from pgdrip.enrollments), 'enroll returns the enrollment')
  from entered;
select is(pgdrip.enroll('WARM', pg_temp.id('ann')), (select max(enrollment_id) from pgdrip.enrollments),
          'enrolling twice returns the live one');
select results_eq($$select count(*), min(step), min(due_at) from pgdrip.due$$,
                  $$values (1::bigint, 1, timestamptz '2026-01-05 09:00+00')$$,
                  'only the first step exists, due at once whatever its day number');
select results_eq($$select distinct s.name, d.due_at from pgdrip.wakes as w join pgdrip.due as d using (sender_id, due_at)
                      join pgdrip.senders as s using (sender_id) $$,
                  $$values ('one', timestamptz '2026-01-05 09:00+00')$$, 'its sender is woken, not locked');
select is_empty($$select from pgdrip.paces where next_at is not null$$, 'the sender''s pace is untouched');
select lives_ok($$select pgdrip.enroll('WARM', pg_temp.id('bob'), '2026-02-01 00:00+00')$$, 'a start may be given');
select results_eq($$select d.due_at from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
                     where e.contact_id = pg_temp.id('bob')$$,
                  array[timestamptz '2026-02-01 00:00+00'], 'the first step waits for it');
select throws_ok($$insert into pgdrip.due (enrollment_id, sender_id, step, due_at)
                   select enrollment_id, sender_id, 3, due_at from pgdrip.due limit 1$$,
                 '23505', null, 'a second live step is impossible');
select throws_ok($$insert into pgdrip.enrollments (contact_id, sequence_id, version_id, run, enrolled_at)
                   select contact_id, sequence_id, version_id, run + 1, enrolled_at from pgdrip.enrollments limit 1$$,
                 '23505', null, 'a second live run is impossible');
select throws_ok($$update pgdrip.due set due_at = 'infinity'$$, '23514', null, 'nothing is due at infinity');
select throws_ok($$delete from pgdrip.contacts where contact_id = pg_temp.id('ann')$$, '23503', null,
                 'a contact in use is not deleted');

-- EXACT_TRIGGER

select pg_temp.publish('HOT', 'HOT');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('cid'), w)
                    from unnest(array['SHOTGUN', 'hot', 'HOT2', 'H_T', '%', 'HO']) as w$$,
                'HOT does not match SHOTGUN, hot, HOT2 or a pattern');
select is(count(*), 1::bigint, 'HOT matches HOT') from pgdrip.add_trigger(pg_temp.id('cid'), 'HOT');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('cid'), 'HOT')$$, 'the same word again starts nothing');
select is(count(*), 7::bigint, 'and is stored once') from pgdrip.contact_triggers
 where contact_id = pg_temp.id('cid');
select results_eq($$select t.trigger from pgdrip.enrollments as e join pgdrip.contact_triggers as t using (trigger_id)
                     where e.contact_id = pg_temp.id('cid')$$, array['HOT'], 'the enrollment knows the row it used');
select is(pgdrip.remove_trigger(pg_temp.id('cid'), 'HOT'), true, 'a word is removed');
select is(pgdrip.remove_trigger(pg_temp.id('cid'), 'HOT'), false, 'removing it twice changes nothing');
select results_eq($$select status from pgdrip.enrollments where contact_id = pg_temp.id('cid')$$, array['active'],
                  'removing the word ends no live enrollment');

-- ENTRY_NOT_EMPTY: the trigger of a sequence is never blank

select throws_ok($$update pgdrip.sequences set trigger = '' where name = 'HOT'$$, '23514', null,
                 'a sequence with an empty trigger cannot exist');
select throws_ok($$update pgdrip.sequences set trigger = '  ' where name = 'HOT'$$, '23514', null,
                 'nor one with a blank trigger');
select is_empty($$select v.version_id from pgdrip.sequence_versions as v where v.first_step is null$$,
                'every published version has a first step');

-- Several sequences for one word

select pg_temp.publish('TWIN 1', 'TWIN');
select pg_temp.publish('TWIN 2', 'TWIN');
select pg_temp.publish('TWIN 3', 'TWIN', '{"status": "draft"}');
select pg_temp.publish('TWIN 4', 'TWIN', '{"pool": "other"}');
select is(count(*), 2::bigint, 'one word starts every active sequence of the pool')
  from pgdrip.add_trigger(pg_temp.id('dan'), 'TWIN');
select is(array(select q.name from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
                 where e.contact_id = pg_temp.id('dan') order by 1), array['TWIN 1', 'TWIN 2'],
          'drafts and other pools take nobody in');
select is(count(distinct sender_id), 1::bigint, 'a contact keeps its sender')
  from pgdrip.enrollments where contact_id = pg_temp.id('dan');
select is(pgdrip.enroll_waiting(), 0, 'nobody waits');
select pgdrip.activate_sequence('TWIN 3');
select is(pgdrip.enroll_waiting(), 1, 'a sequence activated later gets those who waited');
select is(pgdrip.enroll_waiting(), 0, 'once');

-- Obstacles

select is(pgdrip.explain_enroll('WARM', 999999), 'No contact has id 999999.', 'an unknown contact is explained');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('ann')), 'enrolled already, as [0-9]+', 'who is in is told so');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('eve')), 'does not carry the trigger ''WARM''', 'a missing word is told');
select matches(pgdrip.explain_enroll('DRAFT', pg_temp.id('eve')), 'draft or archived', 'a draft is told');
select matches(pgdrip.explain_enroll('TWIN 4', pg_temp.id('eve')), 'different pools', 'another pool is told');
select throws_ok($$select pgdrip.enroll('TWIN 4', pg_temp.id('eve'))$$, 'MD003', null, 'a contact stays in its pool');
select pgdrip.archive_sequence('TWIN 3');
select throws_ok($$select pgdrip.enroll('TWIN 3', pg_temp.id('eve'))$$, 'MD002', null, 'nobody enters an archived sequence');

insert into person values ('sam', pgdrip.upsert_contact('+60155509999'));
select pgdrip.suppress('+60155509999', 'asked');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('sam'))$$, 'MD004', null, 'a suppressed address does not enter');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('sam'), 'WARM')$$, 'nor by a word, which is no error');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('sam')), 'suppressed', 'suppression is told');
select is(pgdrip.enroll_waiting(), 0, 'nor by the sweep');
select pgdrip.unsuppress('+60155509999', 'asked again');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('sam')), 'enters with the next sweep', 'after that it waits for the sweep');
select is(pgdrip.enroll_waiting(), 1, 'which takes it');

select pgdrip.apply_sender('{"name": "mail", "channel": "smtp"}');
select pg_temp.publish('MAIL', 'MAIL', '{"channel": "smtp", "reentry": {"after": "1 day"}}');
select throws_ok($$select pgdrip.enroll('MAIL', pg_temp.id('eve'))$$, 'MD003', null, 'without an e-mail nobody gets e-mail');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('eve'), 'MAIL')$$, 'nor by a word');
select matches(pgdrip.explain_enroll('MAIL', pg_temp.id('eve')), 'no address', 'the missing address is told');
select is(pgdrip.enroll_waiting(), 0, 'the sweep does not take it');
select pgdrip.upsert_contact('+601555000005', 'Eve@example.org');
select is(pgdrip.enroll_waiting(), 1, 'once it has an address, the sweep takes it');
insert into person values ('meg', pgdrip.upsert_contact(p_email => 'Meg@Example.org'));
select pgdrip.suppress('meg@example.org', 'asked');
select throws_ok($$select pgdrip.enroll('MAIL', pg_temp.id('meg'))$$, 'MD004', null, 'e-mail is suppressed in either case');

-- Re-entry

select pg_temp.finish(pgdrip.enroll('WARM', pg_temp.id('fay')));
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('fay'))$$, 'MD003', null, 'who has been through does not enter again');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('fay')), 're-entry is never', 'and is told so');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('fay'), 'WARM')$$, 'nor by a word');
select pg_temp.publish('WARM', 'WARM', '{"reentry": {"after": "30 days"}}');
select is(pgdrip.enroll_waiting(), 0, 'nobody enters too soon');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('fay')), 'from 2026-02-04 09:00:00 UTC on', 'the time of re-entry is told');
select throws_ok($$select pgdrip.enroll('WARM', pg_temp.id('fay'))$$, 'MD003', null, 'too soon is refused');
select pgdrip.set_clock('2026-02-04 08:59:59+00');
select is(pgdrip.enroll_waiting(), 0, 'a second too soon is too soon');
select pgdrip.set_clock('2026-02-04 09:00+00');
select is(pgdrip.enroll_waiting(), 1, 'when the time has come the sweep takes those whose word waits');
select results_eq($$select run, status from pgdrip.enrollments where contact_id = pg_temp.id('fay') order by run$$,
                  $$values (1, 'completed'), (2, 'active')$$, 'as a second run');
select pg_temp.finish(enrollment_id) from pgdrip.enrollments where contact_id = pg_temp.id('fay') and status = 'active';
select pgdrip.set_clock('2026-05-01 00:00+00');
select is(pgdrip.enroll_waiting(), 0, 'a word that a run has used starts no other');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('fay'), 'WARM')$$, 'nor when it is added on top of itself');
select matches(pgdrip.explain_enroll('WARM', pg_temp.id('fay')), 'used by an earlier run', 'and is told so');
select pgdrip.remove_trigger(pg_temp.id('fay'), 'WARM');
select is(count(*), 1::bigint, 'a new row of the word starts a new run') from pgdrip.add_trigger(pg_temp.id('fay'), 'WARM');
select pgdrip.remove_trigger(pg_temp.id('fay'), 'WARM');
select is_empty($$select pgdrip.add_trigger(pg_temp.id('fay'), 'WARM')$$, 'a word that comes during a run starts nothing yet');
select pgdrip.set_clock('2026-05-02 00:00+00');
select pg_temp.finish(enrollment_id) from pgdrip.enrollments where contact_id = pg_temp.id('fay') and status = 'active';
select is(pgdrip.enroll_waiting(), 0, 'nor right after the run');
select pgdrip.set_clock('2026-06-01 00:00+00');
select is(pgdrip.enroll_waiting(), 1, 'but when re-entry is allowed it is not forgotten');

-- A sequence gets another trigger while it is active

select pgdrip.add_trigger(pg_temp.id('gus'), 'TWIN');
select pg_temp.publish('MOVED', 'OLD');
select pg_temp.publish('MOVED', 'TWIN');
select is(pgdrip.enroll_waiting(), 2, 'a word seen before counts for a sequence that takes it up later');
select set_eq($$select e.contact_id from pgdrip.enrollments as e join pgdrip.sequences as q using (sequence_id)
                 where q.name = 'MOVED'$$, array[pg_temp.id('dan'), pg_temp.id('gus')],
              'and everyone with the word enters');

-- Paused sequences take people in

select pgdrip.pause_sequence('HOT', 'holiday');
select is(count(*), 1::bigint, 'a paused sequence takes people in') from pgdrip.add_trigger(pg_temp.id('hal'), 'HOT');

-- Without a sender

select pg_temp.publish('ALONE', 'ALONE', '{"channel": "webhook"}');
select pgdrip.enroll('ALONE', pg_temp.id('hal'));
select results_eq($$select d.parked_reason, d.sender_id from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
                      join pgdrip.sequences as q using (sequence_id) where q.name = 'ALONE'$$,
                  $$values ('no_sender', null::bigint)$$, 'without a sender the step is parked, with the reason');
select pgdrip.apply_sender('{"name": "elsewhere", "channel": "webhook", "pool": "other"}');
select is(count(*), 1::bigint, 'a sender of another pool does not help') from pgdrip.due where parked_reason = 'no_sender';
select pgdrip.apply_sender('{"name": "hook", "channel": "webhook"}');
select results_eq($$select d.parked_reason, s.name, e.sender_id = d.sender_id from pgdrip.due as d
                      join pgdrip.enrollments as e using (enrollment_id) join pgdrip.senders as s on s.sender_id = d.sender_id
                      join pgdrip.sequences as q using (sequence_id) where q.name = 'ALONE'$$,
                  $$values (null::text, 'hook', true)$$, 'the first sender of the pool and channel adopts it');
select pgdrip.apply_sender('{"name": "two", "channel": "log", "rate_per_hour": 1}');
select pgdrip.upsert_contact('+601555000009', p_sender => 'two');
select pgdrip.enroll('WARM', pg_temp.id('ida'));
select results_eq($$select s.name from pgdrip.enrollments as e join pgdrip.senders as s using (sender_id)
                     where e.contact_id = pg_temp.id('ida')$$, array['two'], 'a contact''s preferred sender comes first');
select pgdrip.pause_sender('two', 'repair');
select pgdrip.enroll('HOT', pg_temp.id('ida'));
select results_eq($$select s.name from pgdrip.enrollments as e join pgdrip.senders as s using (sender_id)
                      join pgdrip.sequences as q using (sequence_id)
                     where e.contact_id = pg_temp.id('ida') and q.name = 'HOT'$$, array['one'],
                  'unless it is out of service');

-- ATOMIC_ENROLL

select throws_ok($$
  select pgdrip.add_trigger(pg_temp.id('jon'), 'TWIN'), 1 / (pg_temp.id('jon') - pg_temp.id('jon'))$$,
  '22012', null, 'a caller''s failure');
select is_empty($$select from pgdrip.contact_triggers where contact_id = pg_temp.id('jon')$$, 'takes the word back');
select is_empty($$select from pgdrip.enrollments where contact_id = pg_temp.id('jon')$$, 'and the enrollments');
select is_empty($$select from pgdrip.enrollments as e left join pgdrip.due as d using (enrollment_id)
                   where (e.status = 'active') <> (d.enrollment_id is not null)$$,
                'every live enrollment has its live step, every ended one none');

-- FULL_AUDIENCE: 2,500 contacts whose words came by COPY before the sequence was active

select pgdrip.set_clock('2026-07-01 00:00+00');
select pgdrip.apply_sender(jsonb_build_object('name', 'fleet ' || n, 'channel', 'log', 'pool', 'leads', 'rate_per_hour', 80))
  from generate_series(1, 10) as n;
select pg_temp.publish('BULK', 'BULK', '{"status": "draft", "pool": "leads"}');
insert into pgdrip.contacts (pool, phone, bucket)
select 'leads', '+6011555' || lpad(n::text, 5, '0'), 0 from generate_series(1, 2500) as n;
insert into pgdrip.contacts (pool, phone, bucket)
select 'leads', '+6011666' || lpad(n::text, 5, '0'), 0 from generate_series(1, 50) as n;
insert into pgdrip.contact_triggers (contact_id, trigger)
select contact_id, 'BULK' from pgdrip.contacts where pool = 'leads';
insert into pgdrip.suppressions (address, reason)
select phone, 'asked' from pgdrip.contacts where phone like '+6011666%';
select is(pgdrip.enroll_waiting(100), 0, 'a draft takes nobody in');
select pgdrip.activate_sequence('BULK');
create temp table batches (n integer, enrolled integer);
do $$ begin
  for i in 1 .. 100 loop
    insert into batches values (i, pgdrip.enroll_waiting(100));
    exit when (select enrolled from batches where n = i) = 0;
  end loop;
end $$;
select is(sum(enrolled), 2500::bigint, '2,500 contacts enroll through batches of 100') from batches;
select is(max(n), 26, 'in 25 batches and one that finds nobody') from batches;
select is(max(enrolled), 100, 'no batch exceeds its limit') from batches;
select is(count(*), 2500::bigint, 'each of them has one live first step, due now')
  from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id) join pgdrip.sequences as q using (sequence_id)
 where q.name = 'BULK' and d.step = 1 and d.due_at = pgdrip.clock();
select is(count(*), 50::bigint, 'enrolled and explained are the audience')
  from pgdrip.contacts as c
 where c.pool = 'leads' and pgdrip.explain_enroll('BULK', c.contact_id) like '%suppressed%'
   and not exists (select from pgdrip.enrollments as e where e.contact_id = c.contact_id);
select results_eq($$select abs(count(*) - 250) <= 5 from pgdrip.enrollments as e join pgdrip.senders as s using (sender_id)
                     where s.pool = 'leads' group by s.sender_id$$, array_fill(true, array[10]),
                  'ten equal senders share them within 2 %');
select is(pgdrip.enroll_waiting(), 0, 'nobody is left');
delete from pgdrip.suppressions where address = '+601166600001';
select pgdrip.unsuppress('+601166600002', 'asked again');
select is(pgdrip.enroll_waiting(), 1, 'who is unsuppressed comes by the next sweep');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select * from finish();
rollback;
