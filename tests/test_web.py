"""The operator page: who may see it and act, what it shows, and what the audit says."""

import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from click.testing import CliRunner

import hooks
import stage
from conftest import Clock
from hooks import FORM, Answer, Served
from pgdrip.cli import main
from pgdrip.errors import ConfigurationError
from pgdrip.inbound.app import create_app
from pgdrip.inbound.settings import Settings
from pgdrip.web.access import COOKIE, SESSION_SECONDS, Access
from pgdrip.web.app import PAGES, page_routes
from pgdrip.web.tallying import Tallying
from stage import Db

TOKEN = "a-token-of-good-length-5f0c9a"
SINGLE = {"/sequence", "/sender", "/contact"}  # pages of one thing
LISTS = [path for path in PAGES if path not in SINGLE]
ALL = (
    *LISTS,
    "/sequence?name=WARM%20Sequence",
    "/sender?name=device-0001",
    "/contact?id=1&simulate=WARM%20Sequence",
)
FIND = '<button class="do">Find</button>'
HOSTILE = "<script>alert(1)</script>\u202e{{phone}}\"'&"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_TOKEN", TOKEN)


def app(dsn: str, access: Access) -> Any:
    tallying = Tallying(dsn)
    routes = page_routes(access, tallying)
    return create_app(Settings(dsn=dsn), routes=routes, work=tallying.run)


@pytest.fixture
def served(dsn: str) -> Iterator[Served]:
    """With a token."""
    with hooks.served(app(dsn, Access(TOKEN))) as found:
        yield found


@pytest.fixture
def open_(dsn: str) -> Iterator[Served]:
    """Without any, for this machine only."""
    with hooks.served(app(dsn, Access())) as found:
        yield found


class Browser:
    """Keeps cookies, and fills in forms of the page it saw last."""

    def __init__(self, served: Served, **headers: str) -> None:
        self.served = served
        self.headers = headers
        self.cookies: dict[str, str] = {}
        self.html = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, form: Any, **headers: str) -> Answer:
        body = urlencode(form, doseq=True).encode()
        return self._ask("POST", path, body, {"Content-Type": FORM} | headers)

    def log_in(self, name: str = "Aisyah", token: str = TOKEN) -> Answer:
        return self.post("/login", {"name": name, "token": token, "to": "/senders"})

    def act(self, action: str, page: str = "/", **form: Any) -> str:
        """Do it as the form on the page would; what is said then."""
        self.get(page)
        answer = self.post(f"/do/{action}", {"csrf": self.csrf(), "back": page} | form)
        assert answer.status == 303, answer.body
        self.get(answer.headers["location"])
        [said] = re.findall(r'role="status">(.*?)</p>', self.html)
        return unescape(re.sub("<.*?>", "", said))

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.html)
        return found[1] if found else ""

    def text(self) -> str:
        return re.sub(r"\s+", " ", unescape(re.sub("<.*?>", " ", self.html)))

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        sent = self.headers | {key.replace("_", "-"): v for key, v in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        answer = self.served.ask(method, path, body, sent)
        cookie = answer.headers.get("set-cookie", "")
        if cookie:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.html = answer.body.decode() if method == "GET" or body else self.html
        return answer


@pytest.fixture
def browser(served: Served) -> Browser:
    browser = Browser(served)
    assert browser.log_in().status == 303
    return browser


def fleet(db: Db, people: int = 1, **sequence: Any) -> None:
    stage.sender(db)
    stage.sequence(db, **sequence)
    stage.leads(db, people)


def uncertain(db: Db) -> list[int]:
    """The tokens of sends that began and were never reported."""
    messages = stage.claim(db)
    stage.begin(db, messages)
    stage.report(db, messages, "uncertain")
    return [message["token"] for message in messages]


def audit(db: Db) -> list[tuple[str, str, str | None]]:
    """What was done since the definitions were applied."""
    rows = stage.every(
        db,
        "select * from pgdrip.audit where action in"
        " ('page', 'reveal', 'paused') order by audit_id",
    )
    return [(row["action"], row["object"], row["reason"]) for row in rows]


def until(look: Callable[[], bool], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


# Who may see it


def test_on_loopback_everybody_may_look_and_nobody_act(db: Db, open_: Served) -> None:
    fleet(db)
    browser = Browser(open_)
    for path in ALL:
        assert browser.get(path).status == 200, path
        assert 'class="do"' not in browser.html.replace(FIND, ""), path
        assert "Show addresses" not in browser.html
    browser.get("/find")
    form = {"csrf": browser.csrf(), "subject": "WARM Sequence", "reason": "x"}
    assert browser.post("/do/pause-sequence", form).status == 403
    assert browser.post("/contact?id=1", {"csrf": browser.csrf()}).status == 403
    assert audit(db) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example.com"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"X-Forwarded-Host": "drip.example.com"},
        {"X-Forwarded-Proto": "https"},
        {"Via": "1.1 proxy"},
    ],
)
def test_what_comes_from_elsewhere_through_loopback_sees_nothing(
    open_: Served, headers: dict[str, str]
) -> None:
    assert open_.ask("GET", "/", headers=headers).status == 403


