"""Attacks by request bodies: workflows that are slow to check, and bodies that are large or malformed."""

import itertools
import json
import time

from isolation.alpha import Alpha, dumps
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import FLEETING, PIECE

BODY = 255 * 1024
"""A body just below the limit."""
PLACEHOLDERS = 60_000
"""The length of a template, slightly shorter than the limit for strings in a request."""


# Kind 8: checks of workflows


@attack(Containment.CHECKS_OFF_LOOP, kind=8, in_make_test=True)
def templates_of_eight_thousand_placeholders(alpha: Alpha) -> None:
    """Alpha saves templates of 60 KB made of placeholders for undeclared names, new ones each time."""
    numbers = itertools.count()

    def save() -> None:
        name = f"a{next(numbers)}"
        steps = {f"s{index}": {"activity": "text_echo", "text": f"{{{{{name}}}}}" * 8000} for index in range(3)}
        _save(alpha, steps)

    alpha.repeat(save, threads=4)


@attack(Containment.CHECKS_OFF_LOOP, kind=8)
def templates_of_many_indexes(alpha: Alpha) -> None:
    """Alpha saves templates of 60 KB made of references with four indexes each, which are slow to parse."""
    text = "{{init_params.a[0][1][2][3]}}" * 2100
    steps = {f"s{number}": {"activity": "text_echo", "text": text} for number in range(4)}
    alpha.repeat(lambda: _save(alpha, steps, {"a": 1}), threads=4)


@attack(Containment.CHECKS_OFF_LOOP, kind=8)
def templates_that_nobody_repeats(alpha: Alpha) -> None:
    """Alpha saves 450 templates of 60 KB made of thousands of different placeholders, new ones each time."""
    numbers = itertools.count()

    def save() -> None:
        first = 7000 * next(numbers)
        text = "".join(f"{{{{{number:x}}}}}" for number in range(first, first + 7000))[:PLACEHOLDERS]
        _save(alpha, {"s": {"activity": "text_echo", "text": text.rpartition("{{")[0]}})

    alpha.at_once(lambda _: save(), range(450), threads=4)


@attack(Containment.CHECKS_OFF_LOOP, kind=8)
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


@attack(Containment.CHECKS_OFF_LOOP, kind=8)
def activities_that_are_nearly_known(alpha: Alpha) -> None:
    """Alpha saves workflows of 2,000 steps with misspelled activities, each compared with every known one."""
    steps = {f"s{index}": {"activity": f"text_templat{index % 10}"} for index in range(2000)}
    body = dumps({"workflow": {"init_params": {}, "step_configs": steps, "steps": list(steps)}})
    alpha.task({"echo": FLEETING})
    alpha.repeat(lambda: alpha.send("PUT", f"/tasks/{alpha.collection}/attack", body), threads=4)


@attack(Containment.COLLECTION_LIMITS, kind=8)
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


def _save(alpha: Alpha, steps: dict[str, dict[str, object]], init_params: dict[str, object] | None = None) -> None:
    workflow = {"init_params": init_params or {}, "step_configs": steps, "steps": list(steps)}
    body = json.dumps({"name": "attack", "workflow": workflow}).encode()
    alpha.send("POST", f"/tasks/{alpha.collection}", body)


@attack(Containment.REQUEST_LIMITS)
def calendar_files_that_repeat_for_long(alpha: Alpha) -> None:
    """Alpha uploads iCalendar files with thousands of repeated events, or with a line folded thousands of times."""
    begin, end = b"BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:19700101\r\n", b"\r\nEND:VEVENT\r\n"
    rule = begin + b"RRULE:FREQ=YEARLY;INTERVAL=%d;BYMONTH=2;BYMONTHDAY=%s" + end
    days = b",".join(b"%d" % day for day in range(1, 32))
    rare = b"".join(rule % (number, b"30,-31,29") for number in range(1, 1900))
    frequent = b"".join(rule % (1, days) for _ in range(1100))
    folded = begin + b"SUMMARY:" + b"\r\n x" * 60_000 + end
    listed = begin + b"RDATE;VALUE=DATE:" + b",".join([b"20260102"] * 25_000) + end
    files = itertools.cycle(
        b"BEGIN:VCALENDAR\r\n%sEND:VCALENDAR\r\n" % events for events in (rare, frequent, folded, listed)
    )
    path = f"/calendars/{alpha.collection}/c"
    headers = {"Content-Type": "text/calendar"}
    alpha.repeat(lambda: alpha.send("PUT", path, next(files), headers=headers), threads=4)


@attack(Containment.FAIR_SHARES)
def calendars_that_hundreds_of_routines_exclude(alpha: Alpha) -> None:
    """Alpha replaces the 2,000 days of a calendar over and over while 200 of its routines exclude them."""
    path = f"/calendars/{alpha.collection}/c"
    dates = [
        f"{year}-{month:02}-{day:02}" for year in range(2027, 2034) for month in range(1, 13) for day in range(1, 25)
    ]
    bodies = itertools.cycle([dumps({"days": [{"from": each} for each in dates[begin::2][:1000]]}) for begin in (0, 1)])
    alpha.task({"echo": FLEETING})
    alpha.send("PUT", path, next(bodies))
    routine = {"cadence": {"type": "hourly"}, "calendar": {"exclude": ["c"], "on_excluded": "next_business_day"}}
    alpha.at_once(
        lambda number: alpha.send("POST", f"/routines/{alpha.collection}/attack", {"name": f"r{number}", **routine}),
        range(200),
        threads=8,
    )
    alpha.repeat(lambda: alpha.send("PUT", path, next(bodies)), threads=4)
