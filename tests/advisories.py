"""Look up published vulnerabilities of what .ci/requirements.txt names, by pip-audit.

Exit 1 where there are some; where the advisory service (https://osv.dev, or that of
PIP_AUDIT_OSV_URL) gives no answer, one line says so and nothing fails.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / ".ci/requirements.txt"
OPTIONS = ["--disable-pip", "--vulnerability-service", "osv", "--format", "json"]


def answers(told: str) -> list[dict[str, Any]]:
    """What the service said of each package; none: nothing that pip-audit could use."""
    try:
        packages: list[dict[str, Any]] = json.loads(told)["dependencies"]
    except json.JSONDecodeError:
        return []
    return [package for package in packages if "vulns" in package]


def findings(packages: list[dict[str, Any]]) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {found['id']},"
        f" mended in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package["vulns"]
    ]


if __name__ == "__main__":
    done = subprocess.run(
        [Path(sys.executable).with_name("pip-audit"), "--requirement", LOCK, *OPTIONS],
        capture_output=True,
        text=True,
        check=False,
    )
    packages = answers(done.stdout)
    found = findings(packages)
    if packages:
        print(f"{len(packages)} packages; published vulnerabilities: {len(found)}")
    else:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"vulnerabilities not looked up, no answer to pip-audit: {reason[:300]}")
    for line in found:
        print(line)
    sys.exit(bool(found))
