-- A fleet with work: so many senders and enrollments, each sender as many as the next, of
-- which some steps are due and the rest in the coming month; some history of each.
-- Placeholders of psycopg. Parents are not looked up: all of them are made here.
set session_replication_role = replica;
set synchronous_commit = off;

insert into pgdrip.senders (name, channel, config, rate_per_hour, burst)
select 'device-' || lpad(n::text, 4, '0'), 'log', '{"file": "/dev/null"}', %(rate)s,
       least(1000, %(rate)s / 80)
  from generate_series(1, %(senders)s) as n;
insert into pgdrip.paces (sender_id, channel) select sender_id, channel from pgdrip.senders;

insert into pgdrip.contacts (phone, name, bucket)
select '+6012' || lpad(n::text, 8, '0'), 'Contact ' || n, n %% 1024
  from generate_series(1, %(enrollments)s) as n;

-- In no order of the senders: as people come, each goes to whoever is next.
insert into pgdrip.enrollments
  (contact_id, sequence_id, version_id, sender_id, enrolled_at, last_confirmed_step)
select n, 1, 1, 1 + n * 7919 %% %(senders)s, pgdrip.clock() - interval '60 days', %(history)s
  from generate_series(1::bigint, %(enrollments)s) as n;

insert into pgdrip.due (enrollment_id, sender_id, step, due_at)
select n, 1 + n * 7919 %% %(senders)s, 1 + %(history)s,
       case when n <= %(due)s then pgdrip.clock() - (1 + random()) * interval '1 hour'
            else pgdrip.clock() + interval '1 hour' + random() * interval '30 days' end
  from generate_series(1::bigint, %(enrollments)s) as n order by hashint8(n);

insert into pgdrip.deliveries
  (at, enrollment_id, token, event, step, attempt, sender_id, runner, due_at, begun_at,
   verdict, next_due_at, content_hash)
select t.at, t.enrollment_id, (1::bigint << 40) | ((t.step - 1) * %(enrollments)s + t.enrollment_id),
       'sent', t.step, 1, 1 + t.enrollment_id * 7919 %% %(senders)s, 'runner-1', t.at, t.at,
       'advanced', t.at + interval '1 day', sha256(int8send(t.enrollment_id))
  from (select n as enrollment_id, k as step,
               pgdrip.clock() - interval '60 days' + (k - 1 + n / %(enrollments)s::float8) * interval '1 day' as at
          from generate_series(1, %(history)s) as k,
               generate_series(1::bigint, %(enrollments)s) as n) as t;
select setval('pgdrip.token_seq', 1 + %(history)s::bigint * %(enrollments)s);

update pgdrip.paces as p set next_at = f.due_at
  from (select d.sender_id, min(d.due_at) as due_at from pgdrip.due as d group by d.sender_id) as f
 where f.sender_id = p.sender_id;

reset session_replication_role;
reset synchronous_commit;
