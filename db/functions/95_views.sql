-- Views for people and dashboards. They fold the journal; nothing else reads it for them.

set local search_path = pg_catalog, pg_temp;

create or replace view pgdrip.sequence_progress as
  select q.name as sequence, e.contact_id,
         pgdrip.recipient(h.address, c.phone, c.email) as recipient, s.number as step,
         case
           when d.awaits = 'event' then 'completed'
           when d.enrollment_id is not null then 'active'
           when j.confirmed_at is not null then 'completed'
           when j.is_skipped then 'skipped'
           when j.is_failed and e.status = 'failed' then 'failed'
           when e.status = 'active' and s.number > p.step then 'upcoming'
           else 'skipped' end as step_status,
         case
           when r.receipt <> 'sent' then r.receipt
           when d.parked_reason = 'uncertain' then 'uncertain'
           when d.awaits is not null then 'sent'
           when d.lease_until > k.now and d.begun_at is not null then 'sending'
           when d.lease_until > k.now then 'leased'
           when d.parked_reason is not null then 'parked'
           when d.enrollment_id is not null then 'pending'
           when j.sent_at is not null then 'sent'
           when j.is_uncertain then 'uncertain'
           when j.is_failed then 'failed'
           else 'none' end as message_status,
         coalesce(case when d.awaits is null and d.parked_reason is distinct from 'unconfirmed'
                       then d.due_at end, j.due_at) as due_at, j.sent_at, j.confirmed_at as completed_at,
         coalesce(d.attempt, j.attempts, 0) as attempts, j.error_class, j.error_detail,
         case
           when r.receipt = 'read' then 'Read'
           when r.receipt = 'delivered' then 'Delivered'
           when r.receipt = 'failed' then 'Failed'
           when j.sent_at is not null or d.awaits is not null then 'Sent'
           when d.parked_reason in ('uncertain', 'unconfirmed')
             or d.enrollment_id is null and j.is_uncertain then 'Uncertain'
           when d.parked_reason in ('failed', 'never_begun')
             or e.status = 'failed' and j.is_failed then 'Failed'
           when j.is_skipped then 'Skipped'
           when e.status = 'exited' and e.end_reason = 'replied' then 'Replied'
           when e.status <> 'active' then 'Skipped'
           when d.lease_until > k.now then 'Sending'
           when e.paused_at is not null or q.status = 'paused' or k.is_paused then 'Paused'
           when d.parked_reason = 'no_sender' then 'Waiting'
           when d.due_at <= k.now then 'Ready to send'
           when d.enrollment_id is not null then 'Scheduled'
           else 'Waiting' end as current_state,
         e.enrollment_id
    from pgdrip.enrollments as e
    join pgdrip.sequences as q using (sequence_id)
    join pgdrip.channels as h on h.channel = q.channel
    join pgdrip.contacts as c using (contact_id)
    join pgdrip.steps as s on s.version_id = e.version_id
   cross join lateral (select pgdrip.clock() as now,
                              (select x.paused_at is not null from pgdrip.control as x) as is_paused) as k
    left join pgdrip.due as p on p.enrollment_id = e.enrollment_id
    left join pgdrip.due as d on d.enrollment_id = e.enrollment_id and d.step = s.number
    left join lateral (
      select min(x.at) filter (where x.event = 'sent' or x.code in ('sent', 'delivered', 'read')) as sent_at,
             min(x.at) filter (where x.event in ('sent', 'resolved')
               and x.verdict in ('advanced', 'completed', 'late')) as confirmed_at,
             bool_or(x.verdict = 'skipped') as is_skipped,
             bool_or(x.event = 'failed' or x.code = 'not_delivered') as is_failed,
             bool_or(x.event = 'uncertain') as is_uncertain,
             max(x.attempt) as attempts, max(x.due_at) as due_at,
             (array_agg(x.class order by x.at desc) filter (where x.event = 'failed'))[1] as error_class,
             (array_agg(coalesce(x.detail, x.code) order by x.at desc)
                filter (where x.event in ('failed', 'uncertain') or x.code = 'not_delivered')
             )[1] as error_detail
        from pgdrip.deliveries as x
       where x.enrollment_id = e.enrollment_id and x.step = s.number) as j on true
    left join lateral (
      select x.receipt from pgdrip.provider_refs as x
       where x.enrollment_id = e.enrollment_id and x.step = s.number and x.receipt is not null
       order by pgdrip.receipt_rank(x.receipt) desc limit 1) as r on true;

comment on view pgdrip.sequence_progress is
  'Every step of every enrollment, upcoming ones included, with one plain current_state';

create or replace view pgdrip.sequence_funnel as
  select q.name as sequence, s.number as step,
         count(*) filter (where p.step_status = 'upcoming') as upcoming,
         count(*) filter (where p.step_status = 'active') as active,
         count(*) filter (where p.sent_at is not null) as sent,
         count(*) filter (where p.message_status in ('delivered', 'read')) as delivered,
         count(*) filter (where p.message_status = 'read') as read,
         count(*) filter (where p.step_status = 'skipped') as skipped,
         count(*) filter (where p.step_status = 'failed') as failed
    from pgdrip.sequences as q
    join pgdrip.sequence_versions as v using (sequence_id)
    join pgdrip.steps as s on s.version_id = v.version_id
    left join (select e.version_id, x.* from pgdrip.sequence_progress as x
                 join pgdrip.enrollments as e using (enrollment_id)) as p
           on p.version_id = v.version_id and p.step = s.number
   group by q.name, s.number;

