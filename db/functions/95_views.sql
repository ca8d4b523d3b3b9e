-- Views for people and dashboards. They fold the journal; nothing else reads it for them.

set local search_path = pg_catalog, pg_temp;

create or replace view pgdrip.sequence_progress as
  select q.name as sequence, e.contact_id,
         pgdrip.shown(pgdrip.recipient(h.address, c.phone, c.email)) as recipient, s.number as step,
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
         coalesce(d.attempt, j.attempts, 0) as attempts, j.error_class,
         pgdrip.shown(j.error_detail) as error_detail,
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
                              (select x.paused_at is not null from pgdrip.control as x) as is_paused,
                              (select x.pruned_until from pgdrip.control as x) as pruned_until) as k
    left join pgdrip.due as p on p.enrollment_id = e.enrollment_id
    left join pgdrip.due as d on d.enrollment_id = e.enrollment_id and d.step = s.number
    left join lateral (
      select min(x.at) filter (where x.event = 'sent' or x.code in ('sent', 'delivered', 'read')) as sent_at,
             min(x.at) filter (where x.event in ('sent', 'resolved')
               and x.verdict in ('advanced', 'completed', 'late')) as confirmed_at,
             bool_or(x.verdict = 'skipped') as is_skipped,
             bool_or(x.event = 'failed' or x.code = 'not_delivered') as is_failed,
             bool_or(x.event = 'uncertain') as is_uncertain,
             max(x.attempt) as attempts, max(x.due_at) as due_at, count(*) as events,
             (array_agg(x.class order by x.at desc) filter (where x.event = 'failed'))[1] as error_class,
             (array_agg(coalesce(x.detail, x.code) order by x.at desc)
                filter (where x.event in ('failed', 'uncertain') or x.code = 'not_delivered')
             )[1] as error_detail
        from pgdrip.deliveries as x
       where x.enrollment_id = e.enrollment_id and x.step = s.number) as j on true
    left join lateral (
      select x.receipt from pgdrip.provider_refs as x
       where x.enrollment_id = e.enrollment_id and x.step = s.number and x.receipt is not null
       order by pgdrip.receipt_rank(x.receipt) desc limit 1) as r on true
   -- What retention took is not told as skipped.
   where e.ended_at is null or j.events > 0 or k.pruned_until is null
      or e.enrolled_at >= k.pruned_until;

comment on view pgdrip.sequence_progress is
  'Every step of every enrollment, upcoming ones included, with one plain current_state; without those of finished enrollments whose history is no longer kept';
comment on column pgdrip.sequence_progress.sequence is
  'Name of the sequence';
comment on column pgdrip.sequence_progress.contact_id is
  'The contact';
comment on column pgdrip.sequence_progress.recipient is
  'Address the step goes to: the phone or e-mail that the channel writes to';
comment on column pgdrip.sequence_progress.step is
  'Number of the step in the version that the enrollment is on';
comment on column pgdrip.sequence_progress.step_status is
  'upcoming, active, completed, skipped or failed';
comment on column pgdrip.sequence_progress.message_status is
  'none, pending, leased, sending, sent, delivered, read, uncertain, failed or parked';
comment on column pgdrip.sequence_progress.due_at is
  'When it is or was due; NULL: not reached';
comment on column pgdrip.sequence_progress.sent_at is
  'When its send was confirmed; NULL: not sent';
comment on column pgdrip.sequence_progress.completed_at is
  'When the enrollment went on from it as confirmed; NULL: it did not';
comment on column pgdrip.sequence_progress.attempts is
  'Sends begun';
comment on column pgdrip.sequence_progress.error_class is
  'Class of the latest failure; NULL: none';
comment on column pgdrip.sequence_progress.error_detail is
  'What the channel said of the latest failure, else its code';
comment on column pgdrip.sequence_progress.current_state is
  'Waiting, Scheduled, Ready to send, Sending, Sent, Delivered, Read, Replied, Skipped, Paused, Uncertain or Failed';
comment on column pgdrip.sequence_progress.enrollment_id is
  'The enrollment, one run of the contact through the sequence';

