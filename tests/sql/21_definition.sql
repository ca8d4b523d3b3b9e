-- Reading definitions: a mistake is MD008, names its place and gives a hint.
begin;
select no_plan();

-- Keys

select throws_ok(format('select pgdrip.assert_keys(%L, ''thing'', array[''a'', ''b''], array[''a''])', d.object),
                 'MD008', d.message, d.fact)
  from (values
    (null, 'thing: must be an object', 'nothing is no object'),
    ('null', 'thing: must be an object', 'null is no object'),
    ('[]', 'thing: must be an object', 'a list is no object'),
    ('"a"', 'thing: must be an object', 'a text is no object'),
    ('{"a": 1, "c": 2}', 'thing: unknown key ''c''', 'an unknown key is named'),
    ('{"b": 1}', 'thing: a is missing or blank', 'a missing key is named'),
    ('{"a": null}', 'thing: a is missing or blank', 'null is missing'),
    ('{"a": " "}', 'thing: a is missing or blank', 'a blank is missing'),
    ('{"a": "\u00a0\u200b"}', 'thing: a is missing or blank', 'what nobody can see is missing')
  ) as d(object, message, fact);
select lives_ok($$select pgdrip.assert_keys('{"a": 1}', 'thing', array['a', 'b'], array['a'])$$, 'known keys pass');
create function pg_temp.hint() returns text language plpgsql as $$
declare v_hint text;
begin
  perform pgdrip.assert_keys('{"c": 1}', 'thing', array['a', 'b']);
exception when sqlstate 'MD008' then
  get stacked diagnostics v_hint = pg_exception_hint;
  return v_hint;
end $$;
select is(pg_temp.hint(), 'Known keys: a, b.', 'the hint tells the keys that exist');

-- Numbers

select is(pgdrip.definition_integer('{"n": 7}', 'p', 'n', 1, 10), 7, 'a number is read');
select is(pgdrip.definition_integer('{"n": "7"}', 'p', 'n', 1, 10), 7, 'also as text, as YAML gives it');
select is(pgdrip.definition_integer('{}', 'p', 'n', 1, 10, 5), 5, 'a missing number is the default');
select throws_ok(format('select pgdrip.definition_integer(%L, ''p'', ''n'', 1, 10)', format('{"n": %s}', n)),
                 'MD008', null, format('%s is no whole number from 1 to 10', n))
  from unnest(array['0', '11', '-1', '1.5', '"x"', '""', '" 7"', 'true', '[]', '{}', '1e99', '"٧"', '99999999999']) as n;

-- Spans

select is(pgdrip.definition_span(jsonb_build_object('s', t), 'p', 's'), t::interval, format('%s is a wait', t))
  from unnest(array['12 hours', '3 days', '1 day 12:30', '90 seconds', '0 days', 'PT12H', '0.5 hours', '24:00', '2 weeks']) as t;
select is(pgdrip.definition_span('{}', 'p', 's', '1 day'), '1 day'::interval, 'a missing wait is the default');
select throws_ok(format('select pgdrip.definition_span(jsonb_build_object(''s'', %L::text), ''p'', ''s'')', t),
                 'MD008', null, format('%s is no wait', quote_literal(t)))
  from unnest(array['-1 hour', '1 day ago', '1 month', '1 year', '1 mon -29 days', '2 days -1 hour', '-1 day 30 hours', 'soon', '',
                    'infinity', '-infinity', '300000 years', '99999999999999 hours', '36501 days', '12', '1.5', 'P1M']) as t;
set local intervalstyle = 'sql_standard';
select is(pgdrip.definition_span('{"s": "1 day 12:30:00"}', 'p', 's') = '1 day 12:30:00'::interval, true,
          'a wait is read alike under every IntervalStyle');
select throws_ok($$select pgdrip.definition_span('{"s": "-1 day 30:00"}', 'p', 's')$$, 'MD008', null, 'a negative one too');
reset intervalstyle;
select ok(not pgdrip.is_span(d.span::interval), format('%s is no span', d.span))
  from (values ('-1 second'), ('1 mon'), ('1 mon -29 days'), ('1 day -1 hour'), ('1 year -11 mon'), ('200 years')) as d(span);
select ok(pgdrip.is_span(null) is null, 'of NULL is_span knows nothing');

-- Words

select is(pgdrip.definition_word('{"w": "b"}', 'p', 'w', array['a', 'b'], 'a'), 'b', 'a word is read');
select is(pgdrip.definition_word('{}', 'p', 'w', array['a', 'b'], 'a'), 'a', 'a missing word is the default');
select throws_ok(format('select pgdrip.definition_word(jsonb_build_object(''w'', %L::text), ''p'', ''w'', array[''a'', ''b''], ''a'')', w),
                 'MD008', null, format('%s is none of the words', quote_literal(w))) from unnest(array['', 'A', ' a', 'c']) as w;
