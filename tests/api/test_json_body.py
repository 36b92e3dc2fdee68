"""Strict JSON parsing refuses the listed inputs and nothing else."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_api.http.errors import MalformedBodyError
from routines_api.http.json_body import JsonLimits, decode

LIMITS = JsonLimits(depth=4, string_length=10, items=5)
WIDE = JsonLimits(depth=500, string_length=10**6, items=10**6)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


@given(values)
def test_storable_values_are_decoded_unchanged(value: object) -> None:
    assert decode(json.dumps(value).encode(), WIDE) == value


@given(st.binary())
def test_any_bytes_are_decoded_or_refused_with_the_same_error_class(body: bytes) -> None:
    with suppress(MalformedBodyError):
        decode(body, LIMITS)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "not valid JSON at line 1, column 2"),
        (b"\xff", "not valid UTF-8 at byte 1"),
        (b'{"a":1,"a":2}', "the key 'a' twice"),
        (b"[NaN]", "contains NaN"),
        (b"[-Infinity]", "contains -Infinity"),
        (b"[1e400]", "too large"),
        (b"[9223372036854775808]", "does not fit in 64 bits"),
        (b"[" + b"9" * 10_000 + b"]", "does not fit in 64 bits"),
        (b'["\\u0000"]', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b"[" * 100_000, "too deep"),
        (b"[[[[[]]]]]", "too deeply; the limit is 4"),
        (b'["12345678901"]', "11 characters; the limit is 10"),
        (b"[1,2,3,4,5,6]", "6 items"),
        (b"", "not valid JSON"),
    ],
)
def test_each_refusal_names_its_reason(body: bytes, sentence: str) -> None:
    with pytest.raises(MalformedBodyError, match=sentence):
        decode(body, LIMITS)


def test_the_limits_themselves_are_accepted() -> None:
    assert decode(b'[[[["1234567890"]]]]', LIMITS) == [[[["1234567890"]]]]
    assert decode(b"[1,2,3,4,5]", LIMITS) == [1, 2, 3, 4, 5]
    assert decode(b"[-9223372036854775808, 9223372036854775807]", LIMITS) == [-(2**63), 2**63 - 1]
