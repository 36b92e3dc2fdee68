"""Attacks by hostile requests to the API, sent by alpha or without a valid key."""

import itertools
import json
import time

from isolation.alpha import Alpha, answering, dumps, hangs, receiver
from isolation.attacks import Containment, attack
from isolation.workflows import FLEETING, PIECE, big_steps, slow_step

BODY = 255 * 1024
"""A body just below the limit."""


# Row 8: checks of workflows


@attack(Containment.CHECKS_OFF_LOOP, row=8, in_make_test=True)
def templates_of_eight_thousand_placeholders(alpha: Alpha) -> None:
    """Alpha saves templates of 60 KB made of placeholders for undeclared names, new ones each time."""
    numbers = itertools.count()

    def save() -> None:
        name = f"a{next(numbers)}"
        steps = {f"s{index}": {"activity": "text_echo", "text": f"{{{{{name}}}}}" * 8000} for index in range(3)}
        _save(alpha, steps)

    alpha.repeat(save, threads=4)


@attack(Containment.CHECKS_OFF_LOOP, row=8)
def references_of_many_members(alpha: Alpha) -> None:
    """Alpha saves workflows with 1,200 references of a hundred members each, new ones each time."""
    numbers = itertools.count()

    def save() -> None:
        reference = f"init_params.p{next(numbers)}" + ".a" * 90
        steps = {
            "s": {"activity": "conditional_branch", "value_path": [f"{reference}{index}" for index in range(1000)]}
        }
        _save(alpha, steps, {"p": 1})

    alpha.repeat(save, threads=4)


@attack(Containment.CHECKS_OFF_LOOP, row=8)
def activities_that_are_nearly_known(alpha: Alpha) -> None:
    """Alpha saves workflows of 2,000 steps with misspelled activities, each compared with every known one."""
    steps = {f"s{index}": {"activity": f"text_templat{index % 10}"} for index in range(2000)}
    body = dumps({"workflow": {"init_params": {}, "step_configs": steps, "steps": list(steps)}})
    alpha.task({"echo": FLEETING})
    alpha.repeat(lambda: alpha.send("PUT", f"/tasks/{alpha.collection}/attack", body), threads=4)


@attack(Containment.COLLECTION_LIMITS, row=8)
def a_large_workflow_saved_again_and_again(alpha: Alpha) -> None:
    """Alpha saves a valid workflow of 230 KB over and over; every version is kept."""
    steps = {f"s{index}": {"activity": "text_echo", "text": "{{ init_params.a }} " + "x" * 200} for index in range(900)}
    alpha.task({"echo": FLEETING})
    numbers = itertools.count()

    def save() -> None:
        workflow = {"init_params": {"a": next(numbers)}, "step_configs": steps, "steps": list(steps)}
        alpha.send("PUT", f"/tasks/{alpha.collection}/attack", {"workflow": workflow})

    alpha.repeat(save, threads=4)


@attack(Containment.REQUEST_LIMITS, in_make_test=True)
def bodies_of_many_mebibytes(alpha: Alpha) -> None:
    """Four connections of alpha send texts of 30 MB, numbers of 20 million digits and a million short keys."""
    alpha.task({"echo": FLEETING}, {"a": ""})
    begin, end = b'{"init_params": {"a": ', b"}}"
    keys = b",".join(b'"%d":0' % number for number in range(1_000_000))
    bodies = itertools.cycle(
        [
            begin + b'"' + b"x" * 30_000_000 + b'"' + end,
            begin + b"[" + b"9" * 20_000_000 + b"]" + end,
            begin + b"{" + keys + b"}" + end,
        ]
    )

    def send() -> None:
        alpha.send("POST", f"/run/{alpha.collection}/attack", next(bodies))
        time.sleep(0.3)

    alpha.repeat(send, threads=4)


@attack(Containment.REQUEST_LIMITS)
def json_nested_deeply(alpha: Alpha) -> None:
    """Alpha sends bodies of 120,000 nested arrays, both closed and unclosed."""
    bodies = itertools.cycle([b"[" * 120_000 + b"]" * 120_000, b'{"a":' * 40_000, b"[" * BODY])
    alpha.repeat(lambda: alpha.send("POST", f"/tasks/{alpha.collection}", next(bodies)), threads=8)