create or replace view pgdrip.sequence_funnel as
  select q.name as sequence, s.number as step,
         count(*) filter (where p.step_status = 'upcoming') as upcoming,
         count(*) filter (where p.step_status = 'active') as active,
         count(*) filter (where p.sent_at is not null) + coalesce(max(h.sent), 0)::bigint as sent,
         count(*) filter (where p.message_status in ('delivered', 'read'))
           + coalesce(max(h.delivered), 0)::bigint as delivered,
         count(*) filter (where p.message_status = 'read')
           + coalesce(max(h.read), 0)::bigint as read,
         count(*) filter (where p.step_status = 'skipped')
           + coalesce(max(h.skipped), 0)::bigint as skipped,
         count(*) filter (where p.step_status = 'failed')
           + coalesce(max(h.failed), 0)::bigint as failed
    from pgdrip.sequences as q
    join pgdrip.sequence_versions as v using (sequence_id)
    join pgdrip.steps as s on s.version_id = v.version_id
    left join (select e.version_id, x.* from pgdrip.sequence_progress as x
                 join pgdrip.enrollments as e using (enrollment_id)) as p
           on p.version_id = v.version_id and p.step = s.number
    left join (select x.sequence_id, x.step, sum(x.sent) as sent, sum(x.delivered) as delivered,
                      sum(x.read) as read, sum(x.skipped) as skipped, sum(x.failed) as failed
                 from pgdrip.history_sums as x group by x.sequence_id, x.step) as h
           on h.sequence_id = q.sequence_id and h.step = s.number
   group by q.name, s.number;

comment on view pgdrip.sequence_funnel is 'How many enrollments stand where, by sequence and step';
comment on column pgdrip.sequence_funnel.sequence is
  'Name of the sequence';
comment on column pgdrip.sequence_funnel.step is
  'Number of the step, of any version';
comment on column pgdrip.sequence_funnel.upcoming is
  'Enrollments that have not come to it';
comment on column pgdrip.sequence_funnel.active is
  'Enrollments that stand at it';
comment on column pgdrip.sequence_funnel.sent is
  'Enrollments that were sent it, those that retention took included';
comment on column pgdrip.sequence_funnel.delivered is
  'Enrollments of which a provider told that it arrived or was read, likewise';
comment on column pgdrip.sequence_funnel.read is
  'Enrollments of which a provider told that it was read, likewise';
comment on column pgdrip.sequence_funnel.skipped is
  'Enrollments that went on or ended without it; of those that retention took only what was skipped';
comment on column pgdrip.sequence_funnel.failed is
  'Enrollments that ended because it failed, those that retention took included';

create or replace view pgdrip.sender_load as
  select s.name as sender, s.pool, s.channel, s.status, s.health,
         pgdrip.hourly_rate(s, k.now) as limit_hour, u.hour as used_hour,
         s.rate_per_day as limit_day, u.day as used_day,
         w.backlog, b.oldest_due_at, b.in_flight,
         case when p.ready_at > k.now then p.ready_at end as ready_at,
         pgdrip.shown(s.last_error) as last_error,
         s.down_at, s.faults, g.name as sender_group
    from (select pgdrip.clock() as now offset 0) as k
   cross join pgdrip.senders as s
    join pgdrip.paces as p using (sender_id)
    left join pgdrip.sender_groups as g using (group_id)
   cross join lateral (
      select pgdrip.slot_counts(p.day_counts, p.day_slot, pgdrip.slot_at(k.now, pgdrip.day_span())) as counts,
             mod((extract(epoch from k.now) * 24 / pgdrip.day_span())::numeric, 1) as passed offset 0) as c
   cross join lateral (
      select case when s.is_limited
                  then ceil(c.counts[1] + c.counts[2] * (1 - c.passed))::bigint end as hour,
             case when s.is_limited
                  then (select sum(x) from unnest(c.counts) as x) end as day) as u
   -- A claim takes the oldest, so what is under way is among them; the rest is counted in
   -- the index alone.
   cross join lateral (
      select count(*) filter (where d.lease_until > k.now) as in_flight,
             min(d.due_at) filter (where d.lease_until is null or d.lease_until <= k.now)
               as oldest_due_at
        from (select x.due_at, x.lease_until from pgdrip.due as x
               where x.sender_id = s.sender_id and x.parked_reason is null and x.due_at <= k.now
               order by x.due_at limit case when s.is_limited then 20 else 1000 end) as d) as b
   cross join lateral (
      select count(*) - b.in_flight as backlog from pgdrip.due as d
       where d.sender_id = s.sender_id and d.parked_reason is null and d.due_at <= k.now) as w
   where s.deleted_at is null;

comment on view pgdrip.sender_load is
  'Each sender with its limits, what it used of them, what waits and what is under way';
