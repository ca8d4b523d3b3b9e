"""A legacy database as `pgdrip adopt` meets it: any number of leads, and every damage.

`build` makes it in the schema `legacy`, and beside it `truth.sent`: what each person
really was sent. Lead i has been sent the first `i % 5` of the four steps of its
sequence; what else is wrong with it depends on `i % 100`, so that a test can name it.
"""

from typing import Any

import psycopg

USERS = {
    "A": "aaaaaaaa-0000-4000-8000-000000000001",
    "B": "bbbbbbbb-0000-4000-8000-000000000002",
}
STATUSES = ("online", "Online", "connected", "Connected", "offline", None)
TEXTS = ("Hi there!", "Any questions?", "A seat is left.", "Last call.")

TABLES = """
create schema legacy;
create schema truth;
create table legacy.user_devices (
  id uuid primary key, user_id uuid, device_name text, phone text, jid text,
  status text, last_seen timestamp, min_delay_seconds integer,
  max_delay_seconds integer);
create table legacy.leads (
  id uuid primary key, user_id uuid, device_id uuid, name text, phone text, email text,
  address text, status text, niche text, trigger text, created_at timestamp,
  updated_at timestamp);
create table legacy.sequences (
  id uuid primary key, user_id uuid, device_id uuid, name text, niche text,
  target_status text, status text, is_active boolean, trigger text, start_trigger text,
  end_trigger text, schedule_time text, min_delay_seconds integer,
  max_delay_seconds integer, priority integer, created_at timestamp);
create table legacy.sequence_steps (
  id uuid primary key, sequence_id uuid, day_number integer, trigger text,
  next_trigger text, trigger_delay_hours integer, is_entry_point boolean,
  message_type text, content text, message_text text, caption text, media_url text,
  time_schedule text, min_delay_seconds integer, max_delay_seconds integer);
create table legacy.sequence_contacts (
  id uuid primary key, sequence_id uuid, contact_phone text, contact_name text,
  current_step integer, status text, completed_at timestamp, current_trigger text,
  next_trigger_time timestamp, processing_device_id uuid,
  processing_started_at timestamp, last_error text, retry_count integer,
  assigned_device_id uuid, sequence_stepid uuid, user_id uuid);
create table legacy.broadcast_messages (
  id uuid primary key, user_id uuid, device_id uuid, campaign_id uuid, sequence_id uuid,
  sequence_stepid uuid, recipient_phone text, recipient_name text, message_type text,
  content text, media_url text, status text, error_message text, scheduled_at timestamp,
  sent_at timestamp, created_at timestamp, group_id text, group_order integer);
create table truth.sent (phone text, sequence_id uuid, step integer);
create function legacy.id(kind text, number bigint) returns uuid immutable language sql
  return md5(kind || number)::uuid;
create function legacy.number(i bigint) returns text immutable language sql
  return '6012' || lpad(i::text, 7, '0');
"""

# One phone in ten ways; the ninth has lost its digits.
PHONES = """
create function legacy.written(i bigint) returns text immutable language sql
return case i % 100
  when 11 then '+' || legacy.number(i)
  when 12 then '+60 12-' || substr(legacy.number(i), 5, 3)
               || ' ' || substr(legacy.number(i), 8)
  when 13 then legacy.number(i) || '@s.whatsapp.net'
  when 14 then legacy.number(i) || ':3@s.whatsapp.net'
  when 15 then legacy.number(i) || '.0'
  when 16 then '6.' || substr(legacy.number(i), 2) || 'E+10'
  when 17 then '''' || legacy.number(i)
  when 18 then '0' || substr(legacy.number(i), 3)
  when 19 then '6.01E+10'
  else legacy.number(i) end;
"""