def test_what_comes_as_nginx_says_it_untold_sees_nothing(open_: Served) -> None:
    with open_.wire() as wire:
        wire.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert b" 403 " in wire.recv(100)


def test_with_a_token_nothing_is_seen_before_the_login(served: Served) -> None:
    browser = Browser(served)
    for path in ALL:
        answer = browser.get(path)
        assert answer.status == 303
        assert answer.headers["location"] == f"/login?to={quote(path, safe='')}"
    assert browser.get("/login").status == 200
    assert browser.post("/do/pause-everything", {"reason": "x"}).status == 403


def test_a_wrong_token_or_no_name_is_refused(served: Served) -> None:
    assert Browser(served).log_in(token="another-token-of-length").status == 403
    assert Browser(served).log_in(name=" ").status == 403


def test_who_guesses_tokens_is_slowed_down(served: Served) -> None:
    found = [Browser(served).log_in(token="guess").status for _ in range(8)]
    assert found[0] == 403
    assert 429 in found


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(
    served: Served,
) -> None:
    browser = Browser(served)
    answer = browser.log_in()
    cookie = answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/senders"
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert browser.get("/").status == 200


def test_a_forged_or_old_session_has_to_log_in_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(served)
    browser.log_in()
    genuine = browser.cookies[COOKIE]
    for forged in (genuine[1:], f"{genuine}0", "." + genuine, "é.é", ""):
        browser.cookies[COOKIE] = quote(forged)
        assert browser.get("/").status == 303, forged
    stranger = Access("another-token-of-good-length")
    browser.cookies[COOKIE] = stranger.log_in("another-token-of-good-length", "E") or ""
    assert browser.get("/").status == 303
    browser.cookies[COOKIE] = genuine
    assert browser.get("/").status == 200
    later = time.time() + SESSION_SECONDS + 1
    monkeypatch.setattr("pgdrip.web.access.time.time", lambda: later)
    assert browser.get("/").status == 303


def test_after_the_logout_the_page_is_closed(browser: Browser) -> None:
    browser.get("/")
    assert browser.post("/logout", {"csrf": browser.csrf()}).status == 303
    assert browser.get("/").status == 303


@pytest.mark.parametrize("trusted", [True, False])
def test_only_a_trusted_proxy_names_its_users(dsn: str, db: Db, trusted: bool) -> None:
    fleet(db)
    access = Access(user_header="X-Remote-User")
    proxies = ("127.0.0.1" if trusted else "192.0.2.1",)
    with hooks.served(app(dsn, access), trusted_proxies=proxies) as served:
        forwarded = {"X-Remote-User": "mei", "X-Forwarded-For": "203.0.113.7"}
        browser = Browser(served, **forwarded)
        if not trusted:
            assert browser.get("/").status == 403
            return
        said = browser.act(
            "pause-sequence",
            "/sequence?name=WARM%20Sequence",
            subject="WARM Sequence",
            reason="holidays",
        )
        assert said == "Done: pause sequence WARM Sequence."
        assert audit(db)[-1] == ("page", "pause sequence WARM Sequence", "by mei")
        assert Browser(served).get("/").status == 403  # a user it did not name


