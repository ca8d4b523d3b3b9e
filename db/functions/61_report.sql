-- Reporting: what became of each send. Fenced by token: only the claim that holds the row
-- moves it. Locks due by id, enrollments by id, trigger rows, and last the senders with a
-- fault. Writes what settle() writes, provider_refs and senders.

create or replace function pgdrip.assert_report(
  p_count        integer,
  p_outcomes     text[],
  p_provider_ids text[],
  p_codes        text[],
  p_details      text[]
)
  returns void
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_bad text;
begin
  perform pgdrip.assert_given('p_outcomes', p_outcomes);
  if exists (select from unnest(p_outcomes) as o where o is null) then
    raise exception 'p_outcomes must not hold NULL'
      using errcode = '22004', hint = 'sent, failed or uncertain.';
  end if;
  select o into v_bad from unnest(p_outcomes) as o
   where o not in ('sent', 'failed', 'uncertain') limit 1;
  if found then
    raise exception 'unknown outcome %', quote_literal(left(v_bad, 40))
      using errcode = '22023', hint = 'sent, failed or uncertain, in lower case.';
  end if;
  if cardinality(p_outcomes) <> p_count
     or coalesce(cardinality(p_provider_ids), p_count) <> p_count
     or coalesce(cardinality(p_codes), p_count) <> p_count
     or coalesce(cardinality(p_details), p_count) <> p_count
     or 1 < greatest(array_ndims(p_outcomes), array_ndims(p_provider_ids),
                     array_ndims(p_codes), array_ndims(p_details)) then
    raise exception 'the arrays of a report must be flat and of equal length'
      using errcode = '22023', hint = 'One element for each token; leave out what you do not have.';
  end if;
end
$$;

comment on function pgdrip.assert_report(integer, text[], text[], text[], text[]) is
  'Refuses a malformed report: NULL outcomes 22004, unknown outcomes or unequal lengths 22023';

create or replace function pgdrip.error_class(p_channel text, p_code text)
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select r.class from pgdrip.error_rules as r
   where r.channel in (p_channel, '*') and r.code = p_code
   order by r.channel = '*' limit 1
$$;

comment on function pgdrip.error_class(text, text) is
  'The class of a channel''s code by error_rules; NULL: nobody has classified it';

create or replace function pgdrip.token_story(p_enrollment bigint, p_token bigint)
  returns pgdrip.deliveries
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $$
  select j from pgdrip.deliveries as j
   where j.enrollment_id = p_enrollment and j.token = p_token
   order by j.event in ('sent', 'failed') desc, j.event = 'resolved' desc,
            j.event = 'uncertain' desc, j.at desc
   limit 1
$$;

comment on function pgdrip.token_story(bigint, bigint) is
  'Private: the most telling event of a token: what was reported before what it was resolved to before an uncertain one before the rest; NULL: never issued';

create or replace function pgdrip.judge_current(
  p_due     pgdrip.due,
  p_step    pgdrip.steps,
  p_sender  pgdrip.senders,
  p_outcome text,
  p_class   text,
  p_now     timestamptz
)
  returns setof pgdrip.judgement
  language sql
  stable
begin atomic
  select p_outcome, m.move,
         case when p_outcome = 'uncertain' and m.move is distinct from 'retry' then 'uncertain'
              when m.move = 'park' then 'failed' end,
         case
           when p_outcome = 'sent' then case
             when p_due.parked_reason = 'uncertain' or p_due.lease_until <= p_now then 'late'
             when m.move = 'await' then 'awaiting' end
           when k.is_deferred then 'deferred'
           when m.move = 'retry' then 'retry'
           when p_outcome = 'uncertain' or m.move = 'park' then 'parked'
           when m.move = 'skip' then 'skipped'
           else 'failed' end,
         case
           when p_outcome = 'sent' then p_now + p_sender.confirm_within
           when k.is_deferred then p_due.due_at
           when m.move = 'retry' then p_now + (0.75 + random() / 2) * least(interval '1 hour',
             least(p_step.backoff, interval '1 hour') * 2 ^ least(greatest(k.tried - 1, 0), 20)) end
    from (select p_due.attempt
                   + (p_due.begun_at is null and p_due.lease_until is not null)::integer as tried,
                 p_outcome = 'failed' and p_class in ('sender', 'blocked') as is_deferred) as k,
         lateral (select case
           when p_outcome = 'sent'
             then case p_sender.advance_on when 'delivered' then 'await' else 'confirm' end
           when k.is_deferred then 'retry'
           when k.tried < p_step.max_attempts
            and (p_outcome = 'failed' and p_class = 'transient'
                 or p_outcome = 'uncertain' and p_step.on_uncertain = 'retry') then 'retry'
           when p_outcome = 'uncertain'
             then case when p_due.parked_reason is null then 'park' end
           when p_step.on_failure in ('skip', 'park') then p_step.on_failure
           else 'fail' end as move) as m;
