"""Secrets of a run are read only for the step that names them, and are never stored."""

import base64
from typing import Any

import msgspec
import pytest

from routines_core.errors import SecretError
from routines_engine.steps.flow import StepFailedError
from routines_engine.steps.storable import MAX_ERROR_CHARACTERS
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.flows import FakeServices, Journal, flow_of

KEY = "s3cret-key/with+signs"


class Anything(msgspec.Struct):
    value: Any = None


@pytest.fixture(autouse=True)
def activities() -> Any:
    """Activities that show their inputs; removed at the end of the test."""
    before = dict(ACTIVITIES)

    @activity("Returns its inputs, in other spellings too.", Anything)
    async def show(given: Anything, _: StepContext) -> Anything:
        text = str(given.value)
        return Anything({text: [text, base64.b64encode(text.encode()).decode(), f"<{text}>"], "length": len(text)})

    @activity("Fails, and shows its inputs in the error.", Anything)
    async def tell(given: Anything, _: StepContext) -> Anything:
        raise ValueError(f"bad key {given.value}")

    @activity("Looks up a secret itself.", Anything)
    async def look_up(given: Anything, context: StepContext) -> Anything:
        return Anything(await context.services.secret(str(given.value)))

    yield
    ACTIVITIES.clear()
    ACTIVITIES.update(before)


def left_behind(journal: Journal) -> str:
    return msgspec.json.encode([msgspec.structs.asdict(record) for record in journal.records]).decode()


def flow(journal: Journal, *configs: dict[str, Any], **options: Any) -> Any:
    step_configs = {f"s{index}": config for index, config in enumerate(configs)}
    return flow_of({"steps": list(step_configs), "step_configs": step_configs}, journal, **options)


async def test_a_step_gets_the_secret_and_the_run_stores_the_mask() -> None:
    journal = Journal()
    services = FakeServices(secrets={"KEY": KEY, "PIN": "123"})
    await flow(
        journal,
        {"activity": "show", "value_path": "secret_params.KEY"},
        {"activity": "show", "value": "Bearer {{ environment.KEY }}"},
        {"activity": "text_concatenate", "texts_path": ["secret_params.PIN", "environment.KEY"]},
        {
            "activity": "text_template",
            "template": "{{ secret_params.PIN }}-{{ k }}",
            "variables": {"k": "{{ environment.KEY }}"},
        },
        services=services,
    ).run()
    first, second, third, fourth = [record for record in journal.records if record.status == "completed"]
    assert first.inputs == {"value": "********"}
    assert first.outputs == {"value": {"********": ["********", "********", "<********>"], "length": len(KEY)}}
    assert second.inputs == {"value": "Bearer ********"}
    assert second.outputs["value"]["length"] == len(f"Bearer {KEY}")
    # Too short to be masked in outputs, but not shown where it is named.
    assert third.inputs == {"texts": ["********", "********"]}
    assert fourth.inputs["variables"] == {"k": "********", "secret_params.PIN": "********"}
    assert fourth.outputs == {"text": "123-********"}
    assert KEY not in left_behind(journal)


async def test_a_secret_is_looked_up_only_for_the_step_that_names_it() -> None:
    services = FakeServices(secrets={"A": "aaaa-1", "B": "bbbb-2"})
    journal = Journal()
    with pytest.raises(StepFailedError):
        await flow(
            journal,
            {"activity": "show", "value_path": "secret_params.A"},
            {"activity": "text_echo", "text_path": "init_params.gone"},
            {"activity": "show", "value_path": "secret_params.B"},
            services=services,
        ).run()
    assert services.asked_secrets == ["A"]


async def test_later_steps_see_the_stored_masked_outputs() -> None:
    journal = Journal()
    await flow(
        journal,
        {"activity": "show", "value_path": "secret_params.KEY"},
        {"activity": "text_echo", "text_path": "s0.inputs.value"},
        {"activity": "text_template", "template": "{{ v }}", "variables_path": "init_params"},
        services=FakeServices(secrets={"KEY": KEY}),
        init_params={"v": f"it was {KEY}"},
    ).run()
    assert journal.ends()[1:] == [
        ("s1", "completed", {"text": "********"}),
        ("s2", "completed", {"text": "it was ********"}),
    ]
    assert KEY not in left_behind(journal)


async def test_a_resumed_run_masks_as_an_uninterrupted_one_does() -> None:
    configs = [
        {"activity": "show", "value_path": "secret_params.KEY"},
        {"activity": "text_echo", "text_path": "init_params.v"},
    ]
    options: dict[str, Any] = {"init_params": {"v": f"it was {KEY}"}}
    whole, resumed = Journal(), Journal()
    await flow(whole, *configs, services=FakeServices(secrets={"KEY": KEY}), **options).run()
    finished = {"s0": whole.finished()["s0"]}
    await flow(resumed, *configs, services=FakeServices(secrets={"KEY": KEY}), finished=finished, **options).run()
    assert resumed.ends() == whole.ends()[1:]


