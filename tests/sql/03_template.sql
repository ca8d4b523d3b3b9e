-- Templates: one pass, values are data, nothing is ever rendered as None.
begin;
select no_plan();

create function pg_temp.render(p_text text, p_values jsonb, p_escape text default 'text') returns text language sql as $$
  select pgdrip.render_template(pgdrip.compile_template(p_text, p_escape), p_values)
$$;

-- Compiling

select throws_ok(format('select pgdrip.compile_template(%L, ''text'')', t), 'MD008', null, format('%s is refused', quote_literal(t)))
  from unnest(array['Hi {{name', 'Hi {{', 'Hi name}}', '{{}}', '{{ }}', '{{|x}}', '{{na me}}', '{{1st}}', '{{a.b}}', '{{a[0]}}', '{{#if}}',
                    '{{{{name}}}}', '{{name}} {{', '{{nämé}}', '{{name', '{{a{b}}', '{{__class__.x}}']) as t;
select throws_ok(format('select pgdrip.compile_template(%L, ''text'')', repeat('x', n)), 'MD008', null, format('%s bytes are too many', n))
  from unnest(array[65537, 1000000]) as n;
select throws_ok(format('select pgdrip.compile_template(%L, ''text'')', repeat('{{a|}}', n)), 'MD008', null, format('%s variables are too many', n))
  from unnest(array[201, 10000]) as n;
select lives_ok(format('select pgdrip.compile_template(%L, ''text'')', repeat('x', 65536)), '64 kB are allowed');
select is(pgdrip.compile_template(null, 'text'), null, 'no template is no template');
select is(pgdrip.template_variables(t, false), array['a', 'b', 'c'], 'every variable is known')
  from pgdrip.compile_template('{{a}} {{b|x}} {{ c | }} {{a}}', 'text') as t;
select is(pgdrip.template_variables(t, true), array['a'], 'those without a fallback are required')
  from pgdrip.compile_template('{{a}} {{b|x}} {{ c | }} {{a}}', 'text') as t;
select is(pgdrip.template_variables(null, true), '{}'::text[], 'no template has no variables');

-- Rendering

select is(pg_temp.render(d.template, d.vals::jsonb), d.text, d.fact)
  from (values
    ('Hi {{name}}!', '{"name": "Ann"}', 'Hi Ann!', 'a value is put in'),
    ('{{name}}{{name}}', '{"name": "A"}', 'AA', 'as often as it is named'),
    ('Hi {{ name }}!', '{"name": "Ann"}', 'Hi Ann!', 'spaces around the name do not matter'),
    ('Hi {{name|there}}!', '{}', 'Hi there!', 'a missing value is its fallback'),
    ('Hi {{name|there}}!', '{"name": null}', 'Hi there!', 'null is missing'),
    ('Hi {{name|there}}!', '{"name": ""}', 'Hi there!', 'an empty value is missing'),
    ('Hi {{name|there}}!', '{"name": "  "}', 'Hi there!', 'a blank value is missing'),
    ('Hi {{name|there}}!', '{"name": "\u200b"}', 'Hi there!', 'a value that nobody can see is missing'),
    ('Hi {{name|}}!', '{}', 'Hi !', 'a fallback may be empty'),
    ('Hi {{name|a|b}}!', '{}', 'Hi a|b!', 'only the first bar parts'),
    ('Hi {{name}}!', '{}', 'Hi !', 'what is missing is never None or null'),
    ('Hi {{name}}', '{"name": "{{phone}}", "phone": "+60"}', 'Hi {{phone}}', 'a value is not read as a template'),
    ('Hi {{name}}', '{"name": "{% x %} ${y} %s {0.__class__}"}', 'Hi {% x %} ${y} %s {0.__class__}', 'in no language'),
    ('Hi {{name}}', '{"name": "Ann\r\nBcc: x"}', 'Hi Ann Bcc: x', 'a value has no line breaks'),
    ('Hi {{name}}', '{"name": "Ann\u202egnp.exe"}', 'Hi Ann gnp.exe', 'a value does not turn the writing round'),
    ('Hi {{name}}', '{"name": " Ann "}', 'Hi Ann', 'a value is trimmed'),
    ('Hi {{name}}', '{"name": "José 李 👩‍👧"}', 'Hi José 李 👩‍👧', 'every script and joined emoji stays'),
    ('{{n}} {{b}}', '{"n": 1.50, "b": false}', '1.50 false', 'numbers and truths are printed'),
    (E'Line\n{single} } { %', '{}', E'Line\n{single} } { %', 'single braces and line breaks of the text stay'),
    ('no variable', '{}', 'no variable', 'a text without variables is itself'),
    ('', '{}', '', 'an empty text too')
  ) as d(template, vals, text, fact);
