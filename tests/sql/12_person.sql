-- One person's data: masked, handed out and erased.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- Masks

select is(pgdrip.mask(i), o, format('%L is shown as %L', i, o)) from (values
  ('+60123456789', '+60…89'), ('jane@example.com', 'j…@example.com'),
  ('to +60123456789 or Jane.Doe+x@mail.example.com!', 'to +60…89 or J…@mail.example.com!'),
  ('number 0123 456 789 is gone', 'number 01…89 is gone'), ('nothing here', 'nothing here'), ('12345', '12345'),
  (null, null)) as d(i, o);

-- Everything of one person

select stage.new_case();
create temp table jane as select * from stage.this_case;
update pgdrip.contacts as c set email = 'Jane@example.com', name = 'Jane Doe', attributes = '{"city": "Ipoh"}', timezone = 'Asia/Kuala_Lumpur'
  from jane where c.contact_id = jane.contact_id;
create temp table data as
select c.phone, c.contact_id from pgdrip.contacts as c join jane using (contact_id);
select pgdrip.record_event(contact_id, 'looked', '{"page": "secret garden"}') from jane;
select stage.take(), stage.start();
select r.verdict from data, pgdrip.report(array[(stage.live()).enrollment_id], array[(stage.live()).token],
  '{failed}', null, '{sender}', array['no route to ' || data.phone]) as r;
select stage.wait('2 hours');
select stage.take(), stage.start(), stage.tell('uncertain');
update pgdrip.deliveries as j set detail = format('told of %s', data.phone), provider_id = 'ref 1' from data where j.event = 'uncertain';
select results_eq($$select jsonb_object_keys(pgdrip.export_contact(contact_id)) from jane order by 1$$,
  array['contact', 'enrollments', 'events', 'suppressions', 'triggers'], 'an export has everything');
