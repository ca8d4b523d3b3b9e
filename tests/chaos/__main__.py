"""python -m chaos [--seed N] [--seconds N] [PLAN ...]: play, print a table, exit 1 when
something was lost, sent twice, or is nowhere."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from chaos.plans import PLANS
from chaos.verdict import play, table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15, help="of faults, each")
    parser.add_argument("--keep", action="store_true", help="the ledgers and logs")
    parser.add_argument("plans", nargs="*", metavar="PLAN", help=", ".join(PLANS))
    told = parser.parse_args(arguments)
    if unknown := set(told.plans) - PLANS.keys():
        parser.error(f"no such plan: {', '.join(sorted(unknown))}")
    verdicts = []
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    for name in told.plans or PLANS:
        (home / name).mkdir()
        plan = PLANS[name](seed=told.seed, seconds=told.seconds)
        verdicts.append(asyncio.run(play(plan, home / name)))
        print(verdicts[-1], file=sys.stderr, flush=True)
    print(table(verdicts))
    is_bad = any(verdict.complaints for verdict in verdicts)
    if told.keep or is_bad:
        print(f"ledgers and logs are in {home}", file=sys.stderr)
    else:
        shutil.rmtree(home)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
