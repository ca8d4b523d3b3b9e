-- What makes a database one shard among several, and what its router asks it.
begin;
select no_plan();
select pgdrip.set_clock('2026-01-05 09:00+00');

-- Who it is

select throws_ok($$select pgdrip.set_shard(null, sha256('key'))$$, '22004', null, 'a shard has a number');
select throws_ok($$select pgdrip.set_shard(8192, sha256('key'))$$, '22023', null, 'which ids have room for');
select throws_ok($$select pgdrip.set_shard(3, 'short')$$, '22023', null, 'and a key of 256 bits');
select is(pgdrip.set_shard(3, sha256('key')), true, 'an unused database becomes a shard');
select is(pgdrip.set_shard(3, sha256('key')), false, 'once');
select results_eq($$select shard, address_key, has_contacts from pgdrip.shard_identity()$$,
  $$values (3, sha256('key'), false)$$, 'it says who it is');
select stage.new_case();
select is((select contact_id >> 40 from stage.this_case), 3::bigint, 'the id of a contact says where it was born');
select is((stage.run()).enrollment_id >> 40, 3::bigint, 'that of an enrollment too');
select is((stage.sender()).sender_id >> 40, 3::bigint, 'and that of a sender');
select throws_ok($$select pgdrip.set_shard(4, sha256('key'))$$, 'MD003', null, 'once it is used it stays what it is');
select is(pgdrip.set_shard(3, sha256('key')), false, 'which may be said again');
select is((select has_contacts from pgdrip.shard_identity()), true, 'it says that somebody is in it');

-- What all shards must agree on

create temp table hashes as select pgdrip.config_hash() as hash;
select pgdrip.apply_sender('{"name": "limited", "channel": "log", "rate_per_hour": 80}');
select is(pgdrip.config_hash(), (select hash from hashes), 'a sender with limits is its shard''s alone');
select is_empty($$select d from pgdrip.shared_definitions() as d where d.name = 'limited'$$, 'nobody else gets it');
select pgdrip.apply_sender('{"name": "unlimited", "channel": "log"}');
select isnt(pgdrip.config_hash(), (select hash from hashes), 'one without is everybody''s');
select isnt_empty($$select d from pgdrip.shared_definitions() as d where d.name = 'unlimited'$$, 'who get it');

update hashes set hash = pgdrip.config_hash();
create temp table rules as select pgdrip.shared_rules() as rules;
select is(pgdrip.merge_error_rules((select rules from rules)), 0, 'equal error rules stay');
update pgdrip.error_rules set class = 'permanent' where (channel, code) = ('webhook', 'http_404');
insert into pgdrip.error_rules values ('log', 'odd', 'contact', 'nowhere');
delete from pgdrip.error_rules where (channel, code) = ('webhook', 'http_400');
select isnt(pgdrip.config_hash(), (select hash from hashes), 'error rules are agreed on');
select is(pgdrip.merge_error_rules((select rules from rules)), 3, 'changed, new and missing ones are made those of the others');
select is(pgdrip.config_hash(), (select hash from hashes), 'then all agree');

-- Suppressions go from shard to shard as hashes

select pgdrip.suppress('jane@example.com', 'asked to');
select isnt(pgdrip.config_hash(), (select hash from hashes), 'suppressed addresses are agreed on');
select is((select address_hash from pgdrip.hashed_suppressions()), pgdrip.address_hash('Jane@example.com'), 'they are told as hashes');
create temp table told as select * from pgdrip.hashed_suppressions();
update hashes set hash = pgdrip.config_hash();
delete from pgdrip.suppressions;
select is(pgdrip.merge_hashes(array_agg(address_hash), array_agg(reason), array_agg(created_at)), 1, 'a new one is kept') from told;
select is(pgdrip.merge_hashes(array_agg(address_hash), array_agg(reason), array_agg(created_at)), 0, 'once') from told;
select is(pgdrip.config_hash(), (select hash from hashes), 'as a hash it is the same');
select lives_ok($$select pgdrip.upsert_contact(p_email => 'jane@example.com')$$, 'whoever has the address may come');
select is(pgdrip.is_suppressed('Jane@Example.com'), true, 'and is suppressed');
select is(pgdrip.merge_hashes(array[pgdrip.address_hash(c.phone)], '{asked to}', array[pgdrip.clock()]), 1, 'somebody is here already')
  from pgdrip.contacts as c join stage.this_case using (contact_id);
select is((stage.run()).end_reason, 'suppressed', 'whose enrollment ends');
select is(pgdrip.forget_address('jane@example.com'), true, 'somebody here has the address');
select is(pgdrip.is_suppressed('jane@example.com'), true, 'so it stays readable');
select pgdrip.suppress('gone@example.com', 'asked to');
select is(pgdrip.forget_address('gone@example.com'), true, 'nobody here has this one');
select is(pgdrip.is_suppressed('gone@example.com'), false, 'so its hash is all that stays');
select isnt_empty($$select from pgdrip.erased_suppressions where address_hash = pgdrip.address_hash('gone@example.com')$$, 'and that stays');
select is(pgdrip.forget_address('never@example.com'), false, 'what was not suppressed is not forgotten');

-- What the router asks

select stage.new_case();
select is(pgdrip.knows_address(c.phone, c.pool), true, 'a phone is known in its pool') from pgdrip.contacts as c join stage.this_case using (contact_id);
select is(pgdrip.knows_address(c.phone, 'other'), false, 'and in no other') from pgdrip.contacts as c join stage.this_case using (contact_id);
select is(pgdrip.knows_address('JANE@example.com', 'default'), true, 'so is an e-mail, however it is written');
select stage.take(), stage.start(), stage.tell('sent', p_provider_id => 'ref-1');
select is(pgdrip.knows_message('webhook', 'ref-1'), c.bucket, 'a message is known by its provider''s id') from pgdrip.contacts as c join stage.this_case using (contact_id);
select is(pgdrip.knows_message('webhook', 'ref-2'), null, 'others are not');

select * from finish();
rollback;
