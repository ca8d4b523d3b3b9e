-- The schema, the clock, the control row and what every table's checks share.
-- depends:

create schema if not exists pgdrip;
comment on schema pgdrip is
  'Drip sequences: who is enrolled, what is due, who sends it and what became of it';

-- Here because column defaults below need it; db/functions/00_clock.sql is its home.
create function pgdrip.clock()
  returns timestamptz
  language plpgsql
  stable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return clock_timestamp();
end
$$;

-- btrim() takes a no-break space or a zero-width space for text.
create function pgdrip.is_blank(p_text text)
  returns boolean
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select p_text is null
      or p_text ~ '^[\s\u0085\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*$'
$$;
comment on function pgdrip.is_blank(text) is
  'Whether a text holds nothing a person could see; true for NULL';

-- A plain ">= 0" lets 1 mon -29 days pass, which goes back in time in February.
create function pgdrip.is_span(p_span interval)
  returns boolean
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select isfinite(p_span)
     and extract(year from p_span) = 0
     and extract(month from p_span) = 0
     and extract(day from p_span) between 0 and 36500
     and extract(epoch from p_span) - 86400 * extract(day from p_span)
         between 0 and 87600 * 3600
$$;
comment on function pgdrip.is_span(interval) is
  'Whether an interval is a wait: finite, days and time only, neither negative';

create function pgdrip.is_word(p_word text)
  returns boolean
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select not pgdrip.is_blank(p_word)
     and p_word = btrim(p_word, E' \t\n\r\u00a0')
     and p_word !~ '[,[:cntrl:]]'
     and octet_length(p_word) <= 200
$$;
comment on function pgdrip.is_word(text) is
  'Whether a text is one trigger word: visible, trimmed, no comma, at most 200 bytes';

create sequence pgdrip.token_seq as bigint maxvalue 1099511627775 cache 1;
comment on sequence pgdrip.token_seq is
  'The lower 40 bits of claim tokens; the upper bits are control.epoch';

create table pgdrip.control (
  is_singleton      boolean not null default true,
  shard             integer not null default 0,
  epoch             bigint not null default 1,
  system_identifier bigint not null,
  timeline          text not null,
  database_oid      oid not null,
  loss_window       interval not null default '15 minutes',
  paused_at         timestamptz,
  paused_reason     text,
  maintained_at     timestamptz,
  constraint control_pkey primary key (is_singleton),
  constraint control_has_one_row check (is_singleton),
  constraint control_shard_in_range check (shard between 0 and 8191),
  constraint control_epoch_in_range check (epoch between 1 and 8191),
  constraint control_loss_window_is_span check (pgdrip.is_span(loss_window)),
  constraint control_pause_has_reason
    check ((paused_at is null) = (paused_reason is null)),
  constraint control_times_finite
    check (isfinite(paused_at) and isfinite(maintained_at))
);
comment on table pgdrip.control is
  'One row: which server this engine belongs to, its epoch, and the pause of everything';
comment on column pgdrip.control.epoch is
  'Upper bits of every token; unlock() raises it so that older tokens never advance';
comment on column pgdrip.control.system_identifier is
  'Of pg_control_system(); with timeline and database_oid it tells a restore or failover';
comment on column pgdrip.control.loss_window is
  'How much confirmed work a restore or failover may have forgotten';

insert into pgdrip.control (system_identifier, timeline, database_oid)
select c.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid
  from pg_control_system() as c, pg_database as d
 where d.datname = current_database();

create table pgdrip.runners (
  runner     text not null,
  version    text not null,
  started_at timestamptz not null,
  seen_at    timestamptz not null,
  constraint runners_pkey primary key (runner),
  constraint runners_name_visible
    check (not pgdrip.is_blank(runner) and octet_length(runner) <= 63)
);
comment on table pgdrip.runners is 'Which runner runs which version and was last seen when';

create table pgdrip.audit (
  audit_id bigint generated always as identity,
  at       timestamptz not null default pgdrip.clock(),
  operator text not null default session_user,
  action   text not null,
  object   text not null,
  reason   text,
  constraint audit_pkey primary key (audit_id)
);
comment on table pgdrip.audit is 'Which operator did what to which object, and why';