def test_who_adds_a_user_to_that_of_the_proxy_is_not_let_in(dsn: str) -> None:
    access = Access(user_header="X-Remote-User")
    with (
        hooks.served(app(dsn, access), trusted_proxies=("127.0.0.1",)) as served,
        served.wire() as wire,
    ):
        users = b"X-Remote-User: admin\r\nX-Remote-User: mei\r\n"
        wire.sendall(b"GET /find HTTP/1.1\r\nHost: a.example\r\n" + users + b"\r\n")
        assert b" 403 " in wire.recv(100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host": "0.0.0.0"}, "open to everybody"),
        ({"user_header": "X-Remote-User"}, "needs a trusted proxy"),
        ({"token": "WEAK"}, "less than 16"),
        ({"token": "MISSING"}, "not set"),
    ],
)
def test_a_page_that_strangers_could_enter_does_not_start(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEAK", "short")
    settings: dict[str, Any] = {"token": None, "user_header": None, "host": "127.0.0.1"}
    with pytest.raises(ConfigurationError, match=message):
        Access.configured(**settings | given, has_proxy=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "open to everybody"),
        ("--page-user-header X-User --trusted-proxy *", "needs a trusted proxy"),
    ],
)
def test_serve_refuses_an_open_page_with_exit_3(
    dsn: str, options: str, told: str
) -> None:
    command = ["--dsn", dsn, *"serve --page --address 0.0.0.0:0".split()]
    done = CliRunner().invoke(main, command + options.split())
    assert (done.exit_code, told in done.output) == (3, True)


# Forms


def test_a_form_of_another_site_changes_nothing(db: Db, browser: Browser) -> None:
    fleet(db)
    other = Browser(browser.served)
    other.log_in("Mei")
    other.get("/")
    form = {"subject": "WARM Sequence", "reason": "x", "back": "/"}
    browser.get("/")
    for csrf in ("", "0" * 64, other.csrf(), "é"):
        answer = browser.post("/do/pause-sequence", form | {"csrf": csrf})
        assert answer.status == 403
    browser.get("/")
    form["csrf"] = browser.csrf()
    for site in ("cross-site", "same-site", "none"):
        answer = browser.post("/do/pause-sequence", form, Sec_Fetch_Site=site)
        assert answer.status == 403
    assert audit(db) == []
    assert browser.post("/do/pause-sequence", form).status == 303
    assert len(audit(db)) == 2


def test_after_an_action_the_way_leads_back_to_a_page_of_ours(browser: Browser) -> None:
    browser.get("/")
    form = {"csrf": browser.csrf()}
    for back in ("https://evil.example", "//evil.example", "/\\evil.example", "x"):
        answer = browser.post("/do/resume-everything", form | {"back": back})
        assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x=" + b"1" * 300_000, FORM, 413),
        (b"{}", "application/json", 415),
        (b"x=\xff%ff", FORM, 400),
        (b"a&" * 3000, FORM, 400),
    ],
)
def test_what_is_no_form_is_refused(
    browser: Browser, body: bytes, kind: str, status: int
) -> None:
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    headers = {"Content-Type": kind, "Cookie": cookie}
    answer = browser.served.ask("POST", "/do/resume-everything", body, headers)
    assert answer.status == status


def test_an_action_that_is_none_is_not_found(browser: Browser) -> None:
    browser.get("/")
    answer = browser.post("/do/drop-everything", {"csrf": browser.csrf()})
    assert answer.status == 404


# What is done


