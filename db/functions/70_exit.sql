-- Leaving early and standing still: exit, pause and resume of one enrollment, suppression.
-- Each writes its cause, then locks the due rows: begin_send either sees the cause, or we
-- see that it has begun. Whether an enrollment is here at all is seen after that wait: it
-- may have left for another shard meanwhile, where it goes on.

create or replace function pgdrip.exit_all(
  p_enrollments bigint[],
  p_reason      text
)
  returns bigint[]
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
begin
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  perform from pgdrip.enrollments as e where e.enrollment_id = any (p_enrollments)
    order by e.enrollment_id for update;
  v_now := pgdrip.clock();
  -- A message on its way may still arrive: its token stays known and uncertain.
  return array(
    select s.enrollment_id from pgdrip.settle(array(
      select row(d.enrollment_id, d.token, x.event, 'exited', null, null, null,
                 case x.event when 'uncertain' then 'parked' end, 'exit', p_reason,
                 null, null, null, null, null, null)::pgdrip.settlement
        from pgdrip.due as d
        join pgdrip.enrollments as e using (enrollment_id),
             lateral (select case
               when d.begun_at is not null and d.lease_until is not null then 'uncertain'
               when d.lease_until is not null then 'abandoned' end) as x(event)
       where d.enrollment_id = any (p_enrollments) and e.ended_at is null
       order by d.enrollment_id), v_now) as s);
end
$$;

comment on function pgdrip.exit_all(bigint[], text) is
  'Private: ends active enrollments for a reason; a send that has begun is journalled as uncertain';

create or replace function pgdrip.assert_enrollment(p_enrollment bigint)
  returns void
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_enrollment', p_enrollment);
  if not exists (select from pgdrip.enrollments as e where e.enrollment_id = p_enrollment) then
    raise exception 'no enrollment has id %', p_enrollment
      using errcode = 'MD001', hint = 'enroll() and sequence_progress tell the ids.';
  end if;
end
$$;

comment on function pgdrip.assert_enrollment(bigint) is
  'Refuses an enrollment that does not exist (MD001) or is NULL (22004)';

create or replace function pgdrip.exit_enrollment(p_enrollment bigint, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_reason(p_reason);
  if pgdrip.exit_all(array[p_enrollment], p_reason) = '{}' then
    perform pgdrip.assert_enrollment(p_enrollment);
    return false;
  end if;
  perform pgdrip.note('exit', format('enrollment %s', p_enrollment), p_reason);
  return true;
end
$$;

comment on function pgdrip.exit_enrollment(bigint, text) is
  'Ends one enrollment; false: it had ended; 22004, 22023, MD001';

create or replace function pgdrip.pause_enrollment(p_enrollment bigint, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_reason(p_reason);
  perform from pgdrip.due as d where d.enrollment_id = p_enrollment for update;
  perform pgdrip.assert_enrollment(p_enrollment);
  update pgdrip.enrollments as e
     set paused_at = pgdrip.clock(), paused_reason = p_reason
   where e.enrollment_id = p_enrollment and e.status = 'active' and e.paused_at is null;
  if not found then
    return false;
  end if;
  -- What is leased is stopped by begin_send, and parked when it comes back.
  update pgdrip.due as d set parked_reason = 'enrollment_paused'
   where d.enrollment_id = p_enrollment and d.parked_reason is null
     and d.token is null and d.awaits is null;
  perform pgdrip.note('pause', format('enrollment %s', p_enrollment), p_reason);
  return true;
end
$$;

comment on function pgdrip.pause_enrollment(bigint, text) is
  'Sends nothing of one enrollment until resumed; false: paused already or ended; 22004, 22023, MD001';

create or replace function pgdrip.resume_enrollment(p_enrollment bigint)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform from pgdrip.due as d where d.enrollment_id = p_enrollment for update;
  perform pgdrip.assert_enrollment(p_enrollment);
  update pgdrip.enrollments as e set paused_at = null, paused_reason = null
   where e.enrollment_id = p_enrollment and e.status = 'active' and e.paused_at is not null;
  if not found then
    return false;
  end if;
  perform pgdrip.unpark(array[p_enrollment], 'enrollment_paused');
  perform pgdrip.note('resume', format('enrollment %s', p_enrollment));
  return true;
end
$$;

comment on function pgdrip.resume_enrollment(bigint) is
  'Sends again; what is overdue at once; false: it was not paused; 22004, MD001';

create or replace function pgdrip.plain_address(p_address text)
  returns text
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_address', p_address);
  if p_address !~ '^\+[1-9][0-9]{6,14}$'
     and p_address !~ '^[^[:space:]@[:cntrl:]]{1,64}@[^[:space:]@[:cntrl:]]{1,189}$' then
    raise exception '% is neither an E.164 phone nor an e-mail address',
      quote_literal(left(p_address, 40))
      using errcode = '22023', hint = 'As +60123456789 or someone@example.com.';
  end if;
  return lower(p_address);
end
$$;

comment on function pgdrip.plain_address(text) is
  'An address as suppressions holds it: e-mails in lower case; 22004, 22023';

create or replace function pgdrip.suppress(p_address text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_address  text := pgdrip.plain_address(p_address);
  v_seen     bigint[];
  v_contacts bigint[];
begin
  perform pgdrip.assert_reason(p_reason);
  insert into pgdrip.suppressions (address, reason) values (v_address, p_reason)
  on conflict do nothing;
  if not found then
    return false;
  end if;
  v_seen := array(
    select c.contact_id from pgdrip.contacts as c
     where c.phone = v_address or lower(c.email) = v_address);
  v_contacts := array(
    select c.contact_id from pgdrip.contacts as c
     where c.phone = v_address or lower(c.email) = v_address
     order by c.contact_id for no key update);
  -- Only a bucket that moves takes contacts away: where they went the address is not known.
  if exists (select from unnest(v_seen) as i(contact_id)
              where i.contact_id not in (select c.contact_id from pgdrip.contacts as c
                                          where c.contact_id = any (v_seen))) then
    raise exception 'a contact of this address has left for another shard'
      using errcode = '55P03', hint = 'Suppress the address through the router.';
  end if;
  perform pgdrip.exit_all(array(
    select e.enrollment_id from pgdrip.enrollments as e
      join pgdrip.contacts as c using (contact_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.channels as h on h.channel = q.channel
     where e.contact_id = any (v_contacts) and e.status = 'active'
       and lower(pgdrip.recipient(h.address, c.phone, c.email)) = v_address), 'suppressed');
  perform pgdrip.note('suppress', 'an address', p_reason);
  return true;
end
$$;

comment on function pgdrip.suppress(text, text) is
  'Never messages an address again and ends what is in flight to it; false: it was suppressed; 22004, 22023, 55P03 where a contact of it left for another shard meanwhile';

create or replace function pgdrip.unsuppress(p_address text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_address text := pgdrip.plain_address(p_address);
begin
  perform pgdrip.assert_reason(p_reason);
  if not pgdrip.allow_again(v_address) then
    return false;
  end if;
  perform pgdrip.sweep_again(array(
    select c.contact_id from pgdrip.contacts as c
     where c.phone = v_address or lower(c.email) = v_address));
  perform pgdrip.note('unsuppress', 'an address', p_reason);
  return true;
end
$$;

comment on function pgdrip.unsuppress(text, text) is
  'Lets an address be messaged again; its unused triggers wait for the next sweep; false: it was not suppressed; 22004, 22023';
