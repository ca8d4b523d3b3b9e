"""What a process holds, by /proc."""

import os
from pathlib import Path

PROC = Path("/proc")
ESTABLISHED = "01"


def memory(pid: int) -> int:
    """Its resident memory in kB."""
    for line in (PROC / f"{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def files(pid: int) -> int:
    """How many it has open, sockets included."""
    return len(_open(pid))


def connections(pid: int, port: int) -> int:
    """How many it has to a port of the loopback interface."""
    to_it = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, (PROC / f"{pid}/net/tcp").open())
        if fields[2].endswith(f":{port:04X}") and fields[3] == ESTABLISHED
    }
    return sum(one in to_it for one in _open(pid))


def _open(pid: int) -> list[str]:
    links = []
    for link in (PROC / f"{pid}/fd").iterdir():
        try:
            links.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    return links
