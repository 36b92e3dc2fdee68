"""Check the versions in constraints.txt for known vulnerabilities.

Exit codes:
    0: none is known, or no service answered for all packages (printed in capitals).
    1: at least one is known.
    2: no service answered for all packages and AUDIT_REQUIRED is set; set it wherever a service can be reached.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not affect us: id to reason."""
SERVICES = ("pypi", "osv")
PINS = Path(__file__).parent.parent / "constraints.txt"


def ask(service: str) -> list[dict[str, Any]]:
    """Return the service's answer per package; empty if the service cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    options = ["--requirement", str(PINS), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    ignored = [part for vulnerability in IGNORED for part in ("--ignore-vuln", vulnerability)]
    done = subprocess.run([*command, *options, *ignored], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return []


def best_answer() -> list[dict[str, Any]]:
    """Return the answer of the service that covers the most packages."""
    answers = [ask(service) for service in SERVICES]
    return max(answers, key=lambda answer: sum("skip_reason" not in package for package in answer))


def main() -> int:
    """Ask the services and print what they found."""
    pinned = {line.partition("==")[0] for line in PINS.read_text("ascii").splitlines() if "==" in line}
    answer = best_answer()
    asked = [package for package in answer if "skip_reason" not in package]
    found = [(package, each) for package in asked for each in package["vulns"]]
    for package, each in found:
        print(f"{package['name']} {package['version']}: {each['id']}, fixed in {', '.join(each['fix_versions'])}")
    if found:
        return 1
    if len(asked) < len(pinned):
        print(f"AUDIT SKIPPED for {len(pinned) - len(asked)} of {len(pinned)} packages: no service answered for them.")
        return 2 if os.environ.get("AUDIT_REQUIRED") else 0
    print(f"No known vulnerability in {len(asked)} packages; {len(IGNORED)} ignored.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
