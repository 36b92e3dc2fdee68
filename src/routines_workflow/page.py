"""The list of activities for docs/activities.md, written from the code: `python -m routines_workflow.page`.

It prints what belongs below the page's mark; a test holds the page and the code together.
"""

import sys

import msgspec

from routines_workflow.catalogue import StepTemplate, step_template

MARK = "<!-- What follows is written by `python -m routines_workflow.page`. -->"


def list_of_activities() -> str:
    """Every activity that comes with Routines, by category and name, as Markdown."""
    from routines_workflow.activities import ACTIVITIES

    own = [each for each in ACTIVITIES.values() if each.function.__module__.startswith("routines_workflow.activities.")]
    found = sorted(map(step_template, own), key=lambda each: (each.category, each.activity_name))
    lines: list[str] = []
    category = ""
    for template in found:
        if template.category != category:
            category = template.category
            lines += [f"## {category.capitalize()}", ""]
        lines += _section(template)
    return "\n".join(lines)


def _section(template: StepTemplate) -> list[str]:
    lines = [
        f"### `{template.activity_name}`",
        "",
        template.description,
        "",
        "| Parameter | Type | Default | What it is |",
    ]
    lines.append("|---|---|---|---|")
    for parameter in template.parameters:
        default = "required" if parameter.required else f"`{msgspec.json.encode(parameter.default).decode()}`"
        lines.append(f"| `{parameter.name}` | {_cell(parameter.type)} | {default} | {_cell(parameter.description)} |")
    lines += ["", "| Output | Type | What it is |", "|---|---|---|"]
    lines += [f"| `{each.name}` | {_cell(each.type)} | {_cell(each.description)} |" for each in template.outputs]
    return [*lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(list_of_activities())
