drop table pgdrip.due, pgdrip.enrollments cascade;
