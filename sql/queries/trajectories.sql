-- Trajectories as the API reads them.

-- name: find_trajectory
SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at,
       init_params, step_configs, steps, total_steps, completed_steps, labels, error, triggered_by_routine_id,
       scheduled_for, trigger, webhook_url
FROM routines.trajectory_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND task_name = %(task)s::text AND trajectory_id = %(id)s::bigint;

-- name: list_trajectories
-- A task's runs, newest first; null for status or routine means any.
SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at,
       init_params, step_configs, steps, total_steps, completed_steps, labels, error, triggered_by_routine_id,
       scheduled_for, trigger, webhook_url
FROM routines.trajectory_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND task_id = %(task_id)s::bigint
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
  AND (%(routine_id)s::bigint IS NULL OR triggered_by_routine_id = %(routine_id)s::bigint)
ORDER BY trajectory_id DESC
LIMIT %(limit)s::integer OFFSET %(offset)s::bigint;

-- name: count_trajectories
SELECT count(*) AS total FROM routines.trajectories
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND task_id = %(task_id)s::bigint
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
  AND (%(routine_id)s::bigint IS NULL OR triggered_by_routine_id = %(routine_id)s::bigint);

-- name: list_runs
-- A routine's runs, newest first, older than the cursor. Slots only grow, so that the newest scheduled ones are the
-- last of their index; each branch reads no more than it gives.
SELECT runs.id AS trajectory_id, routines.workflow_id(collections.name, tasks.name, runs.id) AS workflow_id, runs.status,
       runs.created_at, runs.scheduled_for, runs.trigger, runs.started_at, runs.ended_at, runs.error
FROM routines.tasks
JOIN routines.collections ON collections.id = tasks.collection_id
JOIN routines.routines ON routines.task_id = tasks.id
CROSS JOIN LATERAL (
    (SELECT id, status, created_at, scheduled_for, trigger, started_at, ended_at, error FROM routines.trajectories
     WHERE triggered_by_routine_id = routines.id AND scheduled_for IS NOT NULL
       AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
     ORDER BY scheduled_for DESC LIMIT %(limit)s::integer)
    UNION ALL
    (SELECT id, status, created_at, scheduled_for, trigger, started_at, ended_at, error FROM routines.trajectories
     WHERE triggered_by_routine_id = routines.id AND trigger = 'run-now'
       AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
     ORDER BY id DESC LIMIT %(limit)s::integer)
) AS runs
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routines.name = %(name)s::text
ORDER BY runs.id DESC
LIMIT %(limit)s::integer;
