"""What a workflow is made of: references, activities, and the rules that hold them together.

It stands beneath the API, which checks and describes workflows, and the engine, which runs them.
"""
