"""Values of limits as an operator types them."""

import pytest

from routines_core.errors import InvalidError
from routines_core.limits import LARGEST, parse_limit


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tasks", "0", 0),
        ("tasks", "12", 12),
        ("tasks", "none", None),
        ("file_bytes", "512", 512),
        ("file_bytes", "3KiB", 3 * 1024),
        ("file_bytes", "2 GiB", 2 * 1024**3),
        ("file_bytes", str(LARGEST), LARGEST),
        ("max_concurrent_runs", "1", 1),
    ],
)
def test_a_value_is_an_integer_a_size_or_none(name: str, text: str, value: int | None) -> None:
    assert parse_limit(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tasks", ""),
        ("tasks", "-1"),
        ("tasks", "1.5"),
        ("tasks", "1KiB"),
        ("tasks", "٣"),
        ("file_bytes", "1KB"),
        ("file_bytes", str(LARGEST + 1)),
        ("file_bytes", "9000TiB"),
        ("max_concurrent_runs", "0"),
        ("max_concurrent_runs", str(2**31)),
        ("unknown", "1"),
        ("unknown", "none"),
    ],
)
def test_other_values_are_refused_with_the_name_of_the_limit(name: str, text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_limit(name, text)
    assert refused.value.field == name
