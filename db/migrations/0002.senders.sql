-- Channels, the senders on them, the wakes that tell a sender of earlier work.
-- depends: 0001.control

create table pgdrip.channels (
  channel  text not null,
  address  text not null,
  features text[] not null default '{}',
  constraint channels_pkey primary key (channel),
  constraint channels_is_name check (channel ~ '^[a-z][a-z0-9_]{0,62}$'),
  constraint channels_address_known check (address in ('phone', 'email', 'any')),
  constraint channels_features_known
    check (features <@ array['subject', 'html', 'media', 'template'])
);
comment on table pgdrip.channels is 'How messages go out, and what each way can carry';
comment on column pgdrip.channels.address is
  'What the recipient is: phone, email, or any (the phone, else the e-mail)';
comment on column pgdrip.channels.features is
  'Step keys beside body that the channel can send';

insert into pgdrip.channels (channel, address, features) values
  ('log', 'any', '{subject,html,media,template}'),
  ('webhook', 'any', '{subject,html,media,template}'),
  ('gowa', 'phone', '{media}'),
  ('whatsapp_cloud', 'phone', '{media,template}'),
  ('twilio', 'phone', '{media}'),
  ('smtp', 'email', '{subject,html,media}');

create sequence pgdrip.assignment_seq as bigint cache 1;
comment on sequence pgdrip.assignment_seq is
  'Counts choices of a sender, so that successive ones spread evenly';

create table pgdrip.senders (
  sender_id      bigint generated always as identity,
  name           text not null,
  pool           text not null default 'default',
  channel        text not null,
  config         jsonb not null default '{}',
  secret         text,
  rate_per_hour  integer,
  rate_per_day   integer,
  burst          integer not null default 1,
  gap_min        interval not null default '0',
  gap_max        interval not null default '0',
  ramp           jsonb,
  hours          jsonb,
  advance_on     text not null default 'accepted',
  confirm_within interval not null default '1 day',
  on_unconfirmed text not null default 'park',
  is_limited     boolean generated always as (
    rate_per_hour is not null or rate_per_day is not null
    or gap_max > interval '0' or ramp is not null or hours is not null) stored,
  status         text not null default 'active',
  status_reason  text,
  health         text not null default 'healthy',
  faults         integer not null default 0,
  fault_at       timestamptz,
  last_error     text,
  started_at     timestamptz not null default pgdrip.clock(),
  limits_at      timestamptz not null default pgdrip.clock(),
  tat            timestamptz not null default 'epoch',
  day_slot       bigint not null default 0,
  day_counts     integer[] not null default array_fill(0, array[25]),
  ready_at       timestamptz not null default 'epoch',
  next_at        timestamptz,
  constraint senders_pkey primary key (sender_id),
  constraint senders_name_key unique (name),
  constraint senders_name_visible
    check (not pgdrip.is_blank(name) and octet_length(name) <= 200),
  constraint senders_pool_visible
    check (not pgdrip.is_blank(pool) and octet_length(pool) <= 200),
  constraint senders_channel_fkey foreign key (channel) references pgdrip.channels,
  constraint senders_config_is_object
    check (jsonb_typeof(config) = 'object' and octet_length(config::text) <= 16384),
  constraint senders_secret_is_name
    check (secret ~ '^[A-Za-z_/.][A-Za-z0-9_/.-]{0,254}$'),
  constraint senders_rates_positive
    check (rate_per_hour between 0 and 1000000 and rate_per_day between 0 and 10000000),
  constraint senders_burst_within_rate
    check (burst >= 1 and burst <= greatest(1, rate_per_hour)),
  constraint senders_gap_ordered
    check (pgdrip.is_span(gap_min) and pgdrip.is_span(gap_max) and gap_min <= gap_max),
  constraint senders_ramp_is_object check (jsonb_typeof(ramp) = 'object'),
  constraint senders_hours_is_object check (jsonb_typeof(hours) = 'object'),
  constraint senders_advance_on_known check (advance_on in ('accepted', 'delivered')),
  constraint senders_confirm_within_is_span check (pgdrip.is_span(confirm_within)),
  constraint senders_on_unconfirmed_known
    check (on_unconfirmed in ('advance', 'stop', 'park')),
  constraint senders_status_known check (status in ('active', 'paused', 'retired')),
  constraint senders_status_has_reason
    check ((status = 'active') = (status_reason is null)),
  constraint senders_health_known check (health in ('healthy', 'down', 'blocked')),
  constraint senders_faults_with_health check ((health = 'down') <= (faults > 0)),
  constraint senders_day_counts_are_25
    check (cardinality(day_counts) = 25 and array_position(day_counts, null) is null),
  constraint senders_times_finite
    check (isfinite(started_at) and isfinite(limits_at) and isfinite(tat) and isfinite(ready_at)
           and isfinite(next_at) and isfinite(fault_at))
) with (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 500);
create index senders_channel on pgdrip.senders (channel);
comment on table pgdrip.senders is
  'A device, number or mailbox that messages go out from, with its limits and its state';