DEFINITIONS = """
insert into legacy.user_devices (id, user_id, device_name, phone, jid, status,
                                 min_delay_seconds, max_delay_seconds)
select legacy.id('device', i), u.id::uuid,
       case when i %% 7 <> 3 then 'Phone ' || i %% 4 end,
       legacy.number(9000000 + i), legacy.number(9000000 + i) || ':1@s.whatsapp.net',
       (%(statuses)s::text[])[1 + i %% 6], case when i %% 5 = 0 then 30 else 5 end, 15
  from generate_series(0, 11) as i
  join unnest(%(users)s::text[]) with ordinality as u(id, place)
    on u.place = 1 + i %% 2;

insert into legacy.sequences (id, user_id, name, target_status, status, is_active,
                              trigger, start_trigger, end_trigger, created_at)
select legacy.id('sequence', s.n), s.user_id::uuid, s.name, s.target, s.status,
       s.active, s.trigger, s.start, s.over, '2025-11-01'
  from (values
    (0, %(a)s, 'COLD', null, 'Active', true, '', null, 'WARMEXAMA'),
    (1, %(a)s, 'WARM', 'prospect', 'active', true, 'WARMEXAMA', null, null),
    (2, %(b)s, 'WARM', null, ' ACTIVE', true, 'WARMEXAMA', null, 'NOWHERE'),
    (3, %(b)s, 'PAUSE', null, 'active', false, null, 'PAUSEEXAMA', null),
    (4, %(b)s, 'EMPTY', null, 'active', true, 'EMPTYEXAMA', null, null),
    (5, %(b)s, 'BROKEN', null, 'active', true, 'BROKENEXAMA', null, null)
  ) as s(n, user_id, name, target, status, active, trigger, start, over);

insert into legacy.sequence_steps (id, sequence_id, day_number, trigger, next_trigger,
  trigger_delay_hours, is_entry_point, message_type, content, message_text)
select legacy.id('step', 10 * s.n + k), legacy.id('sequence', s.n),
       (array[1, 3, 6, 9])[k],
       case when s.n = 0 and k = 1 then 'COLDEXAMA' else s.n || '_day' || k end, null,
       (array[12, 0, null, 48])[k], k = 1, 'text',
       case when k < 3 then 'Of ' || s.n || ': ' || (%(texts)s::text[])[k] end,
       case when k > 2 then 'Of ' || s.n || ': ' || (%(texts)s::text[])[k] end
  from generate_series(0, 3) as s(n), generate_series(1, 4) as k;
-- The same step again; another one on a day that is taken; no text; no sequence.
insert into legacy.sequence_steps (id, sequence_id, day_number, is_entry_point,
                                   message_type, content, media_url)
values (legacy.id('step', 91), legacy.id('sequence', 1), 3, false, 'text',
        'Of 1: Any questions?', null),
       (legacy.id('step', 92), legacy.id('sequence', 3), 9, false, 'image', '',
        'https://example.com/a.jpg'),
       (legacy.id('step', 93), legacy.id('sequence', 3), 12, false, 'text', '  ', null),
       (legacy.id('step', 94), legacy.id('sequence', 77), 1, true, 'text', 'x', null),
       (legacy.id('step', 95), legacy.id('sequence', 4), 1, true, 'text', ' ', null),
       (legacy.id('step', 96), legacy.id('sequence', 5), 1, true, 'text', 'Hi {{',
        null);
"""

# Lead i is of user A or B and in its sequence COLD (A) or WARM (B).
PEOPLE = """
create table legacy.people as
select i, legacy.written(i) as phone, legacy.number(i) as e164,
       (%(users)s::text[])[1 + i %% 2]::uuid as user_id, i %% 2 * 2 as n,
       legacy.id('device', i %% 12) as device_id, i %% 5 as sent,
       timestamp '2025-12-20' + i %% 5 * interval '1 hour' as start_at
  from generate_series(0, %(contacts)s - 1) as i;

insert into legacy.leads (id, user_id, device_id, name, phone, email, status, niche,
                          trigger, created_at, updated_at)
select legacy.id('lead', i), case when i %% 100 <> 21 then user_id end, device_id,
       'Lead ' || i, phone,
       case i %% 100 when 22 then 'nonsense' when 23 then i || '@example.com'
                     when 25 then i - 2 || '@Example.com' end,
       (array['prospect', 'Prospect', 'PROSPECT ', 'customer', null])[1 + i %% 5],
       'EXAMA',
       case when i %% 100 = 31 then ',  , '
            when i %% 100 = 32 then 'SHOTGUN,,WARMEXAMA, '
            when n = 0 then 'COLDEXAMA' else 'WARMEXAMA' end,
       start_at, start_at
  from legacy.people where i %% 100 not in (41, 42);
-- The same phone again under its user, and under the other one.
insert into legacy.leads (id, user_id, name, phone, status, trigger, created_at,
                          updated_at)
select legacy.id('twin', i), user_id, 'Twin ' || i, '+' || e164, 'PROSPECT', 'OTHER',
       start_at, start_at + interval '1 day'
  from legacy.people where i %% 20 = 3;
insert into legacy.leads (id, user_id, name, phone, status, trigger, created_at)
select legacy.id('other', i), u.id::uuid, 'Other ' || i, e164, 'customer',
       'WARMEXAMA', start_at
  from legacy.people as p
  join unnest(%(users)s::text[]) as u(id) on u.id::uuid <> p.user_id
 where i %% 50 = 4;
"""

