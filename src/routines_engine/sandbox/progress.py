"""Which attempt each run of a step process has in progress, in memory that its worker can read once the process died.

The process notes an attempt before it reads anything of the step. A message would cost both sides a system call for
each attempt, and the worker needs the note only if the process dies.
"""

import fcntl
import mmap
import os
import struct
import tempfile

import msgspec

from routines_engine.sandbox.messages import Attempt

NOTE_BYTES = 4096
"""Room for the note of one run, in bytes. Pages are taken when they are first written."""
_LENGTH = struct.Struct("<H")


class Note(msgspec.Struct, frozen=True, array_like=True):
    """An attempt in progress; `run` tells it from the note of an earlier run in the same place."""

    run: int
    attempt: Attempt


class Progress:
    """The notes of one process.

    Args:
        file_descriptor: Of memory from `shared_memory`; mapped here, and no longer needed afterwards.
        places: The most runs at once.
    """

    def __init__(self, file_descriptor: int, places: int) -> None:
        self._memory = mmap.mmap(file_descriptor, places * NOTE_BYTES)

    def note(self, place: int, run: int, attempt: Attempt) -> None:
        """Note that this attempt of the run in this place begins.

        A step whose name is too long for the note is left out: if it ends its process, the run fails without a step.
        """
        first = place * NOTE_BYTES
        body = msgspec.msgpack.encode(Note(run, attempt))
        # The length last: a process that is killed in between leaves no half of a note.
        self._memory[first : first + _LENGTH.size] = bytes(_LENGTH.size)
        if len(body) <= NOTE_BYTES - _LENGTH.size:
            self._memory[first + _LENGTH.size : first + _LENGTH.size + len(body)] = body
            self._memory[first : first + _LENGTH.size] = _LENGTH.pack(len(body))

    def read(self, place: int, run: int) -> Attempt | None:
        """Return the attempt that the run in this place began last; None if it has begun none."""
        first = place * NOTE_BYTES
        (length,) = _LENGTH.unpack_from(self._memory, first)
        if not length or length > NOTE_BYTES - _LENGTH.size:
            return None
        try:
            note = msgspec.msgpack.decode(self._memory[first + _LENGTH.size :][:length], type=Note)
        except msgspec.DecodeError:  # the process wrote something else there
            return None
        return note.attempt if note.run == run else None

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def shared_memory(places: int) -> int:
    """Return a file descriptor of memory for the notes of this many runs, for both sides to map."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, places * NOTE_BYTES)
    if hasattr(os, "memfd_create"):  # a process that shrank it would end its worker, which reads from it
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
