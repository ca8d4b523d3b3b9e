"""Two sessions that meet, in a forced order; and no two that ever lock each other out.

Further ones stand where their functions are tested: claim and claim in test_claim.py,
report and report, report and claim, report and exit, begin_send and suppress in
test_report.py, failover and report in test_failover.py.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from psycopg.types.json import Jsonb

import stage
from conftest import Connect
from stage import Db

PHONE = "+60110000001"


def waits_for(
    db: Db, holder: Db, waiting: Db, call: Callable[..., Any], *arguments: Any
) -> Any:
    """What `call` on `waiting` returns when `holder` commits while it waits."""
    with stage.meanwhile(call, waiting, *arguments) as result:
        try:
            stage.waits(db, waiting)
        finally:
            holder.execute("commit")
    return result.result(10)


def call(db: Db, statement: str) -> Any:
    """The one value of a statement."""
    [value] = stage.one(db, statement).values()
    return value


CAUSES = {
    "pause_enrollment": "select pgdrip.pause_enrollment(1, 'asked to')",
    "exit": "select pgdrip.exit_enrollment(1, 'asked to')",
    "suppress": f"select pgdrip.suppress('{PHONE}', 'asked to')",
    "erase": "select pgdrip.erase_contact(1, 'asked to')",
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_claim_passes_by_what_is_being_stopped(
    db: Db, connect: Connect, cause: str
) -> None:
    stage.sender(db, rate_per_hour=80, burst=10)
    stage.sequence(db)
    stage.leads(db, 3)
    operator, runner = connect(), stage.never_waits(connect())
    with operator.transaction():
        assert call(operator, CAUSES[cause])
        first = stage.claim(runner)
    assert {message["enrollment_id"] for message in first} == {2, 3}
    assert stage.claim(runner) == []
    assert stage.violations(db) == []


@pytest.mark.parametrize("cause", CAUSES)
def test_what_is_stopped_while_it_is_being_claimed_is_not_begun(
    db: Db, connect: Connect, cause: str
) -> None:
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    stage.lead(db)
    runner, operator = connect(), connect()
    runner.execute("begin")
    messages = stage.claim(runner)
    assert len(messages) == 1
    assert waits_for(db, runner, operator, call, CAUSES[cause])
    assert stage.begin(db, messages) == []
    assert stage.claim(db) == []
    begun = "select from pgdrip.deliveries where begun_at is not null"
    assert stage.every(db, begun) == []
    assert stage.violations(db) == []


@pytest.mark.parametrize(
    "statement",
    [
        "select pgdrip.pause_sequence('WARM Sequence', 'holiday')",
        "select pgdrip.pause_sender('device-0001', 'repair')",
        "select pgdrip.pause_all('holiday')",
    ],
    ids=["sequence", "sender", "everything"],
)
def test_a_claim_during_an_uncommitted_pause_never_waits_and_begins_nothing_after_it(
    db: Db, connect: Connect, statement: str
) -> None:
    stage.sender(db, rate_per_hour=80)
    stage.sequence(db)
    stage.lead(db)
    operator, runner = connect(), stage.never_waits(connect())
    with operator.transaction():
        assert call(operator, statement)
        messages = stage.claim(runner)
    assert stage.begin(db, messages) == []
    assert stage.claim(db) == []
    assert stage.violations(db) == []


def publish(db: Db, body: str) -> str:
    """Every step gets another text, for those in flight, too."""
    steps = [{"day": 1, "body": body}, {"day": 3, "body": body, "delay": "12 hours"}]
    definition = {"name": "WARM Sequence", "trigger": "WARM", "channel": "webhook"}
    definition |= {"in_flight": "migrate"}
    query = "select outcome from pgdrip.apply_sequence(%s)"
    return str(stage.one(db, query, [Jsonb(definition | {"steps": steps})])["outcome"])


def test_a_claim_during_an_uncommitted_publication_sends_what_was_published_before(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80, burst=10)
    stage.sequence(db, in_flight="migrate")
    stage.leads(db, 3)
    author, runner = connect(), stage.never_waits(connect())
    taken = stage.claim(db, 1)
    with author.transaction():
        assert publish(author, "New") == "published"
        during = stage.claim(runner)
    after = stage.claim(runner)
    assert {m["body"] for m in taken + during} == {"One"}
    assert {m["body"] for m in after} <= {"New"}
    assert len(taken + during + after) == 3
    everything = taken + during + after
    assert set(stage.begin(db, everything)) == {m["token"] for m in everything}
    assert stage.report(db, everything) == ["advanced"] * 3
    versions = stage.every(db, "select distinct version_id from pgdrip.enrollments")
    assert len(versions) == 1
    assert stage.violations(db) == []


def test_a_publication_that_meets_an_open_claim_moves_the_others_at_once(
    db: Db, connect: Connect
) -> None:
    stage.sender(db, rate_per_hour=80, burst=10)
    stage.sequence(db, in_flight="migrate")
    stage.leads(db, 3)
    runner, author = connect(), stage.never_waits(connect())
    with runner.transaction():
        [taken] = stage.claim(runner, 1)
        assert publish(author, "New") == "published"
    assert taken["body"] == "One"
    assert stage.begin(db, [taken]) == [taken["token"]]
    assert {m["body"] for m in stage.claim(db)} == {"New"}
    assert stage.report(db, [taken]) == ["advanced"]
    assert stage.violations(db) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("enroll('WARM Sequence', 1)", "enroll('WARM Sequence', 1)"),
        ("enroll('WARM Sequence', 1)", "add_trigger(1, 'WARM')"),
        ("add_trigger(1, 'WARM')", "enroll('WARM Sequence', 1)"),
        ("add_trigger(1, 'WARM')", "add_trigger(1, 'WARM')"),
    ],
)
def test_two_sessions_enroll_one_contact_once(
    db: Db, connect: Connect, first: str, second: str
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db, trigger=None)
    one, other = connect(), connect()
    one.execute("begin")
    assert call(one, f"select pgdrip.{first}") == 1
    told = waits_for(db, one, other, stage.every, f"select pgdrip.{second} as id")
    assert told in ([{"id": 1}], [])
    assert len(stage.live(db)) == 1
    assert stage.violations(db) == []


def test_a_sweep_passes_by_a_contact_that_is_being_enrolled(
    db: Db, connect: Connect
) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db, trigger=None)
    db.execute(
        "insert into pgdrip.contact_triggers (contact_id, trigger) values (1, 'WARM')"
    )
    client, runner = connect(), stage.never_waits(connect())
    with client.transaction():
        assert call(client, "select pgdrip.enroll('WARM Sequence', 1)") == 1
        assert call(runner, "select pgdrip.enroll_waiting()") == 0
    assert call(runner, "select pgdrip.enroll_waiting()") == 0
    assert len(stage.live(db)) == 1


# Nobody locks anybody out

MANY = int(os.environ.get("CHAOS_TURNS", "100"))
PEOPLE = 8


def test_whoever_is_stored_while_being_erased_is_somebody_new(
    db: Db, connect: Connect
) -> None:
    erased = stage.lead(db, 1, None)
    operator, app = connect(), connect()
    operator.execute("begin")
    assert call(operator, f"select pgdrip.erase_contact({erased}, 'asked to')")
    stored = waits_for(
        db, operator, app, call, f"select pgdrip.upsert_contact('{PHONE}')"
    )
    assert stored > erased


# Half a minute of the server is half an hour here: leases run out and retries fall due.
FAST_CLOCK = """
create or replace function pgdrip.clock() returns timestamptz language plpgsql stable
as $$ begin
  return now() + (clock_timestamp() - pg_postmaster_start_time()) * 3600;
