-- People who were erased: what stays of them, and whom never to message all the same.
-- depends: 0016.retention

alter table pgdrip.contacts
  add column erased_at timestamptz,
  add constraint contacts_erased_at_finite check (isfinite(erased_at)),
  drop constraint contacts_has_address,
  add constraint contacts_has_address_unless_erased
    check ((erased_at is null) = (phone is not null or email is not null));
comment on column pgdrip.contacts.erased_at is
  'When erase_contact() took the person away and left the id; NULL: it is somebody';
create index contacts_erased on pgdrip.contacts (erased_at) where erased_at is not null;

alter table pgdrip.control
  add column address_key bytea not null default
    sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
  add constraint control_address_key_has_256_bits check (octet_length(address_key) = 32);
comment on column pgdrip.control.address_key is
  'With which addresses of erased people are hashed; a restored or moved database keeps it';

create table pgdrip.erased_suppressions (
  address_hash bytea not null,
  reason       text not null,
  created_at   timestamptz not null default pgdrip.clock(),
  constraint erased_suppressions_pkey primary key (address_hash),
  constraint erased_suppressions_reason_visible check (not pgdrip.is_blank(reason)),
  constraint erased_suppressions_created_at_finite check (isfinite(created_at))
);
comment on table pgdrip.erased_suppressions is
  'Suppressed addresses of erased people, as keyed hashes: an address that comes back is suppressed again';
