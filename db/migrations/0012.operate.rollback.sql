create unique index contacts_pool_phone_key on pgdrip.contacts (pool, phone);
create unique index contacts_pool_email_key on pgdrip.contacts (pool, lower(email));
drop index pgdrip.contacts_phone_key, pgdrip.contacts_email_key;
alter index pgdrip.contacts_pool_phone_key rename to contacts_phone_key;
alter index pgdrip.contacts_pool_email_key rename to contacts_email_key;
create index contacts_phone on pgdrip.contacts (phone) where phone is not null;
create index contacts_email on pgdrip.contacts (lower(email)) where email is not null;
alter table pgdrip.contacts
  drop constraint contacts_pool_visible,
  drop constraint contacts_phone_is_e164,
  drop constraint contacts_email_has_form,
  drop constraint contacts_attributes_bounded,
  add constraint contacts_pool_visible
    check (not pgdrip.is_blank(pool) and octet_length(pool) <= 200),
  add constraint contacts_phone_is_e164 check (phone ~ '^\+[1-9][0-9]{6,14}$'),
  add constraint contacts_email_has_form
    check (email ~ '^[^[:space:]@[:cntrl:]]{1,64}@[^[:space:]@[:cntrl:]]{1,189}$'),
  add constraint contacts_attributes_bounded check (octet_length(attributes::text) <= 16384),
  add constraint contacts_attributes_shallow check (not attributes @? '$.**{9}');
