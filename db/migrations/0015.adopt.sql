-- What became of each row of a legacy system, so that adopting it again changes nothing.
-- depends: 0008.groups

create table pgdrip.adoptions (
  legacy_table text not null,
  legacy_id    text not null,
  outcome      text not null,
  detail       text,
  object_id    bigint,
  adopted_at   timestamptz not null default pgdrip.clock(),
  constraint adoptions_pkey primary key (legacy_table, legacy_id),
  constraint adoptions_table_known check (legacy_table in (
    'user_devices', 'leads', 'sequences', 'sequence_steps', 'sequence_contacts',
    'broadcast_messages')),
  constraint adoptions_outcome_known
    check (outcome in ('adopted', 'merged', 'repaired', 'refused')),
  constraint adoptions_detail_says_why check (outcome = 'adopted' or detail is not null),
  constraint adoptions_object_unless_refused
    check ((outcome = 'refused') = (object_id is null)),
  constraint adoptions_adopted_at_finite check (isfinite(adopted_at))
);
comment on table pgdrip.adoptions is
  'What pgdrip adopt made of each row of the legacy tables; a refused one is tried again';
comment on column pgdrip.adoptions.detail is 'How it was repaired or merged, or why it was refused';
comment on column pgdrip.adoptions.object_id is
  'Of a device the sender, of a lead the contact, of a sequence the sequence, of a step its number; else the enrollment';
