"""Mutants: the product without one containment, and the attacks that must then harm beta.

A mutant removes a containment by settings or limits so large that they limit nothing or, where there are none, by
editing the source. If the text of an edit is not found the mutant fails, so it cannot silently become the unchanged
product.

To add a containment: build it, add it to Containment, and give it a mutant here with the attacks that it alone
contains. An attack that two containments stop proves nothing about either: remove both (`also`). Then the attack must
do no harm while only the other one is missing, which test_mutants.py checks too.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.mutant import ROOT, Edit
from isolation.attacks import Containment

API, CORE, ENGINE = "src/routines_api", "src/routines_core", "src/routines_engine"
CLAIM = "sql/queries/runs.sql"
BUSY = "the step process was busy without a pause"


@dataclass(frozen=True)
class Mutant:
    """One containment, or one of its parts, removed.

    Attributes:
        name: What is broken.
        containment: The containment that is removed.
        caught_by: Ids of attacks; each must harm beta.
        seen_as: Text that a sentence of harm must contain: what this mutant causes, and a busy machine does not.
        environment: Settings that limit nothing.
        limits: Limits of alpha's collection; None for no limit.
        edits: Changes to the source.
        also: Names of other mutants, whose containments are removed too since they would also stop the attacks.
    """

    name: str
    containment: Containment
    caught_by: tuple[str, ...]
    seen_as: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    limits: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    edits: tuple[Edit, ...] = ()
    also: tuple[str, ...] = ()

    def product(self) -> "Product":
        """Return the product without this containment, and without those of `also`."""
        return Product((self, *self.others().mutants))

    def others(self) -> "Product":
        """Return the product without the containments of `also` only."""
        return Product(tuple(each for each in MUTANTS if each.name in self.also))


@dataclass(frozen=True)
class Product:
    """The product with some containments removed."""

    mutants: tuple[Mutant, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The settings of all mutants."""
        return {name: value for each in self.mutants for name, value in each.environment.items()}

    @property
    def limits(self) -> dict[str, int | None]:
        """The limits of all mutants."""
        return {name: value for each in self.mutants for name, value in each.limits.items()}

    def source(self, directory: Path) -> Path | None:
        """Return a copy of the product with the edits made; None if there are none.

        Raises:
            LookupError: The text of an edit is missing.
        """
        edits = list(self._edits())
        if not edits:
            return None
        for part in ("src", "sql"):
            shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in edits:
            edit.apply(directory)
        return directory

    def _edits(self) -> Iterator[Edit]:
        for each in self.mutants:
            yield from each.edits


NO_WATCHDOG = "step processes have no watchdog"
ANY_CHARSET = "responses are decoded with any charset that the receiver names"
ANY_TREE = "a tree of runs may have any size"
NO_SHARES = "a worker's capacity is first come, first served"

