"""The list of activities that steps can use."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_workflow.catalogue import StepTemplate


class StepTemplates(msgspec.Struct):
    """The activities that steps can use."""

    templates: Annotated[list[StepTemplate], Meta(description="One for each activity.")]
    categories: Annotated[list[str], Meta(description="Their categories, sorted.", examples=[["text"]])]
    total_count: Annotated[int, Meta(description="How many activities there are.", examples=[4])]
