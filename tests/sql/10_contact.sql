-- Contacts: one person one row, what is no address is refused, imports name each bad line.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- What is refused

select throws_ok('select pgdrip.upsert_contact()', '22004', null, 'a contact has an address');
select throws_ok(format('select pgdrip.upsert_contact(%L)', phone), '22023', null, format('%s is no phone', quote_literal(phone)))
  from unnest(array['', 'abc', '6.01E+10', '60123456789', '0123456789', '+0123456789', '+60 12-345 6789', '+1234567890123456',
                    '+123456', E'+60123456789\n', '+٦٠١٢٣٤٥٦٧٨٩', '''+60123456789', '+60123456789x', ' +60123456789']) as phone;
select throws_ok(format('select pgdrip.upsert_contact(p_email => %L)', email), '22023', null, format('%s is no e-mail', quote_literal(email)))
  from unnest(array['', 'a', '@b', 'a@', 'a@b@c', 'a b@c', E'a@b\nBcc: c', repeat('a', 65) || '@b', 'a@' || repeat('b', 190)]) as email;
select throws_ok(format('select pgdrip.upsert_contact(''+60155500001'', p_timezone => %L)', zone), '22023', null,
                 format('%s is no zone', quote_literal(zone)))
  from unnest(array['', 'Mars/Base', '+08:00', 'MYT', 'EST', 'UTC+8', 'Asia/Kuala_Lumpur ', 'asia/kuala_lumpur', 'Asia/../etc/passwd']) as zone;
select throws_ok(format('select pgdrip.upsert_contact(''+60155500001'', p_attributes => %L)', a), '23514', null,
                 format('%s is no object of attributes', a)) from unnest(array['[]', '[1]', '"x"', '5', 'null', 'true']) as a;
select throws_ok(format('select pgdrip.upsert_contact(''+60155500001'', p_attributes => %L)', a.json), '23514', null, a.fact)
  from (values (jsonb_build_object('a', repeat('x', 17000)), 'attributes have 16 kB'),
               ('{"a":[[[[[[[[[1]]]]]]]]]}', 'attributes have 8 levels'),
               (format('{"a": %s1%s}', repeat('[', 6000), repeat(']', 6000))::jsonb, 'what no client could decode is refused')
       ) as a(json, fact);
select throws_ok($$select pgdrip.upsert_contact('+60155500001', p_name => repeat('x', 5000))$$, '22023', null, 'a name has 1000 bytes');
select throws_ok($$select pgdrip.upsert_contact('+60155500001', p_sender => 'nobody')$$, 'MD001', null, 'an unknown sender is not preferred');
select throws_ok($$select pgdrip.upsert_contact('+60155500001', p_pool => null)$$, '22004', null, 'a pool is given');
select throws_ok(format('select pgdrip.upsert_contact(''+60155500001'', p_pool => %L)', pool), '22023', null,
                 format('%s is no pool', quote_literal(left(pool, 5)))) from unnest(array['', ' ', E'\u200b', E'a\nb', repeat('x', 64)]) as pool;
select throws_ok($$select pgdrip.upsert_contact('+60155500001', p_attributes => '{"a": "\u0000"}')$$, '22P05', null, 'a NUL is no text');
select is_empty('select from pgdrip.contacts', 'what is refused is not stored');

-- One person, one row

create temp table ann as select pgdrip.upsert_contact('+60155500001', p_name => 'Ann', p_attributes => '{"city": "KL", "x": 1}',
                                                      p_timezone => 'Asia/Kuala_Lumpur') as id;
select is(pgdrip.upsert_contact('+60155500001'), id, 'the same phone is the same contact') from ann;
select results_eq('select name, timezone, attributes from pgdrip.contacts',
  $$values ('Ann', 'Asia/Kuala_Lumpur', '{"city": "KL", "x": 1}'::jsonb)$$, 'NULL keeps what is there');
select is(pgdrip.upsert_contact('+60155500001', 'Ann@Example.org', null, '{"city": "JB"}'), id, 'it may get an e-mail later') from ann;
select results_eq('select email, attributes from pgdrip.contacts', $$values ('Ann@Example.org', '{"city": "JB", "x": 1}'::jsonb)$$,
                  'attributes merge');
select lives_ok($$select pgdrip.upsert_contact('+60155500001', p_attributes => null)$$, 'no attributes are none');
select is(pgdrip.upsert_contact(p_email => 'ann@example.ORG'), id, 'e-mails are the same in either case') from ann;
select is(pgdrip.upsert_contact('+60155500002', 'ann@example.org'), id, 'by one known address the other is replaced') from ann;
select is(pgdrip.upsert_contact('+60155500001', 'ann@example.org'), id, 'and put back') from ann;
select isnt(pgdrip.upsert_contact('+60155500001', p_pool => 'other'), id, 'in another pool it is another contact') from ann;
select lives_ok($$select pgdrip.upsert_contact('+60155500003', 'bob@example.org')$$, 'another contact');
select throws_ok($$select pgdrip.upsert_contact('+60155500003', 'ann@example.org')$$, 'MD003', null,
                 'phone and e-mail of two contacts belong to neither');
select results_eq($$select phone, email from pgdrip.contacts where pool = 'default' order by contact_id$$,
  $$values ('+60155500001', 'ann@example.org'), ('+60155500003', 'bob@example.org')$$, 'and change neither');
select throws_ok($$insert into pgdrip.contacts (phone, bucket) values ('+60155500001', 0)$$, '23505', null, 'no second row has the phone');
select throws_ok($$insert into pgdrip.contacts (email, bucket) values ('ANN@example.org', 0)$$, '23505', null, 'nor the e-mail in capitals');
select throws_ok($$update pgdrip.contacts set phone = null, email = null$$, '23514', null, 'no row is without an address');

-- Names and zones

select is(pgdrip.contact_name(d.given), d.kept, d.fact)
  from (values (E'  Ann\r\nBcc: x ', 'Ann Bcc: x', 'a name is one line'), ('  ', null, 'a blank name is none'),
               ('{{phone}} {% x %} ${y} %s {0}', '{{phone}} {% x %} ${y} %s {0}', 'a name is data'),
               (null, null, 'no name is no name')) as d(given, kept, fact);
select ok(pgdrip.is_timezone(zone), zone || ' is a zone')
  from unnest(array['UTC', 'Asia/Kuala_Lumpur', 'America/Argentina/Buenos_Aires', 'Etc/GMT+5', 'America/Port-au-Prince']) as zone;
select ok(not pgdrip.is_timezone(null) is true, 'NULL is no zone');

-- Buckets

select is(pgdrip.contact_bucket('+60155500001'), ((get_byte(h, 0) << 8 | get_byte(h, 1)) >> 6), 'a bucket is ten bits of the sha256')
  from sha256('+60155500001') as h;
select is(pgdrip.contact_bucket('Ann@Example.org'), pgdrip.contact_bucket('ann@example.org'),
          'one mailbox has one bucket, however it is written');
select is(max(n), 20::bigint, 'buckets are even') from (
  select greatest(20, count(*)) as n from generate_series(1, 5000) as i group by pgdrip.contact_bucket('+6011555' || i)) as b;

-- Imports

select throws_ok('select pgdrip.import_contacts(null)', '22004', null, 'an import is given');
select throws_ok($$select pgdrip.import_contacts('{}')$$, '22023', null, 'an import is a list');
select throws_ok($$select pgdrip.import_contacts('[]', ' ')$$, '22023', null, 'an import has a pool');
select is_empty($$select pgdrip.import_contacts('[]')$$, 'an empty import is no error');
select pgdrip.apply_sender('{"name": "one", "channel": "log"}');
create temp table imported as
select r.* from pgdrip.import_contacts('[
  {"line": 2, "phone": "+60155501001", "name": "Cid", "attributes": {"city": "KL"}, "triggers": ["WARM", "HOT"], "sender": "one"},
  {"line": 3, "phone": "6.01E+10"},
  {"line": 4, "phone": "+60155501002", "triggers": ["A,B"]},
  {"line": 5, "phone": "+60155501003", "triggers": "WARM"},
  {"line": 6, "phone": "+60155501004", "timezone": "Mars/Base"},
  {"line": 7, "phone": "+60155501005", "attributes": [1]},
  {"line": 8, "phone": "+60155501006", "sender": "nobody"},
  {"line": 9, "name": "nobody"},
  {"line": 10, "phone": "+60155501001"},
  {"line": 11, "phone": "+60155500001", "email": "BOB@example.org"},
  {"line": 12, "phone": "+60155500001", "name": "Anna", "triggers": ["WARM", "WARM"]},
  {"line": 13, "email": "dan@example.org", "triggers": []},
  {"line": 14, "phone": "+60155501007", "triggers": null},
  {"line": 15, "email": "DAN@example.org"}]') as r;
select results_eq('select line from imported where reason is null order by 1', array[2, 12, 13], 'good lines are imported');
select is(count(*), 14::bigint, 'every line is answered once') from imported;
select matches(i.reason, d.reason, format('line %s: %s', d.line, d.reason))
  from (values (3, 'not E.164'), (4, 'trigger is blank'), (5, 'triggers are no list'), (6, 'not an IANA zone'), (7, 'no object'),
               (8, 'no sender is named'), (9, 'must not both be missing'), (10, 'earlier line'), (11, 'two contacts'),
               (14, 'triggers are no list'), (15, 'earlier line')) as d(line, reason) join imported as i using (line);
select results_eq($$select c.name, c.attributes, s.name from pgdrip.contacts as c left join pgdrip.senders as s using (sender_id)
                     where c.phone in ('+60155501001', '+60155500001') and c.pool = 'default' order by c.name$$,
  $$values ('Anna', '{"city": "JB", "x": 1}'::jsonb, null::text), ('Cid', '{"city": "KL"}', 'one')$$, 'known contacts are merged, new ones stored');
select results_eq('select c.name, t.trigger from pgdrip.contact_triggers as t join pgdrip.contacts as c using (contact_id) order by 1, 2',
  $$values ('Anna', 'WARM'), ('Cid', 'HOT'), ('Cid', 'WARM')$$, 'each word is stored once');
select is_empty('select from pgdrip.enrollments', 'an import enrolls nobody by itself');

select * from finish();
rollback;
