"""What a program does before anything else: it takes signals, and gets as many descriptors as it may have."""

import resource
import signal
import subprocess
import sys

import pytest

from support.service import ROOT, clean_environment

DURING_IMPORTS = """
import os, runpy, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Interrupting())
sys.argv = ["routines", "{program}"]
runpy.run_module("routines_cli.main", run_name="__main__")
"""


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize("program", ["api", "ticker", "worker", "up"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_during_the_imports_is_honoured(program: str, name: str) -> None:
    """Process 1 of a container would otherwise ignore it, and any other process would end with an error."""
    assert run(DURING_IMPORTS.format(name=name, program=program)).returncode == 0


def test_a_command_that_is_not_a_program_ends_as_usual() -> None:
    assert run(DURING_IMPORTS.format(name="SIGTERM", program="doctor")).returncode == -signal.SIGTERM


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + DURING_IMPORTS.format(
        name="SIGHUP", program="ticker"
    )
    assert "DATABASE_URL is not set" in run(code).stderr


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))

    code = "from routines_core.lifecycle import raise_open_files; print(raise_open_files())"
    assert run(code, preexec_fn=few).stdout == "512\n"
