"""What the engine does a second, against the least that PostgreSQL must do for it.

`make bench` runs every figure, `make bench ONLY="import"` those whose name holds one of
the words; docs/performance.md says how to read what they print.
"""
