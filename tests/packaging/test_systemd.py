"""The units in deploy/systemd run each program under an account of its own, confined, with only what it needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from routines_cli.main import main
from support.service import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
WITH_KEYS = {"api", "worker"}
EXPOSURE = 15
"""The most that `systemd-analyze security` may find, in tenths: 100 is an unconfined service."""


def settings(unit: str) -> dict[str, list[str]]:
    """Return the values of each setting of a unit, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (FOLDER / unit).read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_there_is_a_unit_for_each_program_and_one_for_migrations() -> None:
    assert [f"routines-{name}.service" for name in ("api", "migrate", "ticker", "worker")] == UNITS
    for unit in UNITS:
        [command] = settings(unit)["ExecStart"]
        program, argument = command.split()
        assert program == "/opt/routines/bin/routines"
        assert argument in main.commands
        assert unit == f"routines-{argument}.service"


def test_each_program_has_an_account_of_its_own_that_sysusers_makes() -> None:
    users = [settings(unit)["User"][0] for unit in UNITS]
    assert len(set(users)) == len(UNITS)
    made = re.findall(r"^u (\S+)", (FOLDER / "routines.sysusers.conf").read_text("utf-8"), re.MULTILINE)
    assert sorted(made) == sorted(users)
    for unit, user in zip(UNITS, users, strict=True):
        assert settings(unit)["EnvironmentFile"] == [f"/etc/routines/{user.removeprefix('routines-')}.env"]


@pytest.mark.parametrize("unit", ["api", "worker", "ticker", "migrate"])
def test_only_the_api_and_the_workers_get_the_encryption_keys_and_the_files(unit: str) -> None:
    found = settings(f"routines-{unit}.service")
    credentials = ["encryption-keys:/etc/routines/encryption-keys"] if unit in WITH_KEYS else []
    assert found.get("LoadCredential", []) == credentials
    assert found.get("ReadWritePaths", []) == (["/var/lib/routines/files"] if unit in WITH_KEYS else [])
    assert ("ROUTINES_ENCRYPTION_KEYS_FILE=%d/encryption-keys" in found["Environment"]) == (unit in WITH_KEYS)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_may_open_many_files_and_is_given_time_to_stop(unit: str) -> None:
    found = settings(unit)
    assert int(found["LimitNOFILE"][0]) >= 65536
    if found["Type"] == ["exec"]:
        assert (found["Restart"], found["KillMode"], found["TimeoutStopSec"]) == (["always"], ["mixed"], ["30"])
    # A step process limits its memory with a call of this group.
    assert "@resources" not in "".join(found["SystemCallFilter"])


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit_and_finds_it_confined(analyze: str, unit: str, tmp_path: Path) -> None:
    # It wants to see the program, which is not installed there where the tests run.
    copy = tmp_path / unit
    copy.write_text((FOLDER / unit).read_text("utf-8").replace("/opt/routines/bin/routines", sys.executable))
    verified = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", copy]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-2000:]


def test_systemd_rejects_a_misspelt_setting(analyze: str, tmp_path: Path) -> None:
    copy = tmp_path / "routines-ticker.service"
    text = (FOLDER / copy.name).read_text("utf-8").replace("/opt/routines/bin/routines", sys.executable)
    copy.write_text(text.replace("LimitNOFILE=", "LimitNOFILES="))
    verified = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert "LimitNOFILES" in verified.stderr