@attack(Containment.REQUEST_LIMITS)
def numbers_of_many_digits(alpha: Alpha) -> None:
    """Alpha sends numbers of 200,000 digits, numbers with huge exponents, and 60,000 small numbers."""
    bodies = itertools.cycle(
        [
            b'{"init_params": {"a": ' + b"9" * 200_000 + b"}}",
            b'{"init_params": {"a": 1e' + b"9" * 200_000 + b"}}",
            b'{"init_params": {"a": 0.' + b"1" * 200_000 + b"}}",
            b'{"init_params": {"a": [' + b"1e308," * 40_000 + b"1]}}",
        ]
    )
    alpha.task({"echo": FLEETING}, {"a": 0})
    alpha.repeat(lambda: alpha.send("POST", f"/run/{alpha.collection}/attack", next(bodies)), threads=8)


@attack(Containment.REQUEST_LIMITS)
def giant_keys(alpha: Alpha) -> None:
    """Alpha sends objects with 9,999 keys, with keys of 60 KB, and with the same key thousands of times."""
    bodies = itertools.cycle(
        [
            dumps({"init_params": {f"k{number}": 0 for number in range(9_999)}}),
            dumps({"init_params": {f"{number}" + PIECE: 0 for number in range(4)}}),
            b'{"init_params": {' + b",".join([b'"same": 1'] * 20_000) + b"}}",
            dumps({f"k{number}": 0 for number in range(9_999)}),
        ]
    )
    alpha.task({"echo": FLEETING})
    alpha.repeat(lambda: alpha.send("POST", f"/run/{alpha.collection}/attack", next(bodies)), threads=8)


@attack(Containment.REQUEST_LIMITS)
def texts_for_regular_expressions(alpha: Alpha) -> None:
    """Alpha sends slugs, URLs, ids and names of 60 KB that nearly match their pattern."""
    alpha.task({"echo": FLEETING})
    cadence = {"type": "manual"}
    where = f"/{alpha.collection}/attack"
    requests = itertools.cycle(
        [
            (f"/routines{where}", {"name": "a-" * 30_000, "cadence": cadence}),
            (f"/routines{where}", {"name": "a", "cadence": cadence, "webhook_url": "http://" + "a/?#" * 15_000 + " "}),
            (f"/run{where}", {"webhook_url": "http://" + "@" * 60_000}),
            (f"/trajectory{where}/statuses", {"1" * 60_000 + "a": "cancelled"}),
        ]
    )

    def send() -> None:
        path, body = next(requests)
        alpha.send("POST", path, body)

    alpha.repeat(send, threads=8)


@attack(Containment.REQUEST_LIMITS)
def invalid_json_at_the_highest_rate(alpha: Alpha) -> None:
    """Sixteen connections of alpha send invalid JSON at the full rate."""
    body = b'{"workflow": ' + b'{"a": "' + b"\\u0000" * 30_000
    alpha.repeat(lambda: alpha.send("POST", f"/tasks/{alpha.collection}", body), threads=16)


@attack(Containment.REQUEST_LIMITS)
def thousands_of_ids(alpha: Alpha) -> None:
    """On eight connections, alpha asks for the status of 9,999 runs, and cancels a hundred in opposite orders."""
    alpha.task({"echo": FLEETING})
    runs = alpha.runs(100)
    alpha.begin()
    path = f"/trajectory/{alpha.collection}/attack/statuses"
    bodies = itertools.cycle(
        [
            dumps({str(number): "cancelled" for number in range(1, 9_999)}),
            dumps({str(run): "archived" for run in runs}),
            dumps({str(run): "archived" for run in reversed(runs)}),
        ]
    )
    alpha.repeat(lambda: alpha.send("POST", path, next(bodies)), threads=8)


