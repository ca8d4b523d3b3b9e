"""What no schema can say of a definition: order of steps, branches, templates."""

import re
from collections.abc import Iterator
from typing import Any

Contradiction = tuple[str, str]
"""The path of what is wrong, such as `steps[2].day`, and why."""

TEXTS = ("body", "subject", "html", "media", "template")
FIELDS = ("name", "phone", "email")
VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")


def contradictions(kind: str, content: dict[str, Any]) -> Iterator[Contradiction]:
    """Yield what is wrong in a definition of the right shape."""
    content = _given(content)
    match kind:
        case "sequence":
            yield from _sequence(content)
        case "sender":
            yield from _sender(content)
        case "group" if ("rate" in content) != ("per" in content):
            given = "rate" if "rate" in content else "per"
            yield given, "rate and per belong together"


def _given(value: Any) -> Any:
    """The value without keys that are null: they say nothing."""
    if isinstance(value, dict):
        return {key: _given(one) for key, one in value.items() if one is not None}
    return [_given(one) for one in value] if isinstance(value, list) else value


def _sequence(content: dict[str, Any]) -> Iterator[Contradiction]:
    days: list[int] = []
    for number, step in enumerate(content["steps"], 1):
        path = f"steps[{number}]"
        day = int(step["day"])
        if days and day <= days[-1]:
            yield f"{path}.day", f"day {day} follows day {days[-1]} (they must grow)"
        days.append(day)
        yield from _step(step, path)
    for number, step in enumerate(content["steps"], 1):
        for branch in ("then", "else"):
            goal = step.get("wait_for", {}).get(branch)
            if goal is not None and int(goal) not in days[number:]:
                yield (
                    f"steps[{number}].wait_for.{branch}",
                    f"{branch} goes to day {goal}, which is no later step",
                )


def _step(step: dict[str, Any], path: str) -> Iterator[Contradiction]:
    strict = step.get("on_missing", "fail") == "fail"
    texts = [(path, step)]
    if "variants" in step:
        for key in TEXTS:
            if key in step:
                yield f"{path}.{key}", f"{path} has variants, so no {key} of its own"
        texts = [
            (f"{path}.variants[{number}]", one)
            for number, one in enumerate(step["variants"], 1)
        ]
    for place, one in texts:
        if re.search(r"[\x00-\x1f\x7f]", one.get("subject", "")):
            yield f"{place}.subject", f"{place}.subject must be one line"
        for key in TEXTS:
            for inner, text in _texts(one.get(key), f"{place}.{key}"):
                is_plain = key in ("body", "subject")
                for reason in _template(text, is_plain=is_plain, strict=strict):
                    yield inner, f"{inner}: {reason}"


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text within a value, with its path."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, inner in value.items():
                yield from _texts(inner, f"{path}.{key}")
        case list():
            for number, inner in enumerate(value, 1):
                yield from _texts(inner, f"{path}[{number}]")


def _template(text: str, *, is_plain: bool, strict: bool) -> Iterator[str]:
    left = VARIABLE.sub("", text)
    if "{{" in left or (is_plain and "}}" in left):
        yield "{{ without }} or }} without {{ (write {{name}} or {{name|there}})"
    for inner in VARIABLE.findall(text):
        name, bar, _ = inner.partition("|")
        name = name.strip(" ")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            yield f"{{{{{inner}}}}} has no plain name (letters, digits and underscores)"
        elif strict and not bar and (field := _misspelt(name)):
            yield f"{{{{{name}}}}} is misspelt (did you mean {{{{{field}}}}}?)"


def _misspelt(variable: str) -> str | None:
    """The known field that a variable differs from by a slip of the finger."""
    word = variable.lower()
    for field in FIELDS:
        if variable == field:
            return None
    for field in FIELDS:
        if word == field or sorted(word) == sorted(field) or _one_letter(word, field):
            return field
    return None


def _one_letter(word: str, field: str) -> bool:
    """Whether one letter less, more or other makes the field of the word."""
    if abs(len(word) - len(field)) > 1:
        return False
    start = 0
    while start < min(len(word), len(field)) and word[start] == field[start]:
        start += 1
    rest, other = word[start:], field[start:]
    return rest[1:] == other or rest == other[1:] or rest[1:] == other[1:]


def _sender(content: dict[str, Any]) -> Iterator[Contradiction]:
    burst = int(content.get("burst", 1))
    if burst > 1 and int(content.get("rate_per_hour", 0)) < burst:
        yield "burst", "burst is larger than rate_per_hour"
    if content.get("hours", {"zone": "UTC"}).get("zone", "contact") == "contact":
        yield "hours", "hours need a zone of their own, as Asia/Kuala_Lumpur"
    ramp = content.get("ramp")
    if ramp is not None:
        days = [day for day in ramp if re.fullmatch(r"[1-9][0-9]{0,3}", day)]
        rates = [int(ramp[day]) for day in sorted(days, key=int)]
        if len(days) < len(ramp) or "1" not in ramp:
            yield "ramp", "ramp maps days of age to hourly rates, from day 1"
        elif rates != sorted(set(rates)):
            yield "ramp", "the rates of ramp must grow with the days"
    for key in content.get("config", {}):
        if re.search("passw|secret|token|api_?key|credential|authorization", key, re.I):
            yield (
                f"config.{key}",
                f"config.{key} looks like a credential"
                " (put it into the environment or a file, its name under secret)",
            )
