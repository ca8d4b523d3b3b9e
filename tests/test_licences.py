"""What users install is free to use: the licence of each package pgdrip needs."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

EXTRAS = ("embedded", "metrics", "phones", "serve", "web")
PERMISSIVE = re.compile(r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|ISC|MPL)\b")
# Used as a library, unchanged: https://www.psycopg.org/psycopg3/docs/basic/install.html
WEAK_COPYLEFT = {"psycopg": "LGPL", "psycopg-binary": "LGPL"}


def needed(
    name: str, extras: tuple[str, ...], seen: set[str]
) -> Iterator[Distribution]:
    """A package and all that it needs, each once."""
    found = distribution(name)
    for text in found.requires or ():
        one = Requirement(text)
        wanted = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if one.marker and not any(one.marker.evaluate(each) for each in wanted):
            continue
        if one.name not in seen:
            seen.add(one.name)
            yield from needed(one.name, tuple(one.extras), seen)
            yield distribution(one.name)


def licence(found: Distribution) -> str:
    about = found.metadata
    classifiers = about.get_all("Classifier") or []
    told = [
        text[:80]
        for field in ("License-Expression", "License")
        for text in about.get_all(field) or []
    ]
    told += [line for line in classifiers if line.startswith("License ::")]
    return " / ".join(told)


def test_every_package_needed_is_permissive_or_a_library_used_as_such() -> None:
    licences = {
        found.metadata["Name"].lower(): licence(found)
        for found in needed("pgdrip", EXTRAS, {"pgdrip"})
    }
    assert len(licences) > 20
    odd = {
        name: told
        for name, told in licences.items()
        if not PERMISSIVE.search(told)
        and not (name in WEAK_COPYLEFT and WEAK_COPYLEFT[name] in told)
    }
    assert odd == {}
