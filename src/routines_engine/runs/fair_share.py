"""Which collections and tasks a worker served last, so that its next claim continues with the others."""

from routines_core.db.runs import Claim

REMEMBERED_COLLECTIONS = 100
"""The number of collections whose last task a worker remembers."""


class FairShare:
    """What one worker has served.

    Attributes:
        last_tasks: The last task served, by collection; the last entry is the collection served last.
    """

    def __init__(self) -> None:
        self.last_tasks: dict[int, int] = {}

    def note(self, run: Claim) -> None:
        """Note that this run was served."""
        self.last_tasks.pop(run.collection_id, None)
        self.last_tasks[run.collection_id] = run.task_id
        if len(self.last_tasks) > REMEMBERED_COLLECTIONS:
            del self.last_tasks[next(iter(self.last_tasks))]
