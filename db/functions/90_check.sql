-- Checking: every invariant that no constraint can hold, as one query each. Empty is good.

create or replace function pgdrip.check_live_steps()
  returns setof pgdrip.violation
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'NO_STUCK_ENROLLMENT', e.enrollment_id, 'active without a live step'
      from pgdrip.enrollments as e
     where e.status = 'active'
       and not exists (select from pgdrip.due as d where d.enrollment_id = e.enrollment_id)
    union all
    select 'TERMINAL_HAS_NO_DUE', e.enrollment_id, format('%s with a live step', e.status)
      from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
     where e.status <> 'active'
    union all
    select 'NO_STUCK_ENROLLMENT', e.enrollment_id,
           format('parked %s, but its cause is gone', d.parked_reason)
      from pgdrip.due as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.sequences as q using (sequence_id)
     where d.parked_reason = 'sequence_paused' and q.status <> 'paused'
        or d.parked_reason = 'enrollment_paused' and e.paused_at is null
        or d.parked_reason = 'uncertain' and d.token is null
    union all
    select 'NO_STUCK_ENROLLMENT', d.enrollment_id, 'its sender does not exist or is retired'
      from pgdrip.due as d left join pgdrip.senders as s using (sender_id)
     where d.parked_reason is null and (s.sender_id is null or s.status = 'retired')
    union all
    select 'STEP_ORDER', d.enrollment_id,
           format('step %s is live, step %s is confirmed', d.step, e.last_confirmed_step)
      from pgdrip.due as d join pgdrip.enrollments as e using (enrollment_id)
     where d.step < e.last_confirmed_step
        or d.step = e.last_confirmed_step and d.awaits is distinct from 'event'
    union all
    select 'STEP_ORDER', d.enrollment_id, format('its version has no step %s', d.step)
      from pgdrip.due as d
      join pgdrip.enrollments as e using (enrollment_id)
      left join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
     where s.number is null
    union all
    select 'NO_WORK_HELD_WHILE_SLEEPING', null,
           format('sender %s has work at %s but looks again at %s', s.name, f.due_at, p.next_at)
      from pgdrip.senders as s
      join pgdrip.paces as p using (sender_id)
     cross join lateral (
        select d.due_at from pgdrip.due as d
         where d.sender_id = s.sender_id and d.parked_reason is null and d.lease_until is null
         order by d.due_at limit 1) as f
     where s.is_limited and s.status = 'active' and s.health <> 'blocked'
       and (p.next_at is null or p.next_at > f.due_at)
       and not exists (select from pgdrip.wakes as w
                        where w.sender_id = s.sender_id and w.due_at <= f.due_at)
    union all
    select 'NO_WORK_HELD_WHILE_SLEEPING', null,
           format('sender %s has work at %s but looks from %s on', s.name, f.due_at, p.floor_at)
      from pgdrip.senders as s
      join pgdrip.paces as p using (sender_id)
     cross join lateral (
        select d.due_at from pgdrip.due as d
         where d.sender_id = s.sender_id and d.parked_reason is null and d.due_at < p.floor_at
         order by d.due_at limit 1) as f
     where s.is_limited
       and not exists (select from pgdrip.wakes as w
                        where w.sender_id = s.sender_id and w.due_at <= f.due_at);
end
$$;

comment on function pgdrip.check_live_steps() is
  'Private: violations around the live step of each enrollment';

