drop table pgdrip.contact_events, pgdrip.suppressions, pgdrip.contact_triggers, pgdrip.contacts cascade;
