"""Activities on texts."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import FILLS_FROM, StepContext, activity
from routines_workflow.references import GrammarError, Reference
from routines_workflow.templates import parse_template, splice


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """One text."""

    text: Annotated[str, Meta(description="The text.")]


class Template(msgspec.Struct, forbid_unknown_fields=True):
    """A text with placeholders and their values."""

    template: Annotated[
        str,
        Meta(
            description="A text with placeholders: {{ name }} of a variable, {{ user.name }} of a part of one, "
            "{{ step.outputs.text }} of a value of the run.",
            extra={FILLS_FROM: "variables"},
        ),
    ]
    variables: Annotated[dict[str, Any], Meta(description="The values of placeholders by name.")] = {}


class Texts(msgspec.Struct, forbid_unknown_fields=True):
    """Texts and what goes between them."""

    texts: Annotated[list[str], Meta(description="The texts in order.")]
    separator: Annotated[str, Meta(description="What goes between them.")] = ""


class TextToSplit(msgspec.Struct, forbid_unknown_fields=True):
    """A text and what parts it."""

    text: Annotated[str, Meta(description="The text to split.")]
    separator: Annotated[str, Meta(description="What stands between two parts.", min_length=1)] = "\n"


class Parts(msgspec.Struct):
    """The parts of a text, and how many they are."""

    parts: Annotated[list[str], Meta(description="The parts in order.")]
    count: Annotated[int, Meta(description="How many they are.")]


@activity("Returns its text unchanged.", Text, category="text")
async def text_echo(given: Text, _: StepContext) -> Text:
    """The text itself."""
    return given


@activity("Fills the placeholders of a template.", Template, category="text")
async def text_template(given: Template, _: StepContext) -> Text:
    """The template with each placeholder replaced: always a text.

    Raises:
        InvalidError: A placeholder has no variable, or the template does not follow the grammar.
    """
    try:
        parts = parse_template(given.template).parts
    except GrammarError as error:
        # Without the text around it: a template that comes by reference may be a secret, of which no mask finds a part.
        raise InvalidError(
            f"template: not valid at character {error.position + 1}: expected {error.expected}"
        ) from None
    return Text(splice(part if isinstance(part, str) else _variable(part, given.variables) for part in parts))


def _variable(placeholder: Reference, variables: dict[str, Any]) -> Any:
    spelling = str(placeholder)
    if spelling in variables:
        return variables[spelling]
    if placeholder.root not in variables:
        raise InvalidError(f"template: no variable for the placeholder {spelling!r}")
    return placeholder.resolve(variables)


@activity("Joins texts, with a separator between them.", Texts, category="text")
async def text_concatenate(given: Texts, _: StepContext) -> Text:
    """The texts in one."""
    return Text(given.separator.join(given.texts))


@activity("Splits a text at a separator.", TextToSplit, category="text")
async def text_split(given: TextToSplit, _: StepContext) -> Parts:
    """The parts, in order."""
    parts = given.text.split(given.separator)
    return Parts(parts, len(parts))
