drop table pgdrip.step_counts, pgdrip.sender_hours, pgdrip.minute_counts, pgdrip.tallies cascade;
drop index pgdrip.deliveries_trouble, pgdrip.deliveries_at;
