"""The arena: the programs, beta's probe beside them, and the verdict on what an attack did to beta.

What holds for every attack:

- Each probe's p99 is at most QUIET_FACTOR times its quiet value, or LEAST_BOUND_SECONDS if that is more.
- Nothing of beta's fails: no status but 200, no run that does not complete, no slot or webhook that does not come.
- No event loop of API, ticker and worker stands still for longer than STALL_SECONDS.
- No program uses more memory than MEMORY_BYTES says, and none ends.
- RECOVERY_SECONDS after the attack beta is as well as before, no run of alpha's that was cancelled is left active, and
  the programs use hardly more of a core than before.
"""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import psycopg

from isolation.alpha import Alpha
from isolation.attacks import Attack
from isolation.probe import FIRE, GET, PROBES, RUN_SYNC, WEBHOOK, Config
from isolation.programs import MIB, STEP_PROCESSES, Programs, Stall
from support.rows import Database
from support.serving import new_key, wait_until

QUIET_SECONDS = 5.0
QUIET_FACTOR = 3.0
LEAST_BOUND_SECONDS = 1.0
STALL_SECONDS = 0.1
RECOVERY_SECONDS = 10.0
WINDOW_SECONDS = 1.5
"""How long beta must be well in one piece to count as recovered."""
SPARE_CORES = 0.4
"""How much more of a core all programs may use after an attack than while it was quiet: nothing goes on unseen."""
MEMORY_BYTES = {"api": 400 * MIB, "ticker": 200 * MIB, "worker": 400 * MIB, STEP_PROCESSES: 704 * MIB}
"""The most resident memory; a step process has 512 MiB beyond the 100 or so that it starts with, and some room."""
TIMELY_SECONDS = 20.0
"""How long the answers to what began in the attack are waited for: probe.py gives up before."""
ROUTINES = 14
"""Routines of beta, fired in turns, so that the run of one has long ended when it is due again."""
MOST_CANCELLED = 2000
"""Runs that alpha cancels itself, a hundred in a request; what is beyond is cancelled at psql."""
CANCELLED_AT_ONCE = 100
PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Sample:
    """One thing that beta did: see probe.py."""

    probe: str
    at: float
    seconds: float
    fault: str | None


@dataclass(frozen=True)
class Verdict:
    """What an attack did.

    Attributes:
        harm: A sentence for each way in which it hurt; empty: it was held.
        p99: Of each probe during the attack, in seconds.
        stalls: The longest stall of each program.
        peaks: The most resident memory of each program, in bytes.
        recovered_seconds: How long after the attack beta was well again; None: not in time.
        answers: How often alpha got each status; 0: no answer.
    """

    harm: list[str]
    p99: dict[str, float]
    stalls: dict[str, Stall]
    peaks: dict[str, int]
    recovered_seconds: float | None
    answers: dict[int, int]

    def __str__(self) -> str:
        """Everything that was measured, in a few lines."""
        p99 = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in self.p99.items())
        stalls = ", ".join(f"{name} {stall.seconds * 1000:.0f} ms" for name, stall in self.stalls.items())
        peaks = ", ".join(f"{name} {size // MIB} MiB" for name, size in self.peaks.items())
        recovered = (
            "not recovered" if self.recovered_seconds is None else f"recovered in {self.recovered_seconds:.1f} s"
        )
        told = f"p99 {p99}; stalls {stalls or 'none'}; peaks {peaks}; {recovered}; alpha was answered {self.answers}"
        return "\n".join([*(f"- {each}" for each in self.harm), told])