select is(pgdrip.definition_boolean('{"b": "false"}', 'p', 'b', true), false, 'false is false, also as text');
select throws_ok($$select pgdrip.definition_boolean('{"b": "no"}', 'p', 'b', true)$$, 'MD008', null, 'no is not false');
select throws_ok($$select pgdrip.definition_boolean('{"b": 0}', 'p', 'b', true)$$, 'MD008', null, '0 is not false');

-- Times

select is(pgdrip.definition_time('{"t": "09:05"}', 'p', 't'), '09:05'::time, 'a time of day is read');
select is(pgdrip.definition_time('{"t": "24:00"}', 'p', 't'), '00:00'::time, '24:00 is the midnight that clients can read');
select is(pgdrip.definition_time('{}', 'p', 't'), null, 'a missing time is none');
select throws_ok(format('select pgdrip.definition_time(jsonb_build_object(''t'', %L::text), ''p'', ''t'')', t),
                 'MD008', null, format('%s is no time of day', quote_literal(t)))
  from unnest(array['25:00', '9:00', '09:60', '24:01', '09:00:00', 'noon', '', '1290', '09:00 ', '-09:00']) as t;

-- Windows

create function pg_temp.hours(p_more jsonb) returns jsonb language sql as $$
  select pgdrip.definition_window('{"from": "09:00", "to": "21:00"}'::jsonb || p_more, 'p')
$$;
select is(pgdrip.definition_window(null, 'p'), null, 'no window is no window');
select is(pg_temp.hours('{}'), '{"days": [1, 2, 3, 4, 5, 6, 7], "from": "09:00:00", "to": "21:00:00", "zone": "contact", "holidays": []}',
          'by default a window opens every day by the contact''s clock');
select is(pg_temp.hours('{"days": ["fri", "mon"], "zone": "Asia/Kuala_Lumpur"}') -> 'days', '[1, 5]', 'weekdays become numbers in order');
select throws_ok(format('select pg_temp.hours(%L)', d.more), 'MD008', null, d.fact)
  from (values
    ('{"from": null}', 'a window has a beginning'), ('{"to": ""}', 'a window has an end'),
    ('{"from": "25:00"}', 'a window begins within the day'), ('{"days": []}', 'a window has days'),
    ('{"days": ["monday"]}', 'days are mon to sun'), ('{"days": "mon"}', 'days are a list'), ('{"days": [1]}', 'days are words'),
    ('{"days": ["mon", null]}', 'a day is not null'), ('{"zone": "Mars/Base"}', 'a zone is known'),
    ('{"zone": "+08:00"}', 'a zone is no offset'), ('{"zone": "MYT"}', 'a zone is no abbreviation'), ('{"zone": ""}', 'a zone is not empty'),
    ('{"holidays": "2026-12-25"}', 'holidays are a list'), ('{"holidays": ["25.12.2026"]}', 'holidays are ISO dates'),
    ('{"holidays": ["2026-13-01"]}', 'a holiday has a month'), ('{"holidays": ["2026-02-30"]}', 'a holiday is a day that exists'),
    ('{"holidays": [20261225]}', 'a holiday is a text'),
    ('{"holiday": ["2026-12-25"]}', 'an unknown key of a window is refused')
  ) as d(more, fact);
select throws_ok(format('select pg_temp.hours(%L)', jsonb_build_object('holidays', array(
    select (date '2026-01-01' + n)::text from generate_series(0, 366) as n))), 'MD008', null, 'there are at most 366 holidays');
select throws_ok($$select pgdrip.definition_window('[]', 'p')$$, 'MD008', null, 'a list is no window');
select throws_ok($$select pgdrip.definition_window('null', 'p')$$, 'MD008', null, 'null is no window');

-- Where PostgreSQL itself refuses

select throws_ok($$select pgdrip.apply_sequence('{a: 1}')$$, '22P02', null, 'what is no JSON is refused');
select throws_ok($$select pgdrip.apply_sequence('{"name": NaN}')$$, '22P02', null, 'NaN is no JSON');
select throws_ok($$select pgdrip.apply_sequence('{"name": "\u0000"}')$$, '22P05', null, 'a NUL is no text');
select throws_ok($$select pgdrip.apply_sequence('{"name": "\ud800"}')$$, '22P02', null, 'half a surrogate pair is no text');

select * from finish();
rollback;
