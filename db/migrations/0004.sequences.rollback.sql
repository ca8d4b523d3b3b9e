alter table pgdrip.sequence_versions drop constraint sequence_versions_first_step_fkey;
alter table pgdrip.sequences drop constraint sequences_version_fkey;
drop table pgdrip.steps, pgdrip.sequence_versions, pgdrip.sequences cascade;
