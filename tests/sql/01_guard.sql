-- Guards: what every call refuses before it does anything.

begin;
select no_plan();

select is(pgdrip.schema_version(), '1', 'the schema says which API it speaks');
select ok(pgdrip.is_unlocked(), 'a database is unlocked where it was made');

select throws_ok($$ select pgdrip.assert_given('p_x', null::text) $$, '22004', 'p_x must not be NULL', 'NULL is named');
select lives_ok($$ select pgdrip.assert_given('p_x', 0) $$, 'zero is a value');
select throws_ok(format('select pgdrip.assert_named(%L, %L)', 'p_runner', name), '22023', null,
                 format('%s is no name', what))
  from (values ('', 'nothing'), ('  ', 'white space'), (E'\u00a0', 'a no-break space'), (E'\u200b', 'a zero-width space'),
               (repeat('x', 64), '64 bytes'), (E'a\nb', 'a line break')) as n(name, what);
select lives_ok(format('select pgdrip.assert_named(%L, %L)', 'p_runner', name), format('%s is a name', name))
  from unnest(array['a', repeat('x', 63), '"; drop table x', '%I %s $$']) as name;
select throws_ok($$ select pgdrip.assert_reason(' ') $$, '22023', null, 'a blank reason is none');
select throws_ok($$ select pgdrip.assert_reason(repeat('x', 2001)) $$, '22023', null, 'nor one of 2001 bytes');
select throws_ok(format('select pgdrip.assert_time(%L, %L)', 'p_at', at), '22023', null, format('%s is no time', at))
  from unnest(array['infinity', '-infinity', '1999-12-31', '9999-01-01']) as at;
select lives_ok($$ select pgdrip.assert_time('p_at', null) $$, 'a time may be left out');
select throws_ok(format('select pgdrip.assert_lease(%L)', lease), '22023', null, format('a lease of %s is refused', lease))
  from unnest(array['0', '-1 second', '61 minutes', '1 mon', '300000 years']) as lease;
select throws_ok($$ select pgdrip.assert_lease('soon') $$, '22007', null, 'and what is no interval by PostgreSQL');
select throws_ok($$ select pgdrip.assert_lease(null) $$, '22004', null, 'and NULL');

select throws_ok(format('select pgdrip.assert_tokens(%s, %s)', e, t), code, null, what)
  from (values ('null', 'array[1]', '22004', 'no enrollments'),
               ('array[1]', 'null', '22004', 'no tokens'),
               ('array[1, null]', 'array[1, 2]', '22004', 'a NULL enrollment'),
               ('array[1, 2]', 'array[1, null]', '22004', 'a NULL token'),
               ('array[1]', 'array[1, 2]', '22023', 'unequal lengths'),
               ('array[array[1], array[2]]', 'array[1, 2]', '22023', 'nested enrollments'),
               ('array[1, 2]', 'array[array[1, 2]]', '22023', 'nested tokens'),
               ('array_fill(1::bigint, array[10001])', 'array_fill(1::bigint, array[10001])', '22023', 'more than 10000'))
    as d(e, t, code, what);
select lives_ok($$ select pgdrip.assert_tokens('{}', '{}') $$, 'nothing at all is well formed');

-- Who may work

select throws_ok(format('set local transaction_read_only = on; select * from pgdrip.%s', call), '25006', null,
                 format('%s works on no read-only server', call))
  from unnest(array['claim(''r'')', 'begin_send(''{}'', ''{}'')', 'report(''{}'', ''{}'', ''{}'')']) as call;
select is(current_setting('transaction_read_only'), 'off', 'and what was set is undone');
set local synchronous_commit = off;
select from pgdrip.claim('r');
select is(current_setting('synchronous_commit'), 'on', 'a runner''s call commits durably, whatever the session says');

select throws_ok($$ select pgdrip.sequence_named('none') $$, 'MD001', null, 'a sequence is known by name');
select throws_ok($$ select pgdrip.sequence_named(null) $$, '22004', null, 'and NULL is none');

select pgdrip.note(repeat('a', 100), repeat('b', 1000), repeat('c', 3000));
select is(array[length(action), length(object), length(reason)], array[63, 500, 2000], 'a line of the audit is cut')
  from pgdrip.audit order by audit_id desc limit 1;

select * from finish();
rollback;
