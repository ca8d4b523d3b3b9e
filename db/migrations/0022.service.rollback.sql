alter table pgdrip.enrollments set (fillfactor = 80);
drop index pgdrip.senders_unlimited, pgdrip.senders_out_of_service;
drop view if exists pgdrip.sender_load;
create type pgdrip.sender_queue as (
  backlog       bigint,
  oldest_due_at timestamptz,
  in_flight     bigint
);
comment on type pgdrip.sender_queue is 'Private: what waits for one sender and what is under way';