MUTANTS = [
    Mutant(
        "a claim carries the workflow, the parameters and the finished steps",
        Containment.SMALL_CLAIMS,
        ("many-big-runs-lose-their-worker",),
        "the worker used",
        edits=(
            Edit(
                CLAIM,
                "THEN claimed.init_params::text END AS init_params",
                "THEN claimed.init_params::text END AS init_params, claimed.init_params AS all_params,"
                " (SELECT workflow FROM routines.task_versions WHERE task_versions.task_id = claimed.task_id"
                " AND version = claimed.task_version) AS workflow,"
                " (SELECT jsonb_object_agg(name, jsonb_build_object('inputs', inputs, 'outputs', outputs))"
                " FROM routines.steps WHERE trajectory_id = claimed.id AND status = 'completed') AS finished_steps",
                "claim",
            ),
            Edit(
                f"{CORE}/db/runs.py",
                "    init_params: str | None = None\n",
                "    init_params: str | None = None\n"
                "    all_params: Any = None\n    workflow: Any = None\n    finished_steps: Any = None\n",
            ),
        ),
    ),
    Mutant(
        "runs and lists of runs are read whole and decoded in one piece",
        Containment.BOUNDED_READS,
        ("readers-of-a-run-of-many-parts", "lists-of-big-runs"),
        "the api used",
        edits=(
            Edit(f"{CORE}/db/trajectories.py", "\nSMALL_BYTES = 256 * 1024\n", "\nSMALL_BYTES = 1024**3\n"),
            Edit(f"{CORE}/db/trajectories.py", "LISTED_VALUE_BYTES = 2048", "LISTED_VALUE_BYTES = 1024**3"),
            Edit(f"{CORE}/db/trajectories.py", "LISTED_PAGE_BYTES = 4 * 1024 * 1024", "LISTED_PAGE_BYTES = 1024**3"),
        ),
    ),
    Mutant(
        "the masker replaces one spelling after another until none is left",
        Containment.LINEAR_MASKING,
        ("a-mask-in-a-mebibyte",),
        BUSY,
        edits=(
            Edit(
                f"{ENGINE}/steps/masking.py",
                "        for _ in range(MASKING_ROUNDS):\n            masked = self._mask_once(text)\n",
                "        while True:\n            masked = self._mask_once(text)\n",
            ),
            Edit(
                f"{ENGINE}/steps/masking.py",
                "        kept, end = list[str](), 0\n",
                "        found = next((each for each in self._spellings if each in text), None)\n"
                "        return text if found is None else text.replace(found, MASK)\n",
            ),
        ),
        also=(NO_WATCHDOG,),
    ),
    Mutant(
        ANY_CHARSET,
        Containment.BOUNDED_ANSWERS,
        ("an-answer-in-punycode",),
        BUSY,
        edits=(
            Edit(
                f"{CORE}/answer_body.py",
                "CODECS.get(found[1].lower(), DEFAULT_CHARSET) if found",
                "found[1].lower() if found",
            ),
        ),
        also=(NO_WATCHDOG,),
    ),
    Mutant(
        "step processes have no memory limit",
        Containment.MEMORY_LIMIT,
        ("twenty-runs-of-many-parts",),
        "the step process used",
        edits=(Edit(f"{ENGINE}/sandbox/child.py", "    limit_memory(arguments.memory_bytes)\n", ""),),
    ),
    Mutant(
        NO_WATCHDOG,
        Containment.WATCHDOG,
        ("an-answer-in-punycode",),
        BUSY,
        edits=(Edit(f"{ENGINE}/sandbox/process.py", "if still_seconds <= limit:", "if still_seconds <= 1e9:"),),
        also=(ANY_CHARSET,),
    ),
    Mutant(
        "collections share step processes",
        Containment.PROCESS_PER_COLLECTION,
        ("an-answer-in-punycode",),
        "no result within 15 s",
        edits=(
            Edit(
                f"{ENGINE}/sandbox/pool.py",
                "if each.collection_id == collection_id and not each.is_exclusive]\n        least",
                "if not each.is_exclusive]\n        least",
            ),
        ),
        also=(ANY_CHARSET, NO_WATCHDOG),
    ),
    Mutant(
        "a run that waits for a retry keeps its capacity",
        Containment.WAITING_IS_FREE,
        ("retries-in-a-day-in-every-place",),
        "beta's run-sync stood still",
        edits=(Edit(f"{ENGINE}/sandbox/child.py", "SHORT_WAIT_SECONDS = 1.0", "SHORT_WAIT_SECONDS = 1e9"),),
        also=(NO_SHARES,),
    ),
    Mutant(
        NO_SHARES,
        Containment.FAIR_SHARES,
        ("slow-steps-in-every-place",),
        "beta's run-sync stood still",
        edits=(
            Edit(
                f"{ENGINE}/runs/worker.py",
                "return room > 0 and await self._claim_up_to(room, but_collections=served, most_each=most_each)",
                "return room < 0",
            ),
        ),
    ),
    Mutant(
        "a worker's webhooks are first come, first served",
        Containment.FAIR_SHARES,
        ("webhooks-to-a-receiver-that-hangs",),
        "beta's webhook stood still",
        edits=tuple(
            Edit(f"{ENGINE}/webhooks/deliveries.py", f"    {name}: int = {most}\n", f"    {name}: int = {none}\n")
            for name, most, none in (("reserve", 32, 0), ("per_host", 8, 1000), ("per_collection", 64, 1000))
        ),
    ),
    Mutant(
        "the seats of run-sync are first come, first served",
        Containment.FAIR_SHARES,
        ("the-seats-of-run-sync",),
        "answered 202",
        edits=(
            Edit(
                f"{API}/app.py",
                "RunWaiter(_shared(settings.run_sync_waiters))",
                "RunWaiter(FairGate(settings.run_sync_waiters, reserve=0))",
            ),
        ),
    ),
    Mutant(
        "the API's connections to the database are first come, first served",
        Containment.FAIR_SHARES,
        ("labels-that-wait-for-one-another",),
        "answered 429",
        edits=(
            Edit(
                f"{API}/http/access.py",
                "return SharedConnection(self.pool, self.services.connections, owner)",
                "return SharedConnection(self.pool, self.services.connections, UNKNOWN)",
            ),
        ),
    ),
    Mutant(
        "the connections of a worker are first come, first served",
        Containment.FAIR_SHARES,
        ("a-fan-out-of-a-thousand",),
        "beta's run-sync: p99",
        edits=(
            Edit(f"{ENGINE}/runs/services.py", "FairGate(RUN_CONNECTIONS, reserve=1)", "FairGate(10**6, reserve=0)"),
        ),
        also=(ANY_TREE,),
    ),
    Mutant(
        "the steps of a run may hold any number of bytes",
        Containment.RUN_BUDGET,
        ("runs-beyond-their-budget-lose-their-worker",),
        "the worker used",
        environment={"ROUTINES_MAX_RUN_BYTES": str(2**30 - 1)},
        limits={"run_step_bytes": None},
    ),
    Mutant(
        "a run may have any number of steps",
        Containment.RUN_BUDGET,
        ("readers-of-a-run-of-thousands-of-steps",),
        "alpha's run_steps reached",
        limits={"run_steps": None},
    ),
    Mutant(
        ANY_TREE,
        Containment.RUN_BUDGET,
        ("a-fan-out-of-a-thousand",),
        "alpha's run_children reached",
        limits={"run_children": None},
    ),
    Mutant(
        "a collection has no limits",
        Containment.COLLECTION_LIMITS,
        ("tasks-without-end", "twenty-files-in-each-run"),
        "more than its limit",
        limits={"tasks": None, "files": None},
    ),
    Mutant(
        "workflows are checked on the API's loop",
        Containment.CHECKS_OFF_LOOP,
        ("templates-of-many-indexes",),
        "the api's loop stalled",
        edits=(Edit(f"{API}/http/work.py", "SMALL_BYTES = 8 * 1024", "SMALL_BYTES = 10**9"),),
    ),
    Mutant(
        "parsed templates are cached by their number",
        Containment.CHECKS_OFF_LOOP,
        ("templates-that-nobody-repeats",),
        "the api used",
        edits=(
            Edit("src/routines_workflow/text_cache.py", "if len(text) > longest:", "if len(text) > 1e9:"),
            Edit("src/routines_workflow/text_cache.py", "characters += len(text)", "characters += 1"),
            Edit(
                "src/routines_workflow/text_cache.py",
                "characters -= len(known.popitem(last=False)[0])",
                "characters -= bool(known.popitem(last=False))",
            ),
        ),
    ),
    Mutant(
        "the body is read before the key",
        Containment.KEY_FIRST,
        ("bodies-without-a-key",),
        "the api used",
        edits=(
            Edit(
                f"{API}/http/access.py",
                "    auth = await door.admit()\n    if request",
                "    body = b'' if request.method == 'GET' else await read_body(request, door.services.settings)\n"
                "    auth = await door.admit()\n    if request",
            ),
            Edit(
                f"{API}/http/access.py",
                "    async with door.body(auth) as body, door.open(auth, body) as caller:\n        yield",
                "    async with door.open(auth, body) as caller:\n        yield",
            ),
        ),
    ),
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
]
