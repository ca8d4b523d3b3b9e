-- Senders: apply, pause, resume.
-- Writes senders and, where a sender comes back, due and wakes.

create or replace function pgdrip.read_sender(p_definition jsonb)
  returns pgdrip.senders
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_place  text := format('sender %s', coalesce(quote_literal(left(p_definition ->> 'name', 80)), ''));
  v_sender pgdrip.senders;
begin
  perform pgdrip.assert_keys(p_definition, v_place, array['name', 'channel', 'pool',
    'rate_per_hour', 'rate_per_day', 'burst', 'gap_min', 'gap_max', 'ramp', 'hours',
    'group', 'fault_threshold', 'failover_after', 'advance_on', 'confirm_within', 'on_unconfirmed', 'secret', 'config'],
    array['name', 'channel']);
  v_sender.name := p_definition ->> 'name';
  v_sender.pool := coalesce(p_definition ->> 'pool', 'default');
  v_sender.channel := p_definition ->> 'channel';
  if octet_length(v_sender.name) > 200 or concat(v_sender.name, v_sender.pool) ~ '[[:cntrl:]]'
     or pgdrip.is_blank(v_sender.pool) or octet_length(v_sender.pool) > 63
     or jsonb_typeof(p_definition -> 'name') <> 'string'
     or jsonb_typeof(p_definition -> 'pool') not in ('string', 'null') then
    perform pgdrip.refuse_definition(v_place, 'name or pool is too long or no plain text',
      'Use short plain names.');
  elsif v_sender.name ~ ' \(former [0-9]+\)$' then
    perform pgdrip.refuse_definition(v_place,
      'so the history calls senders that were moved or deleted', 'Use another name.');
  end if;
  if not exists (select from pgdrip.channels as c where c.channel = v_sender.channel) then
    perform pgdrip.refuse_definition(v_place,
      format('unknown channel %s', quote_literal(left(v_sender.channel, 40))),
      (select format('Known: %s.', string_agg(c.channel, ', ' order by c.channel))
         from pgdrip.channels as c));
  end if;
  v_sender.rate_per_hour := pgdrip.definition_integer(p_definition, v_place, 'rate_per_hour', 1, 1000000);
  v_sender.rate_per_day := pgdrip.definition_integer(p_definition, v_place, 'rate_per_day', 1, 10000000);
  v_sender.burst := pgdrip.definition_integer(p_definition, v_place, 'burst', 1, 1000, 1);
  v_sender.gap_min := pgdrip.definition_span(p_definition, v_place, 'gap_min', interval '0');
  v_sender.gap_max := pgdrip.definition_span(p_definition, v_place, 'gap_max', v_sender.gap_min);
  if v_sender.gap_max < v_sender.gap_min then
    perform pgdrip.refuse_definition(v_place, 'gap_max is shorter than gap_min', 'Swap them.');
  end if;
  if v_sender.burst > 1 and coalesce(v_sender.rate_per_hour, 0) < v_sender.burst then
    perform pgdrip.refuse_definition(v_place, 'burst is larger than rate_per_hour',
      'A burst is the part of the hourly rate that may go at once.');
  end if;
  v_sender.ramp := pgdrip.read_ramp(p_definition -> 'ramp', v_place || ', ramp');
  v_sender.hours := pgdrip.definition_window(p_definition -> 'hours', v_place || ', hours');
  if v_sender.hours ->> 'zone' = 'contact' then
    perform pgdrip.refuse_definition(v_place || ', hours', 'zone is missing',
      'A sender''s hours need a zone of their own, as Asia/Kuala_Lumpur.');
  end if;
  v_sender.group_id := pgdrip.group_named(p_definition ->> 'group', v_place);
  v_sender.fault_threshold := pgdrip.definition_integer(p_definition, v_place, 'fault_threshold', 1, 100, 1);
  v_sender.failover_after := pgdrip.definition_span(p_definition, v_place, 'failover_after');
  v_sender.advance_on := pgdrip.definition_word(p_definition, v_place, 'advance_on',
    array['accepted', 'delivered'], 'accepted');
  v_sender.confirm_within := pgdrip.definition_span(p_definition, v_place, 'confirm_within', interval '1 day');
  v_sender.on_unconfirmed := pgdrip.definition_word(p_definition, v_place, 'on_unconfirmed',
    array['advance', 'stop', 'park'], 'park');
  v_sender.secret := p_definition ->> 'secret';
  if v_sender.secret !~ '^[A-Za-z_/.][A-Za-z0-9_/.-]{0,254}$' then
    perform pgdrip.refuse_definition(v_place, 'secret is no name',
      'Name the environment variable or file that holds it; never the secret itself.');
  end if;
  v_sender.config := coalesce(p_definition -> 'config', '{}');
  perform pgdrip.assert_config(v_sender.config, v_place || ', config');
  return v_sender;
end
$$;

comment on function pgdrip.read_sender(jsonb) is
  'Private: a sender definition, checked; MD008';

