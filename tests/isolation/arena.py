"""The arena: the programs, beta's probe, and the verdict on what an attack did to beta.

An attack is contained if all of this holds:

- Each probe's p99 is at most QUIET_FACTOR times its quiet value, or LEAST_BOUND_SECONDS if that is more.
- Nothing fails for beta: every status is 200, every run completes, every slot fires and every webhook arrives.
- No probe stands still for longer than STANDSTILL_SECONDS: something of it succeeds now and then.
- No event loop of the API, ticker or worker stalls for longer than STALL_SECONDS.
- No program exceeds its limit in MEMORY_BYTES, and none exits.
- Alpha has exceeded none of ALPHAS_LIMITS, which the arena sets as an operator would, by more than OVERSHOOT.
- RECOVERY_SECONDS after the attack, beta's probes are within their bounds again, none of alpha's cancelled runs is
  still active, the programs use at most SPARE_CORES more processor time than before, and none of them is busy all the
  time, which shows even if a busy machine gives it little processor time.
"""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
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
STANDSTILL_SECONDS = 3.0
STALL_SECONDS = 0.1
RECOVERY_SECONDS = 10.0
WINDOW_SECONDS = 1.5
"""Beta has recovered once its probes stay within their bounds for this long."""
SPARE_CORES = 0.4
"""Processor time, in cores, that all programs may use after an attack beyond the quiet value: no work may linger."""
MEMORY_BYTES = {"api": 400 * MIB, "ticker": 200 * MIB, "worker": 400 * MIB, STEP_PROCESSES: 704 * MIB}
"""Maximum resident memory. A step process may use 512 MiB beyond the 100 MiB or so that it starts with; some margin."""
ALPHAS_LIMITS: dict[str, int | None] = {"tasks": 300, "files": 300, "run_steps": 1000, "run_children": 300}
"""Limits of alpha's collection that an attack can reach; most of the built-in ones would take it hours."""
OVERSHOOT = 1.5
"""Requests in progress may exceed a limit; an attack exceeds it many times without one."""
TIMELY_SECONDS = 20.0
"""How long to wait for responses to requests made during the attack. The probe's own timeout is shorter."""
ROUTINES = 14
"""Routines of beta. They fire in turn, so each one's run has ended long before it is due again."""
MOST_CANCELLED = 2000
"""Runs that alpha cancels by HTTP, a hundred per request; the rest are cancelled by SQL."""
CANCELLED_AT_ONCE = 100
PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Sample:
    """One measured action of beta: see probe.py."""

    probe: str
    at: float
    seconds: float
    fault: str | None


