-- Contacts, the trigger words on them, and whom never to message.
-- depends: 0002.senders

create table pgdrip.contacts (
  contact_id    bigint generated always as identity,
  pool          text not null default 'default',
  phone         text,
  email         text,
  name          text,
  timezone      text,
  attributes    jsonb not null default '{}',
  sender_id     bigint,
  bucket        integer not null,
  created_at    timestamptz not null default pgdrip.clock(),
  constraint contacts_pkey primary key (contact_id),
  constraint contacts_sender_fkey foreign key (sender_id) references pgdrip.senders,
  constraint contacts_pool_visible
    check (not pgdrip.is_blank(pool) and octet_length(pool) <= 200),
  constraint contacts_has_address check (phone is not null or email is not null),
  constraint contacts_phone_is_e164 check (phone ~ '^\+[1-9][0-9]{6,14}$'),
  constraint contacts_email_has_form
    check (email ~ '^[^[:space:]@[:cntrl:]]{1,64}@[^[:space:]@[:cntrl:]]{1,189}$'),
  constraint contacts_name_bounded
    check (octet_length(name) <= 1000 and name !~ '[\u0001-\u001f]'),
  constraint contacts_timezone_is_iana
    check (timezone ~ '^(UTC|[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+){1,2})$'),
  constraint contacts_attributes_are_object check (jsonb_typeof(attributes) = 'object'),
  constraint contacts_attributes_bounded check (octet_length(attributes::text) <= 16384),
  constraint contacts_attributes_shallow check (not attributes @? '$.**{9}'),
  constraint contacts_bucket_in_range check (bucket between 0 and 1023)
);
create unique index contacts_phone_key on pgdrip.contacts (pool, phone);
create unique index contacts_email_key on pgdrip.contacts (pool, lower(email));
create index contacts_phone on pgdrip.contacts (phone) where phone is not null;
create index contacts_email on pgdrip.contacts (lower(email)) where email is not null;
create index contacts_sender on pgdrip.contacts (sender_id) where sender_id is not null;
comment on table pgdrip.contacts is 'A lead, known by phone, e-mail or both, in one pool';
comment on column pgdrip.contacts.phone is 'E.164 with its plus, passed on verbatim';
comment on column pgdrip.contacts.timezone is 'IANA name; NULL counts as UTC';
comment on column pgdrip.contacts.attributes is
  'What templates and conditions may use, at most 16 kB and 8 levels';
comment on column pgdrip.contacts.sender_id is 'The sender this contact prefers';
comment on column pgdrip.contacts.bucket is
  'Ten bits of the sha256 of the first address; says which shard the contact lives in';

create table pgdrip.contact_triggers (
  trigger_id bigint generated always as identity,
  contact_id bigint not null,
  trigger    text not null,
  added_at   timestamptz not null default pgdrip.clock(),
  sweep_at   timestamptz default pgdrip.clock(),
  constraint contact_triggers_pkey primary key (trigger_id),
  constraint contact_triggers_word_key unique (contact_id, trigger),
  constraint contact_triggers_contact_fkey foreign key (contact_id)
    references pgdrip.contacts on delete cascade,
  constraint contact_triggers_is_word check (pgdrip.is_word(trigger)),
  constraint contact_triggers_times_finite check (isfinite(added_at) and isfinite(sweep_at))
);
create index contact_triggers_waiting on pgdrip.contact_triggers (trigger, sweep_at, trigger_id)
  where sweep_at is not null;
create index contact_triggers_word on pgdrip.contact_triggers (trigger);
comment on table pgdrip.contact_triggers is
  'A word on a contact that starts every sequence with that trigger in its pool';
comment on column pgdrip.contact_triggers.sweep_at is
  'When enroll_waiting looks at the row next; NULL: done with it until something changes';

create table pgdrip.suppressions (
  address    text not null,
  reason     text not null,
  created_at timestamptz not null default pgdrip.clock(),
  constraint suppressions_pkey primary key (address),
  constraint suppressions_address_visible
    check (not pgdrip.is_blank(address) and octet_length(address) <= 254),
  constraint suppressions_reason_visible check (not pgdrip.is_blank(reason))
);
comment on table pgdrip.suppressions is
  'Addresses that no sequence of any pool may message; e-mails in lower case';

create table pgdrip.contact_events (
  event_id   bigint generated always as identity,
  contact_id bigint not null,
  event      text not null,
  payload    jsonb not null default '{}',
  at         timestamptz not null,
  constraint contact_events_pkey primary key (event_id),
  constraint contact_events_contact_fkey foreign key (contact_id)
    references pgdrip.contacts on delete cascade,
  constraint contact_events_name_visible
    check (not pgdrip.is_blank(event) and octet_length(event) <= 200),
  constraint contact_events_payload_is_object
    check (jsonb_typeof(payload) = 'object' and octet_length(payload::text) <= 16384),
  constraint contact_events_at_finite check (isfinite(at))
);
create index contact_events_contact on pgdrip.contact_events (contact_id, event, at);
comment on table pgdrip.contact_events is
  'What happened to a contact outside: purchased, clicked; goals and waiting steps read it';
comment on column pgdrip.contact_events.payload is
  'What the teller added to the event, at most 16 kB';
