-- What comes in from outside: receipts of providers and replies of people.
-- Writes provider_refs, receipts, and by settle() what follows.

create or replace function pgdrip.receipt_rank(p_status text)
  returns integer
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select array_position(array['sent', 'failed', 'delivered', 'read'], p_status)
$$;

comment on function pgdrip.receipt_rank(text) is
  'Receipts only ever move up: sent, failed, delivered, read';

create or replace function pgdrip.record_receipt(
  p_channel     text,
  p_provider_id text,
  p_status      text,
  p_at          timestamptz default null
)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_enrollment bigint;
  v_now        timestamptz;
begin
  perform pgdrip.assert_given('p_channel', p_channel);
  perform pgdrip.assert_given('p_provider_id', p_provider_id);
  perform pgdrip.assert_given('p_status', p_status);
  perform pgdrip.assert_time('p_at', p_at);
  if pgdrip.receipt_rank(p_status) is null or pgdrip.is_blank(p_provider_id)
     or octet_length(p_provider_id) > 512 or octet_length(p_channel) > 63 then
    raise exception 'a receipt needs a provider id of at most 512 bytes and a known status'
      using errcode = '22023', hint = 'Statuses: sent, delivered, read, failed.';
  end if;
  select r.enrollment_id into v_enrollment from pgdrip.provider_refs as r
   where r.channel = p_channel and r.provider_id = p_provider_id;
  if not found then
    -- It overtook the report: refer() matches it.
    insert into pgdrip.receipts (channel, provider_id, status, at)
    values (p_channel, p_provider_id, p_status, coalesce(p_at, pgdrip.clock()));
    return false;
  end if;
  perform from pgdrip.due as d where d.enrollment_id = v_enrollment for update;
  perform from pgdrip.enrollments as e where e.enrollment_id = v_enrollment for update;
  v_now := pgdrip.clock();
  return pgdrip.apply_receipt(p_channel, p_provider_id, p_status, coalesce(p_at, v_now), v_now);
end
$$;

comment on function pgdrip.record_receipt(text, text, text, timestamptz) is
  'Stores what a provider tells of a message; confirms or fails a step that awaits it; false: nothing new or not known yet; 22004, 22023';

create or replace function pgdrip.match_receipts()
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.record_receipt(w.channel, w.provider_id, w.status, w.at)
     from (select t.* from pgdrip.receipts as t
             join pgdrip.provider_refs as f using (channel, provider_id)
            order by f.enrollment_id, t.receipt_id) as w;
  delete from pgdrip.receipts as t using pgdrip.provider_refs as f
   where f.channel = t.channel and f.provider_id = t.provider_id;
end
$$;

comment on function pgdrip.match_receipts() is
  'Private: applies receipts that arrived while the report with their provider id was under way';

create or replace function pgdrip.apply_receipt(
  p_channel     text,
  p_provider_id text,
  p_status      text,
  p_at          timestamptz,
  p_now         timestamptz
)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pgdrip.provider_refs as r set receipt = p_status, receipt_at = p_at
   where r.channel = p_channel and r.provider_id = p_provider_id
     and pgdrip.receipt_rank(p_status) > coalesce(pgdrip.receipt_rank(r.receipt), 0);
  if not found then
    return false;
  end if;
  perform from pgdrip.settle(array(
    select row(d.enrollment_id, d.token, 'resolved', x.code, null, null, p_provider_id, null,
               x.move, x.code, null, null, null, null, null, null)::pgdrip.settlement
      from pgdrip.provider_refs as r
      join pgdrip.due as d using (enrollment_id, token),
           lateral (select
             case p_status when 'failed' then 'not_delivered' else p_status end,
             case p_status when 'failed' then 'fail' else 'confirm' end) as x(code, move)
     where r.channel = p_channel and r.provider_id = p_provider_id
       and p_status <> 'sent' and (d.awaits = 'receipt' or d.parked_reason = 'unconfirmed')), p_now);
  return true;
end
$$;

comment on function pgdrip.apply_receipt(text, text, text, timestamptz, timestamptz) is
  'Private: moves a receipt up and settles the step that awaits it; false: nothing new';

