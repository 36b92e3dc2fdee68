"""The definition of an attack, and the registry of all attacks.

The corpus began with ten kinds of attack, each of which once harmed other tenants:

| Kind | Alpha's means |
|---|---|
| 1 | runs with large data, which every claim had to carry |
| 2 | runs with large steps, which are read, listed and sent by webhook |
| 3 | secrets that take long to mask |
| 4 | receivers that answer in a way that takes long to read |
| 5 | steps that make large outputs |
| 6 | runs that wait, for a receiver or for their next attempt |
| 7 | runs that start runs that start runs |
| 8 | workflows that take long to check |
| 9 | small workflows whose references multiply what they refer to |
| 10 | connections that are held open |

Attacks of no kind came later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from isolation.alpha import Alpha


class Containment(StrEnum):
    """What contains an attack; each value says what the product does."""

    SMALL_CLAIMS = "claims carry small columns; the data of a run is loaded for that run alone"
    BOUNDED_READS = "lists carry no steps, whole trajectories are bounded, a cancelled statement gets its own response"
    LINEAR_MASKING = "masking takes one pass, linear in text and secrets, and secrets are bounded"
    BOUNDED_ANSWERS = "responses of receivers are bounded in bytes and time, and decoded off the event loop"
    MEMORY_LIMIT = "a step process has a memory limit and takes no other process down"
    WATCHDOG = "a step process that keeps a core busy is killed"
    PROCESS_PER_COLLECTION = "no two collections share a step process at a time, and none runs in the worker itself"
    WAITING_IS_FREE = "a run that waits holds no capacity"
    FAIR_SHARES = "capacity, delivery connections, seats and API connections are shared between collections"
    RUN_BUDGET = "a run and its tree have a budget of bytes, steps, children and events"
    COLLECTION_LIMITS = "a collection has limits on what it stores and starts"
    CHECKS_OFF_LOOP = "workflow checks have a budget and run off the event loop; caches are bounded in bytes"
    KEY_FIRST = "no body is read before the key is recognised; bytes and connections are bounded"
    REQUEST_LIMITS = "bodies are bounded in bytes, depth and items before they are checked"


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        id: Names it in tests.
        does: What alpha does, in one sentence.
        containment: What contains it; without this, the attack must harm beta.
        launch: Runs it; returns after `alpha.seconds` or a little later.
        kind: The number of its kind in the table above; 0 if it has none.
        in_make_test: Whether the quick selection includes it.
    """

    id: str
    does: str
    containment: Containment
    launch: Callable[[Alpha], None]
    kind: int = 0
    in_make_test: bool = False


CORPUS: list[Attack] = []
"""Every attack that was registered; importing isolation.corpus registers them all."""


def attack(
    containment: Containment, *, kind: int = 0, in_make_test: bool = False
) -> Callable[[Callable[[Alpha], None]], Callable[[Alpha], None]]:
    """Register a function as an attack: its name gives the id, and its docstring's first line says what alpha does."""

    def register(launch: Callable[[Alpha], None]) -> Callable[[Alpha], None]:
        assert launch.__doc__
        does = " ".join(launch.__doc__.partition("\n\n")[0].split())
        CORPUS.append(
            Attack(launch.__name__.replace("_", "-"), does, containment, launch, kind=kind, in_make_test=in_make_test)
        )
        return launch

    return register
