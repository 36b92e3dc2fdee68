"""What a program does before it imports anything that takes time. Imports only what the interpreter has loaded anyway.

Process 1 of a container has no default action for SIGTERM, so one that came during the imports would be lost without a
handler.
"""

import os
import signal
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a program to finish its current work and exit."""
IGNORED = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals that would kill a program by default and mean nothing to it, sent for example to rotate logs."""


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)  # nothing has begun that would have to be given back


def await_signals() -> None:
    """Exit with 0 on a signal that asks to stop, until `stop_event` takes over. What is ignored stays ignored."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup, for example
            signal.signal(number, _exit)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
