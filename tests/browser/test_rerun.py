"""Tests that an ended run is run again from its page, whole or from the step that failed."""

import pytest
from selenium.webdriver.support.ui import Select

from support.browsing import Console, filled
from support.service import Service

pytestmark = pytest.mark.slow


def test_a_failed_run_goes_on_from_the_step_that_failed(console: Console, service: Service) -> None:
    page = filled(service, "failed run")
    failed = page.rpartition("/")[2]
    console.open(page)
    console.press("Run again")
    choice = Select(console.find("#rerun-from"))
    assert [each.text for each in choice.options] == ["The first step", "read, keeping 1 step"]
    assert choice.first_selected_option.text == "read, keeping 1 step"
    console.type("#rerun-params", "{nonsense")
    console.find("#rerun").click()
    console.sees("Must be a JSON object", "[data-field=init_params]")
    console.type("#rerun-params", '{"texts": 1}')
    console.find("#rerun").click()
    console.sees("not declared", "[data-field=init_params]")
    console.type("#rerun-params", "{}")
    console.find("#rerun").click()
    console.until(lambda: not console.driver.current_url.endswith(page))
    console.sees(f"Runs run {failed} again.")
    console.sees(f"kept from run {failed}", ".timeline")
    with service.client() as client:
        again = client.get(f"/db/trajectory/demo/hostile/{console.driver.current_url.rpartition('/')[2]}").json()
    assert (again["rerun_of"], again["kept_steps"]) == (int(failed), {"echo": int(failed)})


def test_a_completed_run_is_run_again_whole(console: Console, service: Service) -> None:
    page = filled(service, "run")
    done = page.rpartition("/")[2]
    console.open(page)
    console.press("Run again")
    options = [each.text for each in Select(console.find("#rerun-from")).options]
    assert options == ["The first step", "words, keeping 1 step"]
    console.type("#rerun-params", '{"name": "moon"}')
    console.find("#rerun").click()
    console.sees(f"Runs run {done} again.")
    console.sees("Completed", ".lede")
    assert not console.all("#cancel")
    with service.client() as client:
        again = client.get(f"/db/trajectory/demo/greet/{console.driver.current_url.rpartition('/')[2]}").json()
    assert (again["rerun_of"], again["init_params"]["name"]) == (int(done), "moon")
    assert again["init_params"]["size"] == 3
