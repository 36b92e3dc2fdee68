"""An example of each response, for the OpenAPI description. A test validates each against its schema."""

from typing import Any

import msgspec

from routines_core.db.routines import Cadence
from routines_core.mask import MASK

_CADENCE = msgspec.to_builtins(Cadence("weekdays", hour_utc=9))
_ROUTINE = {
    "id": 42,
    "name": "morning-regression",
    "task_name": "nl-to-sql-regression",
    "collection_name": "my-org",
    "cadence": _CADENCE,
    "init_params_overrides": {"sample_size": 50},
    "secret_params": {},
    "webhook_url": None,
    "webhook_secret": None,  # nosec B105 - not a secret
    "paused": False,
    "last_run_at": None,
    "next_run_at": "2026-05-04T09:00:00Z",
    "overlap_policy": "skip",
}
_BUCKET = {"at": "2026-05-04T09:00:00Z", "slots": 14, "expected_seconds": 420.0, "started": 0, "skipped": 0}
_SLOT_COUNTS = {
    "expected": 24,
    "started": 22,
    "on_time": 21,
    "late": 1,
    "completed": 20,
    "failed": 1,
    "cancelled": 0,
    "archived": 0,
    "active": 1,
    "skipped": {
        "overlap": 1,
        "coalesced": 0,
        "missed": 1,
        "paused": 0,
        "failed_to_start": 0,
        "calendar": 0,
        "outside_hours": 0,
        "backoff": 0,
    },
    "pending": 0,
    "recovered": 2,
    "max_delay_seconds": 1560.2,
}
_ROUTINE_REPORT = {
    "task": "greet",
    "routine": "morning-regression",
    "routine_id": 42,
    "deleted": False,
    **_SLOT_COUNTS,
}
_MARK = {
    "at": "2026-05-04T09:00:00.25Z",
    "until": "2026-05-04T09:02:10Z",
    "kind": "completed",
    "trajectory_id": 9876,
    "scheduled_for": "2026-05-04T09:00:00Z",
}
_LANE = {"routine_id": 42, "task": "greet", "routine": "morning-regression", "marks": [_MARK]}
_QUIET_MINUTE = {"cadence": {**_CADENCE, "minute_utc": 7}, "minutes_away": 7, "slots": 0}
_TASK_VERSION = {"version": 3, "saved_at": "2026-05-01T08:00:00Z", "actor": "key 7"}
_WORKFLOW = {
    "init_params": {"name": "world"},
    "step_configs": {"greet": {"activity": "text_echo", "text_path": "init_params.name"}},
    "steps": ["greet"],
}
_TIMES = {
    "created_at": "2026-05-04T09:00:00.004Z",
    "started_at": "2026-05-04T09:00:00.1Z",
    "ended_at": "2026-05-04T09:00:02Z",
}
_TRAJECTORY = {
    "trajectory_id": 9876,
    "workflow_id": "flow-my-org-greet--9876",
    "run_id": "1b671a64-40d5-491e-99b0-da01ff1f3341",
    "name": "my-org/greet",
    "status": "completed",
    "created": "2026-05-04T09:00:00.004Z",
    "updated": "2026-05-04T09:00:02Z",
    **_TIMES,
    "init_params": {"name": "world"},
    "step_configs": _WORKFLOW["step_configs"],
    "steps": {
        "greet": {
            "status": "completed",
            "activity": "text_echo",
            "inputs": {"text": "world"},
            "outputs": {"text": "world"},
            "created": "2026-05-04T09:00:00.100000Z",
            "ended": "2026-05-04T09:00:00.200000Z",
            "duration_seconds": 0.1,
            "error": None,
        }
    },
    "total_steps": 1,
    "completed_steps": 1,
    "labels": [],
    "error": None,
    "triggered_by_routine_id": 42,
    "scheduled_for": "2026-05-04T09:00:00Z",
    "trigger": "schedule",
    "webhook_url": None,
}

_OCCURRENCE = {
    "scheduled_for": "2026-05-04T09:00:00Z",
    "last_scheduled_for": "2026-05-04T09:00:00Z",
    "slot_count": 1,
    "outcome": "skipped",
    "reason": "overlap",
    "trajectory_id": None,
    "blocking_trajectory_id": 9876,
    "detail": None,
    "recorded_at": "2026-05-04T09:00:00.004Z",
    "delay_seconds": 0.004,
    "status": None,
    "error": None,
}
_WHY = {
    "kind": "overlap",
    "at": "2026-05-04T09:00:00Z",
    "now": "2026-05-04T12:00:00Z",
    "scheduled_for": "2026-05-04T09:00:00Z",
    "last_scheduled_for": "2026-05-04T09:00:00Z",
    "slot_count": 1,
    "recorded_at": "2026-05-04T09:00:00.004Z",
    "trajectory_id": None,
    "trajectory_status": None,
    "blocking_trajectory_id": 9876,
    "blocking_started_at": "2026-05-04T08:00:01Z",
    "blocking_ended_at": "2026-05-04T10:00:00Z",
    "detail": None,
    "routine_created_at": "2026-05-01T08:00:00Z",
    "paused_at": None,
    "paused_reason": None,
    "cadence_type": "hourly",
    "is_slot_of_cadence": True,
    "next_slot": "2026-05-04T10:00:00Z",
}

