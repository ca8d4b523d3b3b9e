-- Asking gateways: what became of uncertain sends, and which senders could send.
-- Writes senders and, where one comes back, due and wakes. An answer about a send is
-- applied by report() or resolve_uncertain().

create or replace function pgdrip.assert_page(p_channels text[], p_limit integer)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_channels', p_channels);
  perform pgdrip.assert_given('p_limit', p_limit);
  if p_limit not between 1 and 1000 then
    raise exception 'p_limit must be from 1 to 1000, not %', p_limit
      using errcode = '22023', hint = 'Ask for the next page after this one.';
  end if;
end
$$;

comment on function pgdrip.assert_page(text[], integer) is
  'Refuses NULL (22004) and a page of no or more than 1000 rows (22023)';

create or replace function pgdrip.uncertain_sends(
  p_channels   text[],
  p_older_than interval,
  p_after      bigint,
  p_limit      integer
)
  returns setof pgdrip.uncertain_send
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_before timestamptz;
begin
  perform pgdrip.assert_page(p_channels, p_limit);
  perform pgdrip.assert_given('p_older_than', p_older_than);
  perform pgdrip.assert_given('p_after', p_after);
  if not pgdrip.is_span(p_older_than) then
    raise exception 'p_older_than must be a wait, not %', p_older_than
      using errcode = '22023', hint = 'Days and time, not negative, as ''10 minutes''.';
  end if;
  v_before := pgdrip.clock() - p_older_than;
  return query
    with page as materialized (
      select d.*, e.contact_id, e.version_id, q.channel
        from pgdrip.due as d
        join pgdrip.enrollments as e using (enrollment_id)
        join pgdrip.sequences as q using (sequence_id)
       where d.parked_reason = 'uncertain' and q.channel = any (p_channels)
         and d.token > p_after and (d.begun_at <= v_before or d.begun_at is null)
       order by d.token limit p_limit
    )
    select d.enrollment_id, d.token, d.step, d.channel, coalesce(n.name, ''),
           coalesce(n.config, '{}') || jsonb_strip_nulls(jsonb_build_object('secret', n.secret)),
           pgdrip.recipient(h.address, c.phone, c.email),
           case when t.is_as_sent then t.subject end, case when t.is_as_sent then t.body end,
           case when t.is_as_sent then t.content end,
           d.enrollment_id || ':' || d.step, d.begun_at, k.ids
      from page as d
      join pgdrip.channels as h on h.channel = d.channel
      join pgdrip.contacts as c on c.contact_id = d.contact_id
      join pgdrip.steps as s on s.version_id = d.version_id and s.number = d.step
      -- Who sent it; the row may have been moved to another sender since.
      left join pgdrip.senders as n on n.sender_id = coalesce(
             (select j.sender_id from pgdrip.deliveries as j
               where j.enrollment_id = d.enrollment_id and j.token = d.token
               order by j.at limit 1), d.sender_id)
     cross join lateral (
       select r.subject, r.body, r.content,
              pgdrip.content_hash(r.subject, r.body, r.content) = d.content_hash as is_as_sent
         from pgdrip.step_text(s, d.enrollment_id) as x,
              lateral (select pgdrip.contact_values(c) offset 0) as v(vals),
              lateral (select pgdrip.render_template(x.subject, v.vals) as subject,
                              pgdrip.render_template(x.body, v.vals) as body,
                              pgdrip.render_template(x.content, v.vals)::jsonb as content) as r) as t
     cross join lateral (
       select coalesce(array_agg(r.provider_id), '{}') as ids
         from pgdrip.enrollments as o
         join pgdrip.provider_refs as r using (enrollment_id)
        where o.contact_id = d.contact_id and r.channel = d.channel
          and r.token <> d.token) as k
     order by d.token;
end
$$;

comment on function pgdrip.uncertain_sends(text[], interval, bigint, integer) is
  'Uncertain deliveries of these channels, begun at least so long ago, by token after p_after, with what it takes to ask the gateway; the text is NULL where it can no longer be rendered as sent; 22004, 22023';

create or replace function pgdrip.senders_to_probe(
  p_channels text[],
  p_after    text,
  p_limit    integer
)
  returns setof pgdrip.known_sender
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_page(p_channels, p_limit);
  perform pgdrip.assert_given('p_after', p_after);
  return query
    select s.name, s.channel,
           s.config || jsonb_strip_nulls(jsonb_build_object('secret', s.secret)), s.health
      from pgdrip.senders as s
     where s.status = 'active' and s.health <> 'blocked'
       and s.channel = any (p_channels) and s.name > p_after
     order by s.name limit p_limit;
end
$$;

comment on function pgdrip.senders_to_probe(text[], text, integer) is
  'Active senders of these channels that nobody blocked, by name after p_after; 22004, 22023';

create or replace function pgdrip.record_probe(
  p_sender text,
  p_is_up  boolean,
  p_detail text default null
)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sender pgdrip.senders;
  v_now    timestamptz;
begin
  perform pgdrip.assert_given('p_sender', p_sender);
  perform pgdrip.assert_given('p_is_up', p_is_up);
  select s.* into v_sender from pgdrip.senders as s where s.name = p_sender for no key update;
  if not found then
    raise exception 'no sender is named %', quote_literal(left(p_sender, 80))
      using errcode = 'MD001', hint = 'senders_to_probe() lists those to probe.';
  end if;
  v_now := pgdrip.clock();
  -- Only an operator ends a pause or a block.
  if v_sender.status <> 'active' or v_sender.health = 'blocked'
     or p_is_up and v_sender.health = 'healthy' then
    return 'unchanged';
  end if;
  if p_is_up then
    update pgdrip.senders as s set health = 'healthy', faults = 0, down_at = null
     where s.sender_id = v_sender.sender_id;
    update pgdrip.paces as p
       set ready_at = 'epoch', next_at = case when v_sender.is_limited then p.next_at end
     where p.sender_id = v_sender.sender_id;
    insert into pgdrip.wakes (sender_id, due_at) values (v_sender.sender_id, v_now);
    perform pgdrip.adopt(1000);
    return 'resumed';
  end if;
  update pgdrip.senders as s
     set health = 'down', faults = greatest(s.faults + 1, s.fault_threshold), fault_at = v_now,
         down_at = coalesce(s.down_at, v_now),
         last_error = left('probe: ' || coalesce(pgdrip.mask(p_detail), 'down'), 500)
   where s.sender_id = v_sender.sender_id;
  update pgdrip.paces as p
     set ready_at = greatest(p.ready_at, v_now + pgdrip.probe_wait(
           greatest(v_sender.faults + 1 - v_sender.fault_threshold, 0) + 1)),
         next_at = 'epoch'
   where p.sender_id = v_sender.sender_id;
  return case v_sender.health when 'healthy' then 'parked' else 'unchanged' end;
end
$$;

comment on function pgdrip.record_probe(text, boolean, text) is
  'Takes a sender that is down back into service, or parks a healthy one, by what its gateway says: resumed, parked or unchanged; never touches a paused, retired or blocked one; 22004, MD001';
