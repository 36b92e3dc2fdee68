"""The notes of attempts in progress, which a worker reads once a step process has died."""

import os
import sys

import pytest

from routines_engine.sandbox.messages import Attempt
from routines_engine.sandbox.progress import NOTE_BYTES, Progress, shared_memory

IT = Attempt(3, "it", 2)


@pytest.fixture
def both_sides() -> tuple[Progress, Progress]:
    memory = shared_memory(2)
    sides = Progress(memory, 2), Progress(memory, 2)
    os.close(memory)
    return sides


def test_the_other_side_reads_the_last_attempt_of_the_run(both_sides: tuple[Progress, Progress]) -> None:
    process, worker = both_sides
    process.note(1, 7, Attempt(0, "a step with a longer name", 1))
    process.note(1, 7, IT)
    process.note(0, 8, Attempt(1, "another", 1))
    assert (worker.read(1, 7), worker.read(0, 8)) == (IT, Attempt(1, "another", 1))


def test_a_note_of_an_earlier_run_in_the_same_place_is_not_read(both_sides: tuple[Progress, Progress]) -> None:
    process, worker = both_sides
    process.note(0, 7, IT)
    assert worker.read(0, 8) is None
    assert worker.read(1, 7) is None


def test_a_name_that_does_not_fit_leaves_no_note(both_sides: tuple[Progress, Progress]) -> None:
    process, worker = both_sides
    process.note(0, 7, IT)
    process.note(0, 7, Attempt(4, "x" * NOTE_BYTES, 1))
    assert worker.read(0, 7) is None


@pytest.mark.parametrize("written", [b"\xff" * NOTE_BYTES, b"\x02\x00\xc0\xc0", b"\x05\x00hello", b"\x00\x10" * 2048])
def test_anything_else_in_the_memory_is_no_note(both_sides: tuple[Progress, Progress], written: bytes) -> None:
    process, worker = both_sides
    process._memory[: len(written)] = written
    assert worker.read(0, 7) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can seal memory")
def test_a_process_cannot_shrink_the_memory_that_its_worker_reads() -> None:
    memory = shared_memory(2)
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)
    os.close(memory)