def test_a_sequence_is_paused_and_resumed_with_the_name_in_the_audit(
    db: Db, browser: Browser
) -> None:
    fleet(db)
    page = "/sequence?name=WARM%20Sequence"
    subject = {"subject": "WARM Sequence"}
    said = browser.act("pause-sequence", page, reason="a typo", **subject)
    assert said == "Done: pause sequence WARM Sequence."
    assert "a typo" in browser.text()
    assert browser.act("pause-sequence", page, reason="again", **subject).startswith(
        "Nothing to do"
    )
    assert browser.act("resume-sequence", page, **subject).startswith("Done")
    assert audit(db) == [
        ("paused", "sequence 'WARM Sequence'", "a typo"),
        ("page", "pause sequence WARM Sequence", "by Aisyah"),
        ("page", "resume sequence WARM Sequence", "by Aisyah"),
    ]


def test_everything_senders_and_enrollments_are_paused_resumed_and_ended(
    db: Db, browser: Browser
) -> None:
    fleet(db)
    why = {"reason": "because"}
    for action, subject in (
        ("pause-everything", ""),
        ("resume-everything", ""),
        ("pause-sender", "device-0001"),
        ("resume-sender", "device-0001"),
        ("pause-enrollment", "1"),
        ("resume-enrollment", "1"),
        ("exit-enrollment", "1"),
    ):
        assert browser.act(action, subject=subject, **why).startswith("Done"), action
    by_page = [line[1] for line in audit(db) if line[0] == "page"]
    assert len(by_page) == 7
    assert stage.one(db, "select status from pgdrip.enrollments")["status"] == "exited"


def test_what_the_database_refuses_is_told_and_leaves_no_note(
    db: Db, browser: Browser
) -> None:
    said = browser.act("pause-sequence", subject="No Such", reason="x")
    assert said == "Refused: no sequence is named 'No Such'"
    fleet(db)
    said = browser.act("pause-sequence", subject="WARM Sequence", reason=" ")
    assert said.startswith("Refused: p_reason")
    assert audit(db) == []


def test_uncertain_sends_are_resolved_in_bulk_each_by_itself(
    db: Db, browser: Browser
) -> None:
    fleet(db, 3)
    first, second, third = uncertain(db)
    db.execute("select pgdrip.resolve_uncertain(%s, 'sent')", [third])
    browser.get("/uncertain")
    assert browser.html.count('name="token"') == 2
    chosen = {"token": [first, second, third, 2**52], "outcome": "sent"}
    said = browser.act("resolve", "/uncertain", **chosen)
    assert said == "Nothing was done: tick that you are sure."
    said = browser.act("resolve", "/uncertain", sure="yes", **chosen)
    assert said.startswith("2 done; 1 refused, the delivery with token")
    assert "Nothing is uncertain." in browser.text()
    steps = stage.every(db, "select step from pgdrip.due")
    assert [row["step"] for row in steps] == [3, 3, 3]
    assert ("page", f"resolve {first}", "by Aisyah") in audit(db)


def test_failed_enrollments_are_retried_in_bulk(db: Db, browser: Browser) -> None:
    fleet(db, 2)
    stage.report(db, stage.claim(db), "failed", "content")
    browser.get("/failures")
    ids = re.findall(r'name="enrollment" value="(\d+)"', browser.html)
    assert len(ids) == 2
    said = browser.act(
        "retry", "/failures", enrollment=ids, sure="yes", reason="mended"
    )
    assert said == "2 done"
    assert len(stage.live(db)) == 2
    assert 'name="enrollment"' not in browser.html


# What is shown


def test_every_page_stands_on_an_empty_database(browser: Browser) -> None:
    for path in LISTS:
        assert browser.get(path).status == 200, path


@pytest.mark.parametrize(
    "path",
    ["/sequence?name=x", "/sender?name=x", "/contact?id=7", "/contact?id=%C2%B2"],
)
def test_what_is_not_there_is_not_found(browser: Browser, path: str) -> None:
    assert browser.get(path).status == 404


