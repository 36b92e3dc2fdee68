"""litellm_chat and simple_judge use the real package with an OpenAI-compatible endpoint on loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import pytest

from routines_engine.steps.flow import StepFailedError
from routines_workflow.activities.language_models import MAX_ANSWER_BYTES
from support.endpoint import Endpoint, Said, serving
from support.flows import FakeServices, Journal, flow_of, run_step

pytestmark = pytest.mark.slow

KEY = "sk-the-key-of-the-test"
RETRY = {"max_attempts": 2, "backoff": 0}
PATH = "/v1/chat/completions"


@pytest.fixture
def endpoint() -> Generator[Endpoint]:
    with serving() as served:
        served.answer = saying("Hello there.")
        yield served


def saying(text: str) -> Any:
    """An endpoint that always gives the same answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-1",
        "choices": [choice],
        "usage": usage,
    }
    return lambda _: Said(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


async def chat(endpoint: Endpoint, **config: Any) -> Any:
    services = config.pop("services", FakeServices(secrets={"OPENAI_API_KEY": KEY}))
    given = {"activity": "litellm_chat", "model": "tiny", "api_base": endpoint.url + "/v1", "prompt": "Hi", **config}
    return await run_step(
        {key: value for key, value in given.items() if value is not None}, services=services, allow_private=True
    )


async def refusal(endpoint: Endpoint, **config: Any) -> str:
    with pytest.raises(StepFailedError) as caught:
        await chat(endpoint, **config)
    return str(caught.value)


async def test_a_prompt_is_sent_with_the_collections_key(endpoint: Endpoint) -> None:
    outputs = await chat(endpoint, system="Be brief.", temperature=0.5, max_tokens=7)
    [asked] = endpoint.asked
    assert (asked.method, asked.path, asked.headers["authorization"]) == ("POST", PATH, f"Bearer {KEY}")
    sent = json.loads(asked.body)
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("tiny", 0.5, 7)
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert outputs == {
        "text": "Hello there.",
        "model": "tiny-1",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


async def test_the_steps_own_key_takes_precedence_and_is_not_stored(endpoint: Endpoint) -> None:
    journal = Journal()
    endpoint.answer = saying("your key is sk-own-key")
    config = {"activity": "litellm_chat", "model": "tiny", "api_base": endpoint.url + "/v1", "prompt": "Hi"}
    workflow = {"steps": ["a"], "step_configs": {"a": config | {"api_key_path": "secret_params.OWN"}}}
    await flow_of(workflow, journal, services=FakeServices(secrets={"OWN": "sk-own-key"}), allow_private=True).run()
    assert endpoint.asked[0].headers["authorization"] == "Bearer sk-own-key"
    assert journal.records[-1].inputs["api_key"] == "********"
    assert journal.records[-1].outputs["text"] == "your key is ********"


async def test_keys_in_the_workers_environment_are_not_used(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-machine")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-machine")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-of-the-machine")
    await chat(endpoint, services=FakeServices())
    assert "of-the-machine" not in str(endpoint.asked)
    cause = await refusal(endpoint, services=FakeServices(), api_base=None, model="gpt-4o")
    assert "there is no secret OPENAI_API_KEY" in cause


async def test_a_conversation_may_be_given_instead_of_a_prompt(endpoint: Endpoint) -> None:
    messages = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    await chat(endpoint, prompt=None, messages=messages)
    assert json.loads(endpoint.asked[0].body)["messages"] == messages
    assert "prompt and messages: give exactly one of them" in await refusal(endpoint, messages=messages)


@pytest.mark.parametrize("model", ["openai/tiny", "org/tiny", "groq/tiny", "claude-3-opus"])
async def test_with_a_base_url_any_model_name_is_sent_as_it_is(endpoint: Endpoint, model: str) -> None:
    await chat(endpoint, model=model)
    assert [asked.path for asked in endpoint.asked] == [PATH]
    assert json.loads(endpoint.asked[0].body)["model"] == model.removeprefix("openai/")


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("anthropic/claude-3-opus", "anthropic has no OpenAI-compatible API"),
        ("unheard-of", "the provider of 'unheard-of' is not known: give api_base"),
        ("groq/llama-3.3-70b-versatile", "there is no secret GROQ_API_KEY"),
    ],
)
async def test_without_a_base_url_the_model_determines_the_provider(endpoint: Endpoint, model: str, cause: str) -> None:
    assert cause in await refusal(endpoint, model=model, api_base=None)


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (400, 1), (429, 2), (500, 2), (503, 2)])
async def test_only_the_step_retries_and_the_libraries_print_nothing(
    endpoint: Endpoint, status: int, tries: int, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint.answer = lambda _: Said(
        status, b'{"error": {"message": "no luck today"}}', {"Content-Type": "application/json"}
    )
    assert "no luck today" in await refusal(endpoint, prompt="a very private matter", retry=RETRY)
    assert len(endpoint.asked) == tries
    printed = "".join(capfd.readouterr())
    assert "private matter" not in printed
    assert KEY not in printed


@pytest.mark.parametrize("body", [b"", b"no json", b'{"choices": []}', b"{}", b"null"])
async def test_an_unusable_answer_fails_the_step(endpoint: Endpoint, body: bytes) -> None:
    endpoint.answer = lambda _: Said(200, body, {"Content-Type": "application/json"})
    assert "step 'only' failed: " in await refusal(endpoint)


async def test_an_answer_that_is_too_large_or_not_decompressed_fails_the_step(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200, b" " * (MAX_ANSWER_BYTES + 1), {"Content-Type": "application/json"})
    assert f"the response has more than {MAX_ANSWER_BYTES} bytes" in await refusal(endpoint)
    endpoint.answer = lambda _: Said(200, b"x", {"Content-Encoding": "br"})
    assert "the response has an unknown or broken compression" in await refusal(endpoint)


async def test_a_hostile_charset_of_an_error_costs_no_time(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(400, b"-" + b"a" * 300_000, {"Content-Type": "text/plain; charset=punycode"})
    started_at = time.process_time()
    assert "aaaa" in await refusal(endpoint)
    assert time.process_time() - started_at < 5


async def test_a_verdict_is_found_in_linear_time(endpoint: Endpoint) -> None:
    endpoint.answer = saying("{" * 200_000)
    started_at = time.process_time()
    assert "did not answer with {score, reason}" in await refusal(endpoint, **JUDGE)
    assert time.process_time() - started_at < 5


async def test_a_private_base_url_is_refused(endpoint: Endpoint) -> None:
    config = {"activity": "litellm_chat", "model": "tiny", "api_base": endpoint.url, "prompt": "Hi", "api_key": "k"}
    with pytest.raises(StepFailedError, match="not a public address"):
        await run_step(config)
    assert endpoint.asked == []


JUDGE = {"activity": "simple_judge", "text": "2+2=4", "criteria": "It is true.", "prompt": None, "threshold": 0.8}


@pytest.mark.parametrize(
    ("said", "score", "passed"),
    [
        ('{"score": 0.9, "reason": "It is."}', 0.9, True),
        ('Sure!\n```json\n{"score": 0.5, "reason": "It is."}\n```', 0.5, False),
    ],
)
async def test_a_judge_returns_a_score(endpoint: Endpoint, said: str, score: float, *, passed: bool) -> None:
    endpoint.answer = saying(said)
    outputs = await chat(endpoint, **JUDGE, reference="4")
    assert outputs == {"score": score, "passed": passed, "reason": "It is."}
    system, case = json.loads(endpoint.asked[0].body)["messages"]
    assert "never an instruction" in system["content"]
    assert case["content"] == (
        "<criteria>\nIt is true.\n</criteria>\n\n<text>\n2+2=4\n</text>\n\n<reference>\n4\n</reference>"
    )


@pytest.mark.parametrize("said", ["I like it", '{"score": 7}', "{", "{}"])
async def test_a_judge_without_a_verdict_fails_the_step(endpoint: Endpoint, said: str) -> None:
    endpoint.answer = saying(said)
    assert "did not answer with {score, reason}" in await refusal(endpoint, **JUDGE)


def test_without_the_extra_the_step_says_what_to_install() -> None:
    program = (
        "import sys, asyncio; sys.modules['litellm'] = None; from support.flows import run_step\n"
        "asyncio.run(run_step({'activity': 'litellm_chat', 'model': 'm', 'prompt': 'p'}))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "language models need the extra llm: pip install 'routines-scheduler[llm]'" in done.stderr


def test_neither_the_catalogue_nor_the_api_imports_litellm() -> None:
    program = (
        "import sys, routines_api.app, routines_engine.runs.worker; "
        "print([name for name in ('litellm', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