@attack(Containment.REQUEST_LIMITS)
def cursors_and_pages_of_all_kinds(alpha: Alpha) -> None:
    """Alpha requests pages far beyond the end of a list, with broken cursors and cursors of 8 KB."""
    alpha.task({"echo": FLEETING})
    where = f"{alpha.collection}/attack"
    paths = itertools.cycle(
        [
            f"/db/trajectories/{where}?limit=100&page=1000000",
            f"/tasks/{alpha.collection}?cursor={'A' * 8000}",
            f"/tasks/{alpha.collection}?cursor={'eyJ' * 2000}",
            f"/routines/{alpha.collection}?limit=1000&cursor=WyJ6IiwieiJd",
            f"/db/trajectories/{where}?triggered_by_routine_id=9000000000000000000",
            f"/db/stats/{where}",
        ]
    )
    alpha.repeat(lambda: alpha.send("GET", next(paths)), threads=8)


# Row 10: connections


@attack(Containment.KEY_FIRST, row=10, in_make_test=True)
def bodies_without_a_key(alpha: Alpha) -> None:
    """A thousand connections without a key send most of a 255 KB body, then a byte now and then."""
    head = alpha.head("POST", "/tasks/beta", key=False, Content_Type="application/json", Content_Length=BODY)
    _slow_bodies(alpha, head, 1000)


@attack(Containment.KEY_FIRST, row=10)
def bodies_with_a_key_that_does_not_count(alpha: Alpha) -> None:
    """Eight hundred connections with a made-up key send most of a 255 KB body."""
    head = alpha.head(
        "POST", "/tasks/beta", key=False, Authorization=f"Bearer {alpha.key[:-6]}aaaaaa", Content_Length=BODY
    )
    _slow_bodies(alpha, head, 800)


@attack(Containment.KEY_FIRST, row=10)
def slow_bodies_with_a_key(alpha: Alpha) -> None:
    """Eight hundred connections with alpha's key send most of a 255 KB body."""
    head = alpha.head("POST", f"/tasks/{alpha.collection}", Content_Type="application/json", Content_Length=BODY)
    _slow_bodies(alpha, head, 800)


@attack(Containment.KEY_FIRST, row=10)
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


@attack(Containment.FAIR_SHARES, row=10, in_make_test=True)
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


@attack(Containment.REQUEST_LIMITS)
def forms_of_many_parts(alpha: Alpha) -> None:
    """Alpha sends forms with 2,000 parts, with headers of 15 KB, and with text that almost matches the boundary."""
    alpha.task({"echo": FLEETING})
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\nx\r\n'
    wide = b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + b"f" * 15_000 + b'"\r\n\r\nx\r\n'
    near = b'--b\r\nContent-Disposition: form-data; name="init_params"\r\n\r\n' + b"\r\n--" * 60_000
    bodies = itertools.cycle([part * 2000 + b"--b--\r\n", wide * 15 + b"--b--\r\n", near + b"\r\n--b--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    alpha.repeat(
        lambda: alpha.send("POST", f"/run/{alpha.collection}/attack", next(bodies), headers=headers), threads=8
    )


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


def _routines(alpha: Alpha, count: int, overrides: dict[str, object] | None = None) -> None:
    alpha.task({"echo": FLEETING}, {"a": ""})
    cadence = {"type": "daily", "hour_utc": 0}
    path = f"/routines/{alpha.collection}/attack"

    def make(number: int) -> None:
        alpha.send("POST", path, {"name": f"r{number}", "cadence": cadence, "init_params_overrides": overrides or {}})

    alpha.at_once(make, range(count), threads=8)
    alpha.begin()
    while alpha.goes_on():
        alpha.make_due()
        time.sleep(3)


def _save(alpha: Alpha, steps: dict[str, dict[str, object]], init_params: dict[str, object] | None = None) -> None:
    workflow = {"init_params": init_params or {}, "step_configs": steps, "steps": list(steps)}
    body = json.dumps({"name": "attack", "workflow": workflow}).encode()
    alpha.send("POST", f"/tasks/{alpha.collection}", body)


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
