-- Looking: what a claim sees of each row it has locked: what stands in the way of its message,
-- or the message, rendered. Nothing is written. One join for everything, since to find a row
-- again costs as much as what is done with it.

create or replace function pgdrip.is_wanted(p_step pgdrip.steps, p_values jsonb)
  returns boolean
  language sql
  stable
  parallel safe
return p_step.only_if is null and p_step.skip_if is null
    or coalesce(p_values @> p_step.only_if, true)
       and not coalesce(p_values @> p_step.skip_if, false);

comment on function pgdrip.is_wanted(pgdrip.steps, jsonb) is
  'Whether a step''s only_if and skip_if let it go to a contact of these values';

create or replace function pgdrip.cap_free_at(
  p_contact bigint,
  p_max     integer,
  p_per     interval,
  p_now     timestamptz
)
  returns timestamptz
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  -- What is on its way counts as sent now; of what was sent, the p_max-th newest decides.
  select s.at + make_interval(secs => extract(epoch from p_per))
    from (
      select d.token, p_now as at
        from pgdrip.enrollments as e join pgdrip.due as d using (enrollment_id)
       where e.contact_id = p_contact and e.status = 'active' and d.lease_until is not null
         and (d.lease_until > p_now or d.begun_at is not null)
      union all
      select j.token, max(coalesce(j.begun_at, j.at))
        from pgdrip.enrollments as e join pgdrip.deliveries as j using (enrollment_id)
       where e.contact_id = p_contact and j.event in ('sent', 'uncertain')
         and j.at > p_now - make_interval(secs => extract(epoch from p_per))
         and not exists (select from pgdrip.deliveries as r
                          where r.enrollment_id = j.enrollment_id and r.token = j.token
                            and r.code = 'not_sent')
       group by j.token) as s
   order by s.at desc offset p_max - 1 limit 1
$$;

comment on function pgdrip.cap_free_at(bigint, integer, interval, timestamptz) is
  'When a contact may get one more message under a cap, over all sequences; NULL: now';

create or replace function pgdrip.step_text(p_step pgdrip.steps, p_enrollment bigint)
  returns pgdrip.step_text
  language plpgsql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_text pgdrip.step_text;
  v_hash integer;
  v_item jsonb;
begin
  if p_step.variants is null then
    return row(p_step.subject, p_step.body, p_step.content, null)::pgdrip.step_text;
  end if;
  -- The same enrollment falls into the same part of the weights at every step.
  v_hash := get_byte(sha256(int8send(p_enrollment)), 0) * 256
          + get_byte(sha256(int8send(p_enrollment)), 1);
  v_text.variant := 1;
  while v_hash * (p_step.variants -> -1 ->> 'upto')::integer / 65536
        >= (p_step.variants -> (v_text.variant - 1) ->> 'upto')::integer loop
    v_text.variant := v_text.variant + 1;
  end loop;
  v_item := p_step.variants -> (v_text.variant - 1);
  v_text.subject := nullif(v_item -> 'subject', 'null');
  v_text.body    := nullif(v_item -> 'body', 'null');
  v_text.content := nullif(v_item -> 'content', 'null');
  return v_text;
end
$$;

comment on function pgdrip.step_text(pgdrip.steps, bigint) is
  'Private: the templates of a step for one enrollment: its own, or those of the variant that a stable hash chooses';

create or replace function pgdrip.content_hash(p_subject text, p_body text, p_content jsonb)
  returns bytea
  language sql
  stable
  parallel safe
return sha256(convert_to(concat_ws(E'\n', p_subject, p_body, p_content::text), 'UTF8'));

comment on function pgdrip.content_hash(text, text, jsonb) is
  'sha256 of subject, body and content as rendered, those present, joined by line feeds';

create or replace function pgdrip.look(p_rows pgdrip.due[], p_now timestamptz)
  returns setof pgdrip.look
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select d.enrollment_id, d.sender_id, x.obstacle, greatest(o.until, r.free_at), q.name,
           d.step, d.attempt + 1, q.channel, n.name,
           case when n.secret is null then n.config
                else n.config || jsonb_build_object('secret', n.secret) end,
           a.recipient, m.subject, m.body, m.content, m.variant, d.due_at
      from (select r.*, row_number() over () as ord from unnest(p_rows) as r) as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.channels as h on h.channel = q.channel
      join pgdrip.sequence_versions as v on v.version_id = e.version_id
      join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
      join pgdrip.senders as n on n.sender_id = d.sender_id
      join pgdrip.contacts as c on c.contact_id = e.contact_id,
           lateral (select pgdrip.recipient(h.address, c.phone, c.email),
                           pgdrip.contact_values(c) offset 0) as a(recipient, vals),
           lateral (select case when v.send_window is not null then
             pgdrip.spread_open(p_now, v.send_window, coalesce(c.timezone, 'UTC'),
                                d.enrollment_id) end offset 0) as o(until),
           lateral (select case when v.cap_max is not null then
             pgdrip.cap_free_at(c.contact_id, v.cap_max, v.cap_per, p_now) end offset 0) as r(free_at),
           lateral (select case
             when d.awaits = 'receipt' then 'unconfirmed'
             when d.awaits = 'event' then 'timed_out'
             when d.begun_at is not null then 'lapsed'
             when d.never_begun >= 19 and d.token is not null then 'never_begun'
             when a.recipient is null then 'no_address'
             when exists (select from pgdrip.suppressions as x
                           where x.address in (a.recipient, lower(a.recipient)))
               then 'suppressed'
             when e.paused_at is not null then 'enrollment_paused'
             when q.status = 'paused' then 'sequence_paused'
             when s.on_expire <> 'send_late'
              and pgdrip.after_span(d.due_at, s.expire_after, 'UTC') < p_now then 'expired'
             when a.vals @> v.exit_when then 'exit_condition'
             when not pgdrip.is_wanted(s, a.vals) then 'condition'
             when o.until > p_now then 'closed'
             when cardinality(s.required) > 0 and not pgdrip.has_values(s.required, a.vals)
               then 'missing_variable'
             when r.free_at > p_now then 'capped'
           end offset 0) as x(obstacle)
      left join lateral (
        select pgdrip.render_template(t.subject, a.vals) as subject,
               pgdrip.render_template(t.body, a.vals) as body,
               pgdrip.render_template(t.content, a.vals)::jsonb as content, t.variant
          from (select (w.text).* from (
                  select case when s.variants is null
                              then row(s.subject, s.body, s.content, null)::pgdrip.step_text
                              else pgdrip.step_text(s, d.enrollment_id) end as text offset 0) as w
                offset 0) as t
         where x.obstacle is null offset 0) as m on true
     order by d.ord;
end
$$;

comment on function pgdrip.look(pgdrip.due[], timestamptz) is
  'Private: what stands in the way of each row, or, with an obstacle of NULL, its rendered message; in order';
