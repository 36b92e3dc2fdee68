-- What a worker does with runs. After the claim every write names the attempt, the fence: no row means that the run
-- is no longer this worker's. Whatever takes a run away raises the fence in the same statement. Only the database's
-- clock counts.

-- name: claim
-- SKIP LOCKED: what another worker is claiming is its own. The scan is by id among what has not ended, oldest first.
WITH pending AS MATERIALIZED (
    SELECT id FROM routines.trajectories
    WHERE ended_at IS NULL AND status = 'pending'
    ORDER BY id
    LIMIT %(slots)s::integer
    FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE routines.trajectories
    SET status = 'running', attempt = attempt + 1, worker = %(worker)s::text,
        lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8),
        started_at = coalesce(started_at, now()), updated_at = now(),
        deadline_at = coalesce(deadline_at, now() + make_interval(secs => %(deadline_seconds)s::float8))
    FROM pending WHERE trajectories.id = pending.id
    RETURNING trajectories.id, attempt, task_id, task_version, init_params, collection_id, secret_refs, deadline_at
)
SELECT claimed.id, claimed.attempt, claimed.init_params, task_versions.workflow,
       extract(epoch FROM claimed.deadline_at - now())::float8 AS seconds_left,
       routines.finished_steps(claimed.id) AS finished_steps,
       coalesce((SELECT jsonb_object_agg(name, try_number) FROM routines.steps
                 WHERE trajectory_id = claimed.id AND status <> 'completed'), '{}') AS tries
FROM claimed JOIN routines.task_versions
     ON task_versions.task_id = claimed.task_id AND task_versions.version = claimed.task_version
ORDER BY claimed.id;

-- name: renew
-- The heartbeat of all runs that a worker has in hand, in one statement. What does not come back is lost to it.
UPDATE routines.trajectories
SET lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8)
FROM unnest(%(ids)s::bigint[], %(attempts)s::integer[]) AS held (id, attempt)
WHERE trajectories.id = held.id AND trajectories.attempt = held.attempt AND status = 'running'
RETURNING trajectories.id;

-- name: checkpoint
-- A step that started or ended, and the renewal of the lease, or neither of them.
WITH held AS (
    UPDATE routines.trajectories
    SET lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8), updated_at = now()
    WHERE id = %(id)s::bigint AND attempt = %(attempt)s::integer AND status = 'running'
    RETURNING id
)
INSERT INTO routines.steps (trajectory_id, name, position, attempt, status, activity, inputs, outputs, error, try_number,
                            ended_at, earlier_errors)
SELECT id, %(name)s::text, %(position)s::integer, %(attempt)s::integer, %(status)s::text, %(activity)s::text,
       %(inputs)s::jsonb, %(outputs)s::jsonb, %(error)s::text, %(try_number)s::integer,
       CASE WHEN %(status)s::text <> 'running' THEN now() END,
       CASE WHEN %(failed_try)s::text IS NULL THEN '[]'
            ELSE jsonb_build_array(jsonb_build_object('at', now(), 'error', %(failed_try)s::text)) END
FROM held
ON CONFLICT ON CONSTRAINT steps_pkey DO UPDATE
SET attempt = excluded.attempt, status = excluded.status, activity = excluded.activity, inputs = excluded.inputs,
    outputs = excluded.outputs, error = excluded.error, ended_at = excluded.ended_at,
    try_number = excluded.try_number, earlier_errors = steps.earlier_errors || excluded.earlier_errors,
    created_at = CASE WHEN excluded.status = 'running' THEN now() ELSE steps.created_at END;

-- name: finish
-- The end of a run. Its secrets go and its webhook is due in the same transaction: trigger settle_end_of_run.
UPDATE routines.trajectories
SET status = %(status)s::text, error = %(error)s::text, ended_at = now(), updated_at = now(), lease_expires_at = NULL
WHERE id = %(id)s::bigint AND attempt = %(attempt)s::integer AND status = 'running';

-- name: release
-- A worker that stops gives its runs back: pending again, fenced off from itself, and no crash is counted.
UPDATE routines.trajectories
SET status = 'pending', attempt = trajectories.attempt + 1, lease_expires_at = NULL, updated_at = now()
FROM unnest(%(ids)s::bigint[], %(attempts)s::integer[]) AS held (id, attempt)
WHERE trajectories.id = held.id AND trajectories.attempt = held.attempt AND status = 'running';

-- name: reap
-- Runs whose worker was lost go back to the queue, at the third loss they fail; runs past their deadline fail. Any
-- worker may do it for all. SKIP LOCKED: a run that is being written to at this moment is alive.
WITH overdue AS MATERIALIZED (
    SELECT id, deadline_at <= now() AS is_late, crashes + 1 >= %(max_crashes)s::integer AS is_poison
    FROM routines.trajectories
    WHERE ended_at IS NULL AND (deadline_at <= now() OR status = 'running' AND lease_expires_at <= now())
    FOR UPDATE SKIP LOCKED
)
UPDATE routines.trajectories
SET attempt = attempt + 1,
    crashes = crashes + CASE WHEN is_late THEN 0 ELSE 1 END,
    status = CASE WHEN is_late OR is_poison THEN 'failed' ELSE 'pending' END,
    error = CASE WHEN is_late THEN 'deadline exceeded: the run took longer than it may'
                 WHEN is_poison THEN 'worker lost: ' || crashes + 1 || ' workers were lost while they ran it' END,
    ended_at = CASE WHEN is_late OR is_poison THEN now() END,
    lease_expires_at = NULL, updated_at = now()
FROM overdue WHERE trajectories.id = overdue.id
RETURNING trajectories.id, trajectories.status, trajectories.crashes::integer AS crashes;
