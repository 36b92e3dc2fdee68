"""The spans of one run in this worker: the run itself, and its steps."""

from dataclasses import dataclass, field

from routines_core import tracing
from routines_core.db.runs import Claim
from routines_core.tracing import Span, SpanRef, Tracer
from routines_engine.sandbox.messages import RecordedStep


@dataclass
class RunTrace:
    """Follows the checkpoints of a run. What has not ended here is recorded by the worker in which it ends.

    Attributes:
        run: The claim.
        span: The run's span.
    """

    run: Claim
    span: Span
    _tracer: Tracer
    _steps: dict[str, Span] = field(default_factory=dict[str, Span])

    @classmethod
    def begin(cls, run: Claim) -> "RunTrace | None":
        """Begin to trace a claimed run; None if nothing is traced.

        The run belongs to the trace of the request that started it. A scheduled run is the root of its own trace, with
        a link to the tick, which may have started a thousand.
        """
        if (tracer := tracing.tracer()) is None:
            return None
        started_by = tracing.parse_traceparent(run.traceparent)
        parent, link = (None, started_by) if run.is_scheduled else (started_by, None)
        name = f"run {run.workflow_id.rpartition('--')[0].removeprefix('flow-')}"
        span = tracing.begin_run(tracer, run.run_id, parent, name=name, link=link, began_at=run.began_at)
        return cls(run, span, tracer)

    @property
    def traceparent(self) -> str:
        """The run's span, for its step process."""
        return self.span.ref.traceparent

    def step(self, name: str) -> SpanRef:
        """Return the span of a step."""
        return tracing.step_ref(self.span.ref, self.run.run_id, name)

    def begun(self, step: RecordedStep) -> None:
        """Note that an attempt of a step begins, or that it has failed."""
        if step.status == "failed":
            self._end(step, is_failure=True)
        elif step.name not in self._steps:
            self._steps[step.name] = self._begin(step)
        elif step.is_retry:
            self._steps[step.name].event("retry", {"routines.attempt": step.attempt})

    def completed(self, step: RecordedStep) -> None:
        """Record a step that has completed."""
        self._end(step, is_failure=False)

    def ended(self, status: str) -> None:
        """Record the run, which has ended."""
        attributes = {
            "routines.trajectory_id": self.run.id,
            "routines.workflow_id": self.run.workflow_id,
            "routines.run_id": self.run.run_id,
            "routines.status": status,
        }
        self.span.end(attributes, is_failure=status != "completed")

    def _begin(self, step: RecordedStep) -> Span:
        ref = self.step(step.name)
        return self._tracer.begin(f"step {step.name}", parent=self.span.ref, ids=(None, ref.span_id))

    def _end(self, step: RecordedStep, *, is_failure: bool) -> None:
        span = self._steps.pop(step.name, None) or self._begin(step)
        attributes = {
            "routines.trajectory_id": self.run.id,
            "routines.step": step.name,
            "routines.activity": step.activity,
            "routines.attempt": step.attempt,
        }
        span.end(attributes, is_failure=is_failure)
