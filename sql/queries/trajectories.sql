-- Trajectories as the API reads them.

-- name: find_trajectory
SELECT trajectories.id AS trajectory_id, routines.workflow_id(collections.name, tasks.name, trajectories.id) AS workflow_id,
       routines.run_id(trajectories.id)::text AS run_id, collections.name || '/' || tasks.name AS name, status,
       trajectories.created_at AS created, trajectories.updated_at AS updated, trajectories.created_at, started_at,
       ended_at, trajectories.init_params, coalesce(task_versions.workflow -> 'step_configs', '{}') AS step_configs,
       (SELECT coalesce(json_object_agg(steps.name, json_build_object(
                   'status', steps.status, 'activity', activity, 'inputs', inputs, 'outputs', outputs,
                   'created', to_char(steps.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'ended', to_char(steps.ended_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'duration_seconds', extract(epoch FROM steps.ended_at - steps.created_at)::float8,
                   'error', steps.error) ORDER BY position), '{}')
        FROM routines.steps WHERE steps.trajectory_id = trajectories.id) AS steps,
       coalesce(json_array_length(task_versions.workflow -> 'steps'), 0) AS total_steps,
       (SELECT count(*) FROM routines.steps WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed')::integer
           AS completed_steps,
       labels, error, triggered_by_routine_id, scheduled_for, trigger, webhook_url
FROM routines.trajectories
JOIN routines.tasks ON tasks.id = trajectories.task_id
JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = trajectories.task_version
JOIN routines.collections ON collections.id = trajectories.collection_id
WHERE trajectories.collection_id = %(collection_id)s::bigint AND tasks.name = %(task)s::text
  AND trajectories.id = %(id)s::bigint;

-- name: list_runs
-- A routine's runs, newest first. Slots only grow, so that the newest scheduled ones are the last of their index;
-- each branch reads no more than it gives.
SELECT runs.id AS trajectory_id, routines.workflow_id(collections.name, tasks.name, runs.id) AS workflow_id, runs.status,
       runs.created_at, runs.scheduled_for, runs.trigger, runs.started_at, runs.ended_at, runs.error
FROM (
    (SELECT * FROM routines.trajectories
     WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
     ORDER BY scheduled_for DESC LIMIT %(limit)s::integer)
    UNION ALL
    (SELECT * FROM routines.trajectories
     WHERE triggered_by_routine_id = %(routine_id)s::bigint AND trigger = 'run-now'
     ORDER BY id DESC LIMIT %(limit)s::integer)
) AS runs
JOIN routines.tasks ON tasks.id = runs.task_id
JOIN routines.collections ON collections.id = runs.collection_id
WHERE runs.collection_id = %(collection_id)s::bigint
ORDER BY runs.id DESC
LIMIT %(limit)s::integer;
