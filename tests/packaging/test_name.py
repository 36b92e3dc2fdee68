"""On package indexes, `routines` is another project: nothing here may tell a reader to install that one."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from routines_core.distribution import DISTRIBUTION, how_to_install, installed_version
from support.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = "|".join(PROJECT["optional-dependencies"])
OLD = r"(?<![\w./-])routines"
"""The old name as a word of its own: not /opt/routines, and not part of a longer name."""
COMMANDS = "(?:install|download|wheel|show|uninstall|add|run)"
FORBIDDEN = (
    rf"\b(?:pip3?|pipx|uv|uvx)\s(?:[\w ./=:-]+\s)?{COMMANDS}\s[^\n#|;&`]*?{OLD}['\"]?(?=[\s`=<>~!.,;)\[]|$)",
    rf"{OLD}\[(?:{EXTRAS})\b",
    rf"(?:version|distribution|metadata|requires|files|package_name=|PackageNotFoundError)\(?['\"]{OLD}['\"]",
    rf"{OLD}\s?(?:==|>=|~=)\s?\d",
)
EXAMPLES = (
    "pip install routines",
    "Run `pip install routines`.",
    "python -m pip install --upgrade 'routines[temporal]'",
    "uv pip install routines==0.1.0",
    "uv tool install routines",
    "pipx install routines",
    'version("routines")',
    'package_name="routines"',
    "needs the extra routines[s3]",
    "routines>=0.1",
)
HARMLESS = (
    "pip install 'routines-scheduler[temporal]'",
    "/opt/routines/bin/python -m pip install --require-hashes --requirement locks/requirements.lock",
    "pip install wheels/*.whl",
    "docker run routines api",
    "routines[0]",
)


def forbidden(text: str) -> list[str]:
    return [found.group(0) for pattern in FORBIDDEN for found in re.finditer(pattern, text, re.MULTILINE)]


def tracked() -> list[Path]:
    """Every text of the repository, as Git lists it; without Git, as the folders have it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    folders = ("src", "sql", "docs", "docker", "deploy", "tests", "bench", ".ci")
    names = listed.split("\0")[:-1] or [
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*")))
    ]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_patterns_find_the_old_name(text: str) -> None:
    assert forbidden(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_the_patterns_leave_other_words_alone(text: str) -> None:
    assert forbidden(text) == []


def test_no_text_tells_anyone_to_install_the_old_name() -> None:
    files = tracked()
    assert len(files) > 100
    found: dict[str, list[str]] = {}
    for path in files:
        if path == Path(__file__):
            continue
        try:
            faults = forbidden(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        if faults:
            found[str(path.relative_to(ROOT))] = faults
    assert found == {}


def test_the_project_has_the_new_name_and_keeps_its_command() -> None:
    assert PROJECT["name"] == DISTRIBUTION == "routines-scheduler"
    assert PROJECT["scripts"] == {"routines": "routines_cli.main:main"}


def test_programs_show_the_version_that_is_installed() -> None:
    assert installed_version() == version("routines-scheduler") == PROJECT["version"]


@pytest.mark.parametrize("extra", ["embedded", "llm", "s3", "temporal"])
def test_a_hint_names_an_extra_that_exists(extra: str) -> None:
    assert extra in PROJECT["optional-dependencies"]
    assert how_to_install(extra) == f"pip install 'routines-scheduler[{extra}]'"
