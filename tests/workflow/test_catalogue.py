"""The catalogue of activities, and the activities that packages add to it."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routines_workflow.activity import ACTIVITIES, Activity, StepContext, activity, register
from routines_workflow.catalogue import UnknownActivityError, find_activity, step_template, step_templates
from support.service import ROOT

BUILT_IN = {
    "text_echo", "text_template", "text_concatenate", "text_split", "number_sequence_generator", "conditional_branch",
    "loop_counter", "list_emit_await", "extract_from_trajectories", "http_request", "webhook_notify", "read_text_file",
    "save_text_file", "litellm_chat", "simple_judge",
}  # fmt: skip
GENERATOR = runpy.run_path(str(ROOT / "docs" / "generators" / "activities.py"))
PAGE = GENERATOR["find_page"]().read_text()


class Nothing(msgspec.Struct):
    pass


async def nothing(given: Nothing, _: StepContext) -> Nothing:
    return given


def test_every_built_in_activity_is_fully_described() -> None:
    found = {template.activity_name: template for template in step_templates()}
    assert found.keys() >= BUILT_IN
    for name in BUILT_IN:
        template = found[name]
        assert template.description.endswith(".")
        assert template.category
        for part in (*template.parameters, *template.outputs):
            assert (name, part.name, part.description.endswith((".", "…"))) == (name, part.name, True)


def test_a_template_is_read_from_the_structs() -> None:
    template = step_template(ACTIVITIES["text_split"])
    assert json.loads(msgspec.json.encode(template)) == {
        "activity_name": "text_split",
        "description": "Splits a text at a separator.",
        "category": "text",
        "parameters": [
            {"name": "text", "type": "string", "required": True, "default": None, "description": "The text to split."},
            {
                "name": "separator", "type": "string", "required": False, "default": "\n",
                "description": "Text that separates the parts.",
            },
        ],
        "outputs": [
            {"name": "parts", "type": "array of string", "description": "The parts in order."},
            {"name": "count", "type": "integer", "description": "How many parts there are."},
        ],
        "example_config": {"activity": "text_split", "text_path": "init_params.text", "separator": "\n"},
    }  # fmt: skip


def test_types_are_named_in_json_terms() -> None:
    types = {parameter.name: parameter.type for parameter in step_template(ACTIVITIES["http_request"]).parameters}
    assert types["headers"] == "object of string"
    assert types["params"] == "object"
    assert types["json"] == "any"
    assert types["body"] == "string or null"
    assert types["expected_status"] == "array of integer or null"
    assert types["method"].startswith('"DELETE" or "GET"')


def test_the_page_is_up_to_date_with_the_code() -> None:
    assert PAGE.split(GENERATOR["MARK"] + "\n\n")[1] == GENERATOR["list_of_activities"](), "run: make docs"


def test_an_unknown_activity_is_named() -> None:
    for name in ("text_shout", None, ["text_echo"], {}):
        with pytest.raises(UnknownActivityError, match="unknown activity"):
            find_activity(name)


def test_a_taken_name_stays_with_its_first_activity() -> None:
    register(Activity("text_echo", "Mine now.", Nothing, nothing))
    assert ACTIVITIES["text_echo"].description == "Returns its text unchanged."


@pytest.mark.parametrize("name", ["activity", "retry", "timeout_seconds", "file_path"])
def test_parameters_with_reserved_names_are_refused(name: str) -> None:
    parameters = msgspec.defstruct("Parameters", [(name, str)])
    with pytest.raises(ValueError, match=f"no parameter may be named '{name}'"):
        register(Activity("odd", "Odd.", parameters, nothing))
    assert "odd" not in ACTIVITIES


def test_an_activity_with_an_unknown_result_has_no_outputs() -> None:
    @activity("Gives whatever.", Nothing)
    async def whatever(given: Nothing, _: StepContext) -> Any:
        return given

    assert step_template(ACTIVITIES.pop("whatever")).outputs == []


def package(directory: Path, files: dict[str, str]) -> None:
    """Install a package from its files into `directory`, without a network."""
    source = directory.parent / "source"
    source.mkdir()
    for file, text in files.items():
        (source / file).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(directory), str(source)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package of the documentation, two broken ones and one whose activity's name is taken."""
    directory = tmp_path_factory.mktemp("packages") / "installed"
    blocks = dict(re.findall(r"```\w+\n# ([\w.]+)\n(.*?)```", PAGE, re.DOTALL))
    code = [line for line in blocks["acme_activities.py"].splitlines() if line]
    assert len(code) <= 15
    package(directory, blocks)
    entry_points = "[routines.activities]\n{0} = {0}_activities\n"
    for name, text in {
        "broken": "import no_such_module_at_all",
        "leaving": "raise SystemExit(0)",
        "greedy": blocks["acme_activities.py"].replace("def word_count", "def text_echo"),
    }.items():
        (directory / f"{name}_activities.py").write_text(text)
        about = directory / f"{name}_activities-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-activities\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points.format(name))
    return directory


def test_packages_add_activities_and_a_broken_one_is_named_but_stops_nothing(installed: Path) -> None:
    program = """
import asyncio, json, sys
from support.flows import run_step
from routines_workflow.catalogue import find_activity, step_templates, UnknownActivityError
from routines_workflow.checks import check_workflow
counted = asyncio.run(run_step({"activity": "word_count", "text": "three small words"}))
echoed = asyncio.run(run_step({"activity": "text_echo", "text": "x"}))
[template] = [each for each in step_templates() if each.activity_name == "word_count"]
unknown = check_workflow({"steps": ["a"], "step_configs": {"a": {"activity": "no_such"}}})
print(json.dumps([counted, echoed, template.category, template.outputs[0].description, unknown[0].message]))
"""
    path = os.pathsep.join([str(installed), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *logged, said = done.stdout.splitlines()
    counted, echoed, category, description, unknown = json.loads(said)
    assert (counted, echoed) == ({"words": 3}, {"text": "x"})
    assert (category, description) == ("acme", "How many words it has.")
    assert unknown == (
        "unknown activity 'no_such' (not loaded: entry point 'broken' of broken-activities: ModuleNotFoundError; "
        "entry point 'leaving' of leaving-activities: SystemExit)"
    )
    assert any("activity refused: its name is taken" in line for line in logged)


def test_no_thread_of_an_activity_keeps_the_program_from_ending() -> None:
    program = """
import asyncio, threading
from routines_workflow.blocking import DaemonThreads
async def main():
    entered = threading.Event()
    call = asyncio.create_task(DaemonThreads().run(lambda: (entered.set(), threading.Event().wait())))
    while not entered.is_set():
        await asyncio.sleep(0.001)
    call.cancel()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
