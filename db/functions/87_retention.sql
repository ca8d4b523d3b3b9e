-- Retention: months of history that are old enough and belong to finished enrollments only
-- go, the oldest first, so that what is left is complete from some moment on. Writes
-- control, history_sums, tallies, provider_refs and contact_events, and drops or detaches
-- partitions.
--
-- What went is final: retry_failed() takes up nothing whose history is gone, and so the
-- sums stay true; it and retire_history() keep out of each other's way by a lock.

set local search_path = pg_catalog, pg_temp;

create or replace function pgdrip.set_retention(p_keep interval, p_detach boolean default false)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_given('p_detach', p_detach);
  if not (pgdrip.is_span(p_keep) and p_keep >= interval '1 day') then
    raise exception 'p_keep must be a day or longer, not %', p_keep
      using errcode = '22023',
            hint = 'Say days, as ''365 days''; months differ in length. NULL: for ever.';
  end if;
  update pgdrip.control as c set retention = p_keep, is_history_detached = p_detach
   where (c.retention, c.is_history_detached) is distinct from (p_keep, p_detach);
  if not found then
    return false;
  end if;
  perform pgdrip.note('retention', 'the history', concat_ws(', ',
    coalesce(p_keep::text, 'for ever'), case when p_detach then 'then detached' end));
  return true;
end
$$;

comment on function pgdrip.set_retention(interval, boolean) is
  'How long history is kept at least; NULL: for ever. p_detach leaves its months as tables to archive, else they are dropped; false: no change; 22004, 22023';

create or replace function pgdrip.history_months()
  returns setof pgdrip.history_month
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select c.relname, m.month at time zone 'UTC', (m.month + interval '1 month') at time zone 'UTC',
         pg_table_size(c.oid), pg_has_role(c.relowner, 'usage')
    from pg_inherits as i
    join pg_class as c on c.oid = i.inhrelid
   cross join lateral (
      select to_date(right(c.relname, 7), 'YYYY_MM')::timestamp as month) as m
   where i.inhparent = 'pgdrip.deliveries'::regclass
     and c.relname ~ '^deliveries_[0-9]{4}_[0-9]{2}$'
   order by m.month
$$;

comment on function pgdrip.history_months() is
  'Private: the months of UTC that have a partition, the oldest first';

create or replace view pgdrip.history_retention as
  select c.retention as keep, c.is_history_detached as is_detached, c.pruned_until,
         m.oldest_at, m.months, m.bytes
    from pgdrip.control as c
   cross join (
      select min(to_date(right(p.relname, 7), 'YYYY_MM')::timestamp at time zone 'UTC') as oldest_at,
             count(*) as months, sum(pg_total_relation_size(p.oid))::bigint as bytes
        from pg_inherits as i join pg_class as p on p.oid = i.inhrelid
       where i.inhparent = 'pgdrip.deliveries'::regclass
         and p.relname ~ '^deliveries_[0-9]{4}_[0-9]{2}$') as m;

comment on view pgdrip.history_retention is
  'How long history is kept, and how much of it there is, in one row; set_retention() says how long';
comment on column pgdrip.history_retention.keep is
  'How long a month is kept at least after its end; NULL: for ever';
comment on column pgdrip.history_retention.is_detached is
  'Whether months older than that stay as tables to archive, else they are dropped';
comment on column pgdrip.history_retention.pruned_until is
  'Retention took the events before this; NULL: none yet';
comment on column pgdrip.history_retention.oldest_at is
  'When the oldest month that is there begins';
comment on column pgdrip.history_retention.months is
  'Months that have a partition, those to come included';
comment on column pgdrip.history_retention.bytes is
  'Their size with indexes';

create or replace function pgdrip.history_holder(p_from timestamptz, p_until timestamptz)
  returns bigint
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
as $$
begin
  -- By offset 0 the journal is asked for each of the few that old, not read as a whole.
  return (
    select e.enrollment_id from pgdrip.enrollments as e
     where e.status = 'active' and e.enrolled_at < p_until
       and exists (select from pgdrip.deliveries as j
                    where j.enrollment_id = e.enrollment_id
                      and j.at >= p_from and j.at < p_until offset 0)
     limit 1);