comment on column pgdrip.sender_load.sender is
  'Name of the sender';
comment on column pgdrip.sender_load.pool is
  'Whose contacts and sequences it serves';
comment on column pgdrip.sender_load.channel is
  'How it sends';
comment on column pgdrip.sender_load.status is
  'active, paused, retiring or retired';
comment on column pgdrip.sender_load.health is
  'healthy, down (probed again at ready_at) or blocked (until an operator resumes it)';
comment on column pgdrip.sender_load.limit_hour is
  'Messages it may send in any rolling hour today, its ramp included; NULL: unlimited';
comment on column pgdrip.sender_load.limit_day is
  'Messages it may send in any rolling 24 hours; NULL: unlimited';
comment on column pgdrip.sender_load.backlog is
  'Steps that are due and wait for it';
comment on column pgdrip.sender_load.oldest_due_at is
  'When the oldest of those fell due';
comment on column pgdrip.sender_load.ready_at is
  'When its limits or its outage let it send again; NULL: now';
comment on column pgdrip.sender_load.last_error is
  'What its last fault was, as the channel told it';
comment on column pgdrip.sender_load.down_at is
  'Since when it is down; NULL: it is not';
comment on column pgdrip.sender_load.faults is
  'Sender faults in a row';
comment on column pgdrip.sender_load.sender_group is
  'Name of the group whose limits it shares; NULL: none';
comment on column pgdrip.sender_load.used_hour is
  'Claims in about the last hour, by the slots that the limits count in; NULL: unlimited, not counted';
comment on column pgdrip.sender_load.used_day is
  'Claims that count against the daily limit; NULL: unlimited, not counted';
comment on column pgdrip.sender_load.in_flight is
  'Claimed and not reported, of the 20 steps that are due longest; of an unlimited sender, of 1,000';

create or replace view pgdrip.queue_health as
  -- One time for all rows: the clock goes on while they are counted.
    with k as materialized (select pgdrip.clock() as now)
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
           where r.seen_at > k.now - interval '1 minute'
             and r.runner <> 'pg_cron') as runners_alive
    from k left join pgdrip.due as d on true
   group by k.now;

comment on view pgdrip.queue_health is 'The whole queue in one row';
comment on column pgdrip.queue_health.due_now is
  'Steps that are due and not claimed';
comment on column pgdrip.queue_health.oldest_due_at is
  'When the oldest of those fell due';
comment on column pgdrip.queue_health.in_flight is
  'Steps that a runner holds';
comment on column pgdrip.queue_health.lease_expired is
  'Steps whose runner let the lease run out; the next claim takes them';
comment on column pgdrip.queue_health.awaiting is
  'Steps that were sent and wait for a receipt or an event';
comment on column pgdrip.queue_health.scheduled is
  'Steps that are due later';
comment on column pgdrip.queue_health.parked is
  'Steps that wait for a cause to go, uncertain ones included';
comment on column pgdrip.queue_health.uncertain is
  'Sends that began and whose outcome nobody knows';
comment on column pgdrip.queue_health.is_paused is
  'Whether pause_all() stopped everything';
comment on column pgdrip.queue_health.is_locked is
  'Whether a restore, copy or failover was noticed; unlock() ends it';
comment on column pgdrip.queue_health.senders_down is
  'Active senders that are down or blocked';
comment on column pgdrip.queue_health.runners_alive is
  'Runners that ticked within a minute; pg_cron, which sends nothing, is none';

create or replace view pgdrip.delivery_events as
  select j.at, j.enrollment_id, j.token, j.event, j.step, j.attempt, j.sender_id, j.runner,
         j.due_at, j.begun_at, pgdrip.shown(j.code) as code, j.class,
         pgdrip.shown(j.detail) as detail,
         case when k.sees then j.provider_id end as provider_id, j.verdict, j.next_due_at,
         case when k.sees then j.content_hash end as content_hash, j.variant
    from (select pgdrip.sees_people() as sees) as k cross join pgdrip.deliveries as j;

comment on view pgdrip.delivery_events is 'The journal, event by event';
comment on column pgdrip.delivery_events.at is
  'When it was written';
comment on column pgdrip.delivery_events.enrollment_id is
  'The enrollment';
comment on column pgdrip.delivery_events.token is
  'The claim; NULL: no claim had to do with it';
comment on column pgdrip.delivery_events.event is
  'sent, failed, uncertain, abandoned, refused, resolved or skipped';
