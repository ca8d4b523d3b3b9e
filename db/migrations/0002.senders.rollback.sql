drop table pgdrip.error_rules, pgdrip.wakes, pgdrip.senders, pgdrip.channels cascade;
drop sequence pgdrip.assignment_seq;
