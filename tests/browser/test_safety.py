"""Tests that the console never runs hostile text, contacts other origins, or stores or leaks the key."""

from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.by import By

from support.browsing import HOSTILE, PAGES, Console, filled
from support.service import Service

pytestmark = pytest.mark.slow
EXPECTED_ERRORS = ("404 (Not Found)", "401 (Unauthorized)", "400 (Bad Request)", "409 (Conflict)")
"""The browser logs each error answer of the service; the console shows those to the user as well."""


@pytest.mark.parametrize("page", ["overview", "tasks", "failed run", "hostile task"])
def test_hostile_texts_are_shown_as_plain_text(console: Console, service: Service, page: str) -> None:
    console.open("#/tasks/hostile" if page == "hostile task" else filled(service, page))
    if page == "failed run":
        console.find("#step-echo").click()
        console.sees(HOSTILE, ".timeline")
        console.sees(HOSTILE, ".labels")
    elif page != "overview":
        console.sees(HOSTILE, "main")
    assert not console.all("main img, main script, main iframe")
    assert "hacked" not in console.driver.title


def test_a_hostile_address_is_shown_as_plain_text(console: Console) -> None:
    console.open("#/routines/%3Cimg%20src=x%20onerror=document.title='hacked'%3E/..%2F..%2Fcollections")
    console.sees("Not found")
    assert not console.all("main img")
    asked = [urlsplit(each["url"]).path for each in console.requests() if "/api/" in each["url"]]
    assert not [path for path in asked if path.endswith("/collections")]


def test_the_browser_blocks_markup_and_foreign_images(console: Console) -> None:
    with pytest.raises(JavascriptException, match="TrustedHTML"):
        console.driver.execute_script("document.querySelector('main').innerHTML = '<b>x</b>'")
    console.messages()
    console.driver.execute_script(
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x'; document.body.append(image)"
    )
    console.until(lambda: any("Content Security Policy" in each for each in console.messages()))
    console.driver.execute_script("document.body.lastChild.remove()")


def test_requests_stay_on_the_origin_and_carry_the_key_in_one_header_only(console: Console, service: Service) -> None:
    requests = console.requests()
    for page in PAGES:
        console.open(filled(service, page))
        requests += console.requests()
    ours = [each for each in requests if not each["url"].startswith(("data:", "about:"))]
    assert len(ours) > 30
    for request in ours:
        assert request["url"].startswith(f"{console.origin}/"), request["url"]
        assert console.key not in request["url"]
        assert console.key not in request.get("postData", "")
        carriers = [name for name, text in request["headers"].items() if console.key in text]
        assert carriers == (["Authorization"] if "/api/" in request["url"] else [])


def test_no_page_violates_the_policy_or_throws(console: Console, service: Service) -> None:
    for page in PAGES:
        console.open(filled(service, page))
    complaints = [each for each in console.messages() if not any(known in each for known in EXPECTED_ERRORS)]
    assert not complaints


def test_a_secret_never_appears_in_a_page(console: Console, service: Service) -> None:
    with service.client() as client:
        client.patch("/routines/demo/greet/morning", json={"secret_params": {"TOKEN": "planted-secret-value"}})
    for page in ("routine", "edit"):
        console.open(filled(service, page))
        assert "planted-secret-value" not in console.driver.page_source
    assert console.key not in console.driver.find_element(By.TAG_NAME, "html").get_attribute("outerHTML")  # pyright: ignore[reportOperatorIssue]