_TEMPLATE: dict[str, Any] = {
    "activity_name": "text_echo",
    "description": "Returns its text unchanged.",
    "category": "text",
    "parameters": [
        {"name": "text", "type": "string", "required": True, "default": None, "description": "What is returned."}
    ],
    "outputs": [{"name": "text", "type": "string", "description": "The same text."}],
    "example_config": {"activity": "text_echo", "text_path": "init_params.text"},
}
_DURATIONS = {
    "count": 12,
    "avg_seconds": 2.5,
    "min_seconds": 1.9,
    "p50_seconds": 2.4,
    "p95_seconds": 3.1,
    "max_seconds": 3.2,
}
_EVENT = {
    "at": "2026-05-04T09:00:00.2Z",
    "event": "step_completed",
    "step": "greet",
    "attempt": 1,
    "try_number": 1,
    "detail": None,
}

_LATEST_OUTCOME = {
    "scheduled_for": "2026-05-04T09:00:00Z",
    "last_scheduled_for": "2026-05-04T09:00:00Z",
    "slot_count": 1,
    "outcome": "started",
    "reason": None,
    "trajectory_id": 9876,
    "trigger": "schedule",
    "status": "completed",
    "error": None,
    "blocking_trajectory_id": None,
    "detail": None,
    "recorded_at": "2026-05-04T09:00:00.004Z",
    "ended_at": "2026-05-04T09:00:02Z",
}

_TROUBLE = {
    "kind": "webhook",
    "trajectory_id": 9876,
    "since": "2026-05-04T09:00:02Z",
    "detail": "the webhook does not arrive: it answered 500",
}

_MINUTE = {"required": False, "default": 0, "minimum": 0, "maximum": 59}
_WEEKLY = {
    "hour_utc": {"required": True, "default": None, "minimum": 0, "maximum": 23},
    "minute_utc": _MINUTE,
    "day_of_week": {
        "required": True,
        "default": None,
        "choices": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    },
}

