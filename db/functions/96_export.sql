-- Definitions out again, so that applying what was exported changes nothing.

create or replace function pgdrip.span_words(p_span interval)
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select case when p_span is not null then coalesce(nullif(concat_ws(' ',
           nullif(extract(day from p_span), 0)::text || ' days',
           nullif(extract(hour from p_span), 0)::text || ' hours',
           nullif(extract(minute from p_span), 0)::text || ' minutes',
           nullif(trim_scale(extract(second from p_span)), 0)::text || ' seconds'), ''),
         '0 seconds') end
$$;

comment on function pgdrip.span_words(interval) is
  'Private: a wait as a definition says it, 1 days 12 hours; NULL for NULL';

create or replace function pgdrip.window_definition(p_window jsonb)
  returns jsonb
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'from', left(p_window ->> 'from', 5),
    'to', left(p_window ->> 'to', 5),
    'zone', p_window -> 'zone',
    'days', case when jsonb_array_length(p_window -> 'days') < 7 then (
       select jsonb_agg((array['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'])[d::integer]
                        order by d::integer)
         from jsonb_array_elements_text(p_window -> 'days') as d) end,
    'holidays', nullif(p_window -> 'holidays', '[]')))
   where p_window is not null
$$;

comment on function pgdrip.window_definition(jsonb) is
  'Private: a send window in the words of a definition; NULL for NULL';

create or replace function pgdrip.sender_definition(p_sender pgdrip.senders)
  returns jsonb
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
           'kind', 'sender', 'name', p_sender.name, 'channel', p_sender.channel,
           'pool', nullif(p_sender.pool, 'default'),
           'rate_per_hour', p_sender.rate_per_hour, 'rate_per_day', p_sender.rate_per_day,
           'burst', nullif(p_sender.burst, 1),
           'gap_min', pgdrip.span_words(nullif(p_sender.gap_min, interval '0')),
           'gap_max', pgdrip.span_words(nullif(p_sender.gap_max, p_sender.gap_min)),
           'ramp', p_sender.ramp, 'hours', pgdrip.window_definition(p_sender.hours),
           'group', (select g.name from pgdrip.sender_groups as g
                      where g.group_id = p_sender.group_id),
           'fault_threshold', nullif(p_sender.fault_threshold, 1),
           'failover_after', pgdrip.span_words(p_sender.failover_after),
           'advance_on', nullif(p_sender.advance_on, 'accepted'),
           'confirm_within',
             pgdrip.span_words(nullif(p_sender.confirm_within, interval '1 day')),
           'on_unconfirmed', nullif(p_sender.on_unconfirmed, 'park'),
           'secret', p_sender.secret))
         || case when p_sender.config = '{}' then '{}'
                 else jsonb_build_object('config', p_sender.config) end
$$;

comment on function pgdrip.sender_definition(pgdrip.senders) is
  'Private: a sender as apply_sender() takes it, with its kind and without defaults';

create or replace function pgdrip.export_definitions()
  returns setof jsonb
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select d.definition
    from (select 1 as place, g.name, jsonb_strip_nulls(jsonb_build_object(
                   'kind', 'group', 'name', g.name, 'rate', g.rate,
                   'per', pgdrip.span_words(g.per),
                   'distinct_contacts_per_day', g.distinct_contacts_per_day)) as definition
            from pgdrip.sender_groups as g
          union all
          select 2, s.name, pgdrip.sender_definition(s)
            from pgdrip.senders as s where s.status not in ('retiring', 'retired')
          union all
          select 3, q.name,
                 v.definition || jsonb_build_object('kind', 'sequence', 'status', q.status)
            from pgdrip.sequences as q
            join pgdrip.sequence_versions as v using (version_id)) as d
   order by d.place, d.name
$$;

comment on function pgdrip.export_definitions() is
  'Every group, sender in service and sequence as a definition with its kind, in the order to apply them';
