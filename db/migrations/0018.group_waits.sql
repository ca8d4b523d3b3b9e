-- What a group put off, so that it comes back when the group has more room.
-- depends: 0017.privacy

create table pgdrip.group_waits (
  enrollment_id bigint not null,
  group_id      bigint not null,
  due_at        timestamptz not null,
  waits_until   timestamptz not null,
  constraint group_waits_pkey primary key (enrollment_id),
  constraint group_waits_group_fkey foreign key (group_id) references pgdrip.sender_groups
);
create index group_waits_group on pgdrip.group_waits (group_id);
comment on table pgdrip.group_waits is
  'Steps put off because their group wrote to enough contacts; as long as they are due at waits_until they come back when there is more room; older ones are pruned';
comment on column pgdrip.group_waits.due_at is 'When the step had been due';
