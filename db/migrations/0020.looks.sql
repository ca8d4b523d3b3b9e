-- What the hot path reads of a row it reads once and hands on: a claim looks at each row of
-- it, for what stands in the way or the rendered message; a settlement carries its live row.

create type pgdrip.look as (
  enrollment_id bigint,
  sender_id     bigint,
  obstacle      text,
  until         timestamptz,
  sequence      text,
  step          integer,
  attempt       integer,
  channel       text,
  sender        text,
  sender_config jsonb,
  recipient     text,
  subject       text,
  body          text,
  content       jsonb,
  variant       integer,
  due_at        timestamptz
);
comment on type pgdrip.look is
  'Private: a due row as a claim sees it: an obstacle and until when it stands, or the message to hand out';

-- Helpers of the claim that are gone or take something else now.
drop function if exists
  pgdrip.count_offers(pgdrip.offer[],pgdrip.pick[],bigint[],integer),
  pgdrip.first_of_each(pgdrip.pick[],bigint[],pgdrip.offer[],integer),
  pgdrip.is_wanted(pgdrip.steps,pgdrip.contacts),
  pgdrip.lease_due(bigint[],text,interval,timestamptz),
  pgdrip.lock_due(pgdrip.offer[],integer,timestamptz),
  pgdrip.lock_for_triage(pgdrip.triage[]),
  pgdrip.triage(pgdrip.pick[],timestamptz),
  pgdrip.triage_due(bigint[],timestamptz);
drop type pgdrip.pick;

-- Whoever carries a settlement out need not look its row up again.
alter type pgdrip.settlement
  add attribute ends_as text,
  add attribute live pgdrip.due;
