-- What the functions return.
-- depends: 0006.history

create type pgdrip.claimed_message as (
  enrollment_id   bigint,
  token           bigint,
  sequence        text,
  step            integer,
  attempt         integer,
  channel         text,
  sender          text,
  sender_config   jsonb,
  recipient       text,
  subject         text,
  body            text,
  content         jsonb,
  idempotency_key text,
  due_at          timestamptz,
  send_by         timestamptz,
  lease_until     timestamptz
);
comment on type pgdrip.claimed_message is 'What claim() hands to a runner';

create type pgdrip.report_verdict as (
  token       bigint,
  verdict     text,
  next_due_at timestamptz
);
comment on type pgdrip.report_verdict is
  'What report() made of one outcome: advanced, completed, awaiting, late, retry, failed, skipped, parked, deferred, stale, contradiction or unknown';

create type pgdrip.settlement as (
  enrollment_id bigint,
  token         bigint,
  event         text,
  code          text,
  class         text,
  detail        text,
  provider_id   text,
  verdict       text,
  move          text,
  reason        text,
  step          integer,
  next_step     integer,
  next_due_at   timestamptz,
  next_version  bigint
);
comment on type pgdrip.settlement is
  'Private: what is to become of one live step; settle() carries it out';

create type pgdrip.entry as (
  contact_id    bigint,
  sequence_id   bigint,
  trigger_id    bigint,
  version_id    bigint,
  run           integer,
  enrollment_id bigint,
  obstacle      text,
  allowed_at    timestamptz
);
comment on type pgdrip.entry is
  'Private: whether one contact may enter one sequence now, and what stands in the way';

create type pgdrip.triage as (
  enrollment_id bigint,
  sender_id     bigint,
  obstacle      text,
  until         timestamptz
);
comment on type pgdrip.triage is
  'Private: what keeps a due row from being handed out; obstacle NULL: nothing';

create type pgdrip.next_step as (
  version_id bigint,
  step       integer
);
comment on type pgdrip.next_step is 'Private: where a step leads; step NULL: to the end';

create type pgdrip.step_text as (
  subject jsonb,
  body    jsonb,
  content jsonb,
  variant integer
);
comment on type pgdrip.step_text is 'Private: compiled templates and which variant they are';

create type pgdrip.simulation as (
  step    integer,
  due_at  timestamptz,
  send_at timestamptz,
  body    text
);
comment on type pgdrip.simulation is
  'One step as simulate() foresees it; send_at NULL: it would be skipped';

create type pgdrip.publication as (
  outcome   text,
  version   integer,
  in_flight integer,
  stays     integer,
  moves     integer,
  stranded  integer
);
comment on type pgdrip.publication is
  'What apply_sequence() did or would do: created, published, unchanged or planned';

create type pgdrip.import_result as (
  line       integer,
  contact_id bigint,
  reason     text
);
comment on type pgdrip.import_result is
  'One line of an import: the contact it became, or the reason why not';

create type pgdrip.contact_explanation as (
  sequence      text,
  enrollment_id bigint,
  status        text,
  step          integer,
  due_at        timestamptz,
  sender        text,
  why           text
);
comment on type pgdrip.contact_explanation is
  'Where one contact stands in one sequence, and why, in words';

create type pgdrip.violation as (
  invariant     text,
  enrollment_id bigint,
  detail        text
);
comment on type pgdrip.violation is 'A broken invariant, as check() found it';

create type pgdrip.maintenance as (
  partitions_created integer,
  hints_repaired     integer,
  senders_adopted    integer,
  receipts_pruned    integer
);
comment on type pgdrip.maintenance is 'What one maintain() did';
