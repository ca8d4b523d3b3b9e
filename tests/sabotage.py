"""Ways to break the engine in a test's database, as SQL; each undoes one safeguard."""

LOCKS = r"for (no key )?update( of \w+)? skip locked"


def without(function: str, pattern: str) -> str:
    """The function less whatever matches; an error if nothing does."""
    return f"""
    do $do$
    declare
      v_is text := pg_get_functiondef('pgdrip.{function}'::regproc);
      v_becomes text := regexp_replace(v_is, $re${pattern}$re$, '', 'gi');
    begin
      if v_is = v_becomes then
        raise exception 'nothing in {function} matches';
      end if;
      execute v_becomes;
    end $do$;
    """


SHARED_ROWS = without("lock_due", LOCKS)
"""Claims look at due rows without a lock."""

FREE_SENDERS = without("lock_senders", LOCKS)
"""Claims spend the allowance of a sender without its lock."""

ENROLL_TWICE = without("lock_contact", "for no key update") + (
    "drop index pgdrip.enrollments_one_live;"
    "alter table pgdrip.enrollments drop constraint enrollments_run_key;"
)
"""Neither a lock of the contact nor a unique key prevents a second enrollment."""

EXIT_FROM_BEHIND = without("exit_all", r"perform from pgdrip\.due as d[^;]*;")
"""exit_all() locks enrollments before due rows."""

NO_FENCE = """
alter function pgdrip.begin_send rename to begin_send_really;
create function pgdrip.begin_send(p_enrollments bigint[], p_tokens bigint[])
  returns setof bigint language plpgsql as $$
begin
  perform pgdrip.begin_send_really(array_agg(d.enrollment_id), array_agg(d.token))
     from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
   having count(*) > 0;
  return query
    select i.token from unnest(p_enrollments, p_tokens) as i(enrollment_id, token)
      join pgdrip.due as d using (enrollment_id) where d.begun_at is not null;
end $$;
"""
"""begin_send() grants any token of a claimed row."""

LATE_IS_LOST = """
alter function pgdrip.report rename to report_really;
create function pgdrip.report(
  p_enrollments bigint[], p_tokens bigint[], p_outcomes text[],
  p_provider_ids text[] default null, p_codes text[] default null,
  p_details text[] default null)
  returns setof pgdrip.report_verdict language plpgsql as $$
begin
  return query
    with told as materialized (
      select i.*, coalesce(d.lease_until > pgdrip.clock(), false) as is_in_time
        from unnest(p_enrollments, p_tokens, p_outcomes, p_codes)
               as i(enrollment_id, token, outcome, code)
        left join pgdrip.due as d using (enrollment_id, token))
    select t.token, 'stale', null::timestamptz from told as t where not t.is_in_time
    union all
    select r.*
      from (select array_agg(t.enrollment_id) as ids, array_agg(t.token) as tokens,
                   array_agg(t.outcome) as outcomes, array_agg(t.code) as codes
              from told as t where t.is_in_time is not false having count(*) > 0) as t,
           pgdrip.report_really(t.ids, t.tokens, t.outcomes, null, t.codes) as r;
end $$;
"""
"""report() forgets what it is told after the lease."""

BROKEN_IS_FAILED = """
insert into pgdrip.error_rules (channel, code, class, source)
values ('webhook', 'http_500', 'transient', 'nowhere');
"""
"""A gateway that answers 500 is taken to have accepted nothing."""

HOUR_OF_THE_CLOCK = """
create or replace function pgdrip.send_spacing(p_rate integer, p_burst integer)
  returns bigint language sql immutable parallel safe return 1;
create or replace function pgdrip.sender_allowance(
  p_sender pgdrip.senders, p_pace pgdrip.paces, p_now timestamptz)
  returns setof integer language sql stable
begin atomic
  select greatest(0, p_sender.rate_per_hour - (
    select count(*) from pgdrip.deliveries as j
     where j.sender_id = p_sender.sender_id and j.event = 'sent'
       and j.begun_at >= date_trunc('hour', p_now, 'UTC')))::integer;
end;
"""
"""The rate is per hour of the clock, not per any hour."""

NOT_FLUSHED = without("assert_working", r"perform set_config\('synchronous[^;]*;")
"""What the runner is told is committed may be in memory only."""