create or replace function pgdrip.check_history()
  returns setof pgdrip.violation
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'STEP_ONCE', j.enrollment_id,
           format('step %s confirmed by %s tokens', j.step, count(distinct j.token))
      from pgdrip.deliveries as j
     where j.event in ('sent', 'resolved') and j.verdict in ('advanced', 'completed', 'late')
     group by j.enrollment_id, j.step having count(distinct j.token) > 1
    union all
    select 'NOT_BEFORE_DUE', j.enrollment_id,
           format('step %s was begun at %s, due at %s', j.step, j.begun_at, j.due_at)
      from pgdrip.deliveries as j where j.begun_at < j.due_at
    union all
    select 'ADVANCE_ONLY_ON_CONFIRM', e.enrollment_id,
           format('step %s is confirmed without an event that says so', e.last_confirmed_step)
      from pgdrip.enrollments as e cross join pgdrip.control as c
     where e.last_confirmed_step > 0
       and (e.ended_at is null or e.enrolled_at >= coalesce(c.pruned_until, '-infinity'))
       and not exists (
         select from pgdrip.deliveries as j
          where j.enrollment_id = e.enrollment_id and j.step = e.last_confirmed_step
            and j.event in ('sent', 'resolved')
            and j.verdict in ('advanced', 'completed', 'late'))
    union all
    select 'DELAY_EXACT', d.enrollment_id,
           format('step %s is due at %s, step %s was confirmed at %s', d.step, d.due_at, j.step, j.at)
      from pgdrip.due as d
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.contacts as c using (contact_id)
      join pgdrip.steps as s on s.version_id = e.version_id and s.number = d.step
      join pgdrip.deliveries as j
        on j.enrollment_id = e.enrollment_id and j.step = e.last_confirmed_step
       and j.verdict in ('advanced', 'late') and j.next_due_at is not null
     where d.awaits is null and s.number > j.step
       and d.due_at < pgdrip.after_span(j.at, coalesce(s.delay,
             make_interval(days => s.number - j.step)), coalesce(c.timezone, 'UTC'))
    union all
    select 'CONTENT_HASH', j.enrollment_id, format('step %s was sent without a hash', j.step)
      from pgdrip.deliveries as j where j.event = 'sent' and j.content_hash is null
    union all
    select 'UNCERTAIN_NOT_RESENT', j.enrollment_id,
           format('step %s was begun again after token %s was uncertain', j.step, j.token)
      from pgdrip.deliveries as j
      join pgdrip.enrollments as e using (enrollment_id)
      join pgdrip.steps as s on s.version_id = e.version_id and s.number = j.step
     where j.event = 'uncertain' and s.on_uncertain = 'park'
       and j.verdict is distinct from 'stale'
       and not exists (
         select from pgdrip.deliveries as r
          where r.enrollment_id = j.enrollment_id and r.token = j.token
            and r.event in ('sent', 'failed', 'resolved'))
       and (exists (
         select from pgdrip.deliveries as l
          where l.enrollment_id = j.enrollment_id and l.step = j.step and l.token > j.token
            and l.begun_at is not null)
         or exists (
         select from pgdrip.due as d
          where d.enrollment_id = j.enrollment_id and d.step = j.step and d.token > j.token
            and d.begun_at is not null))
    union all
    select 'TRIGGER_REMOVAL_EXACT', e.enrollment_id, 'completed, but the trigger it used is there'
      from pgdrip.enrollments as e
      join pgdrip.sequence_versions as v using (version_id)
      join pgdrip.contact_triggers as t using (trigger_id)
     where e.status = 'completed' and v.removes_trigger
       and not exists (
         select from pgdrip.enrollments as o
          where o.contact_id = e.contact_id and o.trigger_id = e.trigger_id
            and o.status = 'active');
end
$$;

comment on function pgdrip.check_history() is
  'Private: violations that the journal shows';

create or replace function pgdrip.check_sends()
  returns setof pgdrip.violation
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'SUPPRESSED_NEVER_SENT', j.enrollment_id,
           format('step %s was begun after the address was suppressed', j.step)
      from pgdrip.suppressions as x
      join pgdrip.contacts as c on c.phone = x.address or lower(c.email) = x.address
      join pgdrip.enrollments as e using (contact_id)
      join pgdrip.sequences as q using (sequence_id)
      join pgdrip.channels as h on h.channel = q.channel
      join pgdrip.deliveries as j on j.enrollment_id = e.enrollment_id
     where j.begun_at > x.created_at
       and lower(pgdrip.recipient(h.address, c.phone, c.email)) = x.address
    union all
    select 'IN_WINDOW', j.enrollment_id, format('step %s was begun at %s', j.step, j.begun_at)
      from pgdrip.sequence_versions as v
      join pgdrip.enrollments as e using (sequence_id, version_id)
      join pgdrip.contacts as c using (contact_id)
      join pgdrip.deliveries as j on j.enrollment_id = e.enrollment_id
     where v.send_window is not null and j.begun_at is not null
       and pgdrip.next_open(j.begun_at - interval '10 seconds', v.send_window,
                            coalesce(c.timezone, 'UTC')) > j.begun_at
    union all
    select 'RATE_AT_CLAIM', null,
           format('sender %s began %s sends within %s, allowed are %s', s.name, max(u.used),
                  u.span, u.allowed)
      from (select b.sender_id, b.begun_at,
                   count(*) over (partition by b.sender_id order by b.begun_at
                     range between interval '3599.999999 s' preceding and current row) as hour,
                   count(*) over (partition by b.sender_id order by b.begun_at
                     range between interval '86399.999999 s' preceding and current row) as day
              from (select distinct j.sender_id, j.token, j.begun_at
                      from pgdrip.deliveries as j where j.begun_at is not null) as b) as b
      join pgdrip.senders as s using (sender_id)
     cross join lateral (values (interval '1 hour', b.hour, s.rate_per_hour),
                                (interval '24 hours', b.day, s.rate_per_day)) as u(span, used, allowed)
     where u.used > u.allowed and b.begun_at - u.span >= s.limits_at
     group by s.name, u.span, u.allowed;
