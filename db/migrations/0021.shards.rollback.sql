drop type pgdrip.foreign_id, pgdrip.shared_definition, pgdrip.bucket_count, pgdrip.shard_identity, 
  pgdrip.arrival, pgdrip.arrival_batch cascade;
drop table pgdrip.departures, pgdrip.arrivals;