@dataclass
class Arena:
    """Programs on a database, beta beside them, and one attack after another.

    Attributes:
        quiet: Beta's p99 of each probe while nobody attacks.
        quiet_cores: How many cores all programs use then.
        is_spent: An attack left its marks: the next one must have another arena.
    """

    programs: Programs
    database: Database
    quiet: dict[str, float] = field(default_factory=dict[str, float])
    quiet_cores: float = 0.0
    is_spent: bool = False
    _probe: "subprocess.Popen[str] | None" = None
    _samples: "deque[Sample]" = field(default_factory=deque)
    _pending_since: float = 0.0
    _numbers: "count[int]" = field(default_factory=count)

    def open(self) -> None:
        """Make beta and its probe, and measure the quiet values."""
        config = self._make_beta()
        self._probe = subprocess.Popen(
            [sys.executable, str(PROBE), json.dumps(asdict(config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: {each.probe for each in list(self._samples)} == set(PROBES))
        began, used = time.monotonic(), self.programs.cpu_seconds()
        time.sleep(QUIET_SECONDS)
        self.quiet_cores = self._cores_since(began, used)
        self._wait_for_answers(time.monotonic())
        samples = self._between(began, began + QUIET_SECONDS)
        assert not [each for each in samples if each.fault], f"beta fails though nobody attacks: {samples}"
        self.quiet = p99_of(samples)

    def close(self) -> None:
        """Stop the probe."""
        if self._probe and self._probe.stdin:
            self._probe.stdin.close()
            self._probe.wait(timeout=10)

    def suffer(self, attack: Attack, *, seconds: float) -> Verdict:
        """Make an attack of so many seconds and return what it did to beta."""
        name = f"alpha-{next(self._numbers)}"
        alpha = Alpha(self.programs.api_url, new_key(self.database, name), name, self.database.url, seconds)
        self.programs.forget_peaks()
        stop = threading.Event()
        watching = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        watching.start()
        began = time.monotonic()
        try:
            attack.launch(alpha)
            alpha.hold()
            ended = time.monotonic()
            answers = dict(sorted(alpha.answers.items()))
        finally:
            alpha.close()
        left = self._clean_up(alpha)
        recovered = self._recovered_seconds(ended)
        self._wait_for_answers(ended)
        stop.set()
        watching.join()
        samples = self._between(began, ended)
        stalls = self.programs.stalls(began, ended + RECOVERY_SECONDS)
        worst = {name: next(each for each in stalls if each.program == name) for name in {s.program for s in stalls}}
        p99 = p99_of(samples)
        harm = [*self._harm_to_beta(samples, p99), *self._harm_to_programs(worst), *left]
        if recovered is None:
            harm.append(f"beta is not as before {RECOVERY_SECONDS:g} s after the attack")
        if answers.get(500):
            harm.append(f"alpha got the status 500 {answers[500]} times")
        self.is_spent = bool(harm)
        return Verdict(harm, p99, worst, dict(self.programs.peaks), recovered, answers)

    def bound(self, probe: str) -> float:
        """The largest p99 that this probe may have."""
        return max(QUIET_FACTOR * self.quiet[probe], LEAST_BOUND_SECONDS)

    def _harm_to_beta(self, samples: list[Sample], p99: dict[str, float]) -> list[str]:
        harm: list[str] = []
        for probe in PROBES:
            own = [each for each in samples if each.probe == probe]
            if not own:
                harm.append(f"beta's {probe} was not begun once")
                continue
            if p99[probe] > self.bound(probe):
                harm.append(
                    f"beta's {probe}: p99 {p99[probe]:.2f} s, at most {self.bound(probe):.2f} s are allowed "
                    f"(quiet {self.quiet[probe]:.2f} s)"
                )
            if faults := [each.fault for each in own if each.fault]:
                harm.append(f"beta's {probe}: {len(faults)} of {len(own)} failed, the first with: {faults[0]}")
        return harm

    def _harm_to_programs(self, worst: dict[str, Stall]) -> list[str]:
        harm = [f"the {name} ended with code {code}" for name, code in self.programs.ended().items()]
        for name, stall in worst.items():
            if stall.seconds > STALL_SECONDS:
                harm.append(f"the {name}'s loop stood still for {stall.seconds:.2f} s at {stall.where or 'unknown'}")
        for name, size in self.programs.peaks.items():
            if size > MEMORY_BYTES[name]:
                harm.append(f"the {name} used {size // MIB} MiB, at most {MEMORY_BYTES[name] // MIB} are allowed")
        return harm

    def _clean_up(self, alpha: Alpha) -> list[str]:
        """Let alpha cancel what it has; returns a sentence if anything stays active."""
        until = time.monotonic() + RECOVERY_SECONDS
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            client = Alpha(alpha.api_url, alpha.key, alpha.collection, alpha.database_url, 0)
            while active := _active(connection, alpha.collection):
                if time.monotonic() > until:
                    return [
                        f"{len(active)} runs of alpha are still active {RECOVERY_SECONDS:g} s after they were cancelled"
                    ]
                if len(active) > MOST_CANCELLED:
                    _cancel_at_psql(connection, alpha.collection)
                for task in {task for _, task in active}:
                    runs = [run for run, of in active if of == task][:MOST_CANCELLED]
                    for start in range(0, len(runs), CANCELLED_AT_ONCE):
                        body = {str(run): "cancelled" for run in runs[start : start + CANCELLED_AT_ONCE]}
                        client.send("POST", f"/trajectory/{alpha.collection}/{task}/statuses", body, timeout=5)
                time.sleep(0.1)
            client.close()
        return []

    def _recovered_seconds(self, ended: float) -> float | None:
        """Wait until beta has been well for a while without a break; how long after the attack that began."""
        marks: deque[tuple[float, dict[int, float]]] = deque()
        while (now := time.monotonic()) < ended + RECOVERY_SECONDS + WINDOW_SECONDS:
            marks.append((now, self.programs.cpu_seconds()))
            while len(marks) > 1 and marks[1][0] <= now - WINDOW_SECONDS:
                marks.popleft()
            begin, used = marks[0]
            window = self._between(begin, now)
            is_well = all(not each.fault and each.seconds <= self.bound(each.probe) for each in window)
            is_long = now - begin >= WINDOW_SECONDS
            is_well &= self._cores_since(begin, used) <= self.quiet_cores + SPARE_CORES
            if is_long and is_well and {RUN_SYNC, GET} <= {each.probe for each in window}:
                return begin - ended
            time.sleep(0.1)
        return None

    def _cores_since(self, begin: float, used: dict[int, float]) -> float:
        now = self.programs.cpu_seconds()
        return sum(seconds - used.get(pid, 0.0) for pid, seconds in now.items()) / (time.monotonic() - begin)

    def _wait_for_answers(self, until: float) -> None:
        """Wait until all that beta began before this time has ended."""
        deadline = time.monotonic() + TIMELY_SECONDS
        while self._pending_since <= until and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self._pending_since > until, "the probe itself does not answer"

    def _between(self, begin: float, end: float) -> list[Sample]:
        return [each for each in list(self._samples) if begin <= each.at < end]

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            self.programs.note_peaks()

    def _read(self) -> None:
        assert self._probe
        assert self._probe.stdout
        for line in self._probe.stdout:
            told = json.loads(line)
            if "pending_since" in told:
                self._pending_since = told["pending_since"]
            else:
                self._samples.append(Sample(**told))

    def _make_beta(self) -> Config:
        key = new_key(self.database, "beta")
        beta = Alpha(self.programs.api_url, key, "beta", self.database.url, 0)
        task = beta.task({"echo": {"activity": "text_echo", "text": "quiet"}}, name="echo")
        for number in range(ROUTINES):
            routine = {"name": f"r{number}", "cadence": {"type": "daily", "hour_utc": 0}}
            beta.send("POST", f"/routines/beta/{task}", routine)
        run = beta.ended_run(task)
        routines = [row[0] for row in beta.execute("SELECT id FROM routines.routines ORDER BY id")]
        assert len(routines) == ROUTINES
        beta.close()
        return Config(self.programs.api_url, key, self.database.url, "beta", task, run, routines)


def p99_of(samples: list[Sample]) -> dict[str, float]:
    """The p99 of each probe, by nearest rank: of fewer than a hundred samples the largest."""
    found: dict[str, float] = {}
    for probe in (RUN_SYNC, GET, FIRE, WEBHOOK):
        seconds = sorted(each.seconds for each in samples if each.probe == probe)
        if seconds:
            found[probe] = seconds[-(-99 * len(seconds) // 100) - 1]
    return found


def _active(connection: psycopg.Connection, collection: str) -> list[tuple[int, str]]:
    """The active runs of a collection, parents first, with the names of their tasks."""
    return connection.execute(
        """SELECT trajectories.id, tasks.name FROM routines.trajectories
           JOIN routines.tasks ON tasks.id = trajectories.task_id
           WHERE ended_at IS NULL
             AND trajectories.collection_id = (SELECT id FROM routines.collections WHERE name = %s)
           ORDER BY trajectories.id""",
        [collection],
    ).fetchall()


def _cancel_at_psql(connection: psycopg.Connection, collection: str) -> None:
    """Cancel by one statement what is too much for requests."""
    connection.execute(
        """UPDATE routines.trajectories SET status = 'cancelled', ended_at = now(), lease_expires_at = NULL
           WHERE ended_at IS NULL AND collection_id = (SELECT id FROM routines.collections WHERE name = %s)""",
        [collection],
    )
