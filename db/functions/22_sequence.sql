-- Sequences: publish, activate, pause, resume, archive.
-- Writes sequences, sequence_versions, steps; resuming also due and wakes.

create or replace function pgdrip.step_content(p_step jsonb)
  returns jsonb
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  -- The JSON text itself is the template: '{"html":"…","media":{…}}'.
  select jsonb_path_query_array(jsonb_agg(p.parts order by p.ord, p.piece), '$[*][*]')
    from (
      select k.ord, x.piece, pgdrip.compile_template(x.json, x.escape) as parts
        from unnest(array['html', 'media', 'template']) with ordinality as k(key, ord),
             lateral (values
               (1, case when exists (select from unnest(array['html', 'media', 'template'])
                          with ordinality as e(key, ord)
                          where e.ord < k.ord and p_step ? e.key) then ',' else '{' end
                   || to_json(k.key) || ':', 'json'),
               (2, (p_step -> k.key)::text, case k.key when 'html' then 'html' else 'json' end)
             ) as x(piece, json, escape)
       where p_step ? k.key
      union all
      select 9, 9, pgdrip.compile_template('}', 'json')
       where p_step ?| array['html', 'media', 'template']) as p
$$;

comment on function pgdrip.step_content(jsonb) is
  'Private: the compiled template of html, media and template of a step; NULL without any';

create or replace function pgdrip.assert_spelling(p_variables text[], p_place text)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_variable text;
  v_field    text;
begin
  -- One letter more, less or other, two swapped, or other case: known fields only.
  select v, f into v_variable, v_field
    from unnest(p_variables) as v, unnest(array['name', 'phone', 'email']) as f
   where v <> f and (
     lower(v) = f
     or array(select c from regexp_split_to_table(lower(v), '') as c order by c)
        = array(select c from regexp_split_to_table(f, '') as c order by c)
     or exists (
       select from generate_series(0, length(f)) as i
        where lower(v) in (left(f, i) || substr(f, i + 2))
           or lower(v) like replace(left(f, i), '_', '\_') || '_' || substr(f, i + 1)
           or (i < length(f) and lower(v) like left(f, i) || '_' || substr(f, i + 2))))
   limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place,
      format('variable {{%s}} is misspelt', v_variable), format('Did you mean {{%s}}?', v_field));
  end if;
end
$$;

comment on function pgdrip.assert_spelling(text[], text) is
  'Refuses (MD008) variables that look like a mistyped name, phone or email';

create or replace function pgdrip.read_text(
  p_text    jsonb,
  p_place   text,
  p_channel pgdrip.channels
)
  returns pgdrip.steps
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step pgdrip.steps;
  v_key  text;
begin
  select k into v_key from unnest(array['subject', 'html', 'media', 'template']) as k
   where p_text ? k and k <> all (p_channel.features) limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place,
      format('channel %s cannot send %s', p_channel.channel, v_key),
      format('It can send: %s.', array_to_string('body'::text || p_channel.features, ', ')));
  end if;
  if p_text @? '$.**{17}' then
    perform pgdrip.refuse_definition(p_place, 'is nested more than 16 levels deep',
      'Not every client could read it.');
  end if;
  if p_text ->> 'subject' ~ '[[:cntrl:]]' then
    perform pgdrip.refuse_definition(p_place, 'subject must be one line',
      'Without line breaks and other control characters.');
  end if;
  if pgdrip.is_blank(p_text ->> 'body') and not p_text ?| array['template', 'media'] then
    perform pgdrip.refuse_definition(p_place, 'body is missing or blank',
      'A step needs a body, a template, media or variants.');
  end if;
  v_step.body := pgdrip.compile_template(p_text ->> 'body', 'text');
  v_step.subject := pgdrip.compile_template(p_text ->> 'subject', 'text');
  v_step.content := pgdrip.step_content(p_text);
  v_step.required := pgdrip.template_variables(
    coalesce(v_step.body, '[]') || coalesce(v_step.subject, '[]')
    || coalesce(v_step.content, '[]'), true);
  return v_step;
