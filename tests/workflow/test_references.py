"""The grammar of references."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_workflow.references import MissingReferenceError, ReferenceSyntaxError, parse_reference

VALUES: dict[str, Any] = {
    "init_params": {"prompt": "a cat"},
    "generate": {"outputs": {"images": [{"path": "0.png"}, {"path": "1.png"}]}},
}
names = st.from_regex(r"\A[A-Za-z0-9_-]+\Z")
members = st.one_of(names.map(".{}".format), st.integers(0, 10**6).map("[{}]".format), st.just("[*]"))
spellings = st.builds(lambda root, rest: root + "".join(rest), names, st.lists(members, max_size=6))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("init_params.prompt", "a cat"),
        ("generate.outputs.images[1].path", "1.png"),
        ("generate.outputs.images[*].path", ["0.png", "1.png"]),
    ],
)
def test_a_reference_resolves_to_the_value_it_names(text: str, expected: Any) -> None:
    assert parse_reference(text).resolve(VALUES) == expected


@pytest.mark.parametrize("text", ["absent.x", "init_params.absent", "generate.outputs.images[2]", "init_params[*]"])
def test_a_reference_to_what_is_not_there_says_so(text: str) -> None:
    with pytest.raises(MissingReferenceError, match="is missing"):
        parse_reference(text).resolve(VALUES)


@pytest.mark.parametrize(("text", "position"), [("", 0), ("a..b", 1), ("a[x]", 1), ("a.b[1", 3), (".a", 0), ("a b", 1)])
def test_a_malformed_reference_points_at_the_character(text: str, position: int) -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        parse_reference(text)
    assert caught.value.position == position


@given(spellings)
def test_printing_a_parsed_reference_gives_its_spelling_back(text: str) -> None:
    assert parse_reference(str(parse_reference(text))) == parse_reference(text)


@given(st.text())
def test_parsing_never_raises_anything_of_another_kind(text: str) -> None:
    with suppress(ReferenceSyntaxError):
        parse_reference(text)
