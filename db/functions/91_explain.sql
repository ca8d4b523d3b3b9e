-- Explaining: where one contact stands, why nothing goes out, and what comes next.

create or replace function pgdrip.in_words(p_at timestamptz, p_now timestamptz)
  returns text
  language sql
  immutable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
  select case when p_at > p_now then 'in ' || x.words else x.words || ' ago' end
    from (select case
            when s.secs < 90 then round(s.secs) || ' s'
            when s.secs < 5400 then round(s.secs / 60) || ' min'
            when s.secs < 172800 then round(s.secs / 3600) || ' h'
            else round(s.secs / 86400) || ' days' end as words
            from (select abs(extract(epoch from p_at - p_now)) as secs) as s) as x
$$;

comment on function pgdrip.in_words(timestamptz, timestamptz) is
  'A distance in time for people: in 12 h, 3 min ago';

create or replace function pgdrip.why_live(
  p_due        pgdrip.due,
  p_enrollment pgdrip.enrollments,
  p_sequence   pgdrip.sequences,
  p_sender     pgdrip.senders,
  p_pace       pgdrip.paces,
  p_now        timestamptz
)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when not pgdrip.is_unlocked() then 'the engine is locked after a restore or failover: unlock()'
    when c.paused_at is not null then format('everything is paused: %s', c.paused_reason)
    when p_due.parked_reason = 'uncertain'
      then format('a send was begun %s and its outcome is unknown: resolve_uncertain(%s, …)',
                  pgdrip.in_words(coalesce(p_due.begun_at, p_due.due_at), p_now), p_due.token)
    when p_due.parked_reason = 'no_sender'
      then format('no sender of pool %s on channel %s is in service', p_sequence.pool, p_sequence.channel)
    when p_due.parked_reason = 'never_begun'
      then '20 runners in a row claimed it and never began to send'
    when p_due.parked_reason = 'failed' then 'it failed and its step says to park then'
    when p_due.parked_reason = 'unconfirmed' then 'no receipt came in time'
    when p_due.lease_until > p_now and p_due.begun_at is not null
      then format('runner %s is sending it', p_due.runner)
    when p_due.lease_until > p_now
      then format('runner %s has claimed it, %s', p_due.runner, pgdrip.in_words(p_due.lease_until, p_now))
    when p_due.awaits is not null
      then format('sent; a receipt is awaited, the deadline is %s', pgdrip.in_words(p_due.due_at, p_now))
    when p_enrollment.paused_at is not null
      then format('this enrollment is paused: %s', p_enrollment.paused_reason)
    when p_sequence.status = 'paused' then format('the sequence is paused: %s', p_sequence.paused_reason)
    when p_due.due_at > p_now then format('due %s', pgdrip.in_words(p_due.due_at, p_now))
    when p_sender.status <> 'active'
      then format('due %s; its sender is %s: %s', pgdrip.in_words(p_due.due_at, p_now),
                  p_sender.status, p_sender.status_reason)
    when p_sender.health <> 'healthy'
      then format('due %s; its sender is %s after %s', pgdrip.in_words(p_due.due_at, p_now),
                  p_sender.health, coalesce(p_sender.last_error, 'a fault'))
    when p_pace.ready_at > p_now
      then format('due %s; its sender is at its limit, ready again %s',
                  pgdrip.in_words(p_due.due_at, p_now), pgdrip.in_words(p_pace.ready_at, p_now))
    else format('due %s; the next free runner takes it', pgdrip.in_words(p_due.due_at, p_now))
  end
    from pgdrip.control as c
$$;

comment on function pgdrip.why_live(pgdrip.due, pgdrip.enrollments, pgdrip.sequences, pgdrip.senders, pgdrip.paces, timestamptz) is
  'Private: why a live step stands where it stands, in words';

create or replace function pgdrip.explain_contact(p_contact bigint)
  returns setof pgdrip.contact_explanation
  language plpgsql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pgdrip.clock();
begin
  perform pgdrip.assert_contact(p_contact);
  return query
    select q.name, e.enrollment_id,
           case when e.paused_at is not null then 'paused' else e.status end,
           d.step, d.due_at, s.name,
           case when e.status = 'active' then pgdrip.why_live(d, e, q, s, p, v_now)
                else format('%s %s: %s', e.status, pgdrip.in_words(e.ended_at, v_now), e.end_reason) end
      from pgdrip.enrollments as e
      join pgdrip.sequences as q using (sequence_id)
      left join pgdrip.due as d using (enrollment_id)
      left join pgdrip.senders as s on s.sender_id = e.sender_id
      left join pgdrip.paces as p on p.sender_id = s.sender_id
     where e.contact_id = p_contact
     order by e.enrollment_id;
  -- Words it carries that started nothing.
  return query
    select q.name, null::bigint, 'not enrolled', null::integer, null::timestamptz, null::text,
           coalesce(pgdrip.obstacle_text(n), 'it enters with the next sweep')
      from pgdrip.contact_triggers as t
      join pgdrip.sequences as q using (trigger)
     cross join lateral pgdrip.entries(array[t.contact_id], array[q.sequence_id],
                                       array[t.trigger_id], v_now) as n
     where t.contact_id = p_contact
       and not exists (select from pgdrip.enrollments as e
                        where e.contact_id = t.contact_id and e.sequence_id = q.sequence_id)
     order by q.name;
end
$$;

comment on function pgdrip.explain_contact(bigint) is
  'Where a contact stands in each sequence, why nothing was sent, and what comes next; 22004, MD001';