create or replace function pgdrip.assert_config(p_config jsonb, p_place text)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text := '(passw|passphrase|pwd|secret|token|(api|access|private)[-_. +]?key|credential|authorization|bearer|cookie)';
  v_key   text;
begin
  if jsonb_typeof(p_config) <> 'object' or octet_length(p_config::text) > 16384
     or p_config @? '$.**{9}' then
    perform pgdrip.refuse_definition(p_place, 'must be an object of at most 16 kB and 8 levels',
      'Only what the channel needs to know.');
  end if;
  -- By its name; or as a user before the host of a URL, a parameter of one, a header, a key.
  select e.key into v_key
    from jsonb_path_query(p_config, 'strict $.** ? (@.type() == "object" || @.type() == "array")')
           as o(part),
         lateral (
           select x.key, x.value from jsonb_each(case jsonb_typeof(o.part) when 'object' then o.part end) as x
           union all
           select 'a list', y.value
             from jsonb_array_elements(case jsonb_typeof(o.part) when 'array' then o.part end) as y(value)
         ) as e,
         lateral (select case jsonb_typeof(e.value) when 'string' then e.value #>> '{}' end) as t(value)
   where e.key ~* (v_names || '|(^|[-_. ])pass$|^auth$')
      or t.value ~ '^\s*([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#[:space:]]*@'
      or t.value ~* ('[?&][^=&#]*' || v_names || '[^=&#]*=')
      or t.value ~* '^(bearer|basic) +[^ ]{8}|^-----BEGIN [A-Z ]*PRIVATE KEY'
   limit 1;
  if found then
    perform pgdrip.refuse_definition(p_place,
      format('%s looks like a credential', left(v_key, 40)),
      'Put it into the environment or a file and give its name as "secret".');
  end if;
end
$$;

comment on function pgdrip.assert_config(jsonb, text) is
  'Refuses (MD008) a sender config that is no small object or seems to hold a secret';

create or replace function pgdrip.read_ramp(p_ramp jsonb, p_place text)
  returns jsonb
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if p_ramp is null then
    return null;
  end if;
  if jsonb_typeof(p_ramp) <> 'object' or not p_ramp ? '1'
     or exists (select from jsonb_each_text(p_ramp) as r
                 where r.key !~ '^[1-9][0-9]{0,3}$' or r.value is null or r.value !~ '^[1-9][0-9]{0,5}$') then
    perform pgdrip.refuse_definition(p_place, 'must map days of age to hourly rates, from day 1',
      'As {"1": 20, "7": 50, "14": 80}.');
  end if;
  if exists (select from (
       select r.value::integer - lag(r.value::integer) over (order by r.key::integer) as more
         from jsonb_each_text(p_ramp) as r) as g where g.more <= 0) then
    perform pgdrip.refuse_definition(p_place, 'rates must grow with the days',
      'As {"1": 20, "7": 50, "14": 80}.');
  end if;
  return p_ramp;
end
$$;

comment on function pgdrip.read_ramp(jsonb, text) is
  'Private: a ramp-up schedule, checked; NULL for NULL; MD008';

create or replace function pgdrip.apply_sender(p_definition jsonb)
  returns text
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_new     pgdrip.senders;
  v_old     pgdrip.senders;
  v_now     timestamptz;
  v_outcome text := 'unchanged';
begin
  perform pgdrip.assert_given('p_definition', p_definition);
  v_new := pgdrip.read_sender(p_definition);
  with added as (
    insert into pgdrip.senders (name, pool, channel)
    values (v_new.name, v_new.pool, v_new.channel) on conflict (name) do nothing
    returning sender_id, channel
  )
  insert into pgdrip.paces (sender_id, channel) select a.sender_id, a.channel from added as a;
  if found then
    v_outcome := 'created';
  end if;
  select s.* into v_old from pgdrip.senders as s where s.name = v_new.name for no key update;
  v_now := pgdrip.clock();
  v_new.started_at := v_old.started_at;
  if v_old.status in ('retiring', 'retired') then
    perform pgdrip.refuse_definition(format('sender %s', quote_literal(v_new.name)),
      'it is retired', 'Take it out, or delete_sender() to use its name anew.');
  end if;
  if (v_old.pool, v_old.channel) <> (v_new.pool, v_new.channel) then
    perform pgdrip.refuse_definition(format('sender %s', quote_literal(v_new.name)),
      'pool and channel of a sender are fixed',
      'move_sender() changes the pool; for another channel apply it under another name.');
  end if;
  update pgdrip.senders as s
     set config = v_new.config, secret = v_new.secret, rate_per_hour = v_new.rate_per_hour,
         rate_per_day = v_new.rate_per_day, burst = v_new.burst, gap_min = v_new.gap_min,
         gap_max = v_new.gap_max, ramp = v_new.ramp, hours = v_new.hours, group_id = v_new.group_id,
         advance_on = v_new.advance_on, confirm_within = v_new.confirm_within,
         on_unconfirmed = v_new.on_unconfirmed, fault_threshold = v_new.fault_threshold,
         failover_after = v_new.failover_after, limits_at = v_now
   where s.sender_id = v_old.sender_id
     and (s.config, s.secret, s.rate_per_hour, s.rate_per_day, s.burst, s.gap_min, s.gap_max,
          s.ramp, s.hours, s.group_id, s.advance_on, s.confirm_within, s.on_unconfirmed,
          s.fault_threshold, s.failover_after)
         is distinct from
         (v_new.config, v_new.secret, v_new.rate_per_hour, v_new.rate_per_day, v_new.burst,
          v_new.gap_min, v_new.gap_max, v_new.ramp, v_new.hours, v_new.group_id, v_new.advance_on,
          v_new.confirm_within, v_new.on_unconfirmed, v_new.fault_threshold,
          v_new.failover_after);
  if found and v_outcome = 'unchanged' then
    v_outcome := 'changed';
  end if;
  if v_outcome <> 'unchanged' then
    update pgdrip.paces as p
       -- A burst that went out just now is all that the new spacing still has to wait for.
       set tat = least(p.tat, v_now + greatest(v_new.gap_max, make_interval(secs =>
             greatest(v_old.burst, v_new.burst) * pgdrip.send_spacing(
               pgdrip.hourly_rate(v_new, v_now),
               pgdrip.send_burst(v_new, pgdrip.hourly_rate(v_new, v_now))) / 1e6::float8))),
           -- Readiness by the old limits means nothing now; the next claim finds out.
           ready_at = case when v_old.health = 'healthy' then 'epoch' else p.ready_at end,
           next_at = case when v_old.health = 'healthy' then p.next_at else 'epoch' end,
           -- While it had no limits nobody kept this.
           floor_at = 'epoch'
     where p.sender_id = v_old.sender_id;
    if v_new.group_id is distinct from v_old.group_id then
      perform pgdrip.recall(array(
        select w.enrollment_id from pgdrip.group_waits as w
          join pgdrip.due as d using (enrollment_id) where d.sender_id = v_old.sender_id));
    end if;
    insert into pgdrip.wakes (sender_id, due_at) values (v_old.sender_id, pgdrip.clock());
    perform pgdrip.forget_wheels(array[v_old.pool], null);
    perform pgdrip.adopt(1000);
    perform pgdrip.note(v_outcome, format('sender %s', quote_literal(v_new.name)));
  end if;
  return v_outcome;
end
$$;

comment on function pgdrip.apply_sender(jsonb) is
  'Stores a sender: created, changed or unchanged; new limits hold from the next claim on; MD008';

create or replace function pgdrip.set_sender_status(
  p_sender text,
  p_status text,
  p_reason text
)
  returns boolean
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_old pgdrip.senders := pgdrip.lock_sender(p_sender);
begin
  if v_old.status in ('retiring', 'retired') then
    raise exception 'sender % is %', quote_literal(p_sender), v_old.status
      using errcode = 'MD003', hint = 'Apply a sender under another name.';
  elsif v_old.status = p_status and (p_status <> 'active' or v_old.health = 'healthy') then
    return false;
  end if;
  update pgdrip.senders as s
     set status        = p_status,
         status_reason = case when p_status <> 'active' then p_reason end,
         health        = case when p_status = 'active' then 'healthy' else s.health end,
         faults        = case when p_status = 'active' then 0 else s.faults end,
         down_at       = case when p_status <> 'active' then s.down_at end
   where s.sender_id = v_old.sender_id;
  update pgdrip.paces as p
     set ready_at = 'epoch', next_at = case when v_old.is_limited then p.next_at end
   where p.sender_id = v_old.sender_id and p_status = 'active';
  insert into pgdrip.wakes (sender_id, due_at) values (v_old.sender_id, pgdrip.clock());
  perform pgdrip.forget_wheels(array[v_old.pool], null);
  perform pgdrip.adopt(1000);
  perform pgdrip.note(p_status, format('sender %s', quote_literal(p_sender)), p_reason);
  return true;
end
$$;

comment on function pgdrip.set_sender_status(text, text, text) is
  'Private: the one place where an operator changes a sender''s status; making it active also declares it healthy';

create or replace function pgdrip.pause_sender(p_sender text, p_reason text)
  returns boolean
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgdrip.assert_reason(p_reason);
  return pgdrip.set_sender_status(p_sender, 'paused', p_reason);
end
$$;

comment on function pgdrip.pause_sender(text, text) is
  'Hands out nothing for this sender; its work stays due; false: paused already; MD001, MD003';

create or replace function pgdrip.resume_sender(p_sender text)
  returns boolean
  language sql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select pgdrip.set_sender_status(p_sender, 'active', 'resumed')
$$;

comment on function pgdrip.resume_sender(text) is
  'Takes a paused, down or blocked sender back into service; false: it was in service; MD001, MD003';