end
$$;

comment on function pgdrip.read_text(jsonb, text, pgdrip.channels) is
  'Private: the text of a step or variant, checked against the channel and compiled; MD008';

create or replace function pgdrip.read_variants(
  p_step    jsonb,
  p_place   text,
  p_channel pgdrip.channels
)
  returns pgdrip.steps
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step pgdrip.steps;
  v_text pgdrip.steps;
  v_item jsonb;
  v_upto integer := 0;
begin
  if p_step ?| array['body', 'subject', 'html', 'media', 'template']
     or jsonb_typeof(p_step -> 'variants') <> 'array'
     or jsonb_array_length(p_step -> 'variants') not between 2 and 20 then
    perform pgdrip.refuse_definition(p_place, 'variants must be a list of 2 to 20 texts',
      'Each has a weight and a body; the step itself then has none.');
  end if;
  v_step.variants := '[]';
  v_step.required := '{}';
  for v_item in select x from jsonb_array_elements(p_step -> 'variants') as x loop
    perform pgdrip.assert_keys(v_item, p_place || ', variant',
      array['weight', 'subject', 'body', 'html', 'media', 'template'], array['weight']);
    v_upto := v_upto
      + pgdrip.definition_integer(v_item, p_place || ', variant', 'weight', 1, 1000);
    v_text := pgdrip.read_text(v_item, p_place || ', variant', p_channel);
    v_step.variants := v_step.variants || jsonb_build_object('upto', v_upto,
      'body', v_text.body, 'subject', v_text.subject, 'content', v_text.content);
    v_step.required := v_step.required || v_text.required;
  end loop;
  return v_step;
end
$$;

comment on function pgdrip.read_variants(jsonb, text, pgdrip.channels) is
  'Private: the variants of a step with running sums of their weights; MD008';

create or replace function pgdrip.read_step(
  p_step     jsonb,
  p_place    text,
  p_previous integer,
  p_channel  pgdrip.channels
)
  returns pgdrip.steps
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step pgdrip.steps;
  v_wait jsonb := p_step -> 'wait_for';
begin
  perform pgdrip.assert_keys(p_step, p_place, array['day', 'delay', 'at', 'subject', 'body',
    'html', 'media', 'template', 'variants', 'only_if', 'skip_if', 'wait_for', 'max_attempts',
    'backoff', 'on_failure', 'on_uncertain', 'on_missing', 'expire_after', 'on_expire'],
    array['day']);
  v_step := case when p_step ? 'variants' then pgdrip.read_variants(p_step, p_place, p_channel)
                 else pgdrip.read_text(p_step, p_place, p_channel) end;
  v_step.number := pgdrip.definition_integer(p_step, p_place, 'day', 1, 36500);
  if v_step.number <= p_previous then
    perform pgdrip.refuse_definition(p_place,
      format('day %s follows day %s', v_step.number, p_previous),
      'Step numbers must grow: 1, 3, 6, 9.');
  end if;
  v_step.delay := pgdrip.definition_span(p_step, p_place, 'delay');
  v_step.send_at := pgdrip.definition_time(p_step, p_place, 'at');
  v_step.only_if := pgdrip.definition_condition(p_step, p_place, 'only_if');
  v_step.skip_if := pgdrip.definition_condition(p_step, p_place, 'skip_if');
  v_step.max_attempts := pgdrip.definition_integer(p_step, p_place, 'max_attempts', 1, 100, 5);
  v_step.backoff := pgdrip.definition_span(p_step, p_place, 'backoff', interval '1 minute');
  v_step.on_failure := pgdrip.definition_word(p_step, p_place, 'on_failure',
    array['stop', 'skip', 'park'], 'stop');
  v_step.on_uncertain := pgdrip.definition_word(p_step, p_place, 'on_uncertain',
    array['park', 'retry'], 'park');
  v_step.on_missing := pgdrip.definition_word(p_step, p_place, 'on_missing',
    array['fail', 'skip'], 'fail');
  v_step.expire_after := pgdrip.definition_span(p_step, p_place, 'expire_after');
  v_step.on_expire := pgdrip.definition_word(p_step, p_place, 'on_expire',
    array['send_late', 'skip', 'stop'], 'send_late');
  if v_step.backoff = interval '0' then
    perform pgdrip.refuse_definition(p_place, 'backoff must not be zero', 'Say ''1 minute''.');
  end if;
  if v_step.on_missing = 'fail' then
    perform pgdrip.assert_spelling(v_step.required, p_place);
  end if;
  if v_wait is not null then
    p_place := p_place || ', wait_for';
    perform pgdrip.assert_keys(v_wait, p_place, array['event', 'timeout', 'then', 'else'],
      array['event', 'timeout']);
    v_step.wait_event := v_wait ->> 'event';
    v_step.wait_timeout := pgdrip.definition_span(v_wait, p_place, 'timeout');
    v_step.then_step := pgdrip.definition_integer(v_wait, p_place, 'then', 1, 36500);
    v_step.else_step := pgdrip.definition_integer(v_wait, p_place, 'else', 1, 36500);
  end if;
  return v_step;
