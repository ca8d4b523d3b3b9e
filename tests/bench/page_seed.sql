-- A fleet in the middle of its work, written at once: so many people over three weeks, a
-- step a day, so many senders. Placeholders of psycopg.

with senders as (
  insert into pgdrip.senders (name, pool, channel, rate_per_hour, rate_per_day)
  select 'device-' || lpad(n::text, 4, '0'), 'default', 'log', 40 + 20 * (n %% 3), 400 + 200 * (n %% 3)
    from generate_series(1, %(senders)s) as n
  returning sender_id, channel
)
insert into pgdrip.paces (sender_id, channel) select sender_id, channel from senders;
update pgdrip.senders as s set health = 'down', down_at = now(), faults = 3, last_error = 'http_503 the gateway is away'
 where s.sender_id %% 97 = 3;
update pgdrip.senders as s set health = 'blocked', last_error = 'the number was banned'
 where s.sender_id %% 211 = 5;
update pgdrip.senders as s set status = 'paused', status_reason = 'being charged'
 where s.sender_id %% 173 = 9;

select pgdrip.apply_sequence(jsonb_build_object('name', q.name, 'trigger', q.name, 'channel', 'log',
         'status', 'active', 'steps', (
           select jsonb_agg(jsonb_build_object('day', d, 'body', 'Message ' || d || ' for {{name|you}}'))
             from generate_series(1, 20) as d)))
  from (values ('COLD leads'), ('HOT leads'), ('WARM leads')) as q(name);

insert into pgdrip.contacts (phone, name, bucket)
select '+6012' || lpad(n::text, 8, '0'), 'Contact ' || n, n %% 1024
  from generate_series(1, %(people)s) as n;

-- One in 400 or so stands still since its last step came due, less than an hour ago.
create temp table plan as
select c.contact_id, q.sequence_id, q.version_id, 1 + mod(c.contact_id * 7919, %(senders)s) as sender_id,
       p.started - case when p.started > pgdrip.clock() then interval '1 day' else '0' end as started,
       p.is_standing
  from pgdrip.contacts as c
  join (select s.*, row_number() over (order by name) as place from pgdrip.sequences as s) as q
    on q.place = case when c.contact_id %% 10 < 5 then 1 when c.contact_id %% 10 < 7 then 2 else 3 end
 cross join lateral (
    select h.is_standing, pgdrip.clock() - floor(21 * random()) * interval '1 day'
             + case when h.is_standing then random() * interval '-50 minutes'
                    else interval '12 hours' * (random() + random() - 1) end as started
      from (select c.contact_id %% 400 in (1, 2, 7) as is_standing) as h) as p
 order by c.contact_id;
alter table plan add column enrollment_id bigint generated always as identity;
alter table plan add column done integer;
update plan as p set done = least(20, 1 + floor(
  (extract(epoch from pgdrip.clock() - p.started) - case when p.is_standing then 3600 else 5 end) / 86400));
insert into pgdrip.enrollments (contact_id, sequence_id, version_id, sender_id, enrolled_at)
select p.contact_id, p.sequence_id, p.version_id, p.sender_id, p.started from plan as p order by p.enrollment_id;

-- One event for each step that is over, oldest first, as time would have written them; a few
-- went out at their second attempt.
insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, sender_id, runner,
  due_at, begun_at, code, class, detail, verdict, next_due_at, content_hash)