comment on view pgdrip.sequence_funnel is 'How many enrollments stand where, by sequence and step';

create or replace view pgdrip.sender_load as
  select s.name as sender, s.pool, s.channel, s.status, s.health,
         pgdrip.hourly_rate(s, k.now) as limit_hour, coalesce(u.hour, 0) as used_hour,
         s.rate_per_day as limit_day, coalesce(u.day, 0) as used_day,
         coalesce(b.backlog, 0) as backlog, b.oldest_due_at,
         coalesce(b.in_flight, 0) as in_flight,
         case when s.ready_at > k.now then s.ready_at end as ready_at, s.last_error
    from pgdrip.senders as s
   cross join lateral (select pgdrip.clock() as now) as k
    left join (
      select x.sender_id, count(distinct x.token) filter (
               where x.begun_at > pgdrip.clock() - interval '1 hour') as hour,
             count(distinct x.token) as day
        from pgdrip.deliveries as x
       where x.at > pgdrip.clock() - interval '25 hours'
         and x.begun_at > pgdrip.clock() - interval '24 hours'
       group by x.sender_id) as u using (sender_id)
    left join lateral (
      select count(*) filter (where d.lease_until is null or d.lease_until <= k.now) as backlog,
             min(d.due_at) filter (where d.lease_until is null or d.lease_until <= k.now) as oldest_due_at,
             count(*) filter (where d.lease_until > k.now) as in_flight
        from pgdrip.due as d
       where d.sender_id = s.sender_id and d.parked_reason is null and d.due_at <= k.now) as b on true;

comment on view pgdrip.sender_load is
  'Each sender with its limits, what it sent in the last hour and day, and what waits';

create or replace view pgdrip.queue_health as
  select count(*) filter (where d.parked_reason is null and d.lease_until is null
                            and d.awaits is null and d.due_at <= k.now) as due_now,
         min(d.due_at) filter (where d.parked_reason is null and d.lease_until is null
                                 and d.awaits is null and d.due_at <= k.now) as oldest_due_at,
         count(*) filter (where d.lease_until > k.now) as in_flight,
         count(*) filter (where d.lease_until <= k.now) as lease_expired,
         count(*) filter (where d.awaits is not null) as awaiting,
         count(*) filter (where d.parked_reason is null and d.lease_until is null
                            and d.due_at > k.now) as scheduled,
         count(*) filter (where d.parked_reason is not null) as parked,
         count(*) filter (where d.parked_reason = 'uncertain') as uncertain,
         (select c.paused_at is not null from pgdrip.control as c) as is_paused,
         not pgdrip.is_unlocked() as is_locked,
         (select count(*) from pgdrip.senders as s
           where s.status = 'active' and s.health <> 'healthy') as senders_down,
         (select count(*) from pgdrip.runners as r
           where r.seen_at > k.now - interval '1 minute') as runners_alive
    from (select pgdrip.clock() as now) as k left join pgdrip.due as d on true
   group by k.now;

comment on view pgdrip.queue_health is 'The whole queue in one row';

create or replace view pgdrip.failures as
  select j.at, q.name as sequence, e.contact_id,
         pgdrip.recipient(h.address, c.phone, c.email) as recipient, j.step, j.attempt,
         s.name as sender, j.class, j.code, j.detail, j.verdict,
         j.event = 'uncertain' as is_unclassified,
         j.enrollment_id, j.token
    from pgdrip.deliveries as j
    join pgdrip.enrollments as e using (enrollment_id)
    join pgdrip.sequences as q using (sequence_id)
    join pgdrip.channels as h on h.channel = q.channel
    join pgdrip.contacts as c using (contact_id)
    left join pgdrip.senders as s on s.sender_id = j.sender_id
   where j.event = 'failed'
      or j.event = 'uncertain' and j.code not in ('lapsed', 'exited', 'restored');

comment on view pgdrip.failures is
  'Every failure with its class and detail; is_unclassified: its code needs an error rule';

create or replace view pgdrip.uncertain_deliveries as
  select d.token, q.name as sequence, e.contact_id,
         pgdrip.recipient(h.address, c.phone, c.email) as recipient, d.step, d.attempt,
         s.name as sender, d.runner, d.begun_at, j.code, j.detail, d.enrollment_id
    from pgdrip.due as d
    join pgdrip.enrollments as e using (enrollment_id)
    join pgdrip.sequences as q using (sequence_id)
    join pgdrip.channels as h on h.channel = q.channel
    join pgdrip.contacts as c using (contact_id)
    left join pgdrip.senders as s on s.sender_id = d.sender_id
    left join lateral (
      select x.code, x.detail from pgdrip.deliveries as x
       where x.enrollment_id = d.enrollment_id and x.token = d.token and x.event = 'uncertain'
       order by x.at desc limit 1) as j on true
   where d.parked_reason = 'uncertain';

comment on view pgdrip.uncertain_deliveries is
  'Sends that began and whose outcome nobody knows; resolve_uncertain(token, …) settles one';
