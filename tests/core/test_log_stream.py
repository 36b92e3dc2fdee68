"""A log that cannot be written stops nothing: a full disk, a closed pipe, a reader that is frozen."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from routines_core.log_stream import LogStream
from support.service import ROOT

LINES = 2000
WRITES = f"""
import sys, time
from routines_core.early import await_signals
from routines_core.log_stream import keep_standard_streams, lost_lines, say
keep_standard_streams()
from routines_core.logging import configure_logging
configure_logging("json")
import logging, structlog
log = structlog.get_logger("x")
begun = time.monotonic()
for number in range({LINES}):
    log.info("line", number=number, filler="x" * 100)
logging.getLogger("library").error("broken")
say("ready")
open(sys.argv[1], "w").write(f"{{lost_lines()}} {{time.monotonic() - begun}}")
"""


def written(directory: Path, **streams: int | IO[Any]) -> tuple[int, int, float]:
    """Run the program. Returns its exit code, how many lines it lost, and how long it took in seconds."""
    report = directory / "report"
    done = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(report)], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, **streams
    )
    code = done.wait(timeout=60)
    lost, seconds = report.read_text().split()
    return code, int(lost), float(seconds)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_lines_and_nothing_else(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, lost, _ = written(tmp_path, stdout=full, stderr=full)
    assert (code, lost) == (0, LINES + 1)


def test_a_closed_pipe_costs_the_lines_and_nothing_else(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, lost, _ = written(tmp_path, stdout=writing, stderr=writing)
    finally:
        os.close(writing)
    assert (code, lost) == (0, LINES + 1)


def test_a_frozen_reader_does_not_block_the_program(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # nobody reads
    try:
        code, lost, seconds = written(tmp_path, stdout=subprocess.DEVNULL, stderr=writing)
    finally:
        os.close(reading)
        os.close(writing)
    assert code == 0
    assert 0 < lost < LINES
    assert seconds < 5


def test_a_closed_descriptor_is_not_given_to_a_file_or_connection(tmp_path: Path) -> None:
    """Otherwise the log would go into whatever the program opens first."""
    code = f"""
import os, sys
os.close(2); os.close(1); os.close(0)
sys.stderr = sys.stdout = None
from routines_core.log_stream import keep_standard_streams
keep_standard_streams()
with open({str(tmp_path / "first")!r}, "w") as first:
    assert first.fileno() > 2
    print("for stdout"); print("for stderr", file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "first").read_text() == ""


def test_it_says_how_much_was_lost_once_it_is_read_again() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as stream:
        log = LogStream(stream)
        while log.lost < 3:
            log.write("x" * 1000 + "\n")
        reader.read(1_000_000)
        log.write("again\n")
        assert reader.read(1_000_000) == b"3 lines of the log could not be written and are lost\nagain\n"
        assert log.lost == 3
