-- Only for test and demo databases, and only by the owner: a clock that stands still until
-- it is set. The table marks the database; migrate leaves the replaced function alone.

create table if not exists pgdrip.test_clock (
  is_singleton boolean not null default true,
  now          timestamptz not null,
  constraint test_clock_pkey primary key (is_singleton),
  constraint test_clock_has_one_row check (is_singleton)
);
comment on table pgdrip.test_clock is 'The time in this test database';

insert into pgdrip.test_clock (now) values (clock_timestamp()) on conflict do nothing;

create or replace function pgdrip.clock()
  returns timestamptz
  language plpgsql
  stable
  parallel safe
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select c.now from pgdrip.test_clock as c);
end
$$;

create or replace function pgdrip.set_clock(p_now timestamptz)
  returns timestamptz
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  update pgdrip.test_clock as c set now = p_now returning c.now
$$;
comment on function pgdrip.set_clock(timestamptz) is 'Sets the time in this test database';