end $$
"""
# Of what somebody claimed; and of one's own, in any order.
HELD = """
select array_agg(h.enrollment_id), array_agg(h.token) into v_ids, v_tokens
  from (select d.enrollment_id, d.token from pgdrip.due as d
         where d.lease_until is not null order by random() limit 4) as h;
"""
CLAIM = """
select array_agg(m.enrollment_id), array_agg(m.token) into v_ids, v_tokens
  from (select c.enrollment_id, c.token from pgdrip.claim('a runner', 3) as c
         order by random()) as m;
commit;
"""
AGAIN = """
commit;
begin
  perform pgdrip.remove_trigger(v_any, 'WARM');
exception when sqlstate 'MD001' then  -- erased
end;
commit;
begin
  perform pgdrip.add_trigger(v_any, 'WARM');
exception when sqlstate 'MD001' then
end;
"""
# One turn of each kind of caller; v_any and v_other are contacts.
TURNS = {
    "claim": CLAIM
    + "if v_ids is not null then perform pgdrip.release(v_ids, v_tokens); end if;",
    "begin": CLAIM
    + HELD
    + "if v_ids is not null then perform pgdrip.begin_send(v_ids, v_tokens); end if;",
    "report": CLAIM
    + HELD
    + """
if v_ids is not null then
  perform pgdrip.report(v_ids, v_tokens,
    array(select (array['sent', 'failed', 'uncertain'])[1 + floor(random() * 3)]
            from unnest(v_ids)), null,
    array(select (array['transient', 'sender'])[1 + floor(random() * 2)]
            from unnest(v_ids)));
end if;"""
    + AGAIN,
    "pause": """
