"""The Temporal engine: FlowWorkflow as a Temporal workflow. Imported only where this engine was chosen."""
