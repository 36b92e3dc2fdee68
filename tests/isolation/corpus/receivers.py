"""Attacks by hostile receivers that alpha's steps and webhooks call."""

import gzip
import itertools
import zlib

from isolation.alpha import Alpha, Behaviour, answering, hangs, receiver, trickling
from isolation.attacks import Containment, attack

LARGEST = 400 * 1024
"""The largest response that http_request accepts."""
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def _ask(alpha: Alpha, behaviour: Behaviour, count: int = 4, **options: object) -> None:
    """Start `count` runs that each send a request to a receiver with this behaviour."""
    with receiver(behaviour) as url:
        alpha.task({"ask": {"activity": "http_request", "url": url, **options}})
        alpha.runs(count)
        alpha.hold()


@attack(Containment.BOUNDED_ANSWERS, kind=4, in_make_test=True)
def an_answer_in_punycode(alpha: Alpha) -> None:
    """A receiver returns 400 KB with `charset=punycode`, which takes a minute to decode."""
    # Each `a` copies all characters before it, which are four bytes wide.
    body = "\N{GRINNING FACE}".encode("punycode").ljust(LARGEST, b"a")
    _ask(alpha, answering(body, Content_Type="text/plain; charset=punycode"))


@attack(Containment.BOUNDED_ANSWERS, kind=4)
def answers_in_strange_charsets(alpha: Alpha) -> None:
    """A receiver returns 400 KB in each charset that Python knows but nobody uses for text."""
    charsets = ("idna", "utf-7", "unicode_escape", "raw_unicode_escape", "hz", "iso2022_jp_3", "utf-16", "mbcs",
                "zlib_codec", "uu_codec", "rot13", "undefined")  # fmt: skip
    body = b"+" * (LARGEST - 10)
    numbers = itertools.count()

    def behave(connection: object) -> None:
        charset = charsets[next(numbers) % len(charsets)]
        answering(body, Content_Type=f"text/plain; charset={charset}")(connection)  # type: ignore[arg-type]

    _ask(alpha, behave, 2 * len(charsets))


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_that_unpacks_to_gigabytes(alpha: Alpha) -> None:
    """A receiver returns 400 KB of gzip that expand to 400 MB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join([*(packer.compress(bytes(2**20)) for _ in range(390)), packer.flush()])
    assert len(body) <= LARGEST
    _ask(alpha, answering(body, Content_Type="text/plain", Content_Encoding="gzip"), 8)


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_packed_many_times(alpha: Alpha) -> None:
    """A receiver returns gzip within gzip within gzip, which expands to gigabytes of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    once = b"".join([*(packer.compress(bytes(2**20)) for _ in range(1000)), packer.flush()])
    body = gzip.compress(gzip.compress(once))
    _ask(alpha, answering(body, Content_Type="text/plain", Content_Encoding="gzip, gzip, gzip"), 8)


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_nested_deeply(alpha: Alpha) -> None:
    """A receiver returns JSON of 200,000 nested arrays."""
    _ask(alpha, answering(b"[" * (LARGEST // 2) + b"]" * (LARGEST // 2), Content_Type="application/json"), 16)


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_of_one_number(alpha: Alpha) -> None:
    """A receiver returns one number of 400,000 digits."""
    _ask(alpha, answering(b"9" * LARGEST, Content_Type="application/json"), 16)


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_of_many_keys(alpha: Alpha) -> None:
    """A receiver returns objects with 40,000 keys, and with a single key of 400,000 letters."""
    many = b"{" + b",".join(b'"%d":1' % number for number in range(40_000)) + b"}"
    one = b'{"' + b"k" * (LARGEST - 20) + b'":1}'
    numbers = itertools.count()

    def behave(connection: object) -> None:
        body = many if next(numbers) % 2 else one
        answering(body[:LARGEST], Content_Type="application/json")(connection)  # type: ignore[arg-type]

    _ask(alpha, behave, 24)


@attack(Containment.BOUNDED_ANSWERS)
def headers_without_end(alpha: Alpha) -> None:
    """A receiver sends endless headers."""
    _ask(alpha, trickling(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 4000 + b"\r\n", 0.001), 16)


@attack(Containment.FAIR_SHARES)
def answers_of_one_byte_at_a_time(alpha: Alpha) -> None:
    """Sixty of alpha's steps call a receiver that sends one byte per second."""
    _ask(alpha, trickling(CHUNKED, b"1\r\nx\r\n", 1), 60)


@attack(Containment.BOUNDED_ANSWERS)
def an_answer_without_end(alpha: Alpha) -> None:
    """Sixteen of alpha's steps call a receiver whose response never ends."""
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    _ask(alpha, trickling(CHUNKED, piece, 0.001), 16)


@attack(Containment.BOUNDED_ANSWERS)
def redirects_in_a_circle(alpha: Alpha) -> None:
    """Forty of alpha's steps call a receiver that redirects to itself over and over."""
    retry = {"max_attempts": 100, "backoff": 0}
    _ask(alpha, answering(b"", status=302, Location="/again"), 40, follow_redirects=True, retry=retry)


@attack(Containment.FAIR_SHARES)
def names_that_nobody_knows(alpha: Alpha) -> None:
    """Two hundred of alpha's steps keep calling hosts whose names do not resolve."""
    alpha.task(
        {
            "ask": {
                "activity": "http_request", "url": "http://{{ init_params.host }}.invalid/", "timeout_seconds": 5,
                "retry": {"max_attempts": 100, "backoff": 0},
            }
        },
        {"host": ""},
    )  # fmt: skip
    numbers = itertools.count()
    alpha.goes_on()
    alpha.at_once(lambda _: alpha.run(init_params={"host": f"h{next(numbers)}"}), range(200), threads=16)


@attack(Containment.FAIR_SHARES, in_make_test=True)
def webhooks_to_a_receiver_that_hangs(alpha: Alpha) -> None:
    """Two hundred of alpha's runs end with a webhook to a receiver that never responds."""
    with receiver(hangs) as url:
        alpha.task({"echo": {"activity": "text_echo", "text": "done"}})
        alpha.runs(200, webhook_url=url)
        alpha.hold()


@attack(Containment.FAIR_SHARES)
def webhooks_to_many_hosts_that_hang(alpha: Alpha) -> None:
    """Two hundred of alpha's runs end with a webhook to one of fifty hosts that never respond."""
    with receiver(hangs) as url:
        port = url.rstrip("/").rpartition(":")[2]
        alpha.task({"echo": {"activity": "text_echo", "text": "done"}})
        numbers = itertools.count()
        alpha.goes_on()
        alpha.at_once(
            lambda _: alpha.run(webhook_url=f"http://127.0.0.{next(numbers) % 50 + 1}:{port}/"), range(200), threads=16
        )
        alpha.hold()


@attack(Containment.BOUNDED_ANSWERS)
def webhooks_answered_without_end(alpha: Alpha) -> None:
    """A hundred of alpha's webhooks get a response whose body never ends."""
    with receiver(trickling(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 0.002)) as url:
        alpha.task({"echo": {"activity": "text_echo", "text": "done"}})
        alpha.runs(100, webhook_url=url)
        alpha.hold()


@attack(Containment.LINEAR_MASKING)
def webhooks_refused_in_the_words_of_a_long_secret(alpha: Alpha) -> None:
    """A hundred of alpha's webhooks with a signing secret of 60 KB are refused with a body that nearly repeats it."""
    secret = "ab" * 30_000
    with receiver(answering(("ab" * 2000 + "c").encode() * 90, status=500, Content_Type="text/plain")) as url:
        alpha.task({"echo": {"activity": "text_echo", "text": "done"}})
        alpha.runs(100, webhook_url=url, webhook_secret=secret)
        alpha.hold()


@attack(Containment.FAIR_SHARES)
def webhooks_to_names_that_nobody_knows(alpha: Alpha) -> None:
    """Two hundred of alpha's runs end with a webhook to a name that does not resolve."""
    alpha.task({"echo": {"activity": "text_echo", "text": "done"}})
    numbers = itertools.count()
    alpha.goes_on()
    alpha.at_once(lambda _: alpha.run(webhook_url=f"http://w{next(numbers)}.invalid/"), range(200), threads=16)
