-- Beside grants.sql: the functions of pgdrip, which act with their owner's rights, reach
-- the shards; nobody else does so by another way.

do $$
begin
  revoke all on all routines in schema shards from public;
  revoke all on all routines in schema plproxy from public;
  if to_regrole('pgdrip_owner') is not null then
    grant usage on schema shards, plproxy to pgdrip_owner;
    grant execute on all routines in schema shards to pgdrip_owner;
    grant execute on all routines in schema plproxy to pgdrip_owner;
  end if;
end
$$;