comment on column pgdrip.delivery_events.step is
  'Number of the step';
comment on column pgdrip.delivery_events.attempt is
  'Which send of the step it was, from 1';
comment on column pgdrip.delivery_events.sender_id is
  'Whose message it was';
comment on column pgdrip.delivery_events.runner is
  'Who held it';
comment on column pgdrip.delivery_events.due_at is
  'When the step had been due';
comment on column pgdrip.delivery_events.begun_at is
  'When the send began; NULL: it did not';
comment on column pgdrip.delivery_events.code is
  'What the channel calls it, masked for readers; or why it was abandoned, refused or resolved';
comment on column pgdrip.delivery_events.class is
  'Class of a failure';
comment on column pgdrip.delivery_events.detail is
  'What the channel said; masked for readers';
comment on column pgdrip.delivery_events.provider_id is
  'What the provider calls the message; NULL for readers';
comment on column pgdrip.delivery_events.verdict is
  'What came of it';
comment on column pgdrip.delivery_events.next_due_at is
  'When the enrollment is due next';
comment on column pgdrip.delivery_events.content_hash is
  'sha256 of what was rendered: see content_hash(); NULL for readers';
comment on column pgdrip.delivery_events.variant is
  'Which variant of the step it was, from 1';

create or replace view pgdrip.failures as
  select j.at, q.name as sequence, e.contact_id,
         pgdrip.shown(pgdrip.recipient(h.address, c.phone, c.email)) as recipient, j.step, j.attempt,
         s.name as sender, j.class, pgdrip.shown(j.code) as code,
         pgdrip.shown(j.detail) as detail, j.verdict,
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
comment on column pgdrip.failures.at is
  'When it was reported';
comment on column pgdrip.failures.sequence is
  'Name of the sequence';
comment on column pgdrip.failures.contact_id is
  'The contact';
comment on column pgdrip.failures.recipient is
  'Address it was to go to';
comment on column pgdrip.failures.step is
  'Number of the step';
comment on column pgdrip.failures.attempt is
  'Which send of the step it was, from 1';
comment on column pgdrip.failures.sender is
  'Name of the sender';
comment on column pgdrip.failures.class is
  'transient, permanent, contact, content, sender or blocked; NULL: not classified';
comment on column pgdrip.failures.code is
  'What the channel calls it; masked for readers';
comment on column pgdrip.failures.detail is
  'What the gateway said, at most 2 kB';
comment on column pgdrip.failures.verdict is
  'What report() made of it: retry, failed, skipped, parked, deferred or stale';
comment on column pgdrip.failures.is_unclassified is
  'Whether error_rules lacks the code, so that it counts as uncertain';
comment on column pgdrip.failures.enrollment_id is
  'The enrollment';
comment on column pgdrip.failures.token is
  'The claim that it was sent under';

create or replace view pgdrip.uncertain_deliveries as
  select d.token, q.name as sequence, e.contact_id,
         pgdrip.shown(pgdrip.recipient(h.address, c.phone, c.email)) as recipient, d.step, d.attempt,
         s.name as sender, d.runner, d.begun_at, pgdrip.shown(j.code) as code,
         pgdrip.shown(j.detail) as detail,
         d.enrollment_id
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
comment on column pgdrip.uncertain_deliveries.token is
  'The claim that it was sent under; what resolve_uncertain() takes';
comment on column pgdrip.uncertain_deliveries.sequence is
  'Name of the sequence';
comment on column pgdrip.uncertain_deliveries.contact_id is
  'The contact';
comment on column pgdrip.uncertain_deliveries.recipient is
  'Address it may have reached';
comment on column pgdrip.uncertain_deliveries.step is
  'Number of the step';
comment on column pgdrip.uncertain_deliveries.attempt is
  'Which send of the step it was, from 1';
comment on column pgdrip.uncertain_deliveries.sender is
  'Name of the sender';
comment on column pgdrip.uncertain_deliveries.runner is
  'Who began the send';
comment on column pgdrip.uncertain_deliveries.begun_at is
  'When the send began; NULL: not known after a restore';
comment on column pgdrip.uncertain_deliveries.code is
  'Why it is uncertain: lapsed (the runner fell silent), restored, or what the channel calls it, masked for readers';
comment on column pgdrip.uncertain_deliveries.detail is
  'What the channel said';
comment on column pgdrip.uncertain_deliveries.enrollment_id is
  'The enrollment';