select is(length(pg_temp.render('{{name}}', jsonb_build_object('name', repeat('x', 5000)))), 1000, 'a value has 1000 characters');
select is(pgdrip.render_template(null, '{}'), null, 'no template gives no text');

-- HTML and JSON

select is(pg_temp.render('"<b>{{name}}</b>"', '{"name": "<script>\"&"}', 'html')::jsonb #>> '{}', '<b>&lt;script&gt;&quot;&amp;</b>',
          'in HTML a value is text');
create function pg_temp.content(p_step jsonb, p_values jsonb) returns jsonb language sql as $$
  select pgdrip.render_template(pgdrip.step_content(p_step), p_values)::jsonb
$$;
select is(pgdrip.step_content('{"body": "Hi"}'), null, 'a plain step has no content');
select is(pg_temp.content(d.step::jsonb, d.vals::jsonb), d.content::jsonb, d.fact)
  from (values
    ('{"body": "Hi", "html": "<p class=\"x\">{{name}}</p>"}', '{"name": "A<\"B\\C"}', '{"html": "<p class=\"x\">A&lt;&quot;B\\C</p>"}', 'html alone'),
    ('{"media": {"type": "image", "url": "https://example.org/{{name}}.png"}}', '{"name": "a\"}, {\"b"}',
     '{"media": {"type": "image", "url": "https://example.org/a\"}, {\"b.png"}}', 'a value never breaks out of JSON'),
    ('{"template": {"name": "x", "language": {"code": "en"}}}', '{}', '{"template": {"name": "x", "language": {"code": "en"}}}',
     'objects may close together'),
    ('{"template": {"a": {"b": {"c": "{{name|\"you\"}}"}}}}', '{}', '{"template": {"a": {"b": {"c": "\"you\""}}}}', 'a fallback may hold quotes'),
    ('{"html": "<style>@media print{p{color:red}}</style>{{name}}"}', '{"name": "A"}',
     '{"html": "<style>@media print{p{color:red}}</style>A"}', 'a style sheet may close two braces'),
    ('{"html": "<p>", "media": {"url": "u"}, "template": {"name": "t"}}', '{}', '{"html": "<p>", "media": {"url": "u"}, "template": {"name": "t"}}',
     'all three together')
  ) as d(step, vals, content, fact);
select throws_ok($$select pgdrip.step_content('{"html": "<p>{{name</p>"}')$$, 'MD008', null, 'an open variable in HTML is refused');

-- What a contact offers

select is(pgdrip.contact_values(jsonb_populate_record(null::pgdrip.contacts, d.contact::jsonb)), d.vals::jsonb, d.fact)
  from (values
    ('{"phone": "+60155500001", "name": "Ann", "attributes": {"city": "KL", "name": "X"}}',
     '{"phone": "+60155500001", "name": "Ann", "city": "KL"}', 'its fields go before attributes of the same name'),
    ('{"email": "a@b", "attributes": {"name": "X"}}', '{"email": "a@b", "name": "X"}', 'which serve where the field is empty')
  ) as d(contact, vals, fact);
select is(pgdrip.has_values('{}', '{}'), true, 'nothing required is there');
select is(pgdrip.has_values(array['a'], v::jsonb), false, format('%s lacks a', v))
  from unnest(array['{}', '{"a": null}', '{"a": ""}', '{"a": " "}', '{"a": "\u200b\n"}', '{"b": 1}']) as v;
select is(pgdrip.has_values(array['a', 'b'], '{"a": 0, "b": false}'), true, 'zero and false are values');
select is(pgdrip.recipient(d.address, d.phone, d.email), d.recipient, format('%s reaches %s', d.address, coalesce(d.recipient, 'nobody')))
  from (values ('phone', '+60', 'a@b', '+60'), ('email', '+60', 'a@b', 'a@b'), ('any', '+60', 'a@b', '+60'), ('any', null, 'a@b', 'a@b'),
               ('phone', null, 'a@b', null), ('email', '+60', null, null)) as d(address, phone, email, recipient);

select * from finish();
rollback;