comment on column pgdrip.senders.config is
  'What the channel needs to know, without secrets';
comment on column pgdrip.senders.secret is
  'Name of the environment variable or file that holds the secret; never the secret';
comment on column pgdrip.senders.rate_per_hour is
  'Messages in any rolling hour; NULL is unlimited, 0 is none';
comment on column pgdrip.senders.rate_per_day is
  'Messages in any rolling 24 hours; NULL is unlimited, 0 is none';
comment on column pgdrip.senders.burst is
  'Messages that may go out at once after a rest; never lifts the hourly rate';
comment on column pgdrip.senders.ramp is
  'Hourly rate by day of age: {"1": 20, "7": 50}; the greatest day reached counts';
comment on column pgdrip.senders.hours is
  'Window in which this sender works, in the form of sequence_versions.send_window';
comment on column pgdrip.senders.health is
  'down: probed again at ready_at; blocked: until an operator resumes it';
comment on column pgdrip.senders.faults is 'Sender faults in a row';
comment on column pgdrip.senders.fault_at is
  'When the last fault was told; faults of sends begun before it count no more';
comment on column pgdrip.senders.limits_at is
  'When the limits last changed; check() holds what was sent since against them';
comment on column pgdrip.senders.tat is
  'Theoretical arrival time of the next message at the hourly rate (GCRA)';
comment on column pgdrip.senders.day_slot is
  'Number of the slot that day_counts[1] counts; a slot lasts (24 h + grace) / 24';
comment on column pgdrip.senders.ready_at is
  'Rate readiness: before this time no limit lets a message go';
comment on column pgdrip.senders.next_at is
  'Work hint: not later than the earliest claimable due row, wakes aside; NULL: none known';

create table pgdrip.wakes (
  wake_id   bigint generated always as identity,
  sender_id bigint not null,
  due_at    timestamptz not null,
  constraint wakes_pkey primary key (wake_id),
  constraint wakes_due_finite check (isfinite(due_at))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table pgdrip.wakes is
  'Word to a sender that it has work earlier than its next_at; claim drains it';

create table pgdrip.error_rules (
  channel text not null,
  code    text not null,
  class   text not null,
  source  text not null,
  constraint error_rules_pkey primary key (channel, code),
  constraint error_rules_class_known check (
    class in ('transient', 'permanent', 'contact', 'content', 'sender', 'blocked'))
);
comment on table pgdrip.error_rules is
  'What a code of a channel means; channel * holds the class words, valid everywhere';
comment on column pgdrip.error_rules.source is 'Where it is written that the code means this';

insert into pgdrip.error_rules (channel, code, class, source)
select '*', w, w, 'the class itself'
  from unnest(array['transient', 'permanent', 'contact', 'content', 'sender', 'blocked']) as w;

insert into pgdrip.error_rules (channel, code, class, source) values
  ('webhook', 'http_301', 'sender', 'RFC 9110 15.4: the endpoint has moved'),
  ('webhook', 'http_302', 'sender', 'RFC 9110 15.4: the endpoint has moved'),
  ('webhook', 'http_303', 'sender', 'RFC 9110 15.4: the endpoint has moved'),
  ('webhook', 'http_307', 'sender', 'RFC 9110 15.4: the endpoint has moved'),
  ('webhook', 'http_308', 'sender', 'RFC 9110 15.4: the endpoint has moved'),
  ('webhook', 'http_400', 'content', 'RFC 9110 15.5.1'),
  ('webhook', 'http_401', 'sender', 'RFC 9110 15.5.2'),
  ('webhook', 'http_403', 'sender', 'RFC 9110 15.5.4'),
  ('webhook', 'http_404', 'sender', 'RFC 9110 15.5.5: no such endpoint'),
  ('webhook', 'http_405', 'sender', 'RFC 9110 15.5.6'),
  ('webhook', 'http_410', 'contact', 'RFC 9110 15.5.11: the recipient is gone'),
  ('webhook', 'http_413', 'content', 'RFC 9110 15.5.14'),
  ('webhook', 'http_415', 'content', 'RFC 9110 15.5.16'),
  ('webhook', 'http_422', 'content', 'RFC 9110 15.5.21'),
  ('webhook', 'http_429', 'transient', 'RFC 6585 4: nothing was accepted'),
  ('webhook', 'http_503', 'transient', 'RFC 9110 15.6.4: nothing was accepted');