_LIMIT = {
    "name": "tasks",
    "value": 50,
    "default": 10_000,
    "use": 12,
    "unit": "tasks",
    "description": "Tasks. At the limit, none can be added.",
}
_FEED_TOKEN = "rtf_7_" + 43 * "x" + "1hQz0k"
_PREVIEWED_SLOT = {"at": "2027-03-28T01:00:00Z", "local_time": "2027-03-28T03:00:00+02:00", "dst": "shifted"}
_CLOCK_NOTE = "02:30 does not exist in Europe/Berlin on 2027-03-28; it fires at 03:00."
_DAYS = {"from": "2026-12-24", "to": "2026-12-26", "label": "Christmas"}
_CALENDAR_TIMES = {"timezone": None, "updated_at": "2026-05-01T08:00:00Z"}
_BACKOFF = {"initial": 60, "multiplier": 2, "max": 3600}
_ALERT_SCOPE = {"task": "greet", "routine": None}
_PLANNED_SLOT = {"scheduled_for": "2026-05-01T01:00:00Z", "becomes": "run", "reason": "missed"}
EXAMPLES: dict[str, Any] = {
    "AlertScopeRead": _ALERT_SCOPE,
    "AlertRuleRead": {
        "name": "on-call",
        "on": ["late", "missed", "failed", "recovered"],
        "after_seconds": 300,
        "streak": None,
        "scope": _ALERT_SCOPE,
        "webhook_url": "https://example.com/alerts",
        "webhook_secret": MASK,
        "digest": "now",
        "digest_at_utc": None,
        "updated_at": "2026-05-01T08:00:00Z",
    },
    "Alert": {
        "id": 17,
        "rule": "on-call",
        "event": "late",
        "task": "greet",
        "routine": "morning-regression",
        "routine_id": 42,
        "scheduled_for": "2026-05-04T09:00:00Z",
        "trajectory_id": None,
        "detail": "its slot has been due since 2026-05-04T09:00:00Z and no ticker has picked it up",
        "state": "recovered",
        "opened_at": "2026-05-04T09:05:02Z",
        "notice": "delivered",
        "notified_at": "2026-05-04T09:05:03Z",
        "recovered_at": "2026-05-04T09:12:00Z",
        "suppressed_at": None,
        "suppressed_reason": None,
    },
    "ActiveHoursRead": {"windows": ["mon-fri 08:00-18:00"], "outside": "defer", "timezone": "Europe/Berlin"},
    "BackoffRead": _BACKOFF,
    "RetryRead": {"max_attempts": 3, "backoff": _BACKOFF, "on": "transient", "until": "next_slot"},
    "BackfillRead": {
        "id": 3,
        "from": "2026-05-01T00:00:00Z",
        "to": "2026-05-08T00:00:00Z",
        "reprocess": "missing",
        "max_active": 1,
        "order": "oldest",
        "status": "active",
        "created_at": "2026-05-08T08:00:00Z",
        "created_by": "key 7",
        "started": 12,
        "left": 100,
        "active": 1,
        "completed": 11,
        "failed": 0,
        "cancelled": 0,
        "archived": 0,
        "reached": "2026-05-05T15:00:00Z",
        "ended_at": None,
    },
    "BackfillPlan": {"run": 1, "rerun": 0, "left": 0, "slots": [_PLANNED_SLOT]},
    "PlannedSlot": _PLANNED_SLOT,
    "CalendarDay": _DAYS,
    "CalendarRead": {"name": "holidays-de", "days": [_DAYS], **_CALENDAR_TIMES},
    "ListedCalendar": {
        "name": "holidays-de",
        "first_day": "2026-12-24",
        "last_day": "2026-12-26",
        **_CALENDAR_TIMES,
    },
    "RoutineCalendarRead": {"exclude": ["holidays-de"], "on_excluded": "next_business_day"},
    "Cadence": _CADENCE,
    "CadenceFieldRead": _MINUTE,
    "CadenceTypeRead": {"type": "weekly", "description": "Once a week.", "fields": _WEEKLY},
    "Collection": {"name": "my-org", "description": "", "created_at": "2026-05-01T08:00:00Z"},
    "CollectionLimit": _LIMIT,
    "CollectionLimits": {
        "limits": [_LIMIT],
        "tasks": [{"task": "heavy", "max_concurrent_runs": 2, "use": 1}],
    },
    "Delivery": {
        "id": 7,
        "webhook_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "trajectory_id": 9876,
        "url": "https://example.com/hook",
        "status": "completed",
        "state": "pending",
        "attempts": [
            {"at": "2026-05-04T09:00:02.010Z", "status": 500, "error": "it answered 500", "duration_seconds": 0.2}
        ],
        "next_attempt_at": "2026-05-04T09:00:07Z",
        "delivered_at": None,
        "give_up_reason": None,
        "created_at": "2026-05-04T09:00:02Z",
        "endpoint_stopped_at": None,
        "endpoint_stopped_reason": None,
    },
    "Durations": _DURATIONS,
    "Environment": {"environment_variables": {"API_URL": "********"}},
    "Event": _EVENT,
    "Health": {"status": "ok"},
    "OutputTemplate": _TEMPLATE["outputs"][0],
    "ParameterTemplate": _TEMPLATE["parameters"][0],
    "StatsRead": {
        "total": 12,
        "counts": {"pending": 0, "running": 0, "completed": 11, "failed": 1, "cancelled": 0, "archived": 0},
        "success_rate": 0.9167,
        "durations": _DURATIONS,
    },
    "StepTemplate": _TEMPLATE,
    "StepTemplates": {"templates": [_TEMPLATE], "categories": ["text"], "total_count": 1},
    "WorkflowLog": {
        "workflow_id": "flow-my-org-greet--9876",
        "trajectory_id": 9876,
        "status": "completed",
        "events": [_EVENT],
    },
    "InitParam": {"name": "model", "default": "gpt-4o", "type_hint": "string"},
    "InitParamsSchema": {"keys": [{"name": "model", "default": "gpt-4o", "type_hint": "string"}]},
    "Occurrence": _OCCURRENCE,
    "LimitedTask": {"task": "heavy", "max_concurrent_runs": 2, "use": 1},
    "LatestOutcome": _LATEST_OUTCOME,
    "RecentOutcomes": {
        "routine_id": 42,
        "paused_at": None,
        "paused_reason": None,
        "outcomes": [_LATEST_OUTCOME],
        "troubles": [_TROUBLE],
    },
    "Trouble": _TROUBLE,
    "Bucket": _BUCKET,
    "ScheduleLoad": {"buckets": [_BUCKET]},
    "SkippedSlots": _SLOT_COUNTS["skipped"],
    "ReportLine": _ROUTINE_REPORT,
    "Report": {
        "from": "2026-05-04T00:00:00Z",
        "to": "2026-05-05T00:00:00Z",
        "late_after_seconds": 60,
        "complete_since": None,
        "total": _SLOT_COUNTS,
        "tasks": [{"task": "greet", **_SLOT_COUNTS}],
        "routines": [_ROUTINE_REPORT],
    },
    "Mark": _MARK,
    "Lane": _LANE,
    "Timeline": {
        "from": "2026-05-04T00:00:00Z",
        "to": "2026-05-04T18:00:00Z",
        "bucket_seconds": 600,
        "routines": [_LANE],
    },
    "Gap": {
        "scheduled_for": "2026-05-04T09:00:00Z",
        "reason": "overlap",
        "blocking_trajectory_id": 9876,
        "recorded_at": "2026-05-04T09:00:00.002Z",
    },
    "QuietMinute": _QUIET_MINUTE,
    "Suggestions": {"suggestions": [_QUIET_MINUTE]},
    "PreviewedSlot": _PREVIEWED_SLOT,
    "CadenceSlots": {"slots": [_PREVIEWED_SLOT], "warnings": [_CLOCK_NOTE]},
    "Feed": {
        "id": 7,
        "task": "greet",
        "routine": None,
        "created_at": "2026-05-01T08:00:00Z",
        "last_used_at": "2026-05-04T09:12:00Z",
    },
    "FeedRead": {
        "id": 7,
        "url": f"https://routines.example.com/api/v1/ics/{_FEED_TOKEN}.ics",
        "token": _FEED_TOKEN,
    },
    "ChangeRead": {
        "id": 512,
        "at": "2026-05-04T09:00:00.25Z",
        "actor": "key 7",
        "kind": "routine",
        "action": "changed",
        "before": {"cadence": {"type": "weekdays", "hour_utc": 9, "minute_utc": 0}},
        "after": {"cadence": {"type": "hourly", "minute_utc": 15}},
        "task_name": "nl-to-sql-regression",
        "name": "morning-regression",
        "routine_id": 42,
        "revision": 3,
    },
    "Changes": {
        "cursor": "WzczNSwiMjAyNi0wNS0wNFQwOTowMDowMFoiXQ==",
        "as_of": "2026-05-04T09:00:00Z",
        "is_whole": True,
        "routines": [_ROUTINE],
        "deleted": [41],
    },
    "RunChanges": {
        "cursor": "WzczNSwiMjAyNi0wNS0wNFQwOTowMDowMFoiXQ==",
        "as_of": "2026-05-04T09:00:00Z",
        "has_changed": True,
    },
    "Slots": {"slots": ["2026-05-04T09:00:00Z", "2026-05-05T09:00:00Z"]},
    "Why": _WHY,
    "WhyRead": {"sentence": "Skipped: run 9876 was still running, started 2026-05-04T08:00:01Z.", "facts": _WHY},
    "Message": {"message": "Task greet was deleted."},
    "Problem": {
        "type": "urn:routines:problem:invalid-request",
        "title": "Invalid request",
        "status": 400,
        "detail": "cadence.hour_utc: must be less than or equal to 23, not 24.",
        "errors": [{"field": "cadence.hour_utc", "message": "must be less than or equal to 23, not 24"}],
    },
    "RoutineDetail": {**_ROUTINE, "warnings": ["init_params_overrides: the task no longer declares 'sample_size'."]},
    "RoutineRead": _ROUTINE,
    "Run": {
        "trajectory_id": 9876,
        "workflow_id": "flow-my-org-greet--9876",
        "status": "completed",
        **_TIMES,
        "scheduled_for": "2026-05-04T09:00:00Z",
        "trigger": "schedule",
        "error": None,
    },
    "TaskRead": {
        "name": "greet",
        "description": "Says hello.",
        "workflow": _WORKFLOW,
        "created_at": "2026-05-01T08:00:00Z",
        "updated_at": "2026-05-01T08:00:00Z",
    },
    "TaskVersionRead": _TASK_VERSION,
    "TaskVersionDetail": {**_TASK_VERSION, "workflow": _WORKFLOW},
    "Trajectory": _TRAJECTORY,
    "TrajectoryPage": {"trajectories": [_TRAJECTORY], "total": 1, "page": 1, "limit": 10, "has_more": False},
    "WorkflowResponse": {
        "workflow_id": "flow-my-org-greet--9876",
        "trajectory_id": 9876,
        "run_id": "1b671a64-40d5-491e-99b0-da01ff1f3341",
        "message": "Routine morning-regression was started.",
        "result": {},
        "trajectory": {**_TRAJECTORY, "status": "pending", "started_at": None, "ended_at": None, "steps": {}},
        "metadata": "",
    },
}
