"""The activities that come with Routines; importing this package registers them."""

from routines_workflow.activities import texts
from routines_workflow.activity import ACTIVITIES

__all__ = ["ACTIVITIES", "texts"]
