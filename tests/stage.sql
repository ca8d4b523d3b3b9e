-- What the pgTAP files of the hot path share: one case at a time, each with a sequence,
-- a sender, a pool and a lead of its own. Loaded into the template of the test databases.

create schema stage;
create table stage.this_case (enrollment_id bigint, contact_id bigint, number integer);
create sequence stage.cases;

-- Ends the case before and begins another; the arguments add to what definitions say.
create function stage.new_case(p_step jsonb default '{}', p_sender jsonb default '{}',
                                 p_sequence jsonb default '{}', p_contact jsonb default '{}')
  returns void language plpgsql as $$
declare
  v_n integer := nextval('stage.cases');
  v_pool text := 'pool-' || v_n;
begin
  perform pgdrip.exit_all(array(select enrollment_id from pgdrip.due), 'next case');
  delete from stage.this_case;
  perform pgdrip.apply_sender(jsonb_build_object('name', 'device-' || v_n, 'pool', v_pool,
    'channel', 'webhook') || p_sender);
  perform pgdrip.apply_sequence(jsonb_build_object('name', 'WARM-' || v_n, 'trigger', 'WARM-' || v_n,
    'channel', 'webhook', 'pool', v_pool, 'status', 'active', 'steps', jsonb_build_array(
      jsonb_build_object('day', 1, 'body', 'One') || p_step,
      jsonb_build_object('day', 3, 'body', 'Three', 'delay', '12 hours'))) || p_sequence);
  insert into stage.this_case select pgdrip.add_trigger(c, 'WARM-' || v_n), c, v_n
    from pgdrip.upsert_contact('+60110000' || lpad(v_n::text, 4, '0'), p_pool => v_pool,
      p_name => p_contact ->> 'name', p_timezone => p_contact ->> 'timezone',
      p_attributes => coalesce(p_contact -> 'attributes', '{}')) as c;
end $$;
create function stage.wait(p_span interval) returns timestamptz language sql as $$
  select pgdrip.set_clock(pgdrip.clock() + p_span)
$$;
-- The live step, the run, the sender and the last event of this case.
create function stage.live() returns pgdrip.due language sql as $$
  select d from pgdrip.due as d join stage.this_case using (enrollment_id)
$$;
create function stage.run() returns pgdrip.enrollments language sql as $$
  select e from pgdrip.enrollments as e join stage.this_case using (enrollment_id)
$$;
create function stage.sender() returns pgdrip.senders language sql as $$
  select s from pgdrip.senders as s join stage.this_case on s.name = 'device-' || number
$$;
create function stage.pace() returns pgdrip.paces language sql as $$
  select p from pgdrip.paces as p where p.sender_id = (stage.sender()).sender_id
$$;
create function stage.last() returns pgdrip.deliveries language sql as $$
  select j from pgdrip.deliveries as j join stage.this_case using (enrollment_id) order by j.token desc, j.at desc limit 1
$$;
-- What a runner does: claim, begin, report.
create function stage.take(p_lease interval default '2 minutes') returns bigint language sql as $$
  select token from pgdrip.claim('runner-1', 100, p_lease)
$$;
create function stage.start() returns boolean language sql as $$
  select exists (select from pgdrip.begin_send(array[(stage.live()).enrollment_id], array[(stage.live()).token]))
$$;
create function stage.tell(p_outcome text, p_code text default null, p_provider_id text default null)
  returns text language sql as $$
  select r.verdict from pgdrip.report(array[(stage.live()).enrollment_id], array[(stage.live()).token],
    array[p_outcome], array[p_provider_id], array[p_code]) as r
$$;