# What was sent, with the step's id or without it; then what was only tried.
MESSAGES = """
insert into truth.sent (phone, sequence_id, step)
select '+' || e164, legacy.id('sequence', n), (array[1, 3, 6, 9])[k]
  from legacy.people, generate_series(1, sent) as k;
insert into legacy.broadcast_messages (id, user_id, device_id, sequence_id,
  sequence_stepid, recipient_phone, message_type, content, status, scheduled_at,
  sent_at, created_at)
select legacy.id('sent', 10 * i + k), user_id, device_id, legacy.id('sequence', n),
       case when i %% 10 < 7 then legacy.id('step', 10 * n + k) end, e164, 'text',
       case when i %% 10 = 9 then 'Of ' || n || ': ' || (%(texts)s::text[])[k]
            else 'Dear ' || i end,
       (array['sent', 'success', 'Sent', 'SUCCESS'])[k], t.at,
       case when i %% 100 <> 51 then t.at end,
       case when i %% 100 = 52 then t.at + interval '8 hours'
            else t.at - interval '1 minute' end
  from legacy.people, generate_series(1, sent) as k,
       lateral (select start_at + case when i %% 10 = 8
                  then (array[1, 3, 6, 9])[k] - 1 else k - 1 end * interval '1 day'
                  + case when i %% 100 = 53 and k = sent then interval '90 days'
                         else interval '0' end as at) as t;
insert into legacy.broadcast_messages (id, user_id, device_id, sequence_id,
  sequence_stepid, recipient_phone, content, status, error_message, scheduled_at,
  created_at)
select legacy.id('tried', i), user_id, device_id, legacy.id('sequence', n),
       legacy.id('step', 10 * n + sent + 1), e164, 'x',
       case i %% 3 when 0 then 'pending' when 1 then 'failed' else 'Failed' end, null,
       timestamp '2026-01-04', timestamp '2026-01-04'
  from legacy.people where sent < 4 and i %% 4 = 1;
-- Taken by a process that is gone; sent twice; of a campaign; of nothing there is.
insert into legacy.broadcast_messages (id, user_id, sequence_id, sequence_stepid,
  recipient_phone, content, status, scheduled_at, created_at)
select legacy.id('stuck', i), user_id, legacy.id('sequence', n),
       legacy.id('step', 10 * n + sent + 1), e164, 'x',
       case when i %% 3 = 0 then 'processing' else 'queued' end,
       timestamp '2026-01-04', timestamp '2026-01-04'
  from legacy.people where sent < 4 and i %% 100 between 61 and 69;
insert into legacy.broadcast_messages
select (jsonb_populate_record(m, jsonb_build_object('id', legacy.id('again', i)))).*
  from legacy.people as p
  join legacy.broadcast_messages as m on m.id = legacy.id('sent', 10 * p.i + 1)
 where i %% 100 in (71, 72, 73);
insert into legacy.broadcast_messages (id, user_id, campaign_id, recipient_phone,
                                       status)
select legacy.id('campaign', i), user_id, legacy.id('x', 1), e164, 'sent'
  from legacy.people where i %% 100 = 81;
insert into legacy.broadcast_messages (id, user_id, sequence_id, recipient_phone,
                                       status)
select legacy.id('nothing', i), user_id, legacy.id('sequence', 77), e164, 'pending'
  from legacy.people where i %% 100 = 82;
"""

# Rows of the steps, each of the right one or all of the last; 33 and 34 have none.
ENROLLED = """
insert into legacy.sequence_contacts (id, sequence_id, contact_phone, contact_name,
  current_step, status, completed_at, next_trigger_time, processing_device_id,
  processing_started_at, assigned_device_id, sequence_stepid, user_id)
select legacy.id('enrolled', 10 * i + k), legacy.id('sequence', n), phone, 'Lead ' || i,
       case when i %% 3 = 0 then 9 else (array[1, 3, 6, 9])[k] end,
       case when k <= sent then (array['sent', 'Completed', 'completed'])[1 + i %% 3]
            when i %% 100 between 54 and 58 then 'completed'
            when i %% 7 = 0 then 'sequence_failed' when k = sent + 1 then 'active'
            else 'pending' end,
       start_at,
       case when i %% 100 between 54 and 58 and k > sent
            then timestamp '2026-02-01' + k * interval '1 day'
            else start_at + k * interval '1 day' end,
       case when k = sent + 1 then legacy.id('gone', i) end,
       case when k = sent + 1 then timestamp '2025-12-24' end, device_id,
       case when i %% 4 <> 0 then legacy.id('step', 10 * n + k) end,
       case when i %% 6 <> 0 then user_id end
  from legacy.people, generate_series(1, 4) as k
 where i %% 100 not in (4, 33, 34) and (i %% 4 = 0 or k in (1, sent + 1));
-- Unique was missing: the same row again, active and pending.
insert into legacy.sequence_contacts
select (jsonb_populate_record(e, jsonb_build_object('id', legacy.id('double', i),
                                                    'status', 'active'))).*
  from legacy.people as p
  join legacy.sequence_contacts as e on e.id = legacy.id('enrolled', 10 * p.i + 1)
 where i %% 10 = 8;
"""


def build(db: psycopg.Connection[Any], contacts: int) -> None:
    """Make the legacy tables for so many leads; 100 have each damage at least once."""
    given = {
        "users": list(USERS.values()),
        "a": USERS["A"],
        "b": USERS["B"],
        "statuses": list(STATUSES),
        "texts": list(TEXTS),
        "contacts": contacts,
    }
    with db.transaction():
        db.execute(TABLES)
        db.execute(PHONES)
        # On the client's side: a script is more than one statement.
        binding = psycopg.ClientCursor(db)
        for script in (DEFINITIONS, PEOPLE, MESSAGES, ENROLLED):
            binding.execute(script, given)
        db.execute("analyze")
