drop table pgdrip.group_waits;
