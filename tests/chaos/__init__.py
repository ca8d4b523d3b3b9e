"""Chaos: real runners between a database that crashes and a gateway that lies.

Around one PostgreSQL of its own: a proxy that every runner has to go through, several
`pgdrip run` processes under a supervisor that starts again what died, a gateway that
writes down what it accepted, a clock that runs faster than ours, and an injector.
Whoever enrolls keeps a list of what was acknowledged.

    server     PostgreSQL that is crashed and started again
    proxy      the network between runners and database
    gateway    takes messages, misbehaves by a seed, keeps the ledger
    clock      database time as a linear function of real time
    runners    the processes and their supervisor
    faults     the injector
    world      all of these together, one run from the first enrollment to the drain
    soak       an hour of it in steady flow, and what must not grow
    process    what a process holds
    disk       a disk that is full for a while
    judge      ledger, tables and acknowledgements held against each other

`python -m chaos` plays one configuration or all of them; `make chaos` calls it.
"""