end
$$;

comment on function pgdrip.read_step(jsonb, text, integer, pgdrip.channels) is
  'Private: one step of a definition, checked and compiled; MD008';

create or replace function pgdrip.read_steps(p_definition jsonb, p_place text)
  returns setof pgdrip.steps
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_channel  pgdrip.channels;
  v_previous integer := 0;
  v_branch   integer;
  v_step     pgdrip.steps;
  v_steps    pgdrip.steps[];
  v_item     jsonb;
begin
  select c.* into v_channel from pgdrip.channels as c
   where c.channel = p_definition ->> 'channel';
  if not found then
    perform pgdrip.refuse_definition(p_place,
      format('unknown channel %s', quote_literal(left(p_definition ->> 'channel', 40))),
      (select format('Known: %s.', string_agg(c.channel, ', ' order by c.channel))
         from pgdrip.channels as c));
  end if;
  if coalesce(jsonb_typeof(p_definition -> 'steps'), '') <> 'array'
     or jsonb_array_length(p_definition -> 'steps') not between 1 and 1000 then
    perform pgdrip.refuse_definition(p_place, 'steps must be a list of 1 to 1000 steps',
      'Each step has at least a day and a body.');
  end if;
  for v_item in select s from jsonb_array_elements(p_definition -> 'steps') as s loop
    v_step := pgdrip.read_step(v_item,
      format('%s, step after day %s', p_place, v_previous), v_previous, v_channel);
    v_previous := v_step.number;
    v_steps := v_steps || v_step;
  end loop;
  select b into v_branch from unnest(v_steps) as s, unnest(array[s.then_step, s.else_step]) as b
   where b <= s.number or b not in (select x.number from unnest(v_steps) as x) limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place,
      format('a branch goes to day %s, which is no later step', v_branch),
      'then and else only go forward.');
  end if;
  return query select s.* from unnest(v_steps) as s;
end
$$;

comment on function pgdrip.read_steps(jsonb, text) is
  'Private: the steps of a definition in order, checked and compiled; MD008';

create or replace function pgdrip.read_sequence(p_definition jsonb)
  returns pgdrip.sequences
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place    text := format('sequence %s', coalesce(quote_literal(left(p_definition ->> 'name', 80)), ''));
  v_sequence pgdrip.sequences;