def test_nothing_on_a_page_needs_more_than_the_policy_allows(
    db: Db, browser: Browser
) -> None:
    fleet(db)
    uncertain(db)
    for path in ALL:
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert re.findall(r"<script(?![^>]* src=)", browser.html) == []
        assert re.findall(r"<[^>]* (?:style|on\w+)=", browser.html) == []
        assert re.findall(r'(?:src|href)="(?:https?:)?//', browser.html) == []
        assert answer.headers["cache-control"] == "no-store"


def test_hostile_names_and_texts_are_shown_as_text(db: Db, browser: Browser) -> None:
    name = "</script>'\"><img src=x onerror=alert(1)>"
    stage.sender(db, name)
    stage.sequence(
        db, name, steps=[{"day": 1, "body": "<b>{{name}}</b><script>x()</script>"}]
    )
    stage.lead(db, p_name="x")
    db.execute("update pgdrip.contacts set name = %s", [HOSTILE])
    stage.report(db, stage.claim(db), "failed", "content")
    paths = ["/sequences", "/failures", f"/sequence?name={quote(name)}"]
    paths += [f"/contact?id=1&simulate={quote(name)}", "/senders"]
    until(lambda: browser.get("/senders") is not None and name in browser.text())
    paths.append(f"/sender?name={quote(name)}")
    for path in paths:
        assert browser.get(path).status == 200, path
        assert "<img src=x" not in browser.html
        assert "alert(1)</script>" not in browser.html
        assert "\u202e" not in browser.html
        assert name in browser.text() or path == "/failures"


def test_addresses_are_masked_until_somebody_asks_who_is_noted(
    db: Db, browser: Browser
) -> None:
    fleet(db)
    uncertain(db)
    for path in (*ALL, "/contact?id=1"):
        browser.get(path)
        assert "+60110000001" not in browser.html, path
    browser.get("/contact?id=1")
    browser.post("/contact?id=1", {"csrf": browser.csrf()})
    assert "+60110000001" in browser.html
    assert 'name="back" value="/contact?id=1"' in browser.html
    assert audit(db)[-1] == ("reveal", "contact 1", "on the page, by Aisyah")
    browser.get("/contact?id=1")
    assert "+60110000001" not in browser.html


def test_a_name_that_is_an_address_is_masked_as_one(db: Db, browser: Browser) -> None:
    stage.lead(db, p_name="+60198765432")
    browser.get("/contact?id=1")
    assert "+60198765432" not in browser.html
    browser.post("/contact?id=1", {"csrf": browser.csrf()})
    assert "+60198765432" in browser.html


def test_a_contact_is_found_by_address_or_id(db: Db, browser: Browser) -> None:
    fleet(db)
    for sought in ("+60110000001", "1"):
        browser.get("/find")
        answer = browser.post("/find", {"csrf": browser.csrf(), "address": sought})
        assert answer.headers["location"] == "/contact?id=1"
    browser.get("/find")
    answer = browser.post("/find", {"csrf": browser.csrf(), "address": "+60110000009"})
    assert answer.status == 200
    assert "no contact" in browser.text().lower()


def test_the_life_of_a_contact_says_why_and_what_comes_next(
    db: Db, clock: Clock, browser: Browser
) -> None:
    fleet(db)
    stage.deliver(db)
    browser.get("/contact?id=1&simulate=WARM%20Sequence")
    assert "due in 12 h" in browser.text()
    assert re.search(r"Day 1 Sent .*Day 3 Scheduled", browser.text())
    assert browser.text().count("Three") == 1  # what the simulation would send


