-- Who enters a sequence is looked up once: an entry says what enrolling needs of its
-- contact, an admission all that becomes a row.
-- depends: 0020.looks

alter type pgdrip.entry
  add attribute pool      text,
  add attribute channel   text,
  add attribute timezone  text,
  add attribute sender_id bigint;

create type pgdrip.admission as (
  enrollment_id bigint,
  contact_id    bigint,
  sequence_id   bigint,
  version_id    bigint,
  run           integer,
  sender_id     bigint,
  trigger_id    bigint,
  step          integer,
  due_at        timestamptz
);
comment on type pgdrip.admission is
  'Private: an enrollment that is about to be made, with its first step; sender_id NULL: nobody is in service';

-- Helpers of enrolling that are gone or take something else now.
drop function if exists
  pgdrip.enter_by_trigger(bigint[],timestamptz),
  pgdrip.known_senders(pgdrip.entry[]);