begin
  perform pgdrip.assert_keys(p_definition, v_place, array['name', 'trigger', 'channel', 'pool',
    'status', 'dry_run', 'in_flight', 'priority', 'reentry', 'stop_on_reply', 'on_complete',
    'goal', 'exit_when', 'cap', 'window', 'steps'],
    array['name', 'trigger', 'channel', 'steps']);
  if octet_length(p_definition ->> 'name') > 200 or p_definition ->> 'name' ~ '[[:cntrl:]]' then
    perform pgdrip.refuse_definition(v_place, 'name is longer than 200 bytes or no plain text',
      'Use a short plain name.');
  end if;
  if not pgdrip.is_word(p_definition ->> 'trigger') then
    perform pgdrip.refuse_definition(v_place, 'trigger must be one visible, trimmed word',
      'No commas: a contact carries each word by itself.');
  end if;
  if p_definition -> 'reentry' <> '"never"' then
    perform pgdrip.assert_keys(p_definition -> 'reentry', v_place || ', reentry',
      array['after'], array['after']);
    v_sequence.reentry_after :=
      pgdrip.definition_span(p_definition -> 'reentry', v_place || ', reentry', 'after');
  end if;
  if pgdrip.is_blank(coalesce(p_definition ->> 'pool', 'default'))
     or octet_length(p_definition ->> 'pool') > 63 then
    perform pgdrip.refuse_definition(v_place, 'pool must be 1 to 63 bytes of visible text',
      'Leave it out for the pool named default.');
  end if;
  v_sequence.in_flight := pgdrip.definition_word(p_definition, v_place, 'in_flight',
    array['pin', 'follow', 'migrate'], 'pin');
  if coalesce(p_definition ->> 'priority', '0') !~ '^-?[0-9]{1,3}$' then
    perform pgdrip.refuse_definition(v_place, 'priority must be a whole number from -999 to 999',
      'Higher goes first among the due messages of a sender.');
  end if;
  v_sequence.priority := coalesce(p_definition ->> 'priority', '0')::integer;
  v_sequence.name    := p_definition ->> 'name';
  v_sequence.trigger := p_definition ->> 'trigger';
  v_sequence.channel := p_definition ->> 'channel';
  v_sequence.pool    := coalesce(p_definition ->> 'pool', 'default');
  v_sequence.status  := pgdrip.definition_word(p_definition, v_place, 'status',
    array['draft', 'active', 'paused', 'archived'], null);
  return v_sequence;
end
$$;

comment on function pgdrip.read_sequence(jsonb) is
  'Private: the head of a sequence definition, checked; status NULL where it is missing; MD008';

create or replace function pgdrip.read_version(p_definition jsonb)
  returns pgdrip.sequence_versions
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place   text := format('sequence %s', quote_literal(p_definition ->> 'name'));
  v_end     jsonb := coalesce(p_definition -> 'on_complete', '{}');
  v_cap     jsonb := p_definition -> 'cap';
  v_version pgdrip.sequence_versions;
begin
  perform pgdrip.assert_keys(v_end, v_place || ', on_complete',
    array['remove_trigger', 'add_trigger']);
  if v_end ? 'add_trigger' and not pgdrip.is_word(v_end ->> 'add_trigger') then
    perform pgdrip.refuse_definition(v_place || ', on_complete',
      'add_trigger must be one visible, trimmed word', 'No commas: one word.');
  end if;
  if v_cap is not null then
    perform pgdrip.assert_keys(v_cap, v_place || ', cap', array['max', 'per', 'on_cap'],
      array['max', 'per']);
    v_version.cap_max := pgdrip.definition_integer(v_cap, v_place || ', cap', 'max', 1, 1000);
    v_version.cap_per := pgdrip.definition_span(v_cap, v_place || ', cap', 'per');
    if v_version.cap_per = interval '0' then
      perform pgdrip.refuse_definition(v_place || ', cap', 'per must not be zero', 'Say ''1 day''.');
    end if;
  end if;
  v_version.on_cap := pgdrip.definition_word(coalesce(v_cap, '{}'), v_place || ', cap', 'on_cap',
    array['defer', 'skip', 'stop'], 'defer');
  v_version.goal := p_definition ->> 'goal';
  if p_definition ? 'goal' and pgdrip.is_blank(v_version.goal) then
    perform pgdrip.refuse_definition(v_place, 'goal is blank', 'Name the event, as purchased.');
  end if;
  v_version.exit_when := pgdrip.definition_condition(p_definition, v_place, 'exit_when');
  v_version.definition      := p_definition - array['status', 'dry_run'];
  v_version.send_window     := pgdrip.definition_window(p_definition -> 'window', v_place || ', window');
  v_version.stop_on_reply   := pgdrip.definition_boolean(p_definition, v_place, 'stop_on_reply', true);
  v_version.removes_trigger := pgdrip.definition_boolean(v_end, v_place || ', on_complete', 'remove_trigger', true);
  v_version.adds_trigger    := v_end ->> 'add_trigger';
  return v_version;
