-- Retention: how long history is kept and what is remembered of the rest; what metrics() returns.
-- depends: 0008.groups

alter table pgdrip.control
  add column retention interval,
  add column is_history_detached boolean not null default false,
  add column pruned_until timestamptz,
  add constraint control_retention_is_span
    check (pgdrip.is_span(retention) and retention >= interval '1 day'),
  add constraint control_pruned_until_finite check (isfinite(pruned_until));
comment on column pgdrip.control.retention is
  'How long history is kept at least; NULL: for ever. See set_retention()';
comment on column pgdrip.control.is_history_detached is
  'Whether months older than that stay as tables of their own, for the operator to archive';
comment on column pgdrip.control.pruned_until is
  'Retention took the events before this; NULL: none yet';

create table pgdrip.history_sums (
  sequence_id    bigint not null,
  step           integer not null,
  month_at       timestamptz not null,
  sent           bigint not null,
  delivered      bigint not null,
  read           bigint not null,
  skipped        bigint not null,
  failed         bigint not null,
  last_confirmed bigint not null,
  constraint history_sums_pkey primary key (sequence_id, step, month_at),
  constraint history_sums_sequence_fkey foreign key (sequence_id) references pgdrip.sequences,
  constraint history_sums_month_finite check (isfinite(month_at))
);
comment on table pgdrip.history_sums is
  'What is remembered of months whose events retention took: steps of enrollments, counted';
comment on column pgdrip.history_sums.last_confirmed is
  'Enrollments that confirmed no step after this one; check() holds them against enrollments';

create index provider_refs_created on pgdrip.provider_refs (created_at);
create index contact_events_at on pgdrip.contact_events (at);

create type pgdrip.history_month as (
  name     text,
  from_at  timestamptz,
  until_at timestamptz,
  bytes    bigint,
  is_owned boolean
);
comment on type pgdrip.history_month is
  'Private: a partition of the history, its size without indexes, and whether the caller may drop it';

create type pgdrip.retirement as (
  months  integer,
  held_by bigint
);
comment on type pgdrip.retirement is
  'Private: how many months went, and the live enrollment that keeps the next one';

alter type pgdrip.maintenance
  add attribute months_retired integer,
  add attribute history_held_by bigint;
comment on type pgdrip.maintenance is
  'What one maintain() did; history_held_by: a live enrollment with events older than the retention';

create type pgdrip.metric as (
  name   text,
  help   text,
  type   text,
  labels jsonb,
  value  numeric
);
comment on type pgdrip.metric is
  'One sample in the terms of Prometheus; type is gauge or counter, labels an object of texts';
