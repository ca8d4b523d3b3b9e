"""The life of one contact: what it got, where it stands, why, and what comes next."""

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from pgdrip.engine import Engine
from pgdrip.errors import EngineRefused
from pgdrip.query import rows_of, value_of, view
from pgdrip.web.visit import Row, Visit, number_in, text


async def ask_for(visit: Visit) -> Response:
    """A form to find somebody; no address in a URL, where logs would keep it."""
    now, _ = await visit.ask()
    return visit.show("find.html", now=now, address="", said_no=None)


async def find(visit: Visit) -> Response:
    """On to the contact with the id or address that was asked for."""
    sought = text(await visit.form(), "address")
    if (contact := number_in(sought)) is not None:
        return visit.back(f"/contact?id={contact}", "")
    try:
        [[row]] = (await visit.ask(value_of("find_contact", address=sought)))[1]
    except EngineRefused as error:
        return await _not_found(visit, sought, error.message)
    [contact] = row.values()
    if contact is None:
        return await _not_found(visit, sought, "No contact has this address.")
    return visit.back(f"/contact?id={contact}", "")


async def _not_found(visit: Visit, sought: str, why: str) -> Response:
    now, _ = await visit.ask()
    return visit.show("find.html", now=now, address=sought, said_no=why)


async def show(visit: Visit) -> Response:
    return await life(visit, contact_id(visit.parameter("id")))


async def reveal(visit: Visit) -> Response:
    """The same page with addresses in clear, once; the audit tells who saw them."""
    await visit.form()
    contact = contact_id(visit.parameter("id"))
    by = visit.viewer.name

    async def work(engine: Engine) -> None:
        await engine.note("reveal", f"contact {contact}", f"on the page, by {by}")

    await visit.run(work)
    return await life(visit, contact, is_clear=True)


async def life(visit: Visit, contact: int, *, is_clear: bool = False) -> Response:
    now, [details, steps, reasons] = await visit.ask(
        view("contact_details", where={"contact_id": contact}),
        view(
            "contact_steps",
            where={"contact_id": contact},
            order="enrollment_id, step",
            limit=1000,
        ),
        rows_of("explain_contact", contact=contact),
    )
    if not details:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such contact.")
    sequence = visit.parameter("simulate")
    foreseen: list[Row] | None = None
    if sequence:
        call = rows_of("simulate", sequence=sequence, start=now, contact=contact)
        foreseen = (await visit.ask(call))[1][0]
    sequences = (await visit.ask(view("sequence_overview", order="sequence")))[1][0]
    return visit.show(
        "contact.html",
        now=now,
        contact=details[0],
        is_clear=is_clear,
        runs=runs(steps, reasons),
        sequences=[
            row["sequence"] for row in sequences if row["pool"] == details[0]["pool"]
        ],
        simulated=sequence,
        foreseen=foreseen,
    )


def contact_id(given: str) -> int:
    if (found := number_in(given)) is not None:
        return found
    raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such contact.")


def runs(steps: list[Row], reasons: list[Row]) -> list[dict[str, Any]]:
    """Each enrollment with its explanation and its steps, the latest first; then the
    sequences whose words it carries without being in them."""
    found = []
    for reason in reversed(reasons):
        own = [row for row in steps if row["enrollment_id"] == reason["enrollment_id"]]
        found.append({"reason": reason, "steps": own, "end": own[0] if own else None})
    return found
