"""Activities that produce texts."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import FILLS_FROM, StepContext, activity
from routines_workflow.references import GrammarError, Reference
from routines_workflow.sizes import refuse_larger
from routines_workflow.templates import parse_template, splice


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A text."""

    text: Annotated[str, Meta(description="The text.")]


class TemplateAndVariables(msgspec.Struct, forbid_unknown_fields=True):
    """A text with placeholders and their values."""

    template: Annotated[
        str,
        Meta(
            description="A text with placeholders: {{ name }} for a variable, {{ user.name }} for a value within it, "
            "{{ step.outputs.text }} for a value of the run.",
            extra={FILLS_FROM: "variables"},
        ),
    ]
    variables: Annotated[dict[str, Any], Meta(description="The variables by name.")] = {}


class Texts(msgspec.Struct, forbid_unknown_fields=True):
    """Texts to join."""

    texts: Annotated[list[str], Meta(description="The texts in order.")]
    separator: Annotated[str, Meta(description="Text to put between them.")] = ""


class TextToSplit(msgspec.Struct, forbid_unknown_fields=True):
    """A text to split."""

    text: Annotated[str, Meta(description="The text to split.")]
    separator: Annotated[str, Meta(description="Text that separates the parts.", min_length=1)] = "\n"


class Parts(msgspec.Struct):
    """The parts of a text."""

    parts: Annotated[list[str], Meta(description="The parts in order.")]
    count: Annotated[int, Meta(description="How many parts there are.")]


@activity("Returns its text unchanged.", Text, category="text")
async def text_echo(given: Text, _: StepContext) -> Text:
    """Return the text."""
    return given


@activity("Fills the placeholders of a template.", TemplateAndVariables, category="text")
async def text_template(given: TemplateAndVariables, context: StepContext) -> Text:
    """Replace each placeholder of the template; the result is always a text.

    Raises:
        InvalidError: A placeholder has no variable or is part of a secret, the template does not follow the grammar, or
            the text is too long.
    """
    try:
        parsed = parse_template(given.template)
    except GrammarError as error:
        # Do not quote the template: one given by reference may be a secret, and masking does not find parts of secrets.
        raise InvalidError(
            f"template: not valid at character {error.position + 1}: expected {error.expected}"
        ) from None
    if _references(context.mask(given.template)) != parsed.references:
        raise InvalidError("template: a placeholder is part of a secret; the text around it would show the other parts")
    return Text(splice(part if isinstance(part, str) else _variable(part, given.variables) for part in parsed.parts))


def _references(template: str) -> list[Reference] | None:
    try:
        return parse_template(template).references
    except GrammarError:
        return None


def _variable(placeholder: Reference, variables: dict[str, Any]) -> Any:
    spelling = str(placeholder)
    if spelling in variables:
        return variables[spelling]
    if placeholder.root not in variables:
        raise InvalidError(f"template: no variable for the placeholder {spelling!r}")
    return placeholder.resolve(variables)


@activity("Joins texts, with a separator between them.", Texts, category="text")
async def text_concatenate(given: Texts, _: StepContext) -> Text:
    """Join the texts.

    Raises:
        TooLargeError: The joined text would be too long.
    """
    separators = len(given.separator) * max(0, len(given.texts) - 1)
    refuse_larger(sum(map(len, given.texts)) + separators, "the joined text")
    return Text(given.separator.join(given.texts))


@activity("Splits a text at a separator.", TextToSplit, category="text")
async def text_split(given: TextToSplit, context: StepContext) -> Parts:
    """Split the text.

    Raises:
        TooLargeError: The parts would take too much as JSON, where each is in quotes.
    """
    text = context.mask(given.text)  # before it is cut, since masking does not find parts of secrets
    separators = text.count(given.separator)
    refuse_larger(len(text) - separators * len(given.separator) + 3 * (separators + 1), "the list of parts")
    parts = text.split(given.separator)
    return Parts(parts, len(parts))