@dataclass(frozen=True)
class Verdict:
    """The effect of an attack.

    Attributes:
        harm: One sentence per kind of harm; empty if the attack was contained.
        p99: The p99 of each probe during the attack, in seconds.
        stalls: The longest stall of each program.
        peaks: Peak resident memory of each program, in bytes.
        recovered_seconds: How long after the attack beta recovered; None if it did not in time.
        answers: Number of responses to alpha by status; 0 stands for no response.
    """

    harm: list[str]
    p99: dict[str, float]
    stalls: dict[str, Stall]
    peaks: dict[str, int]
    recovered_seconds: float | None
    answers: dict[int, int]

    def __str__(self) -> str:
        """Return all measurements in a few lines."""
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
    """Programs on a database, with beta as the victim of one attack after another.

    Attributes:
        quiet: The p99 of each probe without an attack, in seconds.
        quiet_cores: How many cores all programs use then.
        is_spent: True once an attack has done harm; the next attack needs a new arena.
        limits: Limits of alpha's collection beside ALPHAS_LIMITS, or instead of them; None for no limit.
    """

    programs: Programs
    database: Database
    limits: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    quiet: dict[str, float] = field(default_factory=dict[str, float])
    quiet_cores: float = 0.0
    is_spent: bool = False
    _probe: "subprocess.Popen[str] | None" = None
    _samples: "deque[Sample]" = field(default_factory=deque)
    _pending_since: float = 0.0
    _numbers: "count[int]" = field(default_factory=count)

    def open(self) -> None:
        """Create beta, start its probe, and measure the quiet values."""
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
        assert not [each for each in samples if each.fault], f"beta fails without an attack: {samples}"
        self.quiet = p99_of(samples)

    def close(self) -> None:
        """Stop the probe."""
        if self._probe and self._probe.stdin:
            self._probe.stdin.close()
            self._probe.wait(timeout=10)

    def suffer(self, attack: Attack, *, seconds: float) -> Verdict:
        """Attack for this many seconds and return the verdict."""
        name = f"alpha-{next(self._numbers)}"
        alpha = self._new_alpha(name, seconds)
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
            left = self._excess(alpha)
        finally:
            alpha.close()
        left += self._clean_up(alpha)
        recovered, unlike_before = self._recovered_seconds(ended)
        self._wait_for_answers(ended)
        stop.set()
        watching.join()
        samples = self._between(began, ended)
        stalls = self.programs.stalls(began, ended + RECOVERY_SECONDS)
        worst = {name: next(each for each in stalls if each.program == name) for name in {s.program for s in stalls}}
        p99 = p99_of(samples)
        harm = [*self._harm_to_beta(samples, p99), *self._standstills(samples, began, ended)]
        harm += [*self._harm_to_programs(worst), *left]
        if recovered is None:
            harm.append(f"beta had not recovered {RECOVERY_SECONDS:g} s after the attack: {unlike_before}")
        if answers.get(500):
            harm.append(f"alpha got status 500 {answers[500]} times")
        self.is_spent = bool(harm)
        return Verdict(harm, p99, worst, dict(self.programs.peaks), recovered, answers)

    def bound(self, probe: str) -> float:
        """Return the maximum p99 of this probe, in seconds."""
        return max(QUIET_FACTOR * self.quiet[probe], LEAST_BOUND_SECONDS)

    def _harm_to_beta(self, samples: list[Sample], p99: dict[str, float]) -> list[str]:
        harm: list[str] = []
        for probe in PROBES:
            own = [each for each in samples if each.probe == probe]
            if not own:
                harm.append(f"beta's {probe} was never started")
                continue
            if p99[probe] > self.bound(probe):
                harm.append(
                    f"beta's {probe}: p99 {p99[probe]:.2f} s, more than the allowed {self.bound(probe):.2f} s "
                    f"(quiet {self.quiet[probe]:.2f} s)"
                )
            if faults := [each.fault for each in own if each.fault]:
                harm.append(f"beta's {probe}: {len(faults)} of {len(own)} failed, the first with: {faults[0]}")
        return harm

    @staticmethod
    def _standstills(samples: list[Sample], began: float, ended: float) -> list[str]:
        """Return a sentence for each probe that kept starting actions, none of which succeeded for a while."""
        harm: list[str] = []
        for probe in PROBES:
            ends = sorted(each.at + each.seconds for each in samples if each.probe == probe and not each.fault)
            moments = [began, *(end for end in ends if end < ended), ended]
            longest = max(later - earlier for earlier, later in pairwise(moments))
            if longest > STANDSTILL_SECONDS:
                harm.append(f"beta's {probe} stood still for {longest:.1f} s")
        return harm

    def _excess(self, alpha: Alpha) -> list[str]:
        """Return a sentence for each limit that alpha has exceeded; counted by what is there."""
        [(collection, tasks, steps, children)] = alpha.execute(
            """SELECT id, (SELECT count(*) FROM routines.tasks WHERE collection_id = collections.id),
                      (SELECT coalesce(max(number), 0) FROM (
                           SELECT count(*) AS number
                           FROM routines.steps JOIN routines.trajectories ON trajectory_id = trajectories.id
                           WHERE collection_id = collections.id GROUP BY trajectory_id) AS counted),
                      (SELECT coalesce(max(number), 0) FROM (
                           SELECT count(*) AS number FROM routines.trajectories
                           WHERE collection_id = collections.id AND root_id IS NOT NULL GROUP BY root_id) AS counted)
               FROM routines.collections WHERE name = %s""",
            alpha.collection,
        )
        folder = self.programs.files / str(collection)
        files = len(list(folder.iterdir())) if folder.exists() else 0
        found = {"tasks": tasks, "files": files, "run_steps": steps, "run_children": children}
        return [
            f"alpha's {name} reached {found[name]}, more than its limit of {most}"
            for name, most in ALPHAS_LIMITS.items()
            if most is not None and found[name] > OVERSHOOT * most
        ]

    def _harm_to_programs(self, worst: dict[str, Stall]) -> list[str]:
        harm = [f"the {name} ended with code {code}" for name, code in self.programs.ended().items()]
        for name, stall in worst.items():
            if stall.seconds > STALL_SECONDS:
                harm.append(f"the {name}'s loop stalled for {stall.seconds:.2f} s at {stall.where or 'unknown'}")
        for name, size in self.programs.peaks.items():
            if size > MEMORY_BYTES[name]:
                harm.append(f"the {name} used {size // MIB} MiB, more than the allowed {MEMORY_BYTES[name] // MIB}")
        return harm

    def _clean_up(self, alpha: Alpha) -> list[str]:
        """Let alpha cancel its runs. Returns a sentence of harm if any stays active."""
        until = time.monotonic() + RECOVERY_SECONDS
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            client = Alpha(alpha.api_url, alpha.key, alpha.collection, alpha.database_url, 0)
            while active := _active(connection, alpha.collection):
                if time.monotonic() > until:
                    return [
                        f"{len(active)} runs of alpha are still active {RECOVERY_SECONDS:g} s after they were cancelled"
                    ]
                if len(active) > MOST_CANCELLED:
                    cancel_at_psql(connection, alpha.collection)
                for task in {task for _, task in active}:
                    runs = [run for run, of in active if of == task][:MOST_CANCELLED]
                    for start in range(0, len(runs), CANCELLED_AT_ONCE):
                        body = {str(run): "cancelled" for run in runs[start : start + CANCELLED_AT_ONCE]}
                        client.send("POST", f"/trajectory/{alpha.collection}/{task}/statuses", body, timeout=5)
                time.sleep(0.1)
            client.close()
        return []

    def _recovered_seconds(self, ended: float) -> tuple[float | None, str]:
        """Wait until all is as before the attack.

        Returns:
            How long after the attack that began, or None if it did not in time; and what was last not as before.
        """
        marks: deque[tuple[float, dict[int, float], dict[int, str]]] = deque()
        difference = "nothing was measured"
        while (now := time.monotonic()) < ended + RECOVERY_SECONDS + WINDOW_SECONDS:
            marks.append((now, self.programs.cpu_seconds(), self.programs.running()))
            while len(marks) > 1 and marks[1][0] <= now - WINDOW_SECONDS:
                marks.popleft()
            begin, used, running = marks[0]
            if now - begin >= WINDOW_SECONDS:
                busy = [running[pid] for pid in running if all(pid in each for _, _, each in marks)]
                found = self._difference(self._between(begin, now), self._cores_since(begin, used), busy)
                if found is None:
                    return begin - ended, ""
                difference = found
            time.sleep(0.1)
        return None, difference

    def _difference(self, window: list[Sample], cores: float, busy: list[str]) -> str | None:
        """Return what is not as before the attack; None if all is."""
        if busy:
            return f"the {busy[0]} was busy without a pause"
        if cores > self.quiet_cores + SPARE_CORES:
            return f"the programs used {cores - self.quiet_cores:.1f} cores more than before"
        for each in window:
            if each.fault or each.seconds > self.bound(each.probe):
                return f"a {each.probe} took {each.seconds:.2f} s ({each.fault or 'but succeeded'})"
        missing = {RUN_SYNC, GET} - {each.probe for each in window}
        return f"no {min(missing)} ended" if missing else None

    def _cores_since(self, begin: float, used: dict[int, float]) -> float:
        now = self.programs.cpu_seconds()
        return sum(seconds - used.get(pid, 0.0) for pid, seconds in now.items()) / (time.monotonic() - begin)

    def _wait_for_answers(self, until: float) -> None:
        """Wait until every action that beta started before this time has ended."""
        deadline = time.monotonic() + TIMELY_SECONDS
        while self._pending_since <= until and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self._pending_since > until, "the probe itself does not respond"

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

    def _new_alpha(self, name: str, seconds: float) -> Alpha:
        alpha = Alpha(self.programs.api_url, new_key(self.database, name), name, self.database.url, seconds)
        for limit, most in {**ALPHAS_LIMITS, **self.limits}.items():
            alpha.execute(
                """INSERT INTO routines.collection_limits (collection_id, name, value)
                   SELECT id, %s, %s FROM routines.collections WHERE name = %s""",
                limit,
                most,
                name,
            )
        return alpha

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
    """Return the p99 of each probe by nearest rank; with fewer than a hundred samples, the largest."""
    found: dict[str, float] = {}
    for probe in (RUN_SYNC, GET, FIRE, WEBHOOK):
        seconds = sorted(each.seconds for each in samples if each.probe == probe)
        if seconds:
            found[probe] = seconds[-(-99 * len(seconds) // 100) - 1]
    return found


def _active(connection: psycopg.Connection, collection: str) -> list[tuple[int, str]]:
    """Return the active runs of a collection with the names of their tasks, parents first."""
    return connection.execute(
        """SELECT trajectories.id, tasks.name FROM routines.trajectories
           JOIN routines.tasks ON tasks.id = trajectories.task_id
           WHERE ended_at IS NULL
             AND trajectories.collection_id = (SELECT id FROM routines.collections WHERE name = %s)
           ORDER BY trajectories.id""",
        [collection],
    ).fetchall()


def cancel_at_psql(connection: psycopg.Connection, collection: str) -> None:
    """Cancel all active runs, where there are too many for requests.

    A hundred in each statement: checkpoints of other runs would wait for the end of one that locks thousands.
    """
    cancelled = CANCELLED_AT_ONCE
    while cancelled == CANCELLED_AT_ONCE:
        cancelled = connection.execute(
            """UPDATE routines.trajectories SET status = 'cancelled', ended_at = now(), lease_expires_at = NULL
               WHERE id IN (SELECT id FROM routines.trajectories
                            WHERE ended_at IS NULL
                              AND collection_id = (SELECT id FROM routines.collections WHERE name = %s)
                            LIMIT %s)""",
            [collection, CANCELLED_AT_ONCE],
        ).rowcount
