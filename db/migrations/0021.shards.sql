-- Shards: what has arrived of a bucket that moves here, and which buckets have left.
-- depends: 0020.looks

create table pgdrip.arrivals (
  bucket  integer not null,
  part    text not null,
  item_id bigint not null,
  content jsonb not null,
  constraint arrivals_pkey primary key (bucket, part, item_id),
  constraint arrivals_part_known
    check (part in ('sender', 'version', 'suppression', 'sum', 'contact')),
  constraint arrivals_content_is_object check (jsonb_typeof(content) = 'object')
);
comment on table pgdrip.arrivals is
  'A bucket on its way into this shard; nothing here works before it has landed';
comment on column pgdrip.arrivals.content is
  'One contact with all that belongs to it, or what contacts name: a sender, a version, a suppression, a sum';

create table pgdrip.departures (
  move_id bigint not null,
  bucket  integer not null,
  left_at timestamptz not null,
  constraint departures_pkey primary key (move_id),
  constraint departures_left_at_finite check (isfinite(left_at))
);
comment on table pgdrip.departures is
  'Buckets that have left this shard: from that commit on what arrived elsewhere is the only copy';

create type pgdrip.arrival as (
  part    text,
  item_id bigint,
  content jsonb
);
comment on type pgdrip.arrival is 'Private: a row of arrivals without its bucket';

create type pgdrip.arrival_batch as (
  last_id bigint,
  content text
);
comment on type pgdrip.arrival_batch is
  'Private: some rows for arrivals as a JSON text, so that no client reads its numbers, and the last id among them';

create type pgdrip.shard_identity as (
  shard        integer,
  address_key  bytea,
  has_contacts boolean,
  config_hash  text
);
comment on type pgdrip.shard_identity is
  'Private: which shard a database is, its key of hashes, whether anybody is in it, and what it was configured with in one hash';

create type pgdrip.shared_definition as (
  kind       text,
  name       text,
  definition text
);
comment on type pgdrip.shared_definition is
  'Private: what every shard must have, as apply_… of its kind takes it; a text, so that no client reads its numbers';

create type pgdrip.bucket_count as (
  bucket   integer,
  contacts bigint
);
comment on type pgdrip.bucket_count is 'Private: how many contacts of a bucket are here';

create type pgdrip.foreign_id as (
  kind text,
  id   bigint
);
comment on type pgdrip.foreign_id is
  'Private: the id of a contact or enrollment that was born in another shard';
