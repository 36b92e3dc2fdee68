"""Install Routines with an extra into this environment: `.venv/bin/python .ci/install.py EXTRA [uv|pip]`.

uv resolves and installs several times faster than pip. pip brings it, from where pip is told to look, and uv then looks
in the same places. If uv cannot be had, fails, or has no equal of one of pip's settings, pip does the work.
"""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
CONSTRAINTS = "constraints.txt"
SECTIONS = ("global.", "install.", ":env:.")
"""Sections of pip's configuration that apply to `pip install`; later ones win."""
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}
"""pip's settings that uv has too: the variable, and what separates several values."""
IRRELEVANT = {
    "cache-dir",
    "config-file",
    "debug",
    "default-timeout",
    "disable-pip-version-check",
    "exists-action",
    "log",
    "no-cache-dir",
    "no-color",
    "no-compile",
    "no-input",
    "no-python-version-warning",
    "no-warn-script-location",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "resume-retries",
    "retries",
    "root-user-action",
    "timeout",
    "verbose",
}
"""Settings that change neither where packages come from nor which of them are installed."""


@dataclass
class UvOptions:
    """What uv is told so that it does as pip would.

    Attributes:
        environment: Variables to set.
        arguments: Arguments to add.
        unknown: pip's settings without an equal.
    """

    environment: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def pip_settings(listed: str) -> dict[str, str]:
    """Return the settings of `pip install` from what `pip config list` has printed."""
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    settings: dict[str, str] = {}
    for section in SECTIONS:
        for name, _, value in lines:
            if name.startswith(section):
                settings[name.removeprefix(section)] = str(ast.literal_eval(value))
    return settings


def uv_options(settings: dict[str, str]) -> UvOptions:
    """Translate pip's settings for uv."""
    options = UvOptions()
    for name, value in settings.items():
        if name in VARIABLES:
            variable, separator = VARIABLES[name]
            options.environment[variable] = separator.join(value.split())
        elif name == "constraint":
            options.arguments += [part for path in value.split() for part in ("--constraint", path)]
        elif name == "no-index":
            options.arguments += ["--no-index"] if value.lower() in {"1", "true", "yes", "on"} else []
        elif name not in IRRELEVANT:
            options.unknown.append(name)
    if "UV_INDEX" in options.environment:
        options.environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # what pip does
    return options


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> bool:
    """Run a command and return whether it succeeded."""
    return subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode == 0


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(f"==> {text}", flush=True)


def install_with_uv(target: str) -> bool:
    """Install with uv and return whether that succeeded."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
    options = uv_options(pip_settings(listed))
    if options.unknown:
        say(f"pip is configured with {', '.join(options.unknown)}, for which uv has no equal")
        return False
    say("2/3 Getting uv, which installs faster than pip")
    if not run([*PIP, "install", "--constraint", CONSTRAINTS, "uv"]):
        return False
    say(f"3/3 Installing {target} with uv")
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--constraint", CONSTRAINTS]
    return run([*command, *options.arguments, "--editable", target], options.environment)


def main(extra: str, installer: str = "uv") -> int:
    """Install, and return the exit code."""
    began_at = time.monotonic()
    target = f".[{extra}]"
    if not (installer == "uv" and install_with_uv(target)):
        say(f"3/3 Installing {target} with pip, which may take minutes")
        if not run([*PIP, "install", "--constraint", CONSTRAINTS, "--editable", target]):
            return 1
    say(f"Installed in {time.monotonic() - began_at:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
