"""Numbers come back from jsonb as they were sent, whatever Postgres makes of them in between."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.db import Connection
from routines_core.json_numbers import loads
from support.numbers import NUMBERS
from support.rows import value

TRICKY = {
    "text": 'a "quoted" 10000000000000000000000 \\ and 1e22, "',
    "10000000000000000000000": [1e22, "1" * 30, {"": -1e300}, True, None],
    "ends in a backslash \\": 1e-300,
}


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
async def test_a_number_comes_back_from_jsonb_as_it_was_sent(connection: Connection, number: float) -> None:
    sent = msgspec.json.encode(number).decode()
    assert await value(connection, "SELECT %s::jsonb", sent) == number
    assert loads(str(await value(connection, "SELECT %s::jsonb::text", sent))) == number
    short = str(await value(connection, "SELECT routines.json_text(%s::jsonb::text)", sent))
    assert len(short) <= len("-2.2250738585072014e-308"), short
    assert msgspec.json.decode(short) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_comes_back_from_its_digits(number: float) -> None:
    digits = format(Decimal(repr(number)), "f")  # as jsonb writes it
    assert float(loads(digits)) == number


@given(st.integers())
def test_no_integer_changes_its_value(number: int) -> None:
    assert Decimal(repr(loads(str(number)))) == number


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**70, 10**400, 2**53 + 1])
async def test_an_integer_that_was_no_float_keeps_all_of_its_digits(connection: Connection, number: int) -> None:
    assert loads(str(number)) == number
    assert type(loads(str(number))) is int
    assert await value(connection, "SELECT routines.json_text(%s::jsonb::text)", str(number)) == str(number)


async def test_strings_and_keys_stay_as_they_are(connection: Connection) -> None:
    sent = msgspec.json.encode(TRICKY).decode()
    assert await value(connection, "SELECT %s::jsonb", sent) == TRICKY
    text = await value(connection, "SELECT %s::jsonb::text", sent)
    short = await value(connection, "SELECT routines.json_text(%s::jsonb::text)", sent)
    assert msgspec.json.decode(str(short)) == loads(str(text)) == TRICKY
    assert type(msgspec.json.decode(str(short))["10000000000000000000000"][0]) is float
    assert await value(connection, "SELECT routines.json_text(NULL)") is None
