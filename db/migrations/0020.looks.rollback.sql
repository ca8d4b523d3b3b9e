alter type pgdrip.settlement drop attribute live, drop attribute ends_as;
create type pgdrip.pick as (
  enrollment_id bigint,
  sender_id     bigint
);
comment on type pgdrip.pick is 'Private: a due row that a claim has locked';
drop function if exists pgdrip.lock_due(pgdrip.offer[],integer,timestamptz);
drop type pgdrip.look cascade;
