"""The operator page in a real browser: people, keyboards, narrow screens, both themes.

Pictures of every page are left in build/screenshots.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from psycopg.rows import dict_row

import hooks
import stage
from databases import CHECKOUT, Databases
from pgdrip.web.access import Access
from stage import Db
from test_web import TOKEN, app, uncertain

PICTURES = CHECKOUT / "build" / "screenshots"
SEQUENCE = "/sequence?name=WARM%20Sequence"
PAGES = {
    "now": "/",
    "sequences": "/sequences",
    "sequence": SEQUENCE,
    "senders": "/senders",
    "sender": "/sender?name=device-0001",
    "find": "/find",
    "contact": "/contact?id=1&simulate=WARM%20Sequence",
    "uncertain": "/uncertain",
    "failures": "/failures",
}
HOSTILE = "</td><script>document.title='owned'</script><img src=x onerror=alert(1)>"
LOOKS = [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        remedy = "no browser: apt-get install chromium"
        if os.environ.get("PGDRIP_ALL_EXTENSIONS"):
            pytest.fail(remedy, pytrace=False)
        pytest.skip(remedy)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def played(server: Databases) -> Iterator[str]:
    """Forty people half-way through a sequence; then some whose send is uncertain, one
    whose send failed, and a name that means harm."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        stage.sender(db, rate_per_hour=80)
        stage.sender(db, "device-0002", rate_per_hour=80, rate_per_day=30)
        stage.sender(db, "device-0003")
        db.execute("select pgdrip.pause_sender('device-0003', 'being charged')")
        stage.sequence(db)
        stage.leads(db, 40)
        for minutes in (1, 60, 700, 1, 30):
            stage.deliver(db, 20)
            advance(db, minutes)
        stage.sender(db, "page-1", pool="page")
        stage.sequence(db, "Page", trigger="PAGE", pool="page")
        for number in range(101, 104):
            stage.lead(db, number, "PAGE", p_pool="page", p_name=HOSTILE)
        uncertain(db)
        stage.lead(db, 104, "PAGE", p_pool="page")
        stage.report(db, stage.claim(db), "failed", "content")
        yield dsn


def advance(db: Db, minutes: int) -> None:
    db.execute(
        "select pgdrip.set_clock(pgdrip.clock() + %s)", [timedelta(minutes=minutes)]
    )


@pytest.fixture(scope="module")
def address(played: str) -> Iterator[str]:
    with hooks.served(app(played, Access(TOKEN))) as served:
        yield f"http://127.0.0.1:{served.port}"


@pytest.fixture
def db(played: str) -> Iterator[Db]:
    with psycopg.connect(played, autocommit=True, row_factory=dict_row) as db:
        yield db


@contextmanager
def looking(
    chromium: Browser, address: str, *, scheme: str = "light", width: int = 1280
) -> Iterator[Page]:
    """A page of somebody who has logged in; what the browser complains of fails."""
    context = chromium.new_context(
        base_url=address,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": 900},
        timezone_id="Asia/Kuala_Lumpur",
        locale="en-GB",
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto("/login?to=/")
    page.get_by_label("Your name").fill("Aisyah")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Now")).to_be_visible()
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    with looking(chromium, address) as page:
        yield page


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_fits_is_accessible_and_leaves_a_picture(
    chromium: Browser, address: str, scheme: str, width: int
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with looking(chromium, address, scheme=scheme, width=width) as page:
        for name, path in PAGES.items():
            page.goto(path)
            expect(page.get_by_text("for the first time")).to_have_count(
                0, timeout=20_000
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            page.screenshot(
                path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True
            )
            found = Axe().run(page).response["violations"]
            grave = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(name, one["id"], one["nodes"]) for one in grave] == []


def test_a_sequence_is_paused_and_resumed_by_keyboard(page: Page) -> None:
    page.goto(SEQUENCE)
    opener = page.locator("summary", has_text="Pause…")
    opener.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("a typo in step 3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(
        "Done: pause sequence WARM Sequence."
    )
    expect(page.get_by_text("a typo in step 3")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text("resume sequence")
    expect(page.locator(".states .state")).to_have_text("active")


def test_an_uncertain_send_is_resolved_and_the_number_follows(page: Page) -> None:
    tile = page.locator(".tiles div", has_text="Uncertain").locator("a")
    expect(tile).not_to_have_text("0", timeout=20_000)
    before = int(tile.inner_text())
    tile.click()
    page.locator("input[name=token]").first.check()
    page.get_by_label("It was sent").check()
    page.get_by_label("I am sure").check()
    page.get_by_role("button", name="Settle").click()
    expect(page.get_by_role("status")).to_have_text("1 done")
    expect(page.locator("input[name=token]")).to_have_count(before - 1)
    page.goto("/")
    expect(tile).to_have_text(str(before - 1), timeout=20_000)


def test_the_page_refreshes_itself_and_can_be_told_not_to(page: Page, db: Db) -> None:
    due = page.locator(".tiles div", has_text="Due now").locator("dd").first
    before = int(due.inner_text())
    stage.lead(db, 105, "PAGE", p_pool="page")
    expect(due).to_have_text(str(before + 1), timeout=20_000)
    switch = page.get_by_role("button", name="Live")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_event("request", lambda request: "after=" in request.url):
        # Longer than the page waits between two looks.
        page.evaluate("setTimeout(() => fetch('/livez?after=7s'), 7000)")
    assert [url for url in asked if "after=" not in url] == []


def test_what_means_harm_is_text(page: Page, db: Db) -> None:
    row = stage.one(
        db, "select contact_id from pgdrip.contacts where pool = 'page' limit 1"
    )
    page.goto(f"/contact?id={row['contact_id']}&simulate={quote('Page')}")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    assert "owned" not in page.title()
    assert page.locator("img[src=x]").count() == 0


def test_times_are_in_the_zone_of_the_browser(page: Page) -> None:
    expect(page.locator("footer")).to_contain_text("Asia/Kuala_Lumpur")
    page.goto("/contact?id=1")
    shown = page.locator("td time").first
    assert re.search(r"\+08:00$", shown.get_attribute("datetime") or "")


def test_without_scripts_everything_still_works(
    chromium: Browser, address: str
) -> None:
    context = chromium.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("Your name").fill("Mei")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Pause everything…").click()
    page.get_by_label("Reason").fill("a look")
    page.get_by_role("button", name="Pause everything").click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    page.reload()
    page.goto("/")
    resume = page.get_by_role("button", name="Resume everything")
    for _ in range(100):
        if resume.count():
            break
        page.wait_for_timeout(200)
        page.reload()
    resume.click()
    expect(page.get_by_role("status")).to_contain_text("Done: resume everything")
    context.close()
