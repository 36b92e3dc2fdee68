"""Attacks by connections: many, slow or silent ones, with and without a key."""

import itertools
import time

from isolation.alpha import Alpha, dumps, hangs, receiver
from isolation.attacks import Containment, attack
from isolation.corpus.bodies import BODY
from isolation.corpus.workflows import FITTING, FLEETING, big_steps, slow_step

# Kind 10: connections


@attack(Containment.KEY_FIRST, kind=10, in_make_test=True)
def bodies_without_a_key(alpha: Alpha) -> None:
    """A thousand connections without a key send most of a 255 KB body, then a byte now and then."""
    head = alpha.head("POST", "/tasks/beta", key=False, Content_Type="application/json", Content_Length=BODY)
    _slow_bodies(alpha, head, 1000)


@attack(Containment.KEY_FIRST, kind=10)
def bodies_with_a_key_that_does_not_count(alpha: Alpha) -> None:
    """Eight hundred connections with a made-up key send most of a 255 KB body."""
    head = alpha.head(
        "POST", "/tasks/beta", key=False, Authorization=f"Bearer {alpha.key[:-6]}aaaaaa", Content_Length=BODY
    )
    _slow_bodies(alpha, head, 800)


@attack(Containment.KEY_FIRST, kind=10)
def slow_bodies_with_a_key(alpha: Alpha) -> None:
    """Eight hundred connections with alpha's key send most of a 255 KB body."""
    head = alpha.head("POST", f"/tasks/{alpha.collection}", Content_Type="application/json", Content_Length=BODY)
    _slow_bodies(alpha, head, 800)


@attack(Containment.KEY_FIRST, kind=10)
def slow_headers(alpha: Alpha) -> None:
    """Eight hundred connections send one header every half second and never finish."""
    connections = [alpha.connect() for _ in range(800)]
    alpha.begin()
    for each in connections:
        alpha.push(each, b"GET /api/v1/health HTTP/1.1\r\nHost: alpha\r\n")
    while alpha.goes_on():
        for each in connections:
            alpha.push(each, b"X-More: 1\r\n")
        time.sleep(0.5)


@attack(Containment.KEY_FIRST)
def connections_that_say_nothing(alpha: Alpha) -> None:
    """Alpha opens 1,500 connections and sends nothing on any of them."""
    alpha.begin()
    for _ in range(1500):
        if alpha.goes_on():
            alpha.connect()
    alpha.hold()


@attack(Containment.KEY_FIRST)
def keys_guessed_at_the_highest_rate(alpha: Alpha) -> None:
    """Sixteen connections try one made-up key after another."""
    numbers = itertools.count()

    def guess() -> None:
        token = f"{alpha.key[:-8]}{next(numbers):08}"
        alpha.send("GET", "/collections", headers={"Authorization": f"Bearer {token}"})

    alpha.repeat(guess, threads=16)


@attack(Containment.KEY_FIRST)
def pages_that_need_no_key(alpha: Alpha) -> None:
    """Sixteen connections without a key read the description of the API, its metrics and its health."""
    paths = itertools.cycle(["/openapi.json", "/metrics", "/metrics/", "//metrics", "/docs", "/api/v1/health"])
    root = alpha.api_url
    alpha.repeat(lambda: alpha.send("GET", root + next(paths), headers={"Authorization": ""}), threads=16)


@attack(Containment.FAIR_SHARES, kind=10, in_make_test=True)
def the_seats_of_run_sync(alpha: Alpha) -> None:
    """205 run-sync requests of alpha wait for slow runs and try to take every seat."""
    with receiver(hangs) as url:
        alpha.task({"wait": slow_step(url)})
        head = alpha.head("POST", f"/run-sync/{alpha.collection}/attack", Content_Length=0)
        alpha.begin()
        for _ in range(205):
            alpha.push(alpha.connect(), head)
        alpha.hold()


@attack(Containment.FAIR_SHARES)
def requests_at_the_highest_rate(alpha: Alpha) -> None:
    """Thirty-two connections of alpha list and read at the full rate."""
    alpha.task({"echo": FLEETING})
    run = alpha.ended_run("attack")
    paths = itertools.cycle(
        [
            f"/db/trajectory/{alpha.collection}/attack/{run}",
            f"/tasks/{alpha.collection}",
            f"/db/stats/{alpha.collection}/attack",
        ]
    )
    alpha.begin()
    alpha.repeat(lambda: alpha.send("GET", next(paths)), threads=32)


@attack(Containment.FAIR_SHARES)
def labels_that_wait_for_one_another(alpha: Alpha) -> None:
    """A thousand connections of alpha label the same run, and each label waits for the one before it."""
    alpha.task(big_steps(FITTING))
    run = alpha.ended_run("attack", seconds=60)
    label = dumps({"key": "k", "value": "v"})
    path = f"/trajectory/{alpha.collection}/attack/{run}/labels"
    requests = (alpha.head("POST", path, Content_Type="application/json", Content_Length=len(label)) + label) * 20
    alpha.begin()
    for _ in range(1000):
        alpha.push(alpha.connect(), requests)
    alpha.hold()


@attack(Containment.BOUNDED_READS)
def readers_that_do_not_read(alpha: Alpha) -> None:
    """Forty connections request a run of 20 MiB and do not read the response."""
    alpha.task(big_steps(20))
    run = alpha.ended_run("attack", seconds=60)
    head = alpha.head("GET", f"/db/trajectory/{alpha.collection}/attack/{run}")
    alpha.begin()
    for _ in range(40):
        alpha.push(alpha.connect(), head)
        time.sleep(0.05)
    alpha.hold()


@attack(Containment.REQUEST_LIMITS)
def hundreds_of_requests_in_one_connection(alpha: Alpha) -> None:
    """Twenty connections each send 200 requests without waiting for a response."""
    alpha.task({"echo": FLEETING})
    requests = alpha.head("GET", f"/tasks/{alpha.collection}") * 200
    alpha.begin()
    while alpha.goes_on():
        for _ in range(20):
            alpha.push(alpha.connect(), requests)
        time.sleep(2)


def _slow_bodies(alpha: Alpha, head: bytes, count: int) -> None:
    content = b" " * (BODY - 1000)
    connections = []
    alpha.begin()
    for _ in range(count):
        if not alpha.goes_on():
            break
        connections.append(alpha.connect())
        alpha.push(connections[-1], head + content)
    while alpha.goes_on():
        for each in connections:
            alpha.push(each, b" ")
        time.sleep(0.5)
