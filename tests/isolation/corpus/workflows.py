"""Steps and workflows that several attacks use."""

import time

from isolation.alpha import Alpha, Step

PIECE = "x" * 60_000
"""A text slightly shorter than the limit for strings in a request."""
COPIES = 16
"""This many pieces take nearly 1 MiB, the limit for a step's outputs."""
FITTING = 15
"""This many steps with outputs of nearly 1 MiB fit the budget of a run."""
FLEETING = {"activity": "text_echo", "text": "done"}


def big_steps(count: int) -> dict[str, Step]:
    """Return steps with outputs of nearly 1 MiB each."""
    big = {"activity": "text_template", "template": "{{ piece.outputs.text }}" * COPIES}
    return {"piece": {"activity": "text_echo", "text": PIECE}} | {f"big{number}": big for number in range(count)}


def steps_of_many_parts(count: int) -> dict[str, Step]:
    """Return steps with outputs of nearly 1 MiB each: lists of short texts, which take twelve times as much memory."""
    split = {"activity": "text_split", "separator": ",", "text_path": "big.outputs.text"}
    return {
        "piece": {"activity": "text_echo", "text": "ab," * 20_000},
        "big": {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 9},
    } | {f"split{number}": split for number in range(count)}


def slow_step(url: str, seconds: float = 60) -> Step:
    """Return a step that waits for a receiver that never responds."""
    return {"activity": "http_request", "url": url, "timeout_seconds": seconds}


def sixteen_times(name: str) -> Step:
    """Return a step that repeats the text of another one sixteen times."""
    return {"activity": "text_concatenate", "texts_path": [f"{name}.outputs.text"] * COPIES}


def until_steps(alpha: Alpha, run: int | None, count: int, seconds: float = 60) -> None:
    """Wait until this many steps of a run have finished, or the run has failed, for example by exceeding its budget."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        [(done, has_ended)] = alpha.execute(
            """SELECT (SELECT count(*) FROM routines.steps WHERE trajectory_id = trajectories.id
                       AND steps.status = 'completed'), ended_at IS NOT NULL
               FROM routines.trajectories WHERE id = %s""",
            run,
        )
        if done >= count or has_ended:
            return
        time.sleep(0.2)


def big_run(alpha: Alpha, steps: int = 90) -> int:
    """Run as many of these steps of 1 MiB as the budget of a run allows, as preparation. Returns the run's id."""
    alpha.task(big_steps(steps))
    run = alpha.ended_run("attack", seconds=60)
    alpha.begin()
    return run
