-- Who may do what in one database: the last step of every migration. All belongs to
-- pgdrip_owner and nothing is for PUBLIC; others call functions, which act with the owner's
-- rights, and read views. Where the roles do not exist (db/roles.sql makes them), all stays
-- with whoever migrates.

do $$
declare
  v_roles   text := 'pgdrip_reader, pgdrip_runner, pgdrip_app, pgdrip_operator';
  v_command text;
begin
  revoke all on schema pgdrip from public;
  revoke all on all tables in schema pgdrip from public;
  revoke all on all sequences in schema pgdrip from public;
  revoke all on all routines in schema pgdrip from public;
  if (select count(*) from pg_roles as r
       where r.rolname = any (array['pgdrip_owner'] || string_to_array(v_roles, ', '))) < 5
     or not pg_has_role(current_user, 'pgdrip_owner', 'member') then
    return;
  end if;

  for v_command in
    select format('alter schema pgdrip owner to pgdrip_owner') from pg_namespace as n
     where n.nspname = 'pgdrip' and n.nspowner <> 'pgdrip_owner'::regrole
    union all
    select format('alter %s %s owner to pgdrip_owner',
                  case c.relkind when 'v' then 'view' when 'S' then 'sequence'
                                 when 'c' then 'type' else 'table' end, c.oid::regclass)
      from pg_class as c
     where c.relnamespace = 'pgdrip'::regnamespace and c.relkind in ('r', 'p', 'v', 'S', 'c')
       and c.relowner <> 'pgdrip_owner'::regrole
       -- The sequence of an identity column goes with its table.
       and not exists (select from pg_depend as d
                        where d.objid = c.oid and d.classid = 'pg_class'::regclass
                          and d.deptype in ('a', 'i') and c.relkind = 'S')
    union all
    select format('alter routine %s owner to pgdrip_owner', p.oid::regprocedure)
      from pg_proc as p
     where p.pronamespace = 'pgdrip'::regnamespace and p.proowner <> 'pgdrip_owner'::regrole
  loop
    execute v_command;
  end loop;
  -- What the owner makes by hand is closed, too.
  alter default privileges for role pgdrip_owner revoke all on functions from public;
  -- The journal is only added to; erase_contact() takes the words of providers out of it.
  if to_regclass('pgdrip.deliveries') is not null then  -- a router has none
    revoke update, delete, truncate on pgdrip.deliveries from pgdrip_owner;
    grant update (code, detail, provider_id) on pgdrip.deliveries to pgdrip_owner;
  end if;

  execute format('revoke all on all tables in schema pgdrip from %s', v_roles);
  execute format('revoke all on all sequences in schema pgdrip from %s', v_roles);
  execute format('revoke all on all routines in schema pgdrip from %s', v_roles);
  execute format('grant usage on schema pgdrip to %s', v_roles);
  for v_command in
    select format('grant select on pgdrip.%I to pgdrip_reader', c.relname) from pg_class as c
     where c.relnamespace = 'pgdrip'::regnamespace and c.relkind = 'v'
    union all
    select format('grant execute on routine %s to pgdrip_%s', p.oid::regprocedure, g.role)
      from (values
        ('reader', array[
          'check', 'clock', 'forecast', 'metrics', 'minute_tally', 'schema_version',
          -- Views call these with the rights of whoever reads them.
          'day_span', 'hourly_rate', 'is_unlocked', 'mask', 'ramp_rate', 'receipt_rank',
          'recipient', 'sees_people', 'shown', 'slot_at', 'slot_counts',
          -- Those of a router.
          'each_queue_health', 'each_sender_load', 'each_sequence_funnel', 'missing_shards']),
        ('runner', array[
          'begin_send', 'claim', 'clock', 'heartbeat', 'next_wake', 'release', 'report',
          'schema_version', 'tick']),
        ('app', array[
          'add_trigger', 'clock', 'enroll', 'enroll_waiting', 'explain_enroll', 'find_contact',
          'import_contacts', 'merge_import', 'record_event', 'record_receipt', 'record_reply',
          'remove_trigger', 'schema_version', 'stage_import', 'suppress', 'upsert_contact',
          -- What a router asks beside.
          'is_suppressed', 'knows_address', 'knows_message']),
        ('operator', array[
          'activate_sequence', 'apply_group', 'apply_sender', 'apply_sequence',
          'archive_sequence', 'assert_cron', 'cron_jobs', 'delete_sender', 'each_failures',
          'each_uncertain_deliveries', 'erase_contact', 'exit_enrollment',
          'explain_contact', 'export_contact', 'export_definitions', 'forget_address', 'maintain',
          'move_sender', 'note', 'pause_all', 'pause_enrollment', 'pause_sender',
          'pause_sequence', 'record_probe', 'resolve_uncertain', 'resume_all',
          'resume_enrollment', 'resume_sender', 'resume_sequence', 'retire_sender',
          'retry_failed', 'schedule_jobs', 'senders_to_probe', 'set_retention', 'simulate',
          'tally', 'tick_for_a_minute', 'uncertain_sends', 'unlock', 'unschedule_jobs',
          'unsuppress'])) as g(role, names)
      join pg_proc as p on p.proname = any (g.names)
     where p.pronamespace = 'pgdrip'::regnamespace
  loop
    execute v_command;
  end loop;
end
$$;
