"""The activities that come with Routines, one module per category; importing this package registers them."""

from routines_workflow.activities import branches, files, language_models, numbers, runs, texts, web
from routines_workflow.activity import ACTIVITIES

__all__ = ["ACTIVITIES", "branches", "files", "language_models", "numbers", "runs", "texts", "web"]
