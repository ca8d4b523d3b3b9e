drop table pgdrip.erased_suppressions cascade;
alter table pgdrip.control drop column address_key cascade;
alter table pgdrip.contacts
  drop column erased_at cascade,
  add constraint contacts_has_address
    check (phone is not null or email is not null) not valid;