end;

comment on function pgdrip.judge_current(pgdrip.due, pgdrip.steps, pgdrip.senders, text, text, timestamptz) is
  'Private: what an outcome means for the row that carries its token; a move of NULL only answers';

create or replace function pgdrip.judge_past(
  p_due     pgdrip.due,
  p_story   pgdrip.deliveries,
  p_sender  pgdrip.senders,
  p_outcome text,
  p_epoch   bigint,
  p_now     timestamptz
)
  returns setof pgdrip.judgement
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_out  pgdrip.judgement;
  v_told text := case p_story.event
    when 'resolved' then case p_story.code when 'not_sent' then 'failed' else 'sent' end
    else p_story.event end;
begin
  case
    when p_story.token is null then
      v_out.verdict := 'unknown';
    when v_told = p_outcome then
      v_out.verdict := coalesce(p_story.verdict, 'stale');
      v_out.next_due_at := p_story.next_due_at;
    when v_told in ('sent', 'failed') then
      v_out.verdict := 'contradiction';
    when v_told = 'uncertain' and p_outcome = 'sent' and p_story.token >> 40 = p_epoch
     and p_due.step = p_story.step and p_due.begun_at is null and p_due.awaits is null then
      -- Begun earlier, tried again, not begun again: it did go out. The later token is void.
      v_out.event := 'sent';
      v_out.verdict := 'late';
      v_out.move := case p_sender.advance_on when 'delivered' then 'await' else 'confirm' end;
      v_out.next_due_at := p_now + p_sender.confirm_within;
    else
      v_out.event := p_outcome;
      v_out.verdict := 'stale';
      v_out.move := 'note';
  end case;
  return next v_out;
end
$$;

comment on function pgdrip.judge_past(pgdrip.due, pgdrip.deliveries, pgdrip.senders, text, bigint, timestamptz) is
  'Private: what an outcome means when its token is on the live row no longer';

create or replace function pgdrip.judge(
  p_enrollments  bigint[],
  p_tokens       bigint[],
  p_outcomes     text[],
  p_provider_ids text[],
  p_codes        text[],
  p_details      text[],
  p_now          timestamptz
)
  returns setof pgdrip.settlement
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with given as materialized (
      select distinct on (i.enrollment_id, i.token)
             i.enrollment_id, i.token, i.provider_id, left(i.code, 50) as code, i.detail,
             q.channel, e.version_id, x.class,
             case when i.outcome = 'failed' and x.class is null then 'uncertain'
                  else i.outcome end as outcome
        from unnest(p_enrollments, p_tokens, p_outcomes, p_provider_ids, p_codes, p_details)
             with ordinality
             as i(enrollment_id, token, outcome, provider_id, code, detail, ord)
        left join pgdrip.enrollments as e using (enrollment_id)
        left join pgdrip.sequences as q using (sequence_id),
             lateral (select case when i.outcome = 'failed'
                                  then pgdrip.error_class(q.channel, i.code) end
                      offset 0) as x(class)
       order by i.enrollment_id, i.token, i.outcome = 'uncertain', i.ord
    )
    select g.enrollment_id, g.token, v.event, g.code, g.class, g.detail,
           case when v.event = 'sent' then g.provider_id end, v.verdict, v.move,
           coalesce(v.reason, g.code, g.class), null::integer, null::integer, v.next_due_at,
           null::bigint, null::text, null::pgdrip.due
      from given as g
      left join pgdrip.due as d using (enrollment_id)
      left join pgdrip.steps as s on s.version_id = g.version_id and s.number = d.step
      left join pgdrip.senders as n on n.sender_id = d.sender_id
     cross join pgdrip.control as c
     cross join lateral (select d.token = g.token and d.awaits is null
                                and d.parked_reason is distinct from 'unconfirmed'
                                and g.token >> 40 = c.epoch) as f(fits)
     cross join lateral (
       select w.* from pgdrip.judge_current(d, s, n, g.outcome, g.class, p_now) as w
        where f.fits
       union all
       select w.* from pgdrip.judge_past(d, pgdrip.token_story(g.enrollment_id, g.token), n,
                                         g.outcome, c.epoch, p_now) as w
        where f.fits is not true) as v;
end
$$;

comment on function pgdrip.judge(bigint[], bigint[], text[], text[], text[], text[], timestamptz) is
  'Private: for each token once what is to become of its step; a move of NULL only answers';