end
$$;

comment on function pgdrip.history_holder(timestamptz, timestamptz) is
  'Private: a live enrollment with events in that span; NULL: all of them are finished';

create or replace function pgdrip.is_remembered(p_enrollment pgdrip.enrollments)
  returns boolean
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select p_enrollment.last_confirmed_step = 0
      or p_enrollment.enrolled_at >= coalesce(c.pruned_until, '-infinity')
      or exists (
           select from pgdrip.deliveries as j
            where j.enrollment_id = p_enrollment.enrollment_id
              and j.step = p_enrollment.last_confirmed_step
              and j.event in ('sent', 'resolved')
              and j.verdict in ('advanced', 'completed', 'late'))
    from pgdrip.control as c
$$;

comment on function pgdrip.is_remembered(pgdrip.enrollments) is
  'Private: whether retention left the event that confirmed the last step of an enrollment';

create or replace function pgdrip.sum_month(p_from timestamptz, p_until timestamptz)
  returns setof pgdrip.history_sums
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set jit = off
as $$
begin
  return query
    with steps as (
      select j.enrollment_id, j.step,
             bool_or(j.event = 'sent' or j.code in ('sent', 'delivered', 'read')) as is_sent,
             bool_or(j.verdict = 'awaiting' or j.event = 'uncertain') as is_open,
             bool_or(j.event in ('sent', 'resolved')
               and j.verdict in ('advanced', 'completed', 'late')) as is_confirmed,
             bool_or(j.verdict = 'skipped') as is_skipped,
             bool_or(j.verdict = 'failed') as is_failed
        from pgdrip.deliveries as j where j.at >= p_from and j.at < p_until
       group by j.enrollment_id, j.step
    ),
    told as (
      select e.sequence_id, r.step,
             count(*) filter (where r.receipt in ('delivered', 'read')) as delivered,
             count(*) filter (where r.receipt = 'read') as read
        from pgdrip.provider_refs as r join pgdrip.enrollments as e using (enrollment_id)
       where r.created_at >= p_from and r.created_at < p_until
       group by e.sequence_id, r.step
    ),
    counts as (
      select e.sequence_id, s.step,
             count(*) filter (where s.is_sent and (s.is_confirmed or s.is_open is not true
               -- Of a send that was open at the end of the month a later event may tell.
               or not exists (
                 select from pgdrip.deliveries as o
                  where o.enrollment_id = s.enrollment_id and o.step = s.step
                    and o.at >= p_until and (o.event = 'sent'
                      or o.code in ('sent', 'delivered', 'read'))))) as sent,
             count(*) filter (where s.is_skipped) as skipped,
             count(*) filter (where s.is_failed and e.status = 'failed') as failed,
             count(*) filter (where s.is_confirmed
               and s.step = e.last_confirmed_step) as last_confirmed
        from steps as s join pgdrip.enrollments as e using (enrollment_id)
       group by e.sequence_id, s.step
    )
    select sequence_id, step, p_from, coalesce(c.sent, 0), coalesce(t.delivered, 0),
           coalesce(t.read, 0), coalesce(c.skipped, 0), coalesce(c.failed, 0),
           coalesce(c.last_confirmed, 0)
      from counts as c full join told as t using (sequence_id, step);
end
$$;

comment on function pgdrip.sum_month(timestamptz, timestamptz) is
  'Private: what is remembered of a month once its events are gone';