select x.at, x.enrollment_id, (1::bigint << 40) | row_number() over (order by x.at), x.event, x.step,
       x.attempt, x.sender_id, 'runner-' || (1 + x.enrollment_id %% 3), x.due_at, x.at - interval '0.5 s',
       case when x.event = 'failed' then x.codes[1 + x.step %% 3] end,
       case when x.event = 'failed' then (array['transient', 'sender', 'transient'])[1 + x.step %% 3] end,
       case when x.event = 'failed' then 'the gateway said so of +60123456789' end,
       case when x.event = 'failed' then 'retry' when x.step < 20 then 'advanced' else 'completed' end,
       case when x.step < 20 then x.at + interval '1 day' end, '\x00'
  from (select p.enrollment_id, p.sender_id, d.step, e.event, e.attempt, f.due_at,
               array['http_429', 'http_503', 'busy'] as codes,
               f.due_at + case when e.event = 'failed' then interval '1 s' else interval '2 s' end as at
          from plan as p, generate_series(1, p.done) as d(step),
               lateral (select p.started + (d.step - 1) * interval '1 day 2 s' as due_at,
                               (p.enrollment_id * 31 + d.step * 17) %% 250 = 0 as is_hard) as f,
               lateral (values ('failed', 1, f.is_hard),
                               ('sent', case when f.is_hard then 2 else 1 end, true)) as e(event, attempt, is_so)
         where e.is_so) as x
 order by x.at;

insert into pgdrip.due (enrollment_id, sender_id, step, due_at)
select p.enrollment_id, p.sender_id, p.done + 1, p.started + p.done * interval '1 day 2 s'
  from plan as p where p.done < 20;
update pgdrip.enrollments as e
   set last_confirmed_step = p.done,
       status = case when p.done = 20 then 'completed' else 'active' end,
       ended_at = case when p.done = 20 then p.started + interval '19 days 1 minute' end,
       end_reason = case when p.done = 20 then 'completed' end
  from plan as p
 where p.enrollment_id = e.enrollment_id;

-- Of those that stand some are uncertain, and some have failed.
update pgdrip.due as d
   set parked_reason = 'uncertain', token = (2::bigint << 40) | d.enrollment_id, attempt = 1,
       runner = 'runner-2', begun_at = d.due_at + interval '2 s', content_hash = '\x00'
 where d.enrollment_id %% 5600 = 2;
insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, sender_id, runner,
  due_at, begun_at, code, detail, verdict, content_hash)
select d.begun_at + interval '40 s', d.enrollment_id, d.token, 'uncertain', d.step, 1, d.sender_id, d.runner,
       d.due_at, d.begun_at, 'timeout', 'no answer in 30 s', 'parked', d.content_hash
  from pgdrip.due as d where d.parked_reason = 'uncertain';
with ended as (
  delete from pgdrip.due as d where d.enrollment_id %% 2800 = 7 returning d.*)
insert into pgdrip.deliveries (at, enrollment_id, token, event, step, attempt, sender_id, runner,
  due_at, begun_at, code, class, detail, verdict)
select d.due_at + interval '3 s', d.enrollment_id, (3::bigint << 40) | d.enrollment_id, 'failed', d.step, 1,
       d.sender_id, 'runner-1', d.due_at, d.due_at + interval '2 s', 'http_410', 'contact',
       'the recipient is gone', 'failed'
  from ended as d order by d.due_at;
update pgdrip.enrollments as e set status = 'failed', ended_at = j.at, end_reason = 'http_410'
  from pgdrip.deliveries as j
 where j.enrollment_id = e.enrollment_id and j.verdict = 'failed' and e.enrollment_id %% 2800 = 7;

insert into pgdrip.provider_refs (channel, provider_id, enrollment_id, token, step, receipt, receipt_at, created_at)
select 'log', 'log-' || j.token, j.enrollment_id, j.token, j.step,
       case when f.fate < 0.5 then 'read' when f.fate < 0.9 then 'delivered' end,
       case when f.fate < 0.9 then j.at + interval '90 s' end, j.at
  from pgdrip.deliveries as j, lateral (select j.token, random() as fate) as f
 where j.event = 'sent';
update pgdrip.paces as p set next_at = f.due_at
  from (select d.sender_id, min(d.due_at) as due_at from pgdrip.due as d
         where d.parked_reason is null group by d.sender_id) as f
 where f.sender_id = p.sender_id;
insert into pgdrip.runners (runner, version, started_at, seen_at)
select 'runner-' || n, '0.1.0', pgdrip.clock() - interval '3 days', pgdrip.clock()
  from generate_series(1, 3) as n;
update pgdrip.control as c set maintained_at = pgdrip.clock() - interval '12 minutes';
