"""Run `routines worker` with one more activity, for tests: a step that takes time and records each execution.

The product is unchanged, but for one secret that tells a step for which run and fence it works.
"""

import asyncio
import json
import os
from pathlib import Path

from chaos_activities import CLAIM

from routines_core.logging import configure_logging
from routines_core.settings import load_settings
from routines_engine.runs.services import RunServices
from routines_engine.runs.worker import run_worker

secret = RunServices.secret


async def _secret(services: RunServices, name: str) -> str | None:
    run = services.claimed.run
    if name == CLAIM:
        return json.dumps({"trajectory_id": run.id, "fence": run.fence})
    return await secret(services, name)


RunServices.secret = _secret

if __name__ == "__main__":
    Path(os.environ["CHAOS_TRACE"]).touch()
    settings = load_settings()
    configure_logging(settings.log_format)
    assert settings.database_url
    run = run_worker
    if settings.engine == "temporal":
        from routines_engine.temporal.program import run_temporal_worker as run
    asyncio.run(run(settings, settings.database_url, modules=["chaos_activities"]))
