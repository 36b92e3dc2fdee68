"""The files in locks/ hold the versions of constraints.txt with hashes, and nothing that names a place."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDER = ROOT / "locks"
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOT_LOCKED = {"audit", "charts", "dev"}
"""Extras for those who change the code: `make` installs them under constraints.txt."""
LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "build.lock": PROJECT["build-system"]["requires"],
    **{f"{extra}.lock": needed for extra, needed in EXTRAS.items() if extra not in NOT_LOCKED},
}
NOT_ON_LINUX = {"colorama", "tzdata"}
"""Packages that are installed on Windows only, where CI does not run."""


def locked(path: Path) -> dict[str, str]:
    """Version by name."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_every_dependency_in_the_version_that_ci_tests(lock: str) -> None:
    versions, tested = locked(FOLDER / lock), locked(ROOT / "constraints.txt")
    for dependency in map(Requirement, LOCKS[lock]):
        assert dependency.specifier.contains(versions[canonicalize_name(dependency.name)]), "run `make lock`"
    assert {name: tested.get(name) for name in versions if name not in NOT_ON_LINUX} == {
        name: version for name, version in versions.items() if name not in NOT_ON_LINUX
    }, "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_hashes_and_no_line_names_a_place(lock: str) -> None:
    text = (FOLDER / lock).read_text("utf-8")
    entry = r"[\w.-]+==[\w.]+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+"
    assert re.fullmatch(f"({entry})+", text)
    assert not re.search(r"(?i)://|index|find-links", text)


def test_there_is_a_lock_for_every_extra_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(LOCKS)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [extras] = re.findall(r"^EXTRAS := (.*)$", makefile, re.MULTILINE)
    assert set(extras.split()) == set(EXTRAS) - NOT_LOCKED


def test_locks_agree_so_that_several_can_be_installed_together() -> None:
    entries: dict[str, set[str]] = {}
    for lock in LOCKS:
        for entry in re.split(r"\n(?=\S)", (FOLDER / lock).read_text("utf-8").strip()):
            entries.setdefault(entry.partition("==")[0], set()).add(re.sub(r" ; .*", " \\\\", entry, count=1))
    assert {name for name, found in entries.items() if len(found) > 1} == set(), "run `make lock`"


def test_the_image_installs_only_what_matches_a_hash() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    installs = [line for line in lines if re.search(r"pip (install|wheel)", line)]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line
