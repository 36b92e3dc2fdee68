"""The second engine: the same FlowWorkflow as a Temporal workflow. Nothing here is imported unless it was chosen."""
