"""A mutant: a copy of the product with one thing broken, and the run that must catch it.

An edit fails if its text is not found, so no mutant can silently turn into the intact product.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from routines_core.db.statements import sql_dir

ROOT = sql_dir().parent
TICK, RUNS, SCHEMA = "sql/queries/tick.sql", "sql/queries/runs.sql", "sql/migrations/20261129T090000_schema.sql"


@dataclass(frozen=True)
class Edit:
    """Replaces `old` with `new`, once; `statement` limits the search to this statement or function of the schema."""

    file: str
    old: str
    new: str
    statement: str = ""

    def apply(self, source: Path) -> None:
        """Edit this source tree.

        Raises:
            LookupError: The text was not found.
        """
        path = source / self.file
        before, mark, rest = "", "", path.read_text("utf-8")
        end, after = "", ""
        if self.statement:
            start, stop = (
                (f"CREATE FUNCTION routines.{self.statement}(", "\nCOMMENT ON FUNCTION ")
                if self.file == SCHEMA
                else (f"-- name: {self.statement}\n", "\n-- name: ")
            )
            before, mark, rest = rest.partition(start)
            rest, end, after = rest.partition(stop)
        if self.old not in rest:
            raise LookupError(f"{self.file} {self.statement} no longer holds: {self.old!r}")
        path.write_text("".join([before, mark, rest.replace(self.old, self.new, 1), end, after]), "utf-8")


@dataclass(frozen=True)
class Mutant:
    """A broken product.

    Attributes:
        name: What is broken.
        edits: How it is broken.
        caught_by: The invariants that it breaks. At least one must be seen; chance decides which comes first.
        faults: The faults of its run; empty for traffic only; None to run late_writer.py, step by step, instead.
        traffic: The orders that its run sends more often.
        in_ci: Whether it is one of the few that every test run tries: those that a busy machine catches too.
        test: A test below tests/ that must fail, instead of a chaos run.
    """

    name: str
    edits: tuple[Edit, ...]
    caught_by: set[str] = field(default_factory=set[str])
    faults: dict[str, int] | None = field(default_factory=dict[str, int])
    traffic: dict[str, float] = field(default_factory=dict[str, float])
    in_ci: bool = False
    test: str = ""

    def source(self, directory: Path) -> Path:
        """Return a copy of the product with the edits made."""
        for top in ("src", "sql"):
            shutil.copytree(ROOT / top, directory / top, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in self.edits:
            edit.apply(directory)
        return directory
