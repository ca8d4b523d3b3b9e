"""What providers tell: `pgdrip serve` takes their webhooks and tells the database.

    POST /hooks/<provider> ─ limits ─ body ─ signature ─ events ─ database ─ answer

Each provider is one file that knows two things: whether a request is its own, and what
the request says in the words of `events`. The database functions make duplicates and
disorder harmless, so that whatever may have been lost is answered 503 and comes again.

Answers: 200 taken (unknown messages too: who asks learns nothing) · 400 not readable ·
401 not signed by the provider · 408 too slow · 413 too large · 415 another content type
or encoding · 429 too many · 503 no database.

Needs the extra `serve`.
"""
