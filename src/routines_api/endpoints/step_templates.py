"""The endpoints of step templates: the activities that steps can use, the same for every collection."""

from litestar import get

from routines_api.http.access import Caller
from routines_api.openapi.description import operation
from routines_api.schemas.step_templates import StepTemplates
from routines_core.db.collections import find_collection
from routines_core.errors import NotFoundError
from routines_workflow.catalogue import StepTemplate, step_templates


@get("/step-templates", tags=["Step templates"], **operation("listStepTemplates"))
async def list_step_templates(caller: Caller) -> StepTemplates:
    """List the activities.

    With the parameters and outputs of each.
    """
    await find_collection(caller.connection, caller.key_id)
    templates = step_templates()
    return StepTemplates(templates, sorted({each.category for each in templates}), len(templates))


@get("/step-templates/{activity_name:str}", tags=["Step templates"], **operation("getStepTemplate"))
async def get_step_template(activity_name: str, caller: Caller) -> StepTemplate:
    """Get an activity.

    With its parameters and outputs.
    """
    await find_collection(caller.connection, caller.key_id)
    for template in step_templates():
        if template.activity_name == activity_name:
            return template
    raise NotFoundError


HANDLERS = [list_step_templates, get_step_template]
