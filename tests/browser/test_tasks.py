"""Tests that tasks are written in the console: faults at their lines, steps from templates, and versions compared."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from support.browsing import Console, plain
from support.looks import all_faults
from support.service import Service

pytestmark = pytest.mark.slow
WORKFLOW: dict[str, Any] = {
    "init_params": {"team": "blue"},
    "step_configs": {"greet": {"activity": "text_template", "template": "Hello {{ init_params.team }}"}},
    "steps": ["greet"],
}


@contextmanager
def task(service: Service, name: str = "written") -> Generator[str]:
    """Save a task for the time of a test; yields its path in the API."""
    path = f"/tasks/demo/{name}"
    with service.client() as client:
        answer = client.post("/tasks/demo", json={"name": name, "description": "For a test.", "workflow": WORKFLOW})
        assert answer.status_code == 201, answer.text
        try:
            yield path
        finally:
            client.delete(path)


def read(service: Service, path: str) -> Any:
    with service.client() as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def write(console: Console, text: str) -> None:
    """Replace the workflow in the form."""
    field = console.find("#workflow")
    console.driver.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', { bubbles: true }))",
        field,
        text,
    )


def sent(console: Console, method: str) -> list[Any]:
    asked = [each for each in console.requests() if each["method"] == method and "/tasks/" in each["url"]]
    return [json.loads(each["postData"]) for each in asked]


def faults(console: Console) -> list[str]:
    return [plain(each) for each in console.all(".faults li")]


def caret_line(console: Console) -> int:
    """Return the line in which the caret is; the field has the focus."""
    script = "const { value, selectionStart } = document.activeElement; return value.slice(0, selectionStart)"
    return str(console.driver.execute_script(script)).count("\n") + 1


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_task_is_written_with_the_keyboard_alone(console: Console, service: Service) -> None:
    console.open("#/tasks")
    console.tab_to("New task")
    console.keys(Keys.ENTER)
    console.until(lambda: console.title() == "New task")
    console.tab_to("name")
    console.keys("by-keyboard", Keys.TAB, "Greets by keyboard.")
    console.tab_to("activity")
    console.keys("text_echo")
    console.tab_to("step-name")
    console.keys("say", Keys.ENTER)
    console.until(lambda: console.focused().get_attribute("id") == "workflow")
    assert caret_line(console) == 6
    console.driver.execute_script("document.querySelector('#description').focus()")
    console.tab_to("save")
    console.keys(Keys.ENTER)
    console.until(lambda: console.title() == "by-keyboard")
    found = read(service, "/tasks/demo/by-keyboard")
    assert found["description"] == "Greets by keyboard."
    assert found["workflow"] == {
        "init_params": {"text": ""},
        "step_configs": {"say": {"activity": "text_echo", "text_path": "init_params.text"}},
        "steps": ["say"],
    }
    with service.client() as client:
        client.delete("/tasks/demo/by-keyboard")


def test_a_step_takes_what_it_needs_from_the_step_before(console: Console, service: Service) -> None:
    with task(service) as path:
        console.open("#/tasks/written/edit")
        Select(console.find("#activity")).select_by_value("text_split")
        console.sees("separator", ".step-templates")
        for _ in range(2):
            console.press("Insert the step")
        console.press("Save task")
        console.until(lambda: console.title() == "written")
        saved = read(service, path)["workflow"]
        assert saved["steps"] == ["greet", "text_split", "text_split_2"]
        assert saved["step_configs"]["text_split"]["text_path"] == "greet.outputs.text"
        assert list(saved["init_params"]) == ["team", "text"]  # text_split returns a list


def test_a_save_sends_only_what_was_changed(console: Console, service: Service) -> None:
    with task(service) as path:
        console.open("#/tasks/written/edit")
        console.requests()
        console.press("Save task")
        console.until(lambda: console.title() == "written")
        assert sent(console, "PUT") == []
        console.open("#/tasks/written/edit")
        console.type("#description", "Changed.")
        console.requests()
        console.press("Save task")
        console.until(lambda: console.title() == "written")
        assert sent(console, "PUT") == [{"description": "Changed."}]
        assert len(read(service, f"{path}/versions")) == 1


def test_leaving_a_changed_workflow_asks_first(console: Console, service: Service) -> None:
    with task(service):
        console.open("#/tasks/written/edit")
        console.find("#workflow").send_keys(" ")
        console.press("Overview")
        console.sees("Leave without saving?", "dialog")
        console.press("Stay here")
        console.press("Cancel")
        console.press("Leave")
        console.until(lambda: console.title() == "written")


def test_what_someone_else_saved_meanwhile_is_not_replaced_without_a_question(
    console: Console, service: Service
) -> None:
    with task(service) as path:
        console.open("#/tasks/written/edit")
        with service.client() as client:
            client.put(path, json={"description": "Theirs."})
        console.type("#description", "Mine.")
        console.press("Save task")
        console.sees("Replace a newer change?", "dialog")
        console.press("Go back to the form")
        assert read(service, path)["description"] == "Theirs."
        console.press("Save task")
        console.press("Save mine")
        console.until(lambda: console.title() == "written")
        assert read(service, path)["description"] == "Mine."


def test_a_taken_name_and_a_bad_one_are_refused_at_the_name(console: Console) -> None:
    console.open("#/new/task")
    for name, words in (("greet", "exists"), ("Not a Slug", "lower-case letters")):
        console.type("#name", name)
        console.press("Save task")
        console.sees(words, ".field[data-field='name'] .field-error")
        assert console.focused().get_attribute("id") == "name"


# --- what is wrong is shown at its line -------------------------------------------------------------------------------


def test_faults_that_the_service_finds_are_shown_at_their_lines(console: Console, service: Service) -> None:
    with task(service) as path:
        console.open("#/tasks/written/edit")
        lines = [
            "{",
            '  "init_params": {},',
            '  "step_configs": {',
            '    "greet": {"activity": "text_eko"},',
            '    "say": {',
            '      "activity": "text_echo",',
            '      "text_path": "init_params.missing"',
            "    }",
            "  },",
            '  "steps": ["greet", "say",',
            '            "gone"]',
            "}",
        ]
        write(console, "\n".join(lines))
        console.press("Save task")
        console.until(lambda: len(faults(console)) == 3)
        assert [each.split(":")[0] for each in faults(console)] == [
            "Line 4 step_configs.greet.activity",
            "Line 7 step_configs.say.text_path",
            "Line 11 steps.2",
        ]
        assert "did you mean 'text_echo'?" in faults(console)[0]
        assert (console.focused().get_attribute("id"), caret_line(console)) == ("workflow", 4)
        assert console.focused().get_attribute("aria-invalid") == "true"
        assert [plain(each) for each in console.all(".gutter .wrong")] == ["4", "7", "11"]
        top = "return document.querySelectorAll('.line-faults p')[2].getBoundingClientRect().top"
        row = "return document.querySelectorAll('.gutter span')[10].getBoundingClientRect().top"
        assert abs(console.driver.execute_script(top) - console.driver.execute_script(row)) < 2
        console.press("Line 11")
        assert caret_line(console) == 11
        # A line that is mended is wrong no longer; what is left stays, at its new line.
        write(console, "\n".join(["", *lines]).replace("text_eko", "text_echo"))
        console.until(lambda: len(faults(console)) == 2)
        assert [each.split(":")[0] for each in faults(console)] == [
            "Line 8 step_configs.say.text_path",
            "Line 12 steps.2",
        ]
        assert read(service, path)["workflow"] == WORKFLOW


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n  "steps": [],\n}', 3, "There is a comma too many before }"),
        ('{\n  "steps": ["a"\n  "b"]\n}', 3, "A comma or ] is missing"),
        ('{\n  "steps": [],\n  "steps": []\n}', 3, 'There is another "steps" before'),
        ('{"init_params": {\n"seed": 12345678901234567890}}', 2, "A browser cannot keep 12345678901234567890 exactly"),
        ("{\n// why\n}", 2, "JSON has no comments"),
        ('{"a": "one\ntwo"}', 1, "A text does not end"),
        ("", 1, "A value is missing"),
    ],
)
def test_a_text_that_is_no_json_is_refused_at_its_line_and_not_sent(
    console: Console, text: str, line: int, words: str
) -> None:
    console.open("#/new/task")
    console.type("#name", "refused")
    write(console, text)
    console.requests()
    console.press("Save task")
    console.sees(f"Line {line} {words}", ".faults")
    assert (console.focused().get_attribute("id"), caret_line(console)) == ("workflow", line)
    assert sent(console, "POST") == []


def test_a_step_is_not_inserted_into_what_is_no_workflow(console: Console) -> None:
    console.open("#/new/task")
    for text in ("{", "[]", '{"steps": {}}'):
        write(console, text)
        console.press("Insert the step")
        console.find(".said p")
        assert console.find("#workflow").get_attribute("value") == text


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions_are_compared_and_an_earlier_one_is_taken_up_again(console: Console, service: Service) -> None:
    with task(service) as path:
        for number in (2, 3):
            config = {**WORKFLOW["step_configs"]["greet"], "template": f"Hello {number}"}
            workflow = {**WORKFLOW, "step_configs": {"greet": config}, "init_params": {"team": "blue", "size": number}}
            with service.client() as client:
                assert client.put(path, json={"workflow": workflow}).status_code == 200
        console.open("#/tasks/written")
        console.press("Versions")
        console.until(lambda: console.title() == "3 versions of written.")
        console.sees('added: "template": "Hello 3"', ".line-diff")
        assert [plain(each) for each in console.all(".line-diff .removed del")] == [
            'removed: "size": 2',
            'removed: "template": "Hello 2"',
        ]
        Select(console.find("#from")).select_by_visible_text("Version 1")
        console.sees('removed: "template": "Hello {{ init_params.team }}"', ".line-diff")
        assert "from=1&to=3" in console.driver.current_url
        console.press("What changed in version 2")
        console.until(lambda: "from=1&to=2" in console.driver.current_url)
        console.sees('added: "size": 2', ".line-diff")
        console.press("Edit from here version 1")
        console.sees("This is the workflow of version 1.", ".notice")
        console.press("Save task")
        console.until(lambda: console.title() == "written")
        assert read(service, path)["workflow"] == WORKFLOW
        assert [each["version"] for each in read(service, f"{path}/versions")] == [4, 3, 2, 1]
        console.open("#/tasks/written/versions?from=1&to=4")
        console.sees("They are the same.", ".versions")
        assert all_faults(console) == []


def test_a_version_that_is_missing_leads_to_no_form(console: Console, service: Service) -> None:
    with task(service):
        console.open("#/tasks/written/edit?version=9")
        assert not console.all("#workflow")
        console.open("#/tasks/written/versions?from=9&to=x")
        assert console.title() == "1 version of written."


def test_the_editor_looks_right_with_faults_on_long_lines(console: Console) -> None:
    console.open("#/new/task")
    console.type("#name", "refused")
    write(
        console,
        '{\n  "step_configs": {"a": {"activity": "none", "text": "' + "long " * 60 + '"}},\n  "steps": ["b"]\n}',
    )
    console.press("Save task")
    console.until(lambda: len(faults(console)) == 2)
    assert all_faults(console) == []


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_a_task_is_deleted_once_no_routine_runs_it(console: Console, service: Service) -> None:
    def refused(words: str) -> None:
        console.sees(words, ".notice")
        assert client.get(path).status_code == 200

    def delete() -> None:
        console.press("Delete")
        console.type("#confirm-name", "written")
        console.press("Delete task")

    nightly = {"name": "nightly", "cadence": {"type": "manual"}}
    rule = {"on": ["failed"], "scope": {"task": "written"}, "webhook_url": "https://example.com/"}
    with task(service) as path, service.client() as client:
        client.post("/routines/demo/written", json=nightly)
        client.post("/ics/demo", json={"task": "written"})
        client.put("/alert-rules/demo/night", json=rule)
        console.open("#/tasks/written")
        console.press("Delete")
        refused("A task cannot be deleted while it has routines. Delete them first: nightly.")
        client.delete("/routines/demo/written/nightly")
        console.press("Delete")
        console.sees("This also deletes 1 calendar feed and the alert rule night. Its runs are kept,", "dialog")
        client.post("/routines/demo/written", json=nightly)
        console.type("#confirm-name", "written")
        console.press("Delete task")
        refused("The task has routines: delete them first.")
        client.delete("/routines/demo/written/nightly")
        delete()
        console.until(lambda: console.title().endswith("tasks."))
        assert client.get(path).status_code == 404
        assert not [each for each in client.get("/ics/demo").json() if each["task"] == "written"]
        assert client.get("/alert-rules/demo/night").status_code == 404
