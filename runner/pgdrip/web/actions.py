"""What people do here: each one call of an API function, with a note of who asked."""

from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from pgdrip.engine import Engine
from pgdrip.errors import EngineRefused
from pgdrip.web.visit import Form, Visit, number_in, text

Call = Callable[[Engine], Awaitable[object]]
MOST = 200  # of one bulk


async def act(visit: Visit) -> Response:
    """Do what the form says and go back to where it was."""
    name = visit.request.path_params["action"]
    form = await visit.form()
    if name in BULK:
        said = await _each(visit, name, form)
    elif name in SINGLE:
        said = await _one(visit, name, form)
    else:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    visit.tallying.changed()
    return visit.back(text(form, "back"), said)


async def _one(visit: Visit, name: str, form: Form) -> str:
    subject = text(form, "subject")
    what = " ".join(filter(None, [name.replace("-", " "), subject]))
    try:
        is_change = await _noted(visit, what, SINGLE[name](form))
    except EngineRefused as error:
        return f"Refused: {error.message}"
    return f"Done: {what}." if is_change else f"Nothing to do: {what}."


async def _each(visit: Visit, name: str, form: Form) -> str:
    """Every one by itself: what is refused leaves the others alone."""
    ids, call = BULK[name]
    ticked = map(number_in, form.get(ids, []))
    chosen = [one for one in ticked if one is not None][:MOST]
    if not chosen:
        return "Nothing was ticked."
    if not text(form, "sure"):
        return "Nothing was done: tick that you are sure."
    told: Counter[str] = Counter()
    for one in chosen:
        try:
            done = await _noted(visit, f"{name} {one}", call(form, one))
            told["done" if done else "nothing to do"] += 1
        except EngineRefused as error:
            told[f"refused, {error.message}"] += 1
    return "; ".join(f"{number} {what}" for what, number in told.most_common(5))


async def _noted(visit: Visit, what: str, call: Call) -> object:
    """The call and a line in the audit that says who asked, both or neither."""
    by = visit.viewer.name

    async def work(engine: Engine) -> object:
        async with engine.transaction():
            done = await call(engine)
            if done:
                await engine.note("page", what, f"by {by}")
            return done

    return await visit.run(work)


def _pause_sequence(form: Form) -> Call:
    return lambda engine: engine.pause_sequence(text(form, "subject"), _reason(form))


def _resume_sequence(form: Form) -> Call:
    return lambda engine: engine.resume_sequence(
        text(form, "subject"), keep_remaining=bool(text(form, "keep_remaining"))
    )


def _pause_sender(form: Form) -> Call:
    return lambda engine: engine.pause_sender(text(form, "subject"), _reason(form))


def _resume_sender(form: Form) -> Call:
    return lambda engine: engine.resume_sender(text(form, "subject"))


def _pause_enrollment(form: Form) -> Call:
    return lambda engine: engine.pause_enrollment(_id(form), _reason(form))


def _resume_enrollment(form: Form) -> Call:
    return lambda engine: engine.resume_enrollment(_id(form))


def _exit_enrollment(form: Form) -> Call:
    return lambda engine: engine.exit_enrollment(_id(form), _reason(form))


def _pause_all(form: Form) -> Call:
    return lambda engine: engine.pause_all(_reason(form))


def _resume_all(form: Form) -> Call:
    return lambda engine: engine.resume_all()


def _resolve(form: Form, token: int) -> Call:
    return lambda engine: engine.resolve_uncertain(token, text(form, "outcome"))


def _retry(form: Form, enrollment: int) -> Call:
    return lambda engine: engine.retry_failed(enrollment, _reason(form))


def _reason(form: Form) -> str:
    return text(form, "reason")


def _id(form: Form) -> int:
    if (found := number_in(text(form, "subject"))) is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    return found


SINGLE: dict[str, Callable[[Form], Call]] = {
    "pause-sequence": _pause_sequence,
    "resume-sequence": _resume_sequence,
    "pause-sender": _pause_sender,
    "resume-sender": _resume_sender,
    "pause-enrollment": _pause_enrollment,
    "resume-enrollment": _resume_enrollment,
    "exit-enrollment": _exit_enrollment,
    "pause-everything": _pause_all,
    "resume-everything": _resume_all,
}
# With the field that holds the ids.
BULK: dict[str, tuple[str, Callable[[Form, int], Call]]] = {
    "resolve": ("token", _resolve),
    "retry": ("enrollment", _retry),
}