end
$$;

comment on function pgdrip.read_version(jsonb) is
  'Private: what a definition says besides head and steps, checked; MD008';

create or replace function pgdrip.publish_version(
  p_version pgdrip.sequence_versions,
  p_steps   pgdrip.steps[]
)
  returns bigint
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_version bigint;
begin
  insert into pgdrip.sequence_versions
    (sequence_id, number, definition, send_window, stop_on_reply, removes_trigger, adds_trigger,
     goal, exit_when, cap_max, cap_per, on_cap)
  values (p_version.sequence_id, p_version.number, p_version.definition, p_version.send_window,
          p_version.stop_on_reply, p_version.removes_trigger, p_version.adds_trigger,
          p_version.goal, p_version.exit_when, p_version.cap_max, p_version.cap_per,
          p_version.on_cap)
  returning version_id into v_version;

  insert into pgdrip.steps
    (version_id, number, next_step, delay, send_at, body, subject, content, required,
     max_attempts, backoff, on_failure, on_uncertain, on_missing, expire_after, on_expire,
     only_if, skip_if, variants, wait_event, wait_timeout, then_step, else_step)
  select v_version, s.number, lead(s.number) over (order by s.number), s.delay, s.send_at,
         s.body, s.subject, s.content, s.required, s.max_attempts, s.backoff, s.on_failure,
         s.on_uncertain, s.on_missing, s.expire_after, s.on_expire, s.only_if, s.skip_if,
         s.variants, s.wait_event, s.wait_timeout, s.then_step, s.else_step
    from unnest(p_steps) as s;

  update pgdrip.sequence_versions as v
     set first_step = (select min(s.number) from unnest(p_steps) as s)
   where v.version_id = v_version;
  return v_version;
end
$$;

comment on function pgdrip.publish_version(pgdrip.sequence_versions, pgdrip.steps[]) is
  'Private: stores a version with its chain of steps and returns its id';

create or replace function pgdrip.count_in_flight(
  p_sequence  bigint,
  p_in_flight text,
  p_numbers   integer[]
)
  returns pgdrip.publication
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  -- Who stands beyond the new version's last step cannot move to it at once.
  select null::text, null::integer, count(*)::integer,
         count(*) filter (where p_in_flight = 'pin' or x.is_beyond)::integer,
         count(*) filter (where p_in_flight <> 'pin' and not x.is_beyond)::integer,
         count(*) filter (where p_in_flight <> 'pin' and d.step <> all (p_numbers))::integer
    from pgdrip.enrollments as e
    left join pgdrip.due as d using (enrollment_id),
         lateral (select p_in_flight = 'migrate'
                     and d.step > (select max(n) from unnest(p_numbers) as n)) as x(is_beyond)
   where e.sequence_id = p_sequence and e.status = 'active'
$$;

comment on function pgdrip.count_in_flight(bigint, text, integer[]) is
  'Private: how many in flight a publication leaves, moves, or meets on a step number it lacks';

