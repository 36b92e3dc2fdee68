"""The parts of a workflow: references, templates, activities, and the checks on them.

The API uses it to check and describe workflows, the engine to run them.
"""
