"""The worker of both engines: it executes runs with FlowWorkflow, delivers webhooks and applies retention."""