create or replace function pgdrip.move_in_flight(p_limit integer)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_now timestamptz;
begin
  v_ids := array(
    select d.enrollment_id
      from pgdrip.sequences as q
      join pgdrip.enrollments as e using (sequence_id)
      join pgdrip.due as d using (enrollment_id)
     where q.in_flight = 'migrate' and e.status = 'active' and e.version_id <> q.version_id
       and d.lease_until is null and d.token is null and d.awaits is null
       and exists (select from pgdrip.steps as n
                    where n.version_id = q.version_id and n.number >= d.step)
     order by d.enrollment_id limit p_limit for update of d skip locked);
  v_now := pgdrip.clock();
  -- Timed anew from where the old wait began, where the step or its wait is another.
  with moved as (
    update pgdrip.due as d
       set step = n.number,
           attempt       = case when n.number = d.step then d.attempt else 0 end,
           never_begun   = case when n.number = d.step then d.never_begun else 0 end,
           parked_reason = case when n.number = d.step
             or d.parked_reason not in ('failed', 'never_begun') then d.parked_reason end,
           due_at = case
             when n.number = d.step and (d.attempt > 0
               or (n.delay, n.send_at) is not distinct from (o.delay, o.send_at)) then d.due_at
             when x.at is null then greatest(d.due_at,
               pgdrip.step_due_at(e.enrolled_at, n, 0, v.send_window, c.timezone))
             else pgdrip.step_due_at(x.at, n, x.step, v.send_window, c.timezone) end
      from pgdrip.enrollments as e
      join pgdrip.contacts as c using (contact_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.sequence_versions as v on v.version_id = q.version_id
     cross join lateral (
        select s.* from pgdrip.steps as s
         where s.version_id = q.version_id and s.number >= (
           select l.step from pgdrip.due as l where l.enrollment_id = e.enrollment_id)
         order by s.number limit 1) as n
      left join pgdrip.steps as o on o.version_id = e.version_id and o.number = n.number
      left join lateral (
        select j.at, j.step from pgdrip.deliveries as j
         where j.enrollment_id = e.enrollment_id and j.next_due_at is not null
           and j.verdict in ('advanced', 'late', 'skipped')
         order by j.at desc limit 1) as x on true
     where e.enrollment_id = any (v_ids) and d.enrollment_id = e.enrollment_id
    returning d.enrollment_id, d.sender_id, d.due_at, v.version_id
  ),
  pinned as (
    update pgdrip.enrollments as e set version_id = m.version_id
      from moved as m where e.enrollment_id = m.enrollment_id
  )
  insert into pgdrip.wakes (sender_id, due_at)
  select m.sender_id, least(min(m.due_at), v_now) from moved as m
   where m.sender_id is not null group by m.sender_id;
  return cardinality(v_ids);
end
$$;

comment on function pgdrip.move_in_flight(integer) is
  'Private: takes enrollments of migrating sequences to the newest version, those not claimed; returns how many';

create or replace function pgdrip.apply_sequence(p_definition jsonb)
  returns pgdrip.publication
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_new     pgdrip.sequences;
  v_old     pgdrip.sequences;
  v_version pgdrip.sequence_versions;
  v_place   text := format('sequence %s', quote_literal(left(p_definition ->> 'name', 80)));
  v_steps   pgdrip.steps[];
  v_planned boolean;
  v_is_same boolean;
  v_result  pgdrip.publication;
begin
  perform pgdrip.assert_given('p_definition', p_definition);
  v_new     := pgdrip.read_sequence(p_definition);
  v_version := pgdrip.read_version(p_definition);
  v_steps   := array(select s from pgdrip.read_steps(p_definition, v_place) as s);
  v_planned := pgdrip.definition_boolean(p_definition, v_place, 'dry_run', false);

  -- A new name has no row to lock.
  perform pg_advisory_xact_lock(hashtextextended('pgdrip.sequence.' || v_new.name, 0));
  select q.* into v_old from pgdrip.sequences as q where q.name = v_new.name for no key update;
  if (v_old.pool, v_old.channel) <> (v_new.pool, v_new.channel) then
    perform pgdrip.refuse_definition(v_place, 'pool and channel of a sequence are fixed',
      'Publish it under another name.');
  end if;
  v_new.status := coalesce(v_new.status, v_old.status, 'draft');
  v_is_same := exists (
    select from pgdrip.sequence_versions as v
     where v.version_id = v_old.version_id and v.definition = v_version.definition);
  select coalesce(max(v.number), 0) + (not v_is_same)::integer into v_version.number
    from pgdrip.sequence_versions as v where v.sequence_id = v_old.sequence_id;
  v_result := pgdrip.count_in_flight(v_old.sequence_id, v_new.in_flight,
    array(select s.number from unnest(v_steps) as s));
  v_result.version := v_version.number;

  v_result.outcome := case
    when v_is_same and v_new.status = v_old.status then 'unchanged'
    when v_planned then 'planned'
    when v_old.sequence_id is null then 'created'
    else 'published' end;
  if v_result.outcome in ('unchanged', 'planned') then
    return v_result;
  end if;

  insert into pgdrip.sequences as q
    (name, trigger, pool, channel, reentry_after, in_flight, priority)
  values (v_new.name, v_new.trigger, v_new.pool, v_new.channel, v_new.reentry_after,
          v_new.in_flight, v_new.priority)
  on conflict (name) do update
    set trigger = excluded.trigger, reentry_after = excluded.reentry_after,
        in_flight = excluded.in_flight, priority = excluded.priority
  returning q.sequence_id into v_version.sequence_id;
  if not v_is_same then
    update pgdrip.sequences as q
       set version_id = pgdrip.publish_version(v_version, v_steps)
     where q.sequence_id = v_version.sequence_id;
  end if;
  if (v_old.trigger, v_old.reentry_after)
     is distinct from (v_new.trigger, v_new.reentry_after) then
    perform pgdrip.sweep_word(v_new.trigger, pgdrip.clock());
  end if;
  perform pgdrip.set_sequence_status(v_new.name, v_new.status, 'its definition says so', false);
  if v_new.in_flight = 'migrate' then
    perform pgdrip.move_in_flight(1000);
  end if;
  perform pgdrip.note(v_result.outcome, v_place, format('version %s', v_result.version));
  return v_result;
end
$$;

comment on function pgdrip.apply_sequence(jsonb) is
  'Publishes a definition: created, published, unchanged, or planned under dry_run; enrollments in flight stay on their version; MD008';

create or replace function pgdrip.unpark(p_enrollments bigint[], p_reason text)
  returns integer
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    select d.enrollment_id from pgdrip.due as d
     where d.enrollment_id = any (p_enrollments) and d.parked_reason = p_reason
       and d.sender_id is not null
     order by d.enrollment_id for update);
  with freed as (
    update pgdrip.due as d set parked_reason = null
     where d.enrollment_id = any (v_ids)
    returning d.sender_id, d.due_at
  )
  insert into pgdrip.wakes (sender_id, due_at)
  select f.sender_id, min(f.due_at) from freed as f group by f.sender_id;
  return cardinality(v_ids);
