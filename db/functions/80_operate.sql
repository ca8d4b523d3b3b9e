-- What an operator decides: pause everything, settle what is uncertain, unlock.

create or replace function pgdrip.pause_all(p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_reason(p_reason);
  update pgdrip.control as c set paused_at = pgdrip.clock(), paused_reason = p_reason
   where c.paused_at is null;
  if not found then
    return false;
  end if;
  perform pgdrip.note('pause', 'everything', p_reason);
  return true;
end
$$;

comment on function pgdrip.pause_all(text) is
  'Hands out nothing and begins nothing until resume_all(); false: paused already; 22004, 22023';

create or replace function pgdrip.resume_all()
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update pgdrip.control as c set paused_at = null, paused_reason = null
   where c.paused_at is not null;
  if not found then
    return false;
  end if;
  perform pgdrip.note('resume', 'everything');
  return true;
end
$$;

comment on function pgdrip.resume_all() is
  'Works again after pause_all(); what is overdue goes out at the senders'' pace; false: was not paused';

create or replace function pgdrip.resolve_uncertain(p_token bigint, p_outcome text)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_due     pgdrip.due;
  v_verdict text;
begin
  perform pgdrip.assert_given('p_token', p_token);
  perform pgdrip.assert_given('p_outcome', p_outcome);
  if p_outcome not in ('sent', 'not_sent') then
    raise exception 'p_outcome must be sent or not_sent, not %', quote_literal(left(p_outcome, 40))
      using errcode = '22023', hint = 'Look at the gateway or ask the recipient.';
  end if;
  select d.* into v_due from pgdrip.due as d
   where d.parked_reason = 'uncertain' and d.token = p_token for update;
  if not found then
    if exists (select from pgdrip.deliveries as j where j.token = p_token)
       or exists (select from pgdrip.due as d where d.token = p_token) then
      raise exception 'the delivery with token % is not uncertain', p_token
        using errcode = 'MD003', hint = 'The view uncertain_deliveries lists those that are.';
    end if;
    raise exception 'no delivery has token %', p_token
      using errcode = 'MD001', hint = 'The view uncertain_deliveries lists tokens.';
  end if;
  if exists (select from pgdrip.due as d
              where d.parked_reason = 'uncertain' and d.token = p_token
                and d.enrollment_id <> v_due.enrollment_id) then
    raise exception 'several uncertain deliveries have token %', p_token
      using errcode = 'MD003',
            hint = 'One has moved here from another shard: report() names the enrollment, too.';
  end if;
  perform from pgdrip.enrollments as e where e.enrollment_id = v_due.enrollment_id for update;
  -- Sent: on to the next step. Not sent: the same step is due again at once.
  select s.verdict into v_verdict from pgdrip.settle(array[
    row(v_due.enrollment_id, p_token, 'resolved', p_outcome, null, null, null,
        case p_outcome when 'not_sent' then 'retry' end,
        case p_outcome when 'not_sent' then 'retry' else 'confirm' end, null, null, null,
        case p_outcome when 'not_sent' then v_due.due_at end, null, null,
        null)::pgdrip.settlement],
    pgdrip.clock()) as s;
  perform pgdrip.note('resolve', format('token %s', p_token), p_outcome);
  return v_verdict;
end
$$;

comment on function pgdrip.resolve_uncertain(bigint, text) is
  'Settles a parked uncertain delivery as sent or not_sent; returns advanced, completed or retry; 22004, 22023, MD001, MD003';

create or replace function pgdrip.failed_step(p_enrollment pgdrip.enrollments)
  returns integer
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step integer;
begin
  if p_enrollment.status <> 'failed' then
    raise exception 'enrollment % is %, not failed', p_enrollment.enrollment_id, p_enrollment.status
      using errcode = 'MD003', hint = 'Only what failed can be tried again.';
  elsif exists (select from pgdrip.enrollments as e
                 where e.contact_id = p_enrollment.contact_id
                   and e.sequence_id = p_enrollment.sequence_id and e.run > p_enrollment.run) then
    raise exception 'enrollment % has a later run', p_enrollment.enrollment_id
      using errcode = 'MD003', hint = 'That run goes on in its place.';
  end if;
  select j.step into v_step from pgdrip.deliveries as j
   where j.enrollment_id = p_enrollment.enrollment_id
     and j.step > p_enrollment.last_confirmed_step and j.verdict is distinct from 'stale'
   order by j.at desc, j.step desc limit 1;
  if v_step is null or not pgdrip.is_remembered(p_enrollment) then
    raise exception 'the history of enrollment % is no longer kept', p_enrollment.enrollment_id
      using errcode = 'MD003', hint = 'What retention took is final; enroll the contact anew.';
  end if;
  return v_step;
end
$$;

comment on function pgdrip.failed_step(pgdrip.enrollments) is
  'Private: the step that a failed enrollment is tried again at; MD003';

create or replace function pgdrip.retry_failed(p_enrollment bigint, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old  pgdrip.enrollments;
  v_step integer;
  v_now  timestamptz;
begin
  perform pgdrip.assert_reason(p_reason);
  perform pgdrip.assert_enrollment(p_enrollment);
  -- Retention does not take the history of what comes back to life meanwhile.
  perform pg_advisory_xact_lock_shared(hashtextextended('pgdrip.history', 0));
  perform pgdrip.lock_contact((select e.contact_id from pgdrip.enrollments as e
                                where e.enrollment_id = p_enrollment));
  perform from pgdrip.due as d where d.enrollment_id = p_enrollment for update;
  select e.* into v_old from pgdrip.enrollments as e
   where e.enrollment_id = p_enrollment for update;
  v_now := pgdrip.clock();
  if v_old.status = 'active' then
    update pgdrip.due as d
       set parked_reason = null, attempt = 0, never_begun = 0, due_at = v_now
     where d.enrollment_id = p_enrollment and d.parked_reason in ('failed', 'never_begun');
    if not found then
      return false;
    end if;
  else
    v_step := pgdrip.failed_step(v_old);
    update pgdrip.enrollments as e set status = 'active', ended_at = null, end_reason = null
     where e.enrollment_id = p_enrollment;
    insert into pgdrip.due (enrollment_id, sender_id, step, due_at, parked_reason)
    values (p_enrollment, v_old.sender_id, v_step, v_now,
            case when v_old.sender_id is null then 'no_sender' end);
  end if;
  insert into pgdrip.wakes (sender_id, due_at)
  select v_old.sender_id, v_now where v_old.sender_id is not null;
  perform pgdrip.note('retry', format('enrollment %s', p_enrollment), p_reason);
  return true;
end
$$;

comment on function pgdrip.retry_failed(bigint, text) is
  'Makes a failed enrollment, or one parked as failed or never begun, due again at that step with all its attempts; false: it is active; 22004, 22023, MD001, MD003';

create or replace function pgdrip.unlock(p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
begin
  perform pgdrip.assert_reason(p_reason);
  perform from pgdrip.control as c for update;
  if pgdrip.is_unlocked() then
    return false;
  end if;
  perform from pgdrip.due as d where d.parked_reason is null
    order by d.enrollment_id for update;
  v_now := pgdrip.clock();
  -- The epoch first: from here on no token from before the loss advances anything.
  update pgdrip.control as c
     set epoch = c.epoch + 1, system_identifier = s.system_identifier,
         timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8), database_oid = d.oid
    from pg_control_system() as s, pg_database as d
   where d.datname = current_database();
  perform pgdrip.park_doubtful(v_now);
  perform pgdrip.note('unlock', 'the engine', p_reason);
  return true;
end
$$;

comment on function pgdrip.unlock(text) is
  'Lets a restored, copied or failed-over database work: raises the epoch and parks as uncertain whatever may have been sent already; false: it was not locked; 22004, 22023';

create or replace function pgdrip.park_doubtful(p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_window interval := (select c.loss_window from pgdrip.control as c);
  v_old    bigint := (select (c.epoch - 1) << 40 from pgdrip.control as c);
  v_ids    bigint[];
begin
  v_ids := array(
    select d.enrollment_id
      from (select d.enrollment_id, d.token, s.rate_per_hour, s.burst, row_number() over (
                     partition by d.sender_id order by d.due_at, d.enrollment_id) as place
              from pgdrip.due as d join pgdrip.senders as s using (sender_id)
             where d.parked_reason is null and d.awaits is null
               and (d.token is not null or d.due_at <= p_now)) as d
     where d.token is not null
        or d.place <= coalesce(
             d.burst + ceil(d.rate_per_hour * extract(epoch from v_window) / 3600), 1000000));
  -- Sent by a claim that is forgotten: a token of the old epoch, to resolve it by.
  update pgdrip.due as d set token = v_old | nextval('pgdrip.token_seq')
   where d.enrollment_id = any (v_ids) and d.token is null;
  perform from pgdrip.settle(array(
    select row(d.enrollment_id, d.token, 'uncertain', 'restored', null,
               'the database was restored or failed over', null, 'parked', 'park', 'uncertain',
               null, null, null, null, null, null)::pgdrip.settlement
      from pgdrip.due as d where d.enrollment_id = any (v_ids)
     order by d.enrollment_id), p_now);
end
$$;

comment on function pgdrip.park_doubtful(timestamptz) is
  'Private: parks leased and begun rows, and what each sender could have sent in control.loss_window, as uncertain';
