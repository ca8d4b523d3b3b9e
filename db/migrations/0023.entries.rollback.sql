drop function if exists pgdrip.enter_by_trigger(pgdrip.contact_triggers[],timestamptz);
drop type pgdrip.admission;
alter type pgdrip.entry
  drop attribute sender_id, drop attribute timezone, drop attribute channel,
  drop attribute pool;