end
$$;

comment on function pgdrip.unpark(bigint[], text) is
  'Private: puts rows parked for that reason back into the due index; returns how many';

create or replace function pgdrip.keep_remaining(p_sequence pgdrip.sequences, p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgdrip.due as d
    join pgdrip.enrollments as e using (enrollment_id)
   where e.sequence_id = p_sequence.sequence_id and e.status = 'active'
   order by d.enrollment_id for update of d;
  update pgdrip.due as d
     set due_at = d.due_at + make_interval(secs => extract(epoch
           from p_now - greatest(p_sequence.paused_at, e.enrolled_at, (
             select max(j.at) from pgdrip.deliveries as j
              where j.enrollment_id = e.enrollment_id and j.next_due_at is not null))))
    from pgdrip.enrollments as e
   where e.enrollment_id = d.enrollment_id and e.sequence_id = p_sequence.sequence_id
     and e.status = 'active' and d.lease_until is null and d.awaits is null
     and (d.parked_reason is null or d.parked_reason in ('sequence_paused', 'no_sender'));
end
$$;

comment on function pgdrip.keep_remaining(pgdrip.sequences, timestamptz) is
  'Private: moves the live steps of a paused sequence later by the length of the pause';

create or replace function pgdrip.sweep_word(p_trigger text, p_now timestamptz)
  returns void
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  update pgdrip.contact_triggers as t set sweep_at = p_now
   where t.trigger_id = any (array(
     select l.trigger_id from pgdrip.contact_triggers as l
      where l.trigger = p_trigger and l.sweep_at is null
      order by l.trigger_id for no key update))
$$;

comment on function pgdrip.sweep_word(text, timestamptz) is
  'Private: lets enroll_waiting look anew at a word that came while its sequence took nobody in, or not so';

create or replace function pgdrip.set_sequence_status(
  p_sequence       text,
  p_status         text,
  p_reason         text,
  p_keep_remaining boolean
)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old pgdrip.sequences;
  v_now timestamptz;
begin
  perform pgdrip.sequence_named(p_sequence);
  select q.* into v_old from pgdrip.sequences as q
   where q.name = p_sequence for no key update;
  v_now := pgdrip.clock();
  if v_old.status = p_status then
    return false;
  end if;
  update pgdrip.sequences as q
     set status        = p_status,
         paused_at     = case when p_status = 'paused' then v_now end,
         paused_reason = case when p_status = 'paused' then p_reason end
   where q.sequence_id = v_old.sequence_id;
  if v_old.status in ('draft', 'archived') then
    perform pgdrip.sweep_word(v_old.trigger, v_now);
  elsif v_old.status = 'paused' then
    if p_keep_remaining then
      perform pgdrip.keep_remaining(v_old, v_now);
    end if;
    perform pgdrip.unpark(array(
      select d.enrollment_id from pgdrip.due as d
        join pgdrip.enrollments as e using (enrollment_id)
       where d.parked_reason = 'sequence_paused' and e.sequence_id = v_old.sequence_id),
      'sequence_paused');
  end if;
  perform pgdrip.note(p_status, format('sequence %s', quote_literal(p_sequence)), p_reason);
  return true;
end
$$;

comment on function pgdrip.set_sequence_status(text, text, text, boolean) is
  'Private: the one place where a sequence changes its status, with what follows from it';

create or replace function pgdrip.assert_sequence_status(
  p_sequence text,
  p_allowed  text[],
  p_hint     text
)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences := pgdrip.sequence_named(p_sequence);
begin
  if v_sequence.status <> all (p_allowed) then
    raise exception 'sequence % is %', quote_literal(p_sequence), v_sequence.status
      using errcode = 'MD003', hint = p_hint;
  end if;
end
$$;

comment on function pgdrip.assert_sequence_status(text, text[], text) is
  'Refuses (MD003) a sequence whose status is none of the given ones';

create or replace function pgdrip.activate_sequence(p_sequence text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_sequence_status(p_sequence, array['draft', 'active', 'archived'],
    'A paused sequence is resumed: resume_sequence().');
  return pgdrip.set_sequence_status(p_sequence, 'active', 'activated', false);
end
$$;

comment on function pgdrip.activate_sequence(text) is
  'Lets a draft or archived sequence take people in and send; false: it did already; MD001, MD003';

create or replace function pgdrip.archive_sequence(p_sequence text)
  returns boolean
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.set_sequence_status(p_sequence, 'archived', 'archived', false)
$$;

comment on function pgdrip.archive_sequence(text) is
  'Takes nobody in any more; who is in flight goes on to the end; false: archived already; MD001';

create or replace function pgdrip.pause_sequence(p_sequence text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_reason(p_reason);
  perform pgdrip.assert_sequence_status(p_sequence, array['active', 'paused'],
    'Only an active sequence can be paused.');
  return pgdrip.set_sequence_status(p_sequence, 'paused', p_reason, false);
end
$$;

comment on function pgdrip.pause_sequence(text, text) is
  'Sends nothing of it until resumed; people still get in; false: paused already; MD001, MD003';

create or replace function pgdrip.resume_sequence(
  p_sequence       text,
  p_keep_remaining boolean default false
)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_keep_remaining', p_keep_remaining);
  perform pgdrip.assert_sequence_status(p_sequence, array['active', 'paused'],
    'A draft or archived sequence is activated: activate_sequence().');
  return pgdrip.set_sequence_status(p_sequence, 'active', 'resumed', p_keep_remaining);
end
$$;

comment on function pgdrip.resume_sequence(text, boolean) is
  'Sends again: overdue steps at the senders'' pace or, with p_keep_remaining, all later by the length of the pause; false: was not paused; MD001, MD003';