def test_times_are_those_of_the_viewers_zone(db: Db, browser: Browser) -> None:
    fleet(db)
    stage.deliver(db)
    browser.get("/contact?id=1")
    assert "5 Jan 09:00:00" in browser.text()
    browser.cookies["pgdrip_zone"] = quote("Asia/Kuala_Lumpur", safe="")
    browser.get("/contact?id=1")
    assert "5 Jan 17:00:00" in browser.text()
    browser.cookies["pgdrip_zone"] = "..%2F..%2Fetc%2Fpasswd"
    browser.get("/contact?id=1")
    assert "5 Jan 09:00:00" in browser.text()


def test_numbers_on_the_first_page_follow_what_happens(
    db: Db, clock: Clock, browser: Browser
) -> None:
    def shows(words: str) -> bool:
        browser.get("/")
        return words in browser.text()

    until(lambda: shows("Due now 0"))
    fleet(db, 3)
    until(lambda: shows("Due now 3"))
    stage.deliver(db, 2)
    assert shows("2 sent")  # the history has no need to be counted first
    until(lambda: shows("Due now 1"))
    assert shows("every invariant holds")
    browser.act("pause-everything", reason="a look")
    until(lambda: shows("Nothing is handed out."))


def test_the_funnel_shows_who_got_how_far(
    db: Db, clock: Clock, browser: Browser
) -> None:
    fleet(db, 4)
    stage.deliver(db, 3)
    clock.set(clock.now().replace(hour=10))

    def shown() -> bool:
        browser.get("/sequence?name=WARM%20Sequence")
        return "Day 1 3 0 0 0 0 1 0 Day 3 0 0 0 0 0 3 0" in browser.text()

    until(shown)
    assert "1 newest 4" in browser.text()


def test_senders_are_filtered_sorted_and_paged(db: Db, browser: Browser) -> None:
    for number in range(130):
        stage.sender(db, f"device-{number:04}", pool=f"pool-{number % 2}")
    db.execute("select pgdrip.pause_sender('device-0128', 'being charged')")

    def listed(query: str) -> list[str]:
        browser.get(f"/senders?{query}")
        return re.findall(r"<bdi>(device-\d+)</bdi>", browser.html)

    until(lambda: len(listed("")) == 100)
    assert listed("page=1") == [f"device-{number:04}" for number in range(100, 130)]
    assert listed("name=-001&pool=pool-1") == [
        f"device-{n:04}" for n in (11, 13, 15, 17, 19)
    ]
    until(lambda: listed("sort=trouble")[0] == "device-0128")
    assert listed("state=paused") == ["device-0128"]
    assert listed("page=99") == []
    browser.get("/senders")
    assert browser.html.count('class="l0 ') == 130  # all of them in the grid


def test_a_sender_that_retires_is_shown_as_retiring(db: Db, browser: Browser) -> None:
    fleet(db)
    stage.begin(db, stage.claim(db))
    stage.sender(db, "device-0002")
    db.execute("select pgdrip.retire_sender('device-0001', 'default')")
    browser.get("/senders")
    until(lambda: browser.get("/senders").status != 200 or "retiring" in browser.text())
    assert "retiring" in browser.text()
    assert browser.get("/sender?name=device-0001").status == 200
    assert "resume-sender" not in browser.html


@pytest.mark.parametrize(
    "path",
    ["/sender?name=%00", "/sequence?name=%00", "/contact?id=1&simulate=%00"],
)
def test_a_text_that_cannot_be_is_no_fault_of_ours(
    db: Db, browser: Browser, path: str
) -> None:
    fleet(db)
    assert browser.get(path).status == 400


def test_an_address_that_cannot_be_is_of_nobody(browser: Browser) -> None:
    browser.get("/find")
    answer = browser.post("/find", {"csrf": browser.csrf(), "address": "\0"})
    assert (answer.status, "not valid" in browser.text()) == (200, True)


def test_without_a_database_the_page_says_so(empty: str) -> None:
    lost = psycopg.conninfo.make_conninfo(empty, dbname="nothing_here")
    with hooks.served(app(lost, Access())) as served:
        answer = served.ask("GET", "/")
    assert answer.status in (500, 503)
    assert b"nothing_here" in answer.body