create or replace function pgdrip.record_reply(
  p_channel text,
  p_address text,
  p_text    text,
  p_at      timestamptz default null
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_address  text := pgdrip.plain_address(p_address);
  v_contacts bigint[];
  v_ended    bigint[];
begin
  perform pgdrip.assert_given('p_channel', p_channel);
  perform pgdrip.assert_given('p_text', p_text);
  perform pgdrip.assert_time('p_at', p_at);
  v_contacts := array(
    select c.contact_id from pgdrip.contacts as c
     where c.phone = v_address or lower(c.email) = v_address
     order by c.contact_id for no key update);
  v_ended := pgdrip.exit_all(array(
    select e.enrollment_id from pgdrip.enrollments as e
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.sequence_versions as v on v.version_id = e.version_id
     where e.contact_id = any (v_contacts) and e.status = 'active'
       and e.enrolled_at <= coalesce(p_at, pgdrip.clock())
       and q.channel = p_channel and v.stop_on_reply), 'replied');
  if upper(btrim(p_text, E' \t\r\n.!')) in ('STOP', 'STOPALL', 'UNSUBSCRIBE', 'CANCEL', 'END',
                                            'QUIT', 'BERHENTI', 'OPTOUT', 'OPT OUT', 'OPT-OUT') then
    perform pgdrip.suppress(v_address, 'opted out by reply');
  end if;
  return cardinality(v_ended);
end
$$;

comment on function pgdrip.record_reply(text, text, text, timestamptz) is
  'Ends what is in flight to an address on that channel, where the sequence stops on reply; STOP and its like, as the whole message, suppress; 22004, 22023';

create or replace function pgdrip.record_event(
  p_contact bigint,
  p_event   text,
  p_payload jsonb default '{}',
  p_at      timestamptz default null
)
  returns integer
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz;
  v_goals bigint[];
  v_waits bigint[];
begin
  perform pgdrip.assert_given('p_event', p_event);
  perform pgdrip.assert_given('p_payload', p_payload);
  perform pgdrip.assert_object('p_payload', p_payload);
  perform pgdrip.assert_time('p_at', p_at);
  if pgdrip.is_blank(p_event) or octet_length(p_event) > 200 then
    raise exception 'p_event must be 1 to 200 bytes of visible text'
      using errcode = '22023', hint = 'The word that goals and waiting steps name.';
  end if;
  perform pgdrip.lock_contact(p_contact);
  v_now := pgdrip.clock();
  if p_at > v_now + interval '1 hour' then
    raise exception 'p_at lies in the future'
      using errcode = '22023', hint = 'An event is told after it happened.';
  end if;
  insert into pgdrip.contact_events (contact_id, event, payload, at)
  values (p_contact, p_event, p_payload, coalesce(p_at, v_now));
  -- A report under way for this contact ends first, so that its wait is seen here.
  perform from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
    where e.contact_id = p_contact and e.ended_at is null
    order by d.enrollment_id for update of d;
  v_goals := pgdrip.exit_all(array(
    select e.enrollment_id from pgdrip.enrollments as e
      join pgdrip.sequence_versions as v using (version_id)
     where e.contact_id = p_contact and e.status = 'active' and v.goal = p_event), 'goal');
  v_waits := pgdrip.branch_all(array(
    select d.enrollment_id from pgdrip.due as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
     where e.contact_id = p_contact and d.awaits = 'event' and s.wait_event = p_event));
  return cardinality(v_goals) + cardinality(v_waits);
end
$$;

comment on function pgdrip.record_event(bigint, text, jsonb, timestamptz) is
  'Stores what happened to a contact; ends enrollments with that goal and moves steps that wait for it; returns how many; 22004, 22023, 23514, MD001';

create or replace function pgdrip.branch_all(p_enrollments bigint[])
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  perform from pgdrip.enrollments as e where e.enrollment_id = any (p_enrollments)
    order by e.enrollment_id for update;
  return array(
    select s.enrollment_id from pgdrip.settle(array(
      select row(d.enrollment_id, null, 'resolved', 'event', null, null, null, null,
                 'branch', null, null, null, null, null, null, null)::pgdrip.settlement
        from pgdrip.due as d
       where d.enrollment_id = any (p_enrollments) and d.awaits = 'event'
       order by d.enrollment_id), pgdrip.clock()) as s);
end
$$;

comment on function pgdrip.branch_all(bigint[]) is
  'Private: steps that await an event go on by their then branch';