async def test_a_secret_that_an_activity_looks_up_itself_is_masked_too() -> None:
    journal = Journal()
    await flow(journal, {"activity": "look_up", "value": "KEY"}, services=FakeServices(secrets={"KEY": KEY})).run()
    assert journal.ends() == [("s0", "completed", {"value": "********"})]


async def test_errors_are_masked_in_the_journal_and_when_raised() -> None:
    journal = Journal()
    retry = {"max_attempts": 2, "backoff": 0}
    with pytest.raises(StepFailedError) as caught:
        await flow(
            journal,
            {"activity": "tell", "value_path": "secret_params.KEY", "retry": retry},
            services=FakeServices(secrets={"KEY": KEY}),
        ).run()
    assert str(caught.value) == "step 's0' failed: bad key ********"
    assert [record.failed_try for record in journal.records] == [None, "bad key ********", None]
    assert KEY not in left_behind(journal)


async def test_cutting_a_long_error_leaves_no_half_of_a_secret() -> None:
    journal = Journal()
    retry = {"max_attempts": 2, "backoff": 0}
    # The text before the secret ends a few characters before the cut, which falls in the middle of the secret.
    filling = "x" * (MAX_ERROR_CHARACTERS - len("bad key ") - len(KEY) // 2)
    value = f"{filling}{{{{ secret_params.KEY }}}}"
    config = {"activity": "tell", "value": value, "retry": retry}
    with pytest.raises(StepFailedError):
        await flow(journal, config, services=FakeServices(secrets={"KEY": KEY})).run()
    assert str(journal.records[1].failed_try).endswith("x********")
    assert KEY[:4] not in left_behind(journal)


async def test_no_part_of_a_malformed_secret_template_is_shown() -> None:
    journal = Journal()
    config = {"activity": "text_template", "template_path": "environment.PROMPT"}
    prompt = f"{'secret words ' * 5}{{{{ {'and more ' * 5}"
    with pytest.raises(StepFailedError, match=r"template: not valid at character 73: expected '.'"):
        await flow(journal, config, services=FakeServices(secrets={"PROMPT": prompt})).run()
    assert "words" not in left_behind(journal)
    assert "more" not in left_behind(journal)


async def test_a_secret_is_not_passed_on_to_another_run() -> None:
    services = FakeServices(secrets={"KEY": KEY})
    with pytest.raises(StepFailedError, match="a secret cannot be passed on in init_params"):
        await flow(
            Journal(),
            {"activity": "list_emit_await", "task": "t", "items": ["{{ secret_params.KEY }}"]},
            services=services,
        ).run()
    assert services.children == []


class EngineError(Exception):
    """The engine itself has failed."""


class Broken(FakeServices):
    """An engine whose secrets cannot be decrypted, or that has failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def secret(self, name: str) -> str | None:  # noqa: ARG002 - it has no secrets
        raise self.error


async def test_a_secret_that_cannot_be_decrypted_fails_the_step() -> None:
    config = {"activity": "show", "value_path": "secret_params.KEY"}
    with pytest.raises(StepFailedError, match="does not open"):
        await flow(Journal(), config, services=Broken(SecretError("it does not open"))).run()


@pytest.mark.parametrize(
    "config", [{"activity": "show", "value_path": "secret_params.KEY"}, {"activity": "look_up", "value": "KEY"}]
)
async def test_an_engine_fault_leaves_the_run_and_fails_no_step(config: dict[str, Any]) -> None:
    journal = Journal()
    with pytest.raises(EngineError):
        await flow(journal, config, services=Broken(EngineError())).run()
    assert journal.ends() == []


async def test_an_engine_fault_in_one_attempt_is_not_blamed_for_the_next_step() -> None:
    @activity("Continues without the engine.", Anything)
    async def shrug(given: Anything, context: StepContext) -> Anything:
        try:
            await context.services.read_file("any")
        except EngineError:
            return given
        return given

    class Away(FakeServices):
        async def read_file(self, path: str, *_: object) -> bytes:
            raise EngineError(path)

    with pytest.raises(StepFailedError, match="step 's1' failed: bad key k"):
        await flow(Journal(), {"activity": "shrug"}, {"activity": "tell", "value": "k"}, services=Away()).run()


async def test_a_file_that_cannot_be_read_for_now_fails_the_attempt_and_not_the_run() -> None:
    class Full(FakeServices):
        async def save_file(self, name: str, content: bytes) -> str:
            raise OSError(28, f"no space for {name} of {len(content)} bytes")

    config = {"activity": "save_text_file", "name": "a", "text": "x", "retry": {"max_attempts": 2, "backoff": 0}}
    journal = Journal()
    with pytest.raises(StepFailedError, match="no space for a"):
        await flow(journal, config, services=Full()).run()
    assert journal.records[-1].attempt == 2
