-- Foreseeing: what a sequence would send and when, by the rules that claim and settle use.
-- Nothing is written; competition for senders and their limits are left out.

create or replace function pgdrip.simulate(
  p_sequence text,
  p_start    timestamptz,
  p_contact  bigint default null
)
  returns setof pgdrip.simulation
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence pgdrip.sequences := pgdrip.sequence_named(p_sequence);
  v_version  pgdrip.sequence_versions;
  v_contact  pgdrip.contacts;
  v_zone     text;
  v_step     pgdrip.steps;
  v_text     pgdrip.step_text;
  v_previous integer := 0;
  v_number   integer;
  v_from     timestamptz := p_start;
  v_out      pgdrip.simulation;
begin
  perform pgdrip.assert_given('p_start', p_start);
  perform pgdrip.assert_time('p_start', p_start);
  if p_contact is not null then
    select c.* into v_contact from pgdrip.contacts as c where c.contact_id = p_contact;
    if not found then
      raise exception 'no contact has id %', p_contact
        using errcode = 'MD001', hint = 'Leave it out for nobody in particular.';
    end if;
  else
    v_contact.attributes := '{}';
  end if;
  v_zone := coalesce(v_contact.timezone, 'UTC');
  select v.* into v_version from pgdrip.sequence_versions as v
   where v.version_id = v_sequence.version_id;
  v_number := v_version.first_step;
  while v_number is not null loop
    select s.* into v_step from pgdrip.steps as s
     where s.version_id = v_version.version_id and s.number = v_number;
    v_text := pgdrip.step_text(v_step, coalesce(p_contact, 0));
    v_out.step := v_number;
    v_out.due_at := pgdrip.step_due_at(v_from, v_step, v_previous, v_version.send_window, v_zone);
    v_out.send_at := case when pgdrip.is_wanted(v_step, pgdrip.contact_values(v_contact)) then v_out.due_at end;
    v_out.body := pgdrip.render_template(v_text.body, pgdrip.contact_values(v_contact));
    return next v_out;
    v_from := v_out.due_at;
    v_previous := v_number;
    -- A step that waits for an event: as if it did not come.
    if v_step.wait_event is not null and v_out.send_at is not null then
      v_from := pgdrip.after_span(v_from, v_step.wait_timeout, v_zone);
      v_number := coalesce(v_step.else_step, v_step.next_step);
    else
      v_number := v_step.next_step;
    end if;
  end loop;
end
$$;

comment on function pgdrip.simulate(text, timestamptz, bigint) is
  'The steps of a sequence for one contact, or for nobody in particular, as if each were sent when due; 22004, 22023, MD001';
