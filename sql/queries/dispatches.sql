-- Runs dispatched to Temporal. A dispatched run is running, with the lease `infinity`. dispatches.fence is the fence of the
-- current holder; if trajectories.fence differs, the run was taken from Temporal. Statements that lock both rows lock the
-- trajectory first.

-- name: free_capacity
-- How many more runs may be dispatched. Runs whose step waits for children do not count, or they might wait forever.
SELECT greatest(0, %(most)s::bigint - count(*)) AS free_capacity FROM routines.dispatches WHERE NOT waits;

-- name: dispatch
-- Runs in the transaction of the claim. From its commit on, the claimed runs belong to Temporal, even before Temporal knows
-- about them.
WITH claimed AS (
    UPDATE routines.trajectories SET engine = 'temporal', lease_expires_at = 'infinity'
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(workflow_ids)s::text[]) AS mine (id, fence, workflow_id)
    WHERE trajectories.id = mine.id AND trajectories.fence = mine.fence AND status = 'running'
    RETURNING trajectories.id, trajectories.collection_id, mine.workflow_id, trajectories.fence
)
INSERT INTO routines.dispatches (trajectory_id, collection_id, workflow_id, generation, fence)
SELECT id, collection_id, workflow_id, fence, fence FROM claimed
-- Left over from an earlier dispatch that was taken from Temporal.
ON CONFLICT ON CONSTRAINT dispatches_pkey DO UPDATE
SET generation = excluded.generation, fence = excluded.fence, workflow_id = excluded.workflow_id, sequence = 0, attempt = 0,
    is_left = true, waits = false, dispatched_at = now(), submitted_at = NULL, checked_at = now(), told_at = NULL;

-- name: submitted
UPDATE routines.dispatches SET submitted_at = now(), checked_at = now()
FROM unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS accepted (id, generation)
WHERE trajectory_id = accepted.id AND dispatches.generation = accepted.generation;

-- name: take
-- Claims the run for one attempt of one activity, with a fence of its own, so earlier holders are fenced off. No row if
-- Temporal no longer has the run, or if a later attempt or activity has claimed it. If the previous attempt neither released
-- the run cleanly nor ended its step, that counts as a crash; at the third the run fails.
WITH found AS MATERIALIZED (
    SELECT trajectories.id,
           (dispatches.sequence = %(sequence)s::integer AND dispatches.attempt < %(attempt)s::integer
            AND NOT dispatches.is_left
            AND NOT EXISTS (SELECT FROM routines.steps WHERE steps.trajectory_id = trajectories.id
                            AND steps.fence = dispatches.fence AND steps.status <> 'running'))::integer AS crash
    FROM routines.dispatches JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
    WHERE dispatches.trajectory_id = %(id)s::bigint AND dispatches.generation = %(generation)s::integer
      AND trajectories.fence = dispatches.fence AND trajectories.status = 'running'
      AND (dispatches.sequence, dispatches.attempt) <= (%(sequence)s::integer, %(attempt)s::integer)
    FOR NO KEY UPDATE OF trajectories, dispatches
),
taken AS (
    UPDATE routines.trajectories
    SET fence = fence + 1, worker = %(worker)s::text, updated_at = now(), crashes = crashes + crash,
        status = CASE WHEN crashes + crash < %(max_crashes)s::integer THEN 'running' ELSE 'failed' END,
        error = CASE WHEN crashes + crash >= %(max_crashes)s::integer
                     THEN 'worker lost: ' || crashes + crash || ' workers were lost while they ran it' END,
        ended_at = CASE WHEN crashes + crash >= %(max_crashes)s::integer THEN now() END,
        lease_expires_at = CASE WHEN crashes + crash < %(max_crashes)s::integer THEN lease_expires_at END
    FROM found WHERE trajectories.id = found.id
    RETURNING trajectories.id, trajectories.fence, collection_id, task_id, task_version, deadline_at,
              first_workflow_id, trajectories.created_at, nonce, status
),
noted AS (
    UPDATE routines.dispatches
    SET fence = taken.fence, sequence = %(sequence)s::integer, attempt = %(attempt)s::integer, is_left = false,
        waits = false, submitted_at = coalesce(submitted_at, now())
    FROM taken WHERE trajectory_id = taken.id AND taken.status = 'running'
)
SELECT id, fence, collection_id, task_id, task_version, first_workflow_id AS workflow_id,
       routines.run_id(id, created_at, nonce)::text AS run_id, extract(epoch FROM deadline_at - now())::float8 AS seconds_left, NULL::text AS init_params
FROM taken WHERE status = 'running';

-- name: leave
-- Records that a worker stops in the middle of a step, so that the next attempt does not count as a crash.
UPDATE routines.dispatches SET is_left = true
WHERE trajectory_id = %(id)s::bigint AND generation = %(generation)s::integer AND sequence = %(sequence)s::integer
  AND attempt = %(attempt)s::integer;

