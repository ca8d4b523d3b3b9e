drop type pgdrip.judgement, pgdrip.pick, pgdrip.offer, pgdrip.sender_pace cascade;
alter table pgdrip.senders drop column is_limited;
alter table pgdrip.senders add column is_limited boolean generated always as (
  rate_per_hour is not null or rate_per_day is not null
  or gap_max > interval '0' or ramp is not null or hours is not null) stored;
alter table pgdrip.senders drop column group_id;
drop table pgdrip.group_contacts, pgdrip.sender_groups;