create or replace function pgdrip.retire_month(p_month pgdrip.history_month, p_detach boolean)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '500ms'
as $$
begin
  -- The month may have been here before: what is adopted from elsewhere brings its past along.
  insert into pgdrip.history_sums as h
  select s.* from pgdrip.sum_month(p_month.from_at, p_month.until_at) as s
  on conflict (sequence_id, step, month_at) do update
    set sent = h.sent + excluded.sent, delivered = h.delivered + excluded.delivered,
        read = h.read + excluded.read, skipped = h.skipped + excluded.skipped,
        failed = h.failed + excluded.failed,
        last_confirmed = h.last_confirmed + excluded.last_confirmed;
  update pgdrip.control as c set pruned_until = greatest(c.pruned_until, p_month.until_at);
  -- What tally() has not counted it cannot any more, and begins anew from the sums.
  delete from pgdrip.tallies as t where t.name = 'history' and t.counted_at < p_month.until_at;
  -- Everybody who reads or writes the journal waits while this waits: not for long.
  if p_detach then
    execute format('alter table pgdrip.deliveries detach partition pgdrip.%I', p_month.name);
    execute format('comment on table pgdrip.%I is %L', p_month.name, format(
      'Events of %s UTC, detached: archive this table, then drop it',
      to_char(p_month.from_at at time zone 'UTC', 'YYYY-MM')));
  else
    execute format('drop table pgdrip.%I', p_month.name);
  end if;
  return true;
exception when lock_not_available then
  return false;
end
$$;

comment on function pgdrip.retire_month(pgdrip.history_month, boolean) is
  'Private: sums a month up and drops or detaches it; false: somebody reads the history, try again later';

create or replace function pgdrip.retire_history(p_now timestamptz, p_bytes bigint)
  returns pgdrip.retirement
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_out    pgdrip.retirement := row(0, null)::pgdrip.retirement;
  v_keep   pgdrip.control := (select c from pgdrip.control as c);
  v_before timestamptz;
  v_months pgdrip.history_month[];
  v_month  pgdrip.history_month;
  v_left   bigint := p_bytes;
begin
  if v_keep.retention is null
     or not pg_try_advisory_xact_lock(hashtextextended('pgdrip.history', 0)) then
    return v_out;
  end if;
  -- A cap counts what was sent in its span; so long that is kept in any case.
  v_before := p_now - make_interval(secs => extract(epoch from greatest(
    v_keep.retention, (select max(v.cap_per) from pgdrip.sequence_versions as v))));
  v_months := array(select m from pgdrip.history_months() as m
                     where m.until_at <= v_before and m.is_owned order by m.from_at);
  foreach v_month in array v_months loop
    v_out.held_by := pgdrip.history_holder(v_month.from_at, v_month.until_at);
    exit when v_out.held_by is not null or v_month.bytes > v_left;
    exit when not pgdrip.retire_month(v_month, v_keep.is_history_detached);
    v_out.months := v_out.months + 1;
    v_left := v_left - v_month.bytes;
  end loop;
  perform pgdrip.prune_told((select c.pruned_until from pgdrip.control as c));
  return v_out;
end
$$;

comment on function pgdrip.retire_history(timestamptz, bigint) is
  'Private: retires months older than the retention, up to p_bytes of events, NULL: whatever it takes. Last in its transaction: it holds the journal''s lock to the end';

create or replace function pgdrip.prune_told(p_until timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_custom_plan
  set jit = off
as $$
begin
  delete from pgdrip.provider_refs as r
   where (r.channel, r.provider_id) in (
     select x.channel, x.provider_id from pgdrip.provider_refs as x
      where x.created_at < p_until order by x.created_at limit 300000 for update skip locked);
  -- A live step may have waited for an event since before that.
  delete from pgdrip.contact_events as v
   where v.event_id in (
     select x.event_id from pgdrip.contact_events as x
      where x.at < p_until
        and not exists (select from pgdrip.enrollments as e
                         where e.contact_id = x.contact_id and e.status = 'active')
      order by x.at limit 300000 for update skip locked);
end
$$;

comment on function pgdrip.prune_told(timestamptz) is
  'Private: what providers and others told before that, 300,000 of each at a time; NULL: nothing';
