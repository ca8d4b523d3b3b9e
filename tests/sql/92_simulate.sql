-- Foreseeing what a sequence would send: the rules of claim and settle, and nothing written.

begin;
select no_plan();

create function pg_temp.foreseen(p_sequence text, p_start text, p_contact bigint default null)
  returns text[] language sql as $$
  select array_agg(concat_ws(' ', s.step, to_char(s.due_at at time zone 'UTC', 'DD HH24:MI'),
                             to_char(s.send_at at time zone 'UTC', 'HH24:MI'), s.body))
    from pgdrip.simulate(p_sequence, p_start::timestamptz, p_contact) as s
$$;
create function pg_temp.written() returns text language sql as $$
  select concat_ws(' ', (select count(*) from pgdrip.enrollments), (select count(*) from pgdrip.due),
    (select count(*) from pgdrip.deliveries), (select count(*) from pgdrip.wakes),
    (select count(*) from pgdrip.audit), (select max(xmin::text::bigint) from pgdrip.senders))
$$;

select pgdrip.apply_sender('{"name": "free", "channel": "log"}');
select pgdrip.apply_sequence('{"name": "Plan", "trigger": "Plan", "channel": "log", "status": "active",
  "window": {"from": "09:00", "to": "17:00", "days": ["mon", "tue", "wed", "thu", "fri"]},
  "steps": [{"day": 1, "body": "hi {{name|you}}"}, {"day": 3, "body": "kl", "only_if": {"city": "KL"}},
            {"day": 6, "delay": "12 hours", "body": "six", "wait_for": {"event": "clicked", "timeout": "1 day"}},
            {"day": 9, "at": "12:00", "variants": [{"weight": 1, "body": "a"}, {"weight": 1, "body": "b"}]}]}');
select is((pg_temp.foreseen('Plan', '2026-01-05 08:00+00'))[1], '1 05 09:00 09:00 hi you', 'the window counts for the first step');
select is((pg_temp.foreseen('Plan', '2026-01-05 08:00+00'))[2], '3 07 09:00 kl', 'a step that would be skipped has no time of sending');
select is((pg_temp.foreseen('Plan', '2026-01-05 08:00+00'))[3], '6 08 09:00 09:00 six', 'a due time outside the window is moved into it');
select ok((pg_temp.foreseen('Plan', '2026-01-05 08:00+00'))[4] ~ '^9 12 12:00 12:00 [ab]$',
          'a step that waits is foreseen as if its event did not come');
select is((pg_temp.foreseen('Plan', '2026-01-05 08:00+00', pgdrip.upsert_contact('+60123456789', p_name => 'Ann',
            p_timezone => 'Asia/Kuala_Lumpur', p_attributes => '{"city": "KL"}')))[1:2],
          array['1 05 08:00 08:00 hi Ann', '3 07 08:00 08:00 kl'], 'for a contact its zone, values and conditions count');

-- What is foreseen is what comes

create temp table came (line text);
do $$
declare
  v_row pgdrip.claimed_message;
begin
  perform pgdrip.set_clock('2026-01-05 08:00+00');
  perform pgdrip.enroll('Plan', 1);
  for i in 1 .. 40 loop
    for v_row in select * from pgdrip.claim('tester') loop
      insert into came select concat_ws(' ', v_row.step,
        to_char(pgdrip.clock() at time zone 'UTC', 'DD HH24:MI'),
        to_char(pgdrip.clock() at time zone 'UTC', 'HH24:MI'), v_row.body);
      perform pgdrip.report(array[v_row.enrollment_id], array[v_row.token], array['sent']);
    end loop;
    exit when pgdrip.next_wake() is null;
    perform pgdrip.set_clock(greatest(pgdrip.clock(), pgdrip.next_wake()));
  end loop;
end $$;
select is((select array_agg(line order by line) from came),
          (select array_agg(l order by l) from unnest(pg_temp.foreseen('Plan', '2026-01-05 08:00+00', 1)) as l),
          'the messages come as foreseen, each at its time');

create temp table later as select pg_temp.written() as state;
select pg_temp.foreseen('Plan', '2026-01-05 08:00+00', 1);
select is((select state from later), pg_temp.written(), 'foreseeing writes nothing');

select throws_ok($$ select * from pgdrip.simulate('Plan', null) $$, '22004', null, 'it needs a start');
select throws_ok($$ select * from pgdrip.simulate('Plan', 'infinity') $$, '22023', null, 'that is a time');
select throws_ok($$ select * from pgdrip.simulate('None', now()) $$, 'MD001', null, 'and a sequence');
select throws_ok($$ select * from pgdrip.simulate('Plan', now(), 0) $$, 'MD001', null, 'and a contact that is there');

select * from finish();
rollback;
