"""The grammar of templates."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_workflow import templates
from routines_workflow.references import Each, GrammarError, MissingReferenceError, Reference
from routines_workflow.templates import Template, TemplateTooLargeError, expand, parse_template

VALUES: dict[str, Any] = {"init_params": {"name": "Ann", "n": 3, "list": [1, "x"], "none": None, "braces": "{{ a }}"}}
names = st.from_regex(r"\A[A-Za-z0-9_-]+\Z")
members = st.one_of(names, st.text(max_size=4), st.integers(0, 9), st.just(Each()))
references = st.builds(lambda root, rest: Reference(root, tuple(rest)), names, st.lists(members, max_size=3))
texts = st.text(alphabet='{}" a\\\n', min_size=1, max_size=6) | st.text(min_size=1)


@st.composite
def parsed_templates(draw: st.DrawFn) -> Template:
    """Any template that parsing could produce: no empty texts, and no two texts in a row."""
    parts: list[str | Reference] = []
    for part in draw(st.lists(texts | references, max_size=6)):
        if not (isinstance(part, str) and parts and isinstance(parts[-1], str)):
            parts.append(part)
    return Template(tuple(parts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ init_params.n }}", 3),
        ("{{init_params.list}}", [1, "x"]),
        (" {{ init_params.n }}", " 3"),
        ("{{ init_params.name }} is {{ init_params.n }}", "Ann is 3"),
        ("{{ init_params.list }}{{ init_params.none }}", '[1,"x"]null'),
        ('{"a": {{ init_params.n }}}', '{"a": 3}'),
        ('{{ "{{" }} name }}', "{{ name }}"),
        ('{{ "{{ init_params.n }}" }}', "{{ init_params.n }}"),
        ("{ x } }}", "{ x } }}"),
        ("-{{ init_params.braces }}", "-{{ a }}"),
        ("{{\n init_params.n\t}}", 3),
    ],
)
def test_a_template_of_one_reference_produces_its_value_and_any_other_a_text(text: str, expected: Any) -> None:
    assert expand(text, VALUES) == expected


def test_templates_are_expanded_at_any_depth_but_not_in_keys() -> None:
    value = {"{{ x }}": [{"a": "{{ init_params.n }}"}, True, None, 1.5], "b": {"c": "n={{ init_params.n }}"}}
    assert expand(value, VALUES) == {"{{ x }}": [{"a": 3}, True, None, 1.5], "b": {"c": "n=3"}}


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("{{", 2), ("ab {{ }}", 6), ("{{ a", 4), ("{{ a }", 5), ("{{{ a }}", 2), ("x{{ a..b }}", 6), ("{{ a b }}", 5),
        ('{{ "a }}', 3), ("{{ a }} {{ 1[ }}", 13),
    ],
)  # fmt: skip
def test_a_malformed_template_points_at_the_character(text: str, position: int) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_template(text)
    assert caught.value.position == position


def test_a_template_cannot_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_TEXT", 10)
    assert expand("{{ init_params.name }}-{{ init_params.name }}", VALUES) == "Ann-Ann"
    with pytest.raises(TemplateTooLargeError):
        expand("{{ init_params.name }}" * 4, VALUES)


@given(parsed_templates())
def test_a_template_survives_printing_and_parsing(template: Template) -> None:
    assert parse_template(str(template)) == template


@given(st.one_of(st.text(), st.text(alphabet='{}a.[]*"0 \\', max_size=16)))
def test_parsing_raises_only_grammar_errors(text: str) -> None:
    with suppress(GrammarError):
        assert parse_template(str(parse_template(text))) == parse_template(text)


@given(st.text())
def test_any_text_can_be_escaped(text: str) -> None:
    assert expand(str(Template((text,) if text else ())), {}) == text


@given(parsed_templates())
def test_rendering_raises_only_missing_reference_errors(template: Template) -> None:
    with suppress(MissingReferenceError):
        template.render(VALUES)
