"""Attacks by what a collection stores and schedules: files, keys, variables, labels and routines."""

import itertools
import time

from isolation.alpha import Alpha, answering, dumps, receiver
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING, PIECE

# Files, keys and secrets


@attack(Containment.COLLECTION_LIMITS, in_make_test=True)
def uploads_that_break_off(alpha: Alpha) -> None:
    """Ten connections keep uploading 20 of 30 MiB of a file, at 10 MiB per second, and disconnecting."""
    alpha.task({"echo": FLEETING})
    boundary = "line"
    begin = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n'
        "Content-Type: text/plain\r\n\r\n"
    ).encode()
    head = alpha.head(
        "POST",
        f"/run/{alpha.collection}/attack",
        Content_Type=f"multipart/form-data; boundary={boundary}",
        Content_Length=30 * 1024 * 1024,
    )
    content = b"x" * (1024 * 1024)

    def upload() -> None:
        connection = alpha.connect()
        sent = alpha.push(connection, head + begin)
        for _ in range(20):
            sent = sent and alpha.goes_on() and alpha.push(connection, content)
            time.sleep(0.1)
        if connection:
            connection.close()

    alpha.repeat(upload, threads=10)


@attack(Containment.COLLECTION_LIMITS)
def twenty_files_in_each_run(alpha: Alpha) -> None:
    """Four connections of alpha start runs with 20 files of 200 KB."""
    alpha.task({"echo": FLEETING})
    files = [("files", (f"f{number}.txt", b"x" * 200_000)) for number in range(20)]
    alpha.repeat(lambda: alpha.send("POST", f"/run/{alpha.collection}/attack", files=files), threads=4)


@attack(Containment.COLLECTION_LIMITS)
def tasks_without_end(alpha: Alpha) -> None:
    """Eight connections of alpha save one new task after another."""
    numbers = itertools.count()
    workflow = {"init_params": {}, "step_configs": {"echo": FLEETING}, "steps": ["echo"]}

    def save() -> None:
        alpha.send("POST", f"/tasks/{alpha.collection}", {"name": f"t{next(numbers)}", "workflow": workflow})

    alpha.repeat(save, threads=8)


@attack(Containment.COLLECTION_LIMITS)
def idempotency_keys_without_end(alpha: Alpha) -> None:
    """Alpha starts runs with 100 KB of parameters, each with a new Idempotency-Key."""
    alpha.task({"echo": FLEETING}, {"a": ""})
    numbers = itertools.count()
    body = dumps({"init_params": {"a": PIECE}})

    def start() -> None:
        headers = {"Idempotency-Key": f"key-{next(numbers)}", "Content-Type": "application/json"}
        alpha.send("POST", f"/run/{alpha.collection}/attack", body, headers=headers)

    alpha.repeat(start, threads=8)


@attack(Containment.FAIR_SHARES)
def one_idempotency_key_for_all(alpha: Alpha) -> None:
    """Forty connections of alpha send the same Idempotency-Key at once, so each waits for the previous one."""
    alpha.task({"echo": FLEETING})
    numbers = itertools.count()

    def start() -> None:
        headers = {"Idempotency-Key": f"key-{next(numbers) // 40}"}
        alpha.send("POST", f"/run/{alpha.collection}/attack", {}, headers=headers)

    alpha.repeat(start, threads=40)


@attack(Containment.COLLECTION_LIMITS)
def an_environment_that_changes_all_the_time(alpha: Alpha) -> None:
    """Four connections of alpha repeatedly set 96 small environment variables and four of 60 KB, and read them."""
    small = {f"V{number}": f"value-{number}" for number in range(96)}
    large = {f"L{number}": PIECE for number in range(4)}
    alpha.environment(small)
    path = f"/collections/{alpha.collection}/environment"
    bodies = itertools.cycle([dumps({"environment_variables": each}) for each in (small, large)])

    def change() -> None:
        alpha.send("PATCH", path, next(bodies))
        alpha.send("GET", path)

    alpha.repeat(change, threads=4)


@attack(Containment.COLLECTION_LIMITS)
def thousands_of_labels(alpha: Alpha) -> None:
    """Eight connections of alpha put labels of 1,000 letters on 200 runs."""
    alpha.task({"echo": FLEETING})
    runs = itertools.cycle(alpha.runs(200))
    numbers = itertools.count()

    def label() -> None:
        body = {"key": f"k{next(numbers) // 200}", "value": "v" * 1000}
        alpha.send("POST", f"/trajectory/{alpha.collection}/attack/{next(runs)}/labels", body)

    alpha.repeat(label, threads=8)


# Routines


@attack(Containment.FAIR_SHARES)
def hundreds_of_routines_due_at_once(alpha: Alpha) -> None:
    """Alpha's 400 routines are due in the same second, every three seconds."""
    _routines(alpha, 400)


@attack(Containment.FAIR_SHARES)
def routines_with_big_overrides(alpha: Alpha) -> None:
    """Alpha's 100 routines, each with overrides of 180 KB, are due in the same second, every three seconds."""
    _routines(alpha, 100, overrides={"a": [PIECE, PIECE, PIECE]})


@attack(Containment.FAIR_SHARES)
def routines_that_are_run_now(alpha: Alpha) -> None:
    """Eight connections of alpha keep sending run-now for one routine, whose webhook goes to a failing receiver."""
    with receiver(answering(b"", status=500)) as url:
        alpha.task({"echo": FLEETING})
        path = f"/routines/{alpha.collection}/attack"
        alpha.send("POST", path, {"name": "r", "cadence": {"type": "manual"}, "webhook_url": url})
        alpha.repeat(lambda: alpha.send("POST", f"{path}/r/run-now"), threads=8)


@attack(Containment.FAIR_SHARES)
def routines_that_fail_and_are_retried_at_once(alpha: Alpha) -> None:
    """The runs of alpha's 100 routines fail, and each is retried nineteen times without a delay."""
    alpha.task({"fail": {"activity": "http_request", "url": "http://127.0.0.1:9/"}}, {"a": ""})
    _fire(alpha, 100, retry={"max_attempts": 20, "backoff": [0]})


def _routines(alpha: Alpha, count: int, overrides: dict[str, object] | None = None) -> None:
    alpha.task({"echo": FLEETING}, {"a": ""})
    _fire(alpha, count, init_params_overrides=overrides or {})


def _fire(alpha: Alpha, count: int, **settings: object) -> None:
    cadence = {"type": "daily", "hour_utc": 0}
    path = f"/routines/{alpha.collection}/attack"

    def make(number: int) -> None:
        alpha.send("POST", path, {"name": f"r{number}", "cadence": cadence, **settings})

    alpha.at_once(make, range(count), threads=8)
    alpha.begin()
    while alpha.goes_on():
        alpha.make_due()
        time.sleep(3)