create or replace function pgdrip.one_move_each(p_judged pgdrip.settlement[])
  returns pgdrip.settlement[]
  language plpgsql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (select count(*) = count(distinct j.enrollment_id) from unnest(p_judged) as j
       where j.move <> 'note') then
    return p_judged;
  end if;
  -- Two tokens of one step in one call: what was sent counts, else the later token.
  return array(
    select case when x.place = 1 then x.judged
             else row(j.enrollment_id, j.token, j.event, j.code, j.class, j.detail, null, 'stale',
                      'note', null, null, null, null, null, null, null)::pgdrip.settlement end
      from (select j as judged, row_number() over (
                     partition by j.enrollment_id order by j.event = 'sent' desc, j.token desc) as place
              from unnest(p_judged) as j where j.move <> 'note') as x,
           lateral (select (x.judged).*) as j
    union all
    select j from unnest(p_judged) as j where (j.move <> 'note') is not true);
end
$$;

comment on function pgdrip.one_move_each(pgdrip.settlement[]) is
  'Private: of several tokens of one enrollment lets only one move it; the others are noted as stale';

create or replace function pgdrip.refer(p_settled pgdrip.settlement[], p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from unnest(p_settled) as r where r.provider_id is not null) then
    return;
  end if;
  insert into pgdrip.provider_refs
    (channel, provider_id, enrollment_id, token, step, created_at)
  select q.channel, left(r.provider_id, 512), r.enrollment_id, r.token,
         r.step, p_now
    from unnest(p_settled) as r
    join pgdrip.enrollments as e using (enrollment_id)
    join pgdrip.sequences as q using (sequence_id)
   where r.event = 'sent' and r.step is not null and not pgdrip.is_blank(r.provider_id)
  on conflict do nothing;
  -- Receipts that overtook this report.
  perform pgdrip.apply_receipt(w.channel, w.provider_id, w.status, w.at, p_now)
     from (select t.* from pgdrip.receipts as t
             join pgdrip.sequences as q on q.channel = t.channel
             join pgdrip.enrollments as e using (sequence_id)
             join unnest(p_settled) as r
               on r.enrollment_id = e.enrollment_id and r.event = 'sent'
              and r.provider_id = t.provider_id
            order by t.receipt_id) as w;
  delete from pgdrip.receipts as t
   using pgdrip.provider_refs as f
   where f.channel = t.channel and f.provider_id = t.provider_id
     and f.provider_id in (select r.provider_id from unnest(p_settled) as r
                            where r.event = 'sent');
end
$$;

comment on function pgdrip.refer(pgdrip.settlement[], timestamptz) is
  'Private: remembers which delivery a provider''s id stands for, and applies receipts that came before it';

create or replace function pgdrip.mark_senders(p_settled pgdrip.settlement[], p_now timestamptz)
  returns void
  language plpgsql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    select s.sender_id from pgdrip.senders as s
     where s.sender_id in (select (r.live).sender_id from unnest(p_settled) as r
                            where r.verdict = 'deferred'
                               or r.event = 'sent' and r.move in ('confirm', 'await'))
       and (s.faults > 0 or exists (
             select from unnest(p_settled) as r where r.verdict = 'deferred'))
     order by s.sender_id for no key update);
  if v_ids = '{}' then
    return;
  end if;
  -- Of a sender that was parked only a send begun after the fault tells anything new; while
  -- its faults are being counted each one does.
  with heard as (
    select x.sender_id, x.event, x.class, x.begun_at, s.faults,
           concat_ws(': ', x.code, x.detail) as error,
           count(*) filter (where x.event = 'sent') over (
             partition by x.sender_id order by x.begun_at, x.event desc) as sends
      from unnest(p_settled) as r
      join pgdrip.deliveries as x using (enrollment_id, token, event)
      join pgdrip.senders as s on s.sender_id = x.sender_id
     where s.sender_id = any (v_ids)
       and x.at = p_now and (r.verdict = 'deferred' or r.move in ('confirm', 'await'))
       and (x.class = 'blocked' or x.begun_at > s.fault_at or x.begun_at is null
            or s.fault_at is null or s.health = 'healthy' and s.faults > 0)
  ),
  -- Faults in a row: from one send that came through to the next.
  rows as (
    select h.sender_id, h.sends, count(*) filter (where h.event <> 'sent')
             + case h.sends when 0 then max(h.faults) else 0 end as faults
      from heard as h group by h.sender_id, h.sends
  ),
  told as (
    select h.sender_id, bool_or(h.event <> 'sent') as is_fault,
           coalesce(bool_or(h.class = 'blocked'), false) as is_blocked,
           (array_agg(h.error order by h.class, h.begun_at desc)
              filter (where h.event <> 'sent'))[1] as error,
           (select max(w.faults) from rows as w where w.sender_id = h.sender_id) as longest,
           (select w.faults from rows as w where w.sender_id = h.sender_id
             order by w.sends desc limit 1)::integer as latest
      from heard as h group by h.sender_id
  ),
  marked as (
    update pgdrip.senders as s
       set health     = n.health,
           faults     = n.faults,
           fault_at   = case when t.is_fault then p_now else s.fault_at end,
           last_error = case when t.is_fault then left(pgdrip.mask(t.error), 500) else s.last_error end,
           down_at    = case n.health when 'down' then coalesce(
                          case s.health when 'down' then s.down_at end, p_now) end
      from told as t
      join pgdrip.senders as o using (sender_id),
           lateral (select case when t.is_blocked or o.health = 'blocked' then 'blocked'
                                when t.longest >= o.fault_threshold then 'down'
                                else 'healthy' end) as h(health),
           lateral (select h.health, case h.health
                      when 'healthy' then t.latest
                      when 'down' then greatest(o.faults + 1, o.fault_threshold)
                      else o.faults + 1 end) as n(health, faults)
     where s.sender_id = t.sender_id and (t.is_fault or s.health <> 'blocked')
    returning s.sender_id, s.is_limited, s.health, s.faults, s.fault_threshold,
              o.health as old_health
  )
  update pgdrip.paces as p
     set ready_at = case m.health when 'healthy' then 'epoch' else greatest(p.ready_at,
           p_now + pgdrip.probe_wait(m.faults - m.fault_threshold + 1)) end,
         next_at = case when m.is_limited or m.health = 'down' then timestamptz 'epoch' end
    from marked as m
   where p.sender_id = m.sender_id and (m.health <> 'healthy' or m.old_health = 'down');