-- name: step_error
-- The recorded error of a step.
SELECT error FROM routines.steps WHERE trajectory_id = %(id)s::bigint AND name = %(name)s::text AND error IS NOT NULL;

-- name: status
SELECT status FROM routines.trajectories WHERE id = %(id)s::bigint;

-- name: taken_away
-- Dispatches whose run was taken from Temporal (cancelled, past its deadline or deleted), and which must be cancelled there.
-- SKIP LOCKED and told_at: only one of several concurrent programs tells Temporal.
WITH over AS MATERIALIZED (
    SELECT dispatches.trajectory_id
    FROM routines.dispatches
    LEFT JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
         AND trajectories.fence = dispatches.fence AND trajectories.status = 'running'
    WHERE trajectories.id IS NULL
      AND (dispatches.told_at IS NULL OR dispatches.told_at <= now() - make_interval(secs => %(again_seconds)s::float8))
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE OF dispatches SKIP LOCKED
)
UPDATE routines.dispatches SET told_at = now()
FROM over WHERE dispatches.trajectory_id = over.trajectory_id
RETURNING dispatches.trajectory_id AS id, generation, workflow_id;

-- name: forget
-- Temporal knows that the run was taken from it. A later dispatch of the same run has another generation.
DELETE FROM routines.dispatches WHERE trajectory_id = %(id)s::bigint AND generation = %(generation)s::integer;

-- name: unsettled
-- Dispatches whose state in Temporal was not checked for a while.
WITH due AS MATERIALIZED (
    SELECT dispatches.trajectory_id
    FROM routines.dispatches
    JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
         AND trajectories.fence = dispatches.fence AND trajectories.status = 'running'
    WHERE dispatches.checked_at <= now() - make_interval(
              secs => CASE WHEN submitted_at IS NULL THEN %(unsubmitted_seconds)s ELSE %(submitted_seconds)s END::float8)
    ORDER BY dispatches.checked_at
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE OF dispatches SKIP LOCKED
),
checked AS (
    UPDATE routines.dispatches SET checked_at = now() FROM due WHERE dispatches.trajectory_id = due.trajectory_id
    RETURNING dispatches.trajectory_id, generation, fence, workflow_id, submitted_at IS NOT NULL AS is_submitted
)
SELECT checked.trajectory_id AS id, checked.fence, generation, checked.workflow_id, is_submitted,
       ARRAY(SELECT json_array_elements_text(CASE json_typeof(task_versions.workflow -> 'steps') WHEN 'array'
                                             THEN task_versions.workflow -> 'steps' ELSE '[]' END)) AS steps,
       greatest(0, extract(epoch FROM deadline_at - now()))::float8 AS seconds_left,
       ARRAY(SELECT name FROM routines.steps WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed'
             ORDER BY position) AS finished,
       coalesce((SELECT jsonb_object_agg(name, attempt) FROM routines.steps
                 WHERE steps.trajectory_id = trajectories.id AND steps.status <> 'completed'), '{}') AS attempts
FROM checked
JOIN routines.trajectories ON trajectories.id = checked.trajectory_id
JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
     AND task_versions.version = trajectories.task_version;

-- name: give_back
-- Temporal had the run and no longer knows it. As after the loss of a worker, it returns to the queue, and fails at the third
-- loss.
WITH found AS MATERIALIZED (
    SELECT trajectories.id, crashes + 1 >= %(max_crashes)s::integer AS is_poison
    FROM routines.dispatches JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
    WHERE dispatches.trajectory_id = %(id)s::bigint AND dispatches.generation = %(generation)s::integer
      AND dispatches.fence = %(fence)s::integer
      AND trajectories.fence = dispatches.fence AND trajectories.status = 'running'
    FOR NO KEY UPDATE OF trajectories, dispatches
),
given AS (
    UPDATE routines.trajectories
    SET fence = fence + 1, crashes = crashes + 1, engine = 'postgres', lease_expires_at = NULL, updated_at = now(),
        status = CASE WHEN is_poison THEN 'failed' ELSE 'pending' END,
        error = CASE WHEN is_poison THEN 'worker lost: Temporal no longer knows the run' END,
        ended_at = CASE WHEN is_poison THEN now() END
    FROM found WHERE trajectories.id = found.id
    RETURNING trajectories.id, trajectories.status
),
gone AS (
    DELETE FROM routines.dispatches USING found WHERE trajectory_id = found.id
)
SELECT id, status FROM given;

-- name: open_dispatches
-- The number of runs dispatched to Temporal, and of those that it is not known to have accepted.
SELECT count(*) AS runs, count(*) FILTER (WHERE submitted_at IS NULL) AS unsubmitted FROM routines.dispatches;
