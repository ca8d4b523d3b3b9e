-- The roles of pgdrip, which all databases of a server share. Whoever may create roles runs
-- this, by `pgdrip migrate` or by hand; nobody logs in as one of them, logins are granted them.

do $$
declare
  -- From 16 on, who makes a role is a member that may not act as it.
  v_is_split boolean := current_setting('server_version_num')::integer >= 160000;
  v_role text;
  v_role_of record;
begin
  foreach v_role in array array['owner', 'reader', 'runner', 'app', 'operator'] loop
    begin
      if to_regrole('pgdrip_' || v_role) is null then
        execute format('create role pgdrip_%s nologin', v_role);
      end if;
    exception
      when duplicate_object or unique_violation then
        null;  -- made meanwhile, for another database
    end;
  end loop;
  for v_role_of in
    values ('pgdrip_reader', 'pgdrip_operator'), ('pgdrip_runner', 'pgdrip_operator'),
           ('pgdrip_app', 'pgdrip_operator'), ('pgdrip_owner', current_user)
  loop
    begin
      if not pg_has_role(v_role_of.column2, v_role_of.column1,
                         case when v_is_split then 'usage' else 'member' end)
         or v_is_split and not pg_has_role(v_role_of.column2, v_role_of.column1, 'set') then
        execute format('grant %I to %I', v_role_of.column1, v_role_of.column2)
                || case when v_is_split then ' with inherit true, set true' else '' end;
      end if;
    exception
      when duplicate_object or unique_violation then
        null;
      when insufficient_privilege then
        null;  -- who made the roles grants them: pgdrip roles --sql --migrator
    end;
  end loop;
end
$$;
