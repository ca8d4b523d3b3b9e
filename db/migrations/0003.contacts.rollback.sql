drop table pgdrip.suppressions, pgdrip.contact_triggers, pgdrip.contacts cascade;