end
$$;

comment on function pgdrip.mark_senders(pgdrip.settlement[], timestamptz) is
  'Private: counts senders'' faults in a row, parks those that reach their threshold or were blocked, and takes back into service those whose probe came through';

create or replace function pgdrip.answers(
  p_enrollments bigint[],
  p_tokens      bigint[],
  p_outcomes    text[],
  p_judged      pgdrip.settlement[]
)
  returns setof pgdrip.report_verdict
  language plpgsql
  stable
  set search_path = pg_catalog, pg_temp
  set enable_hashjoin = on
as $$
begin
  return query
    select i.token, case when i.is_same then j.verdict else 'contradiction' end,
           case when i.is_same then j.next_due_at end
      from (select g.*, g.outcome = first_value(g.outcome) over (
                     partition by g.enrollment_id, g.token
                     order by g.outcome = 'uncertain', g.ord) as is_same
              from unnest(p_enrollments, p_tokens, p_outcomes) with ordinality
                   as g(enrollment_id, token, outcome, ord)) as i
      join unnest(p_judged) as j using (enrollment_id, token)
     order by i.ord;
end
$$;

comment on function pgdrip.answers(bigint[], bigint[], text[], pgdrip.settlement[]) is
  'Private: the verdict of each reported token, in order; of two outcomes for one the second contradicts';

create or replace function pgdrip.report(
  p_enrollments  bigint[],
  p_tokens       bigint[],
  p_outcomes     text[],
  p_provider_ids text[] default null,
  p_codes        text[] default null,
  p_details      text[] default null
)
  returns setof pgdrip.report_verdict
  language plpgsql
  volatile
  security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set join_collapse_limit = 1
  set random_page_cost = 1.1
  set jit = off
  set max_parallel_workers_per_gather = 0
as $$
declare
  v_now    timestamptz;
  v_judged pgdrip.settlement[];
begin
  perform pgdrip.assert_tokens(p_enrollments, p_tokens);
  perform pgdrip.assert_report(cardinality(p_tokens), p_outcomes, p_provider_ids, p_codes, p_details);
  perform pgdrip.assert_working();
  perform from pgdrip.due as d where d.enrollment_id = any (p_enrollments)
    order by d.enrollment_id for update;
  perform from pgdrip.enrollments as e where e.enrollment_id = any (p_enrollments)
    order by e.enrollment_id for update;
  v_now := pgdrip.clock();

  v_judged := array(
    select j from pgdrip.judge(p_enrollments, p_tokens, p_outcomes, p_provider_ids,
                               p_codes, p_details, v_now) as j);
  v_judged := pgdrip.one_move_each(v_judged);
  v_judged := array(
    select s from pgdrip.settle(array(
      select j from unnest(v_judged) as j where j.move is not null), v_now) as s
    union all
    select j from unnest(v_judged) as j where j.move is null);
  perform pgdrip.refer(v_judged, v_now);
  perform pgdrip.mark_senders(v_judged, v_now);

  return query select a.* from pgdrip.answers(p_enrollments, p_tokens, p_outcomes, v_judged) as a;
end
$$;

comment on function pgdrip.report(bigint[], bigint[], text[], text[], text[], text[]) is
  'Applies what became of sends and returns a verdict for each token, in order; one bad row never fails the batch; 22004, 22023, 25006, MD003, MD005';
