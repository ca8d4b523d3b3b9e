-- Every claim asks which senders have no limits, and which are out of service: few or none.
-- depends: 0020.looks

create index senders_unlimited on pgdrip.senders (sender_id) where not is_limited;
create index senders_out_of_service on pgdrip.senders (sender_id)
  where status <> 'active' or health = 'blocked';

-- The view counts by itself: a call for each sender took most of its time.
drop view if exists pgdrip.sender_load;
drop function if exists pgdrip.sender_queue(bigint,integer,timestamptz);
drop type pgdrip.sender_queue;

-- People who enter together stand on one page, and their steps are confirmed together: with
-- room for all of them no index is touched.
alter table pgdrip.enrollments set (fillfactor = 50);
