"""Tests who changed what: the changes of the collection, the revisions of a routine, and bringing one back."""

import pytest
from selenium.webdriver.support.ui import Select

from support.browsing import Console, plain, routine
from support.service import Service

pytestmark = pytest.mark.slow


def test_a_revision_is_compared_field_by_field_and_restored_after_a_question(
    console: Console, service: Service
) -> None:
    with routine(service, "revised", secret_params={"TOKEN": "x"}, init_params_overrides={"size": 5}) as client:
        path = "/routines/demo/greet/revised"
        change = {"cadence": {"type": "hourly"}, "init_params_overrides": {"size": 7}, "secret_params": {}}
        assert client.patch(path, json=change).status_code == 200
        console.open("#/routines/greet/revised")
        console.sees("cadence: Every day at 09:00 UTC", "#revisions")
        console.sees("Every hour, on the hour", "#revisions")
        console.sees("init_params_overrides.size: 5", "#revisions")
        assert len(console.all("#revisions button")) == 1  # the newest is as the routine is now

        console.find("#restore-1").click()
        console.sees("Every hour, on the hour → is now Every day at 09:00 UTC", "dialog")
        console.sees("secret_params.TOKEN", "dialog .notice")
        console.press("Leave it as it is")
        console.until(lambda: not console.all("dialog"))
        assert client.get(path).json()["cadence"]["type"] == "hourly"
        console.find("#restore-1").click()
        console.find("dialog button:not(.primary)").click()
        console.sees("Restored, without its secrets", "dialog")
        console.press("Later")
        console.sees("revision 3", "#revisions")
        console.sees("Every day at 09:00 UTC", ".lede")
        found = client.get(path).json()
        assert (found["cadence"]["type"], found["init_params_overrides"]) == ("daily", {"size": 5})
        assert console.focused().get_attribute("id") == "revisions"


def test_the_changes_of_the_collection_name_who_made_them_and_are_filtered_by_kind(
    console: Console, service: Service
) -> None:
    with routine(service, "passing"):
        pass
    console.open("#/changes")
    console.sees("deleted the routine greet/passing", ".changes")
    rows = [plain(each) for each in console.all(".changes > li")]
    created = next(each for each in rows if "created the routine greet/passing" in each)
    assert "Key " in created
    assert "As it was created" in created
    assert not console.all(".changes > li:first-child a")  # there is no page of it any more
    Select(console.find("#kind")).select_by_value("task")
    console.until(lambda: all("the task" in plain(each) for each in console.all(".changes > li")))
    assert "kind=task" in console.driver.current_url
    console.driver.refresh()
    console.sees("the task greet", ".changes")
    assert Select(console.find("#kind")).first_selected_option.text == "Tasks"
    console.press("greet")
    console.until(lambda: console.title() == "greet")
