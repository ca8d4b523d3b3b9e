"""The operator page: what goes on, as people look at it, served by `pgdrip serve`.

    GET  ─ access ─ visit ─ page ─ public views, counts of tally() ─ template ─ HTML
    POST ─ access ─ CSRF ─ action ─ one API function and a note in the audit ─ 303

Whatever a page shows comes from indexed look-ups and from what `tallying` counted
beforehand, on a connection of its own and with a bounded share of its time. Pages work
without scripts; with them they refresh by htmx and show times in the viewer's zone.

Needs the extra `web`.
"""