select ok(x #>> '{contact,name}' = 'Jane Doe' and x #>> '{events,0,payload,page}' = 'secret garden'
  and x #>> '{enrollments,0,deliveries,0,event}' = 'failed' and jsonb_array_length(x -> 'triggers') = 1, 'in full')
  from (select pgdrip.export_contact(contact_id) as x from jane) as e;
select throws_ok('select pgdrip.export_contact(987654)', 'MD001', null, 'of somebody who exists');
select throws_ok('select pgdrip.export_contact(null)', '22004', null, 'and is named');

-- Erased

select throws_ok('select pgdrip.erase_contact(987654, ''asked'')', 'MD001', null, 'nobody is erased who does not exist');
select throws_ok(format('select pgdrip.erase_contact(%s, null)', contact_id), '22004', null, 'nor without a reason') from jane;
select throws_ok(format('select pgdrip.erase_contact(%s, '' '')', contact_id), '22023', null, 'that one can see') from jane;
select pgdrip.suppress('jane@example.com', 'asked by letter');
select is(pgdrip.erase_contact(contact_id, 'asked by letter'), true, 'a person is erased') from jane;
select is(pgdrip.erase_contact(contact_id, 'again'), false, 'once') from jane;
select results_eq($$select c.phone, c.email, c.name, c.timezone, c.attributes, c.erased_at = pgdrip.clock()
                      from pgdrip.contacts as c join jane using (contact_id)$$,
  $$values (null::text, null::text, null::text, null::text, '{}'::jsonb, true)$$, 'the id stays, and when it was');
select ok((stage.run()).status = 'exited' and (stage.run()).end_reason = 'erased' and stage.live() is null,
  'what was in flight has ended');
select is_empty($$select from pgdrip.contact_triggers join jane using (contact_id) union all
                  select from pgdrip.contact_events join jane using (contact_id) union all
                  select from pgdrip.provider_refs join jane using (enrollment_id)$$, 'words and events are gone');
select results_eq($$select event, detail, provider_id from pgdrip.deliveries join jane using (enrollment_id) order by token$$,
  $$values ('failed', null::text, null::text), ('uncertain', null, null)$$, 'of the history ids, hashes and times stay');
select is((select s.last_error from pgdrip.senders as s join pgdrip.enrollments as e using (sender_id) join jane using (enrollment_id)),
  'sender: no route to +60…' || right(phone, 2), 'a sender''s last error names nobody') from data;
select results_eq($$select a.action, a.object, a.reason from pgdrip.audit as a order by a.audit_id desc limit 1$$,
  $$select 'erase', format('contact %s', contact_id), 'asked by letter' from jane$$, 'the audit says so');
select is_empty('select * from pgdrip.check()', 'every invariant holds');

select throws_ok(format($$select pgdrip.record_event(%s, 'looked', '{"page": "x"}')$$, contact_id), 'MD001', null,
  'nothing more is stored of nobody') from jane;
select throws_ok(format($$select pgdrip.add_trigger(%s, 'WARM')$$, contact_id), 'MD001', null, 'nor does it enter anything') from jane;

-- The suppression stays

select is_empty('select from pgdrip.suppressions', 'no address stays readable');
select is((select count(*) from pgdrip.erased_suppressions), 1::bigint, 'but its hash stays');
create temp table back as select pgdrip.upsert_contact(p_email => 'JANE@example.com') as contact_id;
select is((select s.reason from pgdrip.suppressions as s where s.address = 'jane@example.com'), 'asked by letter',
  'who comes back is suppressed again, for the same reason');
select isnt(contact_id, (select contact_id from jane), 'as somebody new') from back;
select pgdrip.erase_contact(contact_id, 'again') from back;
select pgdrip.import_contacts('[{"email": "jane@example.com"}]');
select is((select count(*) from pgdrip.suppressions), 1::bigint, 'likewise by an import');
select is(pgdrip.unsuppress('jane@example.com', 'asked to'), true, 'until it is lifted');
select is((select count(*) from pgdrip.suppressions) + (select count(*) from pgdrip.erased_suppressions), 0::bigint, 'wherever it stood');
select pgdrip.suppress('jane@example.com', 'no more');
select pgdrip.erase_contact(pgdrip.find_contact('jane@example.com'), 'again');
select is(pgdrip.unsuppress('jane@example.com', 'asked to'), true, 'also of somebody who is erased');
select is(pgdrip.unsuppress('jane@example.com', 'asked to'), false, 'once');
select pgdrip.upsert_contact(p_email => 'ben@example.com', p_pool => p) from unnest(array['one', 'two']) as p;
select pgdrip.suppress('ben@example.com', 'x');
select pgdrip.erase_contact(min(c.contact_id), 'x') from pgdrip.contacts as c where c.email = 'ben@example.com';
select is((select count(*) from pgdrip.suppressions), 1::bigint, 'while another pool has the address it stays suppressed');
select pgdrip.erase_contact(c.contact_id, 'x') from pgdrip.contacts as c where c.email = 'ben@example.com';
select is((select count(*) from pgdrip.suppressions), 0::bigint, 'then it goes, too');

-- A message on its way

select stage.new_case();
select stage.take(), stage.start();
select pgdrip.erase_contact(contact_id, 'x') from stage.this_case;
select ok((stage.last()).event = 'uncertain', 'a message on its way is journalled as uncertain');
select is(r.verdict, 'stale', 'its report changes nothing')
  from stage.last() as j, pgdrip.report(array[j.enrollment_id], array[j.token], '{sent}', '{late ref}') as r;
insert into pgdrip.contact_triggers (contact_id, trigger) select contact_id, 'LATE' from stage.this_case;
select pgdrip.maintain();
select is_empty($$select from pgdrip.provider_refs where provider_id = 'late ref' union all
                  select from pgdrip.deliveries where provider_id = 'late ref' union all
                  select from pgdrip.contact_triggers where trigger = 'LATE'$$,
  'and what it told is gone after maintenance, as is a word of an import that committed later');
select is_empty('select * from pgdrip.check()', 'every invariant holds after all this');

select * from finish();
rollback;