perform pgdrip.pause_enrollment(e.enrollment_id, 'x') from pgdrip.enrollments as e
  where e.contact_id = v_any and e.status = 'active';
commit;
perform pgdrip.resume_enrollment(e.enrollment_id) from pgdrip.enrollments as e
  where e.contact_id = v_any and e.status = 'active';""",
    "pause sequence": """
perform pgdrip.pause_sequence('WARM Sequence', 'x');
commit;
perform pgdrip.resume_sequence('WARM Sequence', random() < 0.5);""",
    "pause sender": """
perform pgdrip.pause_sender('device-0001', 'x');
commit;
perform pgdrip.resume_sender('device-0001');""",
    "exit": """
perform pgdrip.exit_enrollment(e.enrollment_id, 'x')
   from (select d.enrollment_id from pgdrip.due as d order by random() limit 1) as e;"""
    + AGAIN,
    "suppress": """
perform pgdrip.suppress(c.phone, 'x') from pgdrip.contacts as c
  where c.contact_id = v_any;
commit;
perform pgdrip.unsuppress(c.phone, 'x') from pgdrip.contacts as c
  where c.contact_id = v_any;"""
    + AGAIN,
    "erase": """
perform pgdrip.erase_contact(c.contact_id, 'x')
   from (select c.contact_id from pgdrip.contacts as c where c.erased_at is null
          order by random() limit 1) as c;
commit;
perform pgdrip.add_trigger(
  pgdrip.upsert_contact('+6011' || lpad(v_any::text, 7, '0')), 'WARM');""",
    "enroll": AGAIN,
    "sweep": """
insert into pgdrip.contact_triggers (contact_id, trigger)
values (v_any, 'WARM'), (v_other, 'WARM') on conflict do nothing;
commit;
perform pgdrip.enroll_waiting();
perform pgdrip.maintain();""",
    "failover": "perform pgdrip.failover(1000, pgdrip.clock());",
    "publish": """
perform pgdrip.apply_sequence(jsonb_set(
  (select v.definition from pgdrip.sequence_versions as v
    order by v.version_id desc limit 1),
  '{steps,0,body}', to_jsonb('Text ' || random())));""",
}
TRACES = "select sum(last_value) from pg_sequences where schemaname = 'pgdrip'"
MEETINGS = [
    ("claim", "claim"),
    ("claim", "pause"),
    ("claim", "exit"),
    ("claim", "suppress"),
    ("report", "report"),
    ("report", "claim"),
    ("report", "exit"),
    ("begin", "suppress"),
    ("enroll", "enroll"),
    ("publish", "claim"),
    ("report", "pause sequence"),
    ("report", "pause sender"),
    ("report", "sweep"),
    ("report", "failover"),
    ("claim", "failover"),
    ("claim", "erase"),
    ("report", "erase"),
    ("enroll", "erase"),
]


def crowd(db: Db) -> None:
    """People in two sequences by one word, over a limited and an unlimited sender."""
    db.execute(FAST_CLOCK.encode())
    stage.sender(db, failover_after="1 s")
    stage.sender(db, "device-0002", rate_per_hour=100_000, burst=1000)
    options = {"on_uncertain": "retry", "max_attempts": 100, "backoff": "1 second"}
    steps = [
        {"day": day, "body": f"Day {day}", "delay": "0 s"} | options
        for day in range(1, 6)
    ]
    for name in ("WARM Sequence", "WARM News"):
        stage.sequence(
            db, name, steps=steps, reentry={"after": "1 s"}, in_flight="migrate"
        )
    for number in range(1, PEOPLE + 1):
        stage.lead(db, number, p_sender=f"device-000{1 + number % 2}")


def take_turns(db: Db, kind: str, times: int) -> None:
    db.execute(
        f"""
        do $do$
        declare v_ids bigint[]; v_tokens bigint[]; v_any bigint; v_other bigint;
        begin
          for i in 1 .. {times} loop
            v_any := 1 + floor(random() * {PEOPLE});
            v_other := 1 + floor(random() * {PEOPLE});
            {TURNS[kind]}
            commit;
          end loop;
        end $do$
        """.encode()
    )


def meet(db: Db, connect: Connect, one: str, other: str, times: int = MANY) -> None:
    """So many turns of each side by side; psycopg.Error where they lock each other."""
    crowd(db)
    first, second = connect(), connect()
    with stage.meanwhile(take_turns, first, one, times) as done:
        take_turns(second, other, times)
    done.result()


@pytest.mark.parametrize(("one", "other"), MEETINGS)
def test_turns_side_by_side_never_deadlock(
    db: Db, connect: Connect, one: str, other: str
) -> None:
    meet(db, connect, one, other)
    assert call(db, TRACES) > MANY
    assert stage.violations(db) == []