end
$$;

comment on function pgdrip.check_sends() is
  'Private: sends that should not have gone out';

create or replace function pgdrip.check_groups()
  returns setof pgdrip.violation
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with sends as (
      select g.group_id, g.name, g.rate, g.per, g.distinct_contacts_per_day as contacts,
             greatest(g.limits_at, s.limits_at) as since, e.contact_id, j.begun_at,
             lead(j.begun_at) over (
               partition by g.group_id, e.contact_id order by j.begun_at) as next_at,
             lag(j.begun_at, g.rate) over (
               partition by g.group_id order by j.begun_at) as one_too_many_at
        from (select distinct j.enrollment_id, j.sender_id, j.token, j.begun_at
                from pgdrip.deliveries as j where j.begun_at is not null) as j
        join pgdrip.senders as s on s.sender_id = j.sender_id
        join pgdrip.sender_groups as g using (group_id)
        join pgdrip.enrollments as e on e.enrollment_id = j.enrollment_id
    )
    select 'RATE_AT_CLAIM', null::bigint,
           format('group %s began more than %s sends within %s', w.name, w.rate, w.per)
      from sends as w
     where w.per >= interval '1 minute' and w.begun_at - w.one_too_many_at < w.per
       and w.one_too_many_at >= w.since
     group by w.name, w.rate, w.per
    union all
    select 'RATE_AT_CLAIM', null,
           format('group %s wrote to more than %s contacts within 24 hours', m.name, m.contacts)
      from (select w.name, w.contacts, w.since, x.at, sum(x.more) over (
                     partition by w.group_id order by x.at, x.more) as present
              from sends as w,
                   -- A contact counts from a send until 24 h later, or the next one to it.
                   lateral (values (w.begun_at, 1),
                     (least(w.next_at, w.begun_at + interval '24:00:00'), -1)) as x(at, more)
             where w.contacts is not null) as m
     where m.present > m.contacts and m.at - interval '24:00:00' >= m.since
     group by m.name, m.contacts;
end
$$;

comment on function pgdrip.check_groups() is
  'Private: groups whose senders together began more than they may';

create or replace function pgdrip.check_sums()
  returns setof pgdrip.violation
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with gone as (
      select e.sequence_id, count(*) as count
        from pgdrip.enrollments as e join pgdrip.control as c on e.enrolled_at < c.pruned_until
       where e.last_confirmed_step > 0 and e.ended_at is not null
         and not exists (
           select from pgdrip.deliveries as j
            where j.enrollment_id = e.enrollment_id and j.step = e.last_confirmed_step
              and j.event in ('sent', 'resolved')
              and j.verdict in ('advanced', 'completed', 'late'))
       group by e.sequence_id
    ),
    known as (
      select h.sequence_id, sum(h.last_confirmed) as count
        from pgdrip.history_sums as h group by h.sequence_id
    )
    select 'LEDGER_SUMS', null::bigint,
           format('%s enrollments of %s have lost the event of their last step, retention took %s',
                  coalesce(g.count, 0), q.name, coalesce(k.count, 0))
      from pgdrip.sequences as q
      left join gone as g using (sequence_id)
      left join known as k using (sequence_id)
     where coalesce(g.count, 0) <> coalesce(k.count, 0);
end
$$;

comment on function pgdrip.check_sums() is
  'Private: sequences whose finished enrollments and history, with what retention took, do not add up';

create or replace function pgdrip.check()
  returns setof pgdrip.violation
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select v.* from pgdrip.check_live_steps() as v
  union all
  select v.* from pgdrip.check_history() as v
  union all
  select v.* from pgdrip.check_sends() as v
  union all
  select v.* from pgdrip.check_groups() as v
  union all
  select v.* from pgdrip.check_sums() as v
$$;

comment on function pgdrip.check() is
  'Every broken invariant that no constraint can hold; empty is good';
