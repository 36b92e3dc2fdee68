"""Step processes: tenants' workflows run in child processes of a worker, never in the process that holds leases.

A worker claims runs, renews leases and writes checkpoints. Everything that reads a tenant's workflow or data runs in a
step process: references, templates, activities and masking. A step process has a memory limit and a watchdog and can
be killed. The two exchange frames of bytes. What a step leaves behind arrives masked and bounded, and the worker never
decodes it.
"""
