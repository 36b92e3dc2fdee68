"""The activities that come with Routines, a file for each theme; importing this package registers them."""

from routines_workflow.activities import branches, files, language_models, numbers, runs, texts, web
from routines_workflow.activity import ACTIVITIES

__all__ = ["ACTIVITIES", "branches", "files", "language_models", "numbers", "runs", "texts", "web"]
