"""How names are resolved: in few threads, and fairly."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest

from routines_core import resolver
from routines_core.resolver import Resolver


class Servers:
    """Name servers that do not answer for `*.hangs.*` until they are released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.hanging = 0
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, *_: object, **__: object) -> Any:
        self.asked.append(host)
        if "hangs" in host:
            self.hanging += 1
            self.release.wait(20)
            self.hanging -= 1
        if "gone" in host:
            raise OSError
        return [(None, None, None, None, ("192.0.2.7", 0))]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Generator[Servers]:
    made = Servers()
    monkeypatch.setattr(resolver, "getaddrinfo", made.getaddrinfo)
    yield made
    made.release.set()


async def until_hanging(servers: Servers, count: int) -> None:
    async with asyncio.timeout(5):
        while servers.hanging < count:  # noqa: ASYNC110 - threads count it
            await asyncio.sleep(0)


def threads() -> int:
    return sum(thread.name == "resolver" for thread in threading.enumerate())


async def test_names_that_hang_take_few_threads_and_leave_room_for_others(servers: Servers) -> None:
    pool = Resolver(size=6, per_owner=2)
    asking = [asyncio.create_task(pool.resolve(f"{n}.hangs.example", owner="attacker")) for n in range(50)]
    await until_hanging(servers, 2)
    async with asyncio.timeout(5):
        assert [str(each) for each in await pool.resolve("good.example", owner="other")] == ["192.0.2.7"]
    assert servers.hanging == 2
    assert threads() <= 3  # the third may not have ended yet
    for task in asking:
        task.cancel()
    servers.release.set()


async def test_all_owners_together_take_no_more_threads_than_there_are(servers: Servers) -> None:
    pool = Resolver(size=5, per_owner=2)
    asking = [asyncio.create_task(pool.resolve(f"{n}.hangs.example", owner=n % 10)) for n in range(50)]
    await until_hanging(servers, 5)
    assert threads() == 5
    servers.release.set()
    assert len(await asyncio.gather(*asking)) == 50
    assert len(servers.asked) == 50


async def test_without_an_owner_the_names_of_one_domain_share_the_threads(servers: Servers) -> None:
    pool = Resolver(size=10, per_owner=2)
    asking = [asyncio.create_task(pool.resolve(f"{n}.x.hangs.example")) for n in range(20)]
    await until_hanging(servers, 2)
    async with asyncio.timeout(5):
        await pool.resolve("x.good.example")
    assert servers.hanging == 2
    for task in asking:
        task.cancel()


async def test_a_lookup_whose_caller_was_cancelled_is_never_made(servers: Servers) -> None:
    pool = Resolver(size=1, per_owner=1)
    first = asyncio.create_task(pool.resolve("a.hangs.example"))
    await until_hanging(servers, 1)
    waiting = asyncio.create_task(pool.resolve("b.example"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    servers.release.set()
    await first
    await pool.resolve("c.example")
    assert servers.asked == ["a.hangs.example", "c.example"]


async def test_an_address_needs_no_lookup_and_an_unknown_name_is_an_error(servers: Servers) -> None:
    pool = Resolver()
    assert [str(each) for each in await pool.resolve("127.1")] == ["127.0.0.1"]
    with pytest.raises(OSError):  # noqa: PT011 - the kinds of the system's resolver
        await pool.resolve("gone.example")
    assert servers.asked == ["gone.example"]
