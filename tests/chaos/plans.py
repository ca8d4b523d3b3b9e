"""What is played: policies against gateways, and single kinds of faults."""

from collections.abc import Callable
from functools import partial

from chaos import faults
from chaos.faults import Faults
from chaos.gateway import HONEST
from chaos.world import Plan

RUNNERS: Faults = {faults.kill_runner: 2, faults.stop_runner: 1}
SERVER: Faults = {
    faults.crash_server: 2,
    faults.kill_server: 1,
    faults.terminate_backends: 1,
}
NETWORK: Faults = {
    faults.reset_connections: 2,
    faults.cut_replies: 3,
    faults.blackhole: 1,
    faults.slow_network: 1,
    faults.partition: 1,
}

PLANS: dict[str, Callable[..., Plan]] = {
    "park": partial(Plan, name="park"),
    "retry with keys": partial(
        Plan, name="retry with keys", on_uncertain="retry", keeps_keys=True
    ),
    "retry without keys": partial(
        Plan, name="retry without keys", on_uncertain="retry"
    ),
    "park, honest gateway": partial(
        Plan, name="park, honest gateway", acts=dict(HONEST)
    ),
    "runners only": partial(Plan, name="runners only", faults=RUNNERS),
    "server only": partial(Plan, name="server only", acts=dict(HONEST), faults=SERVER),
    "network only": partial(
        Plan, name="network only", acts=dict(HONEST), faults=NETWORK
    ),
    "gateway only": partial(Plan, name="gateway only", faults={faults.gateway_away: 1}),
    "migrations": partial(
        Plan, name="migrations", acts=dict(HONEST), faults={faults.migrate_again: 1}
    ),
}
