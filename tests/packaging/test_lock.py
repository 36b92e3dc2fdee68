"""The lock files hold the versions of constraints.txt with hashes, and nothing that names a place."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}
NOT_ON_LINUX = {"colorama", "tzdata"}
"""Packages that are installed on Windows only, where CI does not run."""


def locked(path: Path) -> dict[str, str]:
    """Version by name."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_every_dependency_in_the_version_that_ci_tests(lock: str) -> None:
    versions, tested = locked(ROOT / lock), locked(ROOT / "constraints.txt")
    for dependency in map(Requirement, LOCKS[lock]):
        assert dependency.specifier.contains(versions[canonicalize_name(dependency.name)]), "run `make lock`"
    assert {name: tested.get(name) for name in versions if name not in NOT_ON_LINUX} == {
        name: version for name, version in versions.items() if name not in NOT_ON_LINUX
    }, "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_hashes_and_no_line_names_a_place(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    entry = r"[\w.-]+==[\w.]+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+"
    assert re.fullmatch(f"({entry})+", text)
    assert not re.search(r"(?i)://|index|find-links", text)


def test_the_image_installs_only_what_matches_a_hash() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    installs = [line for line in lines if re.search(r"pip (install|wheel)", line)]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line
