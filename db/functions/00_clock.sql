-- The one clock. Every other function takes the time from here, once, into a variable.
-- PL/pgSQL so that it is never inlined; a test database replaces it (db/test_clock.sql).

create or replace function pgdrip.clock()
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

comment on function pgdrip.clock() is 'Now, by the server; the only source of time';
