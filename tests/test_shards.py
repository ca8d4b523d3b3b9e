"""Several databases behind one router: a call finds its shard, only its own fail."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from commands import on, told
from databases import Databases
from sharding import Cluster, bucket_of, cluster, phone, phones_in
from stage import every, one

DEFINITIONS = """\
kind: sender
name: everywhere
channel: log
---
kind: sender
name: device-1
channel: webhook
rate_per_hour: 80
---
kind: sender
name: device-2
channel: webhook
rate_per_hour: 80
---
kind: sender
name: device-3
channel: webhook
rate_per_hour: 80
---
kind: sequence
name: WARM
trigger: WARM
channel: log
status: active
steps:
  - {day: 1, body: One}
  - {day: 3, delay: 12 hours, body: Three}
"""

WARM = {
    **{"name": "WARM", "trigger": "WARM", "channel": "log", "status": "active"},
    "steps": [
        {"day": 1, "body": "One"},
        {"day": 3, "delay": "12 hours", "body": "Three"},
    ],
}


@pytest.fixture(scope="module")
def shared(
    server: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with cluster(server) as found:
        file = tmp_path_factory.mktemp("definitions") / "all.yaml"
        file.write_text(DEFINITIONS)
        done = found.pgdrip("shard", "apply", file)
        assert done.exit_code == 0, done.output
        yield found


@pytest.fixture
def three(shared: Cluster) -> Cluster:
    """Three shards that nobody is in yet."""
    shared.empty()
    return shared


def test_every_shard_gets_as_many_buckets(three: Cluster) -> None:
    rows = every(
        three.router,
        "select shard, count(*) as n from pgdrip.buckets group by 1 order by 1",
    )
    assert [row["n"] for row in rows] == [342, 341, 341]


def test_a_contact_lives_in_the_shard_of_its_bucket_and_its_id_says_so(
    three: Cluster,
) -> None:
    ids = [three.lead(number) for number in range(30)]
    assert {id >> 40 for id in ids} == {1, 2, 3}
    assert [three.where(id) for id in ids] == [id >> 40 for id in ids]
    assert [three.lead(number) for number in range(30)] == ids


def enrolled(three: Cluster, count: int, *, first: int = 0) -> list[int]:
    """Contacts in WARM, through the router; the enrollments."""
    return [
        int(three.ask("select pgdrip.add_trigger(%s, 'WARM')", [three.lead(number)]))
        for number in range(first, first + count)
    ]


def error(three: Cluster, query: str, parameters: object = None) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as raised:
        three.ask(query, parameters)
    return raised.value


def test_senders_with_limits_live_in_one_shard_and_all_else_in_every_one(
    three: Cluster,
) -> None:
    query = "select name from pgdrip.senders where name like %s"
    limited = [
        row["name"]
        for rows in three.everywhere(query, ["device%"]).values()
        for row in rows
    ]
    assert sorted(limited) == ["device-1", "device-2", "device-3"]
    assert all(len(rows) == 1 for rows in three.everywhere(query, ["device%"]).values())
    assert all(three.everywhere(query, ["everywhere"]).values())
    assert all(three.everywhere("select from pgdrip.sequences").values())
    hashes = three.everywhere("select pgdrip.config_hash() as hash")
    assert len({rows[0]["hash"] for rows in hashes.values()}) == 1


def test_the_functions_of_the_router_have_the_arguments_of_the_shards(
    three: Cluster,
) -> None:
    query = (
        "select proname, pg_get_function_arguments(oid) as arguments,"
        "       pg_get_function_result(oid) as result from pg_catalog.pg_proc"
        " where pronamespace = 'pgdrip'::regnamespace"
        "   and proname in (select name from pgdrip.routes())"
    )
    here = every(three.router, query)
    there = every(
        three.shards[1],
        query.replace("select name from pgdrip.routes()", "select unnest(%s::name[])"),
        [[row["proname"] for row in here]],
    )
    key = str
    assert len(here) > 40
    assert sorted(map(key, here)) == sorted(map(key, there))


def test_roles_may_call_on_the_router_what_they_may_call_on_a_shard(
    three: Cluster,
) -> None:
    query = (
        "select proname, r.rolname from pg_catalog.pg_proc as p"
        " cross join pg_catalog.pg_roles as r"
        " where p.pronamespace = 'pgdrip'::regnamespace and proname = any (%s)"
        "   and r.rolname ~ '^pgdrip_(reader|runner|app|operator)$'"
        "   and has_function_privilege(r.oid, p.oid, 'execute') order by 1, 2"
    )
    routes = every(
        three.router,
        "select name from pgdrip.routes() as r join pg_catalog.pg_proc as p"
        "    on p.pronamespace = 'pgdrip'::regnamespace and p.proname = r.name",
    )
    names = [row["name"] for row in routes]
    here = every(three.router, query, [names])
    assert len(here) > 50
    assert here == every(three.shards[1], query, [names])
    with three.router.transaction(force_rollback=True):
        three.router.execute("set local role pgdrip_reader")
        assert one(three.router, "select due_now from pgdrip.queue_health")
    for role, call in (
        ("reader", "pgdrip.each_failures()"),
        ("operator", "shards.enroll(0, 'WARM', 1)"),
        ("operator", "pgdrip.add_shard(9, '', '')"),
        ("operator", "pgdrip.buckets"),
    ):
        with three.router.transaction(force_rollback=True):
            three.router.execute(f"set local role pgdrip_{role}".encode())
            found = error(three, f"select from {call}")
            assert found.sqlstate == "42501", call


def test_what_is_on_the_router_is_commented_and_pins_its_path(three: Cluster) -> None:
    functions = (
        "select proname from pg_catalog.pg_proc"
        " where pronamespace = 'pgdrip'::regnamespace"
        "   and (obj_description(oid, 'pg_proc') is null or not"
        "   coalesce(proconfig, '{}') @> array['search_path=pg_catalog, pg_temp'])"
    )
    assert every(three.router, functions) == []
    relations = (
        "select relname from pg_catalog.pg_class where relkind in ('r', 'v')"
        "   and relnamespace = 'pgdrip'::regnamespace"
        "   and obj_description(oid, 'pg_class') is null"
    )
    assert every(three.router, relations) == []


def test_calls_by_an_id_go_to_its_shard(three: Cluster) -> None:
    for enrollment in enrolled(three, 9):
        assert three.ask("select pgdrip.pause_enrollment(%s, 'a test')", [enrollment])
        assert three.ask("select pgdrip.resume_enrollment(%s)", [enrollment])
        assert not three.ask("select pgdrip.resume_enrollment(%s)", [enrollment])
        assert three.ask("select pgdrip.exit_enrollment(%s, 'a test')", [enrollment])
    contact = three.lead(0)
    why = one(three.router, "select * from pgdrip.explain_contact(%s)", [contact])
    assert (why["sequence"], why["status"]) == ("WARM", "exited")


def test_an_error_of_a_shard_is_told_as_the_shard_tells_it(three: Cluster) -> None:
    found = error(three, "select pgdrip.enroll('nothing', %s)", [three.lead(0)])
    assert (found.sqlstate, found.diag.message_primary, found.diag.message_hint) == (
        "MD001",
        "no sequence is named 'nothing'",
        "select name from pgdrip.sequences lists them.",
    )
    found = error(three, "select pgdrip.upsert_contact('what')")
    assert (found.sqlstate, str(found.diag.message_primary)[:14]) == (
        "22023",
        "phone 'what' i",
    )
    assert (
        error(three, "select pgdrip.explain_contact(%s)", [7 << 40]).sqlstate == "MD001"
    )


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("claim('runner-1')", "Runners connect straight to their shard"),
        ("tick('runner-1', '1')", "Runners connect straight to their shard"),
        ("apply_sender('{}')", "pgdrip shard apply"),
        ("resolve_uncertain(1, 'sent')", "Connect to the shard that is meant"),
    ],
)
def test_what_is_for_a_shard_alone_the_router_refuses(
    three: Cluster, call: str, hint: str
) -> None:
    found = error(three, f"select pgdrip.{call}")
    assert found.sqlstate == "MD003"
    assert str(found.diag.message_hint).startswith(hint)


def test_an_address_is_suppressed_in_every_shard(three: Cluster) -> None:
    assert three.ask("select pgdrip.suppress(%s, 'asked to')", [phone(1)])
    assert not three.ask("select pgdrip.suppress(%s, 'asked to')", [phone(1)])
    query = "select count(*) as n from pgdrip.suppressions"
    assert three.sums(query) == 3
    found = error(three, "select pgdrip.enroll('WARM', %s)", [three.lead(1)])
    assert found.sqlstate == "MD004"
    assert three.ask("select pgdrip.unsuppress(%s, 'asked to')", [phone(1)])
    assert three.sums(query) == 0


def test_a_reply_ends_what_is_in_flight_and_stop_suppresses_everywhere(
    three: Cluster,
) -> None:
    enrolled(three, 3)
    reply = "select pgdrip.record_reply('log', %s, %s)"
    assert three.ask(reply, [phone(0), "yes"]) == 1
    assert three.ask(reply, [phone(1), "STOP"]) == 1
    assert three.ask(reply, [phone(9), "who is this"]) == 0
    assert three.sums("select count(*) from pgdrip.suppressions") == 3
    assert three.sums("select count(*) from pgdrip.due") == 1


def test_one_person_with_two_addresses_is_one_contact(three: Cluster) -> None:
    """Whichever of them came first and is asked for later."""
    by_mail = three.lead(0, p_phone=None, p_email="Jane@example.com")
    both = three.lead(1, p_email="jane@example.com")
    assert (both, three.lead(1)) == (by_mail, by_mail)
    by_phone = three.lead(2)
    assert three.lead(2, p_email="joe@example.com") == by_phone
    assert three.lead(0, p_phone=None, p_email="JOE@example.com") == by_phone
    assert three.ask("select pgdrip.find_contact('joe@example.com')") == by_phone
    enrolled(three, 1, first=2)
    reply = "select pgdrip.record_reply('log', 'joe@example.com', 'hello')"
    assert three.ask(reply) == 1
    found = error(
        three,
        "select pgdrip.upsert_contact(%s, 'jane@example.com')",
        [phone(2)],
    )
    assert found.sqlstate == "MD003"
    assert three.sums("select count(*) from pgdrip.contacts") == 2


@pytest.mark.parametrize("way", ["upsert_contact", "import_contacts"])
def test_an_address_that_a_contact_gave_up_is_that_of_a_new_one_in_its_own_bucket(
    three: Cluster, way: str
) -> None:
    """Else that one would stay behind when the bucket of the other moves."""
    mail = next(
        mail
        for mail in (f"u{n}@example.com" for n in range(100))
        if bucket_of(mail) % 3 != bucket_of(phone(0)) % 3
    )
    first = three.lead(0, p_email=mail)
    assert three.lead(0, p_email="other@example.com") == first
    if way == "upsert_contact":
        second = three.lead(0, p_phone=None, p_email=mail)
    else:
        people = [{"email": mail}, {"phone": phone(1), "email": "new@example.com"}]
        people += [{"email": "new@example.com"}]
        query = "select contact_id from pgdrip.import_contacts(%s) order by line"
        rows = every(three.router, query, [Jsonb(people)])
        second, _, twice = (row["contact_id"] for row in rows)
        assert twice is None  # and not somebody else in another shard
    assert second >> 40 == bucket_of(mail) % 3 + 1
    assert three.lead(0, p_phone=None, p_email=mail) == second
    assert three.pgdrip("shard", "status", "--count").exit_code == 0


def test_a_batch_is_imported_by_bucket_and_answered_by_line(three: Cluster) -> None:
    people = [{"phone": phone(n), "triggers": ["WARM"]} for n in range(20)]
    rows = every(
        three.router,
        "select * from pgdrip.import_contacts(%s)",
        [Jsonb([*people, {"phone": "what"}, {"name": "nobody"}])],
    )
    by_line = {row["line"]: row for row in rows}
    assert sorted(by_line) == list(range(1, 23))
    assert {by_line[n]["contact_id"] >> 40 for n in range(1, 21)} == {1, 2, 3}
    assert by_line[21]["reason"].startswith("phone 'what'")
    assert by_line[22]["reason"] == "phone and email must not both be missing"
    assert three.ask("select pgdrip.enroll_waiting(100)") == 20


def test_a_report_is_split_by_shard_and_answered_in_order(three: Cluster) -> None:
    enrolled(three, 20)
    query = "select enrollment_id, token from pgdrip.claim('runner-1')"
    claimed = [row for rows in three.everywhere(query).values() for row in rows]
    claimed = sorted(claimed, key=lambda row: int(row["token"]))
    assert len(claimed) == 20
    ids = [row["enrollment_id"] for row in claimed]
    assert ids != sorted(ids)
    rows = every(
        three.router,
        "select token, verdict from pgdrip.report(%s::bigint[], %s::bigint[], %s)",
        [[*ids, 5 << 40], [*(row["token"] for row in claimed), 1], ["sent"] * 21],
    )
    assert [row["token"] for row in rows] == [*(row["token"] for row in claimed), 1]
    assert [row["verdict"] for row in rows] == ["advanced"] * 20 + ["unknown"]
    found = error(
        three, "select pgdrip.report(%s::bigint[], '{1}', '{sent}')", [ids[:2]]
    )
    assert found.sqlstate == "22023"
    assert (
        error(three, "select pgdrip.report(null, '{1}', '{sent}')").sqlstate == "22004"
    )


def test_a_receipt_finds_the_shard_of_its_message(three: Cluster) -> None:
    enrolled(three, 6)
    ids = []
    for number, db in three.shards.items():
        for row in every(db, "select enrollment_id, token from pgdrip.claim('one')"):
            ids.append(f"{number}-{row['token']}")
            every(
                db,
                "select pgdrip.report(array[%s], array[%s], '{sent}', array[%s])",
                [row["enrollment_id"], row["token"], ids[-1]],
            )
    receipt = "select pgdrip.record_receipt('log', %s, 'read')"
    assert [three.ask(receipt, [id]) for id in ids] == [True] * 6
    assert not three.ask(receipt, ["early"])
    assert three.sums("select count(*) from pgdrip.receipts") == 3


def test_what_is_seen_is_the_sum_of_the_shards(three: Cluster) -> None:
    enrolled(three, 12)
    health = one(three.router, "select * from pgdrip.queue_health")
    assert (health["due_now"], health["missing_shards"]) == (12, [])
    [first, third] = every(
        three.router, "select * from pgdrip.sequence_funnel order by step"
    )
    assert (first["active"], third["upcoming"], first["missing_shards"]) == (12, 12, [])
    load = every(three.router, "select * from pgdrip.sender_load")
    assert sorted((row["sender"], row["shard"]) for row in load if row["backlog"]) == [
        ("everywhere", 1),
        ("everywhere", 2),
        ("everywhere", 3),
    ]
    assert every(three.router, "select * from pgdrip.check()") == []
    assert three.ask("select pgdrip.pause_all('a test')")
    assert one(three.router, "select is_paused from pgdrip.queue_health")["is_paused"]
    assert three.ask("select pgdrip.resume_all()")


def test_one_shard_down_stops_its_own_contacts_only(three: Cluster) -> None:
    contacts = [three.lead(number) for number in range(12)]
    own = next(id for id in contacts if id >> 40 == 2)
    with three.down(2):
        for contact in contacts:
            if contact >> 40 == 2:
                found = error(three, "select pgdrip.enroll('WARM', %s)", [contact])
                assert (found.sqlstate, found.diag.message_primary) == (
                    "08006",
                    "shard 2 does not answer",
                )
                assert "call again" in str(found.diag.message_hint)
            else:
                assert three.ask("select pgdrip.enroll('WARM', %s)", [contact])
        health = one(three.router, "select * from pgdrip.queue_health")
        assert health["missing_shards"] == [2]
        assert health["due_now"] == sum(id >> 40 != 2 for id in contacts)
        missing = every(three.router, "select invariant, detail from pgdrip.check()")
        assert missing == [
            {"invariant": "SHARD_MISSING", "detail": "shard 2 does not answer"}
        ]
        found = error(three, "select pgdrip.suppress(%s, 'asked to')", [phone(99)])
        assert found.sqlstate == "08006"
        assert three.shards[1].execute("select from pgdrip.suppressions").rowcount == 1
        line = told(three.pgdrip("shard", "status", "--json"), 4)
        assert line.startswith("shard 2: ")
    assert three.ask("select pgdrip.suppress(%s, 'asked to')", [phone(99)])
    assert three.ask("select pgdrip.enroll('WARM', %s)", [own])
    assert three.pgdrip("shard", "status").exit_code == 0


def test_an_erased_person_leaves_no_address_in_any_shard(three: Cluster) -> None:
    contact = three.lead(0, p_email="jane@example.com")
    three.ask("select pgdrip.suppress('jane@example.com', 'asked to')")
    assert three.ask("select pgdrip.erase_contact(%s, 'asked to')", [contact])
    assert three.sums("select count(*) from pgdrip.suppressions") == 0
    assert three.sums("select count(*) from pgdrip.erased_suppressions") == 3
    assert every(three.router, "select from pgdrip.second_addresses") == []
    again = three.lead(7, p_phone=None, p_email="jane@example.com")
    assert error(three, "select pgdrip.enroll('WARM', %s)", [again]).sqlstate in (
        "MD004",
        "MD003",
    )


def test_status_names_what_differs_and_apply_makes_it_follow(three: Cluster) -> None:
    assert three.pgdrip("shard", "status", "--count").exit_code == 0
    three.shards[2].execute("delete from pgdrip.error_rules where code = 'http_404'")
    three.shards[3].execute("select pgdrip.suppress('jane@example.com', 'told one')")
    three.shards[1].execute(
        "insert into pgdrip.contacts (phone, bucket) values ('+60112223334', 1)"
    )
    status = three.pgdrip("shard", "status", "--count")
    assert status.exit_code == 7
    assert status.stderr.splitlines() == [
        "pgdrip: shard 1: 1 contacts of buckets that live elsewhere",
        "pgdrip: shard 2: it is configured otherwise (pgdrip shard apply)",
        "pgdrip: shard 3: it is configured otherwise (pgdrip shard apply)",
        "pgdrip: 3 things wrong",
    ]
    three.shards[1].execute("delete from pgdrip.contacts")
    done = three.pgdrip("shard", "apply", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"applied": [], "followed": [2]}
    assert three.pgdrip("shard", "status", "--count").exit_code == 0
    jane = three.lead(0, p_phone=None, p_email="jane@example.com")
    found = error(three, "select pgdrip.enroll('WARM', %s)", [jane])
    assert found.sqlstate == "MD004"


def test_a_sender_goes_where_it_is_and_its_group_along(
    three: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "group.yaml"
    members = "".join(
        f"---\nkind: sender\nname: member-{n}\nchannel: webhook\ngroup: account\n"
        for n in range(3)
    )
    file.write_text(f"kind: group\nname: account\nrate: 9\nper: 1 second\n{members}")
    done = json.loads(three.pgdrip("shard", "apply", file, "--json").stdout)
    placed = {one["shard"] for one in done["applied"] if one["kind"] == "sender"}
    assert len(placed) == 1
    again = json.loads(three.pgdrip("shard", "apply", file, "--json").stdout)
    assert {one["outcome"] for one in again["applied"]} == {"unchanged"}
    assert {
        one["shard"] for one in again["applied"] if one["kind"] == "sender"
    } == placed
    file.write_text("kind: sender\nname: everywhere\nchannel: log\nrate_per_hour: 9\n")
    line = told(three.pgdrip("shard", "apply", file), 3)
    assert "sender 'everywhere' has had no limits and is in every shard" in line


@pytest.fixture
def operator(server: Databases) -> Iterator[str]:
    """A login that is an operator and nothing more."""
    name = f"router_{uuid4().hex}"
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f"create role {name} login in role pgdrip_operator".encode())
        yield name
        db.execute(f"drop role {name}".encode())


def test_a_new_shard_follows_the_others_and_is_empty_until_something_moves(
    server: Databases, operator: str
) -> None:
    """The router logs in as an operator; who adds a shard and moves, as its owner."""
    with cluster(server, shards=1) as found, server.clone() as late:
        found.shards[1].execute("select pgdrip.apply_sequence(%s)", [Jsonb(WARM)])
        contacts = [found.lead(number) for number in range(5)]
        dsn = make_conninfo(late, user=operator)
        assert told(found.pgdrip("shard", "add", "7", dsn), 8)
        owner = ["--user", "postgres"]
        done = found.pgdrip("shard", "add", "7", dsn, *owner)
        assert done.exit_code == 0, done.stderr
        rows = json.loads(found.pgdrip("shard", "status", "--json", *owner).stdout)
        assert [(row["shard"], row["buckets"]) for row in rows] == [(1, 1024), (7, 0)]
        assert len({row["config"] for row in rows}) == 1
        buckets = {bucket_of(phone(number)) for number in range(5)}
        listed = ",".join(map(str, buckets))
        done = found.pgdrip("shard", "move", listed, "--to", "7", "--json", *owner)
        moved = json.loads(done.stdout)
        assert sum(one["contacts"] for one in moved) == 5
        assert [found.lead(number) for number in range(5)] == contacts
        new = phones_in(bucket_of(phone(0)), 2)[1]
        both = found.lead(0, p_phone=new, p_email="jane@example.com")
        assert both >> 40 == 7
        assert (
            found.ask("select pgdrip.record_reply('log', %s, 'STOP')", [phone(99)]) == 0
        )
        assert not found.ask("select pgdrip.record_receipt('log', 'ref', 'read')")
        assert found.ask("select pgdrip.erase_contact(%s, 'asked to')", [both])
        assert found.ask("select due_now from pgdrip.queue_health") == 0
        assert every(found.router, "select * from pgdrip.check()") == []
        assert told(found.pgdrip("shard", "add", "8", late), 1).startswith(
            "this database is shard 7 and in use"
        )


def test_a_shard_whose_addition_was_broken_off_is_added_whole_the_next_time(
    server: Databases,
) -> None:
    """It is in the map by then, without buckets and without the configuration."""
    with cluster(server, shards=1) as found, server.clone() as late:
        found.shards[1].execute("select pgdrip.apply_sequence(%s)", [Jsonb(WARM)])
        key = found.ask("select pgdrip.shared_key()")
        counts = "select count(*) from pgdrip.buckets group by shard order by shard"
        for shard, dsn, buckets in ((1, found.dsns[1], [1024]), (2, late, [512, 512])):
            found.router.execute("delete from pgdrip.buckets where %s = 1", [shard])
            every(
                found.router, "select pgdrip.add_shard(%s, %s, %s)", [shard, dsn, key]
            )
            done = found.pgdrip("shard", "add", str(shard), dsn)
            assert done.stdout == f"shard {shard} was there\n", done.output
            assert [row["count"] for row in every(found.router, counts)] == buckets
        rows = json.loads(found.pgdrip("shard", "status", "--json").stdout)
        assert len({row["config"] for row in rows}) == 1


def test_a_password_does_not_get_into_the_map(three: Cluster) -> None:
    for key in ("password", "sslpassword"):
        dsn = f"{three.dsns[1]} {key}=topsecret"
        line = told(three.pgdrip("shard", "add", "9", dsn), 3)
        assert line.startswith("a password does not belong into the map")


def test_a_shard_is_no_router_and_becomes_none(three: Cluster) -> None:
    on_shard = on(three.dsns[1])
    assert told(on_shard("shard", "status"), 2).startswith("this database is no router")
    assert told(on_shard("shard", "init"), 2).startswith("this database holds contacts")


def test_the_statements_of_a_move_can_be_read_beforehand(three: Cluster) -> None:
    shown = three.pgdrip("shard", "move", "7", "--to", "2", "--show-sql").stdout
    assert (
        "-- router\nselect * from pgdrip.begin_move(p_bucket => 7, p_to => 2);" in shown
    )
    assert shown.index("remove_bucket") < shown.index("end_move")
    assert every(three.router, "select from pgdrip.moves") == []
    assert told(three.pgdrip("shard", "move", "7"), 2)
    assert told(three.pgdrip("shard", "move", "9999", "--to", "1"), 2)


def test_the_statements_of_the_other_commands_can_be_read(three: Cluster) -> None:
    added = three.pgdrip("shard", "add", "9", three.dsns[1], "--show-sql").stdout
    assert added.index("pgdrip.set_shard(") < added.index("pgdrip.add_shard(")
    assert every(three.router, "select from pgdrip.shards where shard = 9") == []
    shown = three.pgdrip("shard", "status", "--show-sql").stdout
    assert [row["shard"] for row in every(three.router, shown)] == [1, 2, 3]
