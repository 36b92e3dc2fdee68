"""Whose turn was last: what a claim needs to know, so that collections and their tasks take turns."""

from routines_core.db.runs import Claim

REMEMBERED_COLLECTIONS = 100
"""Of how many collections it is remembered whose turn was last."""


class FairShare:
    """The turns of one worker.

    Attributes:
        last_tasks: By collection, the task that was served last; its last entry is the collection that was.
    """

    def __init__(self) -> None:
        self.last_tasks: dict[int, int] = {}

    def note(self, run: Claim) -> None:
        """It was this run's turn."""
        self.last_tasks.pop(run.collection_id, None)
        self.last_tasks[run.collection_id] = run.task_id
        if len(self.last_tasks) > REMEMBERED_COLLECTIONS:
            del self.last_tasks[next(iter(self.last_tasks))]
