"""The grammar of references."""

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_workflow.references import (
    MAX_MEMBERS,
    Each,
    GrammarError,
    MissingReferenceError,
    Reference,
    parse_reference,
)

VALUES: dict[str, Any] = {
    "init_params": {"prompt": "a cat", "a key": {"]": 1}},
    "generate": {"outputs": {"images": [{"path": "0.png"}, {"path": "1.png"}], "grid": [[1, 2], [3]]}},
}
names = st.from_regex(r"\A[A-Za-z0-9_-]+\Z")
members = st.one_of(names, st.text(max_size=8), st.integers(0, 10**9 - 1), st.just(Each()))
references = st.builds(lambda root, rest: Reference(root, tuple(rest)), names, st.lists(members, max_size=6))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("init_params.prompt", "a cat"),
        ("init_params", VALUES["init_params"]),
        ('init_params["a key"]["]"]', 1),
        ("generate.outputs.images[1].path", "1.png"),
        ("generate.outputs.images[*].path", ["0.png", "1.png"]),
        ("generate.outputs.grid[*][0]", [1, 3]),
        ("generate.outputs.grid[*][*]", [[1, 2], [3]]),
    ],
)
def test_a_reference_resolves_to_the_value_it_names(text: str, expected: Any) -> None:
    assert parse_reference(text).resolve(VALUES) == expected


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("absent.x", "there is no .absent"),
        ("init_params.absent", "there is no .absent"),
        ("generate.outputs.images[2]", r"there is no \[2\]"),
        ("generate.outputs.images.path", "there is no .path"),
        ("generate.outputs.grid[*][1]", r"there is no \[1\]"),
        ("init_params[*]", "needs an array"),
    ],
)
def test_an_unresolvable_reference_names_the_missing_member(text: str, missing: str) -> None:
    with pytest.raises(MissingReferenceError, match=missing):
        parse_reference(text).resolve(VALUES)


@pytest.mark.parametrize(
    ("text", "values", "cause"),
    [
        ("a.outputs.day", {"a": {"outputs": None}}, "the value before .day is null"),
        ("secret_params.KEY", {"secret_params": {}}, "no secret KEY: set it in secret_params of the run or routine"),
        ("environment.KEY", {"environment": {}}, "or in the environment of the collection"),
    ],
)
def test_a_missing_reference_says_what_to_do_about_it(text: str, values: dict[str, Any], cause: str) -> None:
    with pytest.raises(MissingReferenceError, match=re.escape(cause)):
        parse_reference(text).resolve(values)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0), (".a", 0), ("a..b", 2), ("a.", 2), ("a[x]", 2), ("a[01]", 3), ("a[-1]", 2), ("a[1234567890]", 11),
        ("a.b[1", 5), ("a[*", 3), ('a["x', 2), ('a["x"', 5), ('a["\\q"]', 3), ("a b", 1), ("a.b}", 3), ("a\n", 1),
        ("a[\u0661]", 2), ("a" + ".b" * (MAX_MEMBERS + 1), 1 + 2 * MAX_MEMBERS),
    ],
)  # fmt: skip
def test_a_malformed_reference_points_at_the_character(text: str, position: int) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_reference(text)
    assert caught.value.position == position
    sentence, shown, caret = str(caught.value).split("\n")
    assert sentence.startswith(f"not valid at character {position + 1}: expected ")
    pointed_at = shown[len(caret) - 1 :]
    assert pointed_at[:1] == text[position : position + 1].replace("\n", " ")


@given(references)
def test_a_reference_survives_printing_and_parsing(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.one_of(st.text(), st.text(alphabet='a.[]*"0\\', max_size=12)))
def test_parsing_raises_only_grammar_errors(text: str) -> None:
    with suppress(GrammarError):
        assert parse_reference(str(parse_reference(text))) == parse_reference(text)


@given(
    references,
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(names, inner)),
)
def test_resolving_raises_only_missing_reference_errors(reference: Reference, value: Any) -> None:
    with suppress(MissingReferenceError):
        reference.resolve({reference.root: value})
