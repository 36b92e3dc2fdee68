"""The links in docs/ work, and its pages name nothing that the product no longer has."""

import re
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

from support.service import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "sql" / "README.md", ROOT / "tests" / "README.md"])
CHECKED = (".py", ".sql", ".js", ".yaml", ".yml")
"""Files whose comments and messages may name a page."""


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a repository's web page makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Generator[tuple[Path, str]]:
    """Yield the file and the anchor of each relative link."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name}#{anchor}"


def test_the_map_leads_to_every_page() -> None:
    mapped = {target for target, _ in links(DOCS / "README.md")}
    decisions = DOCS / "decisions"
    own = {page for page in DOCS.rglob("*.md") if decisions not in page.parents} - {DOCS / "README.md"}
    assert own <= mapped


def test_code_names_only_pages_that_exist() -> None:
    for folder in ("src", "sql", "tests", "bench"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in CHECKED:
                for named in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text("utf-8")):
                    assert (ROOT / named).exists(), f"{path.relative_to(ROOT)}: {named}"


@pytest.fixture(scope="module")
def source() -> str:
    """All Python source of the product, with split string literals joined."""
    text = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_documented_log_message_is_logged(source: str) -> None:
    page = (DOCS / "run" / "operations.md").read_text("utf-8")
    table = page.partition("## Log messages")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(messages) > 5
    assert [message for message in messages if message not in source] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_source_file_named_on_a_page_exists(page: Path) -> None:
    for named in re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|sql|js|json|md|ya?ml))`", page.read_text("utf-8")):
        if "YYYY" in named:  # a pattern of names
            continue
        assert any((ROOT / folder / named).exists() for folder in ("", "src", "sql", "tests")), named


def test_a_cadence_is_added_in_at_most_twelve_files() -> None:
    page = (DOCS / "architecture.md").read_text("utf-8")
    section = page.partition("## How to add a cadence")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. `", section, flags=re.MULTILINE)
    assert 0 < len(steps) <= 12
