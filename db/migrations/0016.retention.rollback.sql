drop type pgdrip.metric, pgdrip.retirement, pgdrip.history_month cascade;
alter type pgdrip.maintenance drop attribute history_held_by, drop attribute months_retired;
drop index pgdrip.contact_events_at, pgdrip.provider_refs_created;
drop table pgdrip.history_sums cascade;
alter table pgdrip.control
  drop column retention cascade,
  drop column is_history_detached cascade,
  drop column pruned_until cascade;
