"""Mutants: the product without one containment, and the attacks that must then harm beta.

A mutant disables a containment by settings so large that they limit nothing or, where there is no setting, by editing
the source. If the text of an edit is not found the mutant fails, so it cannot silently become the unchanged product.

To add a containment: build it, move its line from AWAITED to MUTANTS, and name the attacks that it alone contains.
An attack that two containments stop proves nothing about either: disable both (`also`).
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from chaos.mutants import ROOT, Edit
from isolation.attacks import Containment

SANDBOX = "src/routines_engine/sandbox"


@dataclass(frozen=True)
class Mutant:
    """One containment removed.

    Attributes:
        name: What is broken.
        containment: The containment that is disabled.
        caught_by: Ids of attacks; each must harm beta.
        seen_as: Text that a sentence of harm must contain, so that a slow machine is not mistaken for the mutant.
        environment: Settings that limit nothing.
        edits: Changes to the source.
        also: Other containments that are disabled too, since they would also stop the attacks.
    """

    name: str
    containment: Containment
    caught_by: tuple[str, ...]
    seen_as: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    edits: tuple[Edit, ...] = ()
    also: tuple[Containment, ...] = ()

    @property
    def is_built(self) -> bool:
        """Return True if the files that it edits exist."""
        return all((ROOT / each.file).exists() for each in self.edits)

    def source(self, directory: Path) -> Path | None:
        """Return a copy of the product with the edits made; None if there are none.

        Raises:
            LookupError: The text of an edit is missing.
        """
        if not self.edits:
            return None
        for part in ("src", "sql"):
            shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in self.edits:
            edit.apply(directory)
        return directory


MUTANTS = [
    Mutant(
        "bodies of any size are read and decoded",
        Containment.REQUEST_LIMITS,
        ("bodies-of-many-mebibytes",),
        "the api's loop stalled",
        environment={
            "ROUTINES_MAX_BODY_BYTES": str(10**9),
            "ROUTINES_MAX_STRING_LENGTH": str(10**9),
            "ROUTINES_MAX_ITEMS": str(10**9),
        },
    ),
    Mutant(
        "step processes have no memory limit",
        Containment.MEMORY_LIMIT,
        ("a-separator-of-600-kilobytes", "a-template-that-multiplies"),
        "the step process used",
        edits=(Edit(f"{SANDBOX}/child.py", "    limit_memory(arguments.memory_bytes)\n", ""),),
    ),
    Mutant(
        "step processes have no watchdog",
        Containment.WATCHDOG,
        ("references-of-a-hundred-members",),
        "beta had not recovered",
        edits=(Edit(f"{SANDBOX}/process.py", "if still_seconds <= limit:", "if still_seconds <= 1e9:"),),
    ),
    Mutant(
        "collections share step processes",
        Containment.PROCESS_PER_COLLECTION,
        ("hundreds-of-busy-steps", "comparisons-of-long-lists"),
        edits=(
            Edit(
                f"{SANDBOX}/pool.py",
                "if each.collection_id == collection_id and not each.is_exclusive]\n        least",
                "if not each.is_exclusive]\n        least",
            ),
        ),
    ),
]

AWAITED: dict[Containment, tuple[str, tuple[str, ...]]] = {
    Containment.SMALL_CLAIMS: (
        "the claim reads workflow, init_params and finished_steps again",
        ("a-big-run-loses-its-worker", "many-big-runs-lose-their-worker"),
    ),
    Containment.BOUNDED_READS: (
        "a trajectory is read whole and decoded in one piece; lists carry steps",
        ("forty-readers-of-a-big-run", "lists-of-big-runs"),
    ),
    Containment.LINEAR_MASKING: (
        "the masker replaces one spelling after another until none is left",
        ("a-secret-that-looks-like-a-mask", "secrets-within-one-another"),
    ),
    Containment.BOUNDED_ANSWERS: (
        "http_request decodes with any charset that the receiver names",
        ("an-answer-in-punycode",),
    ),
    Containment.WAITING_IS_FREE: ("a run that waits for a retry keeps its capacity", ("sixty-retries-in-a-day",)),
    Containment.FAIR_SHARES: (
        "capacity, delivery connections, seats and connections are first come, first served (one mutant each)",
        ("sixty-slow-steps", "webhooks-to-a-receiver-that-hangs", "the-seats-of-run-sync"),
    ),
    Containment.RUN_BUDGET: (
        "the budgets of bytes, steps and children are raised to infinity by settings (one mutant each)",
        ("a-fan-out-that-starts-itself", "a-mebibyte-in-each-of-ninety-steps", "thousands-of-steps"),
    ),
    Containment.COLLECTION_LIMITS: (
        "the limits of a collection are raised to infinity by settings",
        ("uploads-that-break-off", "a-large-workflow-saved-again-and-again"),
    ),
    Containment.CHECKS_OFF_LOOP: (
        "workflows are checked on the API's loop, and parsed templates are cached by count",
        ("templates-of-eight-thousand-placeholders",),
    ),
    Containment.KEY_FIRST: ("the body is read before the key", ("bodies-without-a-key",)),
}
"""Containments without a mutant so far: how to disable each, and the attacks that must then do harm."""
