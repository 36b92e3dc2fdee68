-- Runs in the hands of Temporal. One that is dispatched is running, with the lease `infinity`; dispatches.attempt is the fence
-- of whoever does a step of it. Where trajectories.attempt is another one, the run was taken from Temporal.
-- Whatever locks both rows locks the trajectory first.

-- name: room
-- How many more runs may be dispatched. Those whose step waits for children take no place, or they might wait for ever.
SELECT greatest(0, %(most)s::bigint - count(*)) AS room FROM routines.dispatches WHERE NOT waits;

-- name: dispatch
-- In the transaction of the claim: what was claimed belongs to Temporal from its commit on, before Temporal has heard of it.
WITH claimed AS (
    UPDATE routines.trajectories SET engine = 'temporal', lease_expires_at = 'infinity'
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, attempt)
    WHERE trajectories.id = held.id AND trajectories.attempt = held.attempt AND status = 'running'
    RETURNING trajectories.id, trajectories.collection_id, trajectories.first_workflow_id, trajectories.attempt
)
INSERT INTO routines.dispatches (trajectory_id, collection_id, workflow_id, number, attempt)
SELECT id, collection_id, first_workflow_id, attempt, attempt FROM claimed
-- Left by an earlier dispatch that was taken from Temporal.
ON CONFLICT ON CONSTRAINT dispatches_pkey DO UPDATE
SET number = excluded.number, attempt = excluded.attempt, workflow_id = excluded.workflow_id, turn = 0, try_number = 0,
    is_left = true, waits = false, dispatched_at = now(), submitted_at = NULL, checked_at = now(), told_at = NULL;

-- name: submitted
UPDATE routines.dispatches SET submitted_at = now(), checked_at = now()
FROM unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS accepted (id, number)
WHERE trajectory_id = accepted.id AND dispatches.number = accepted.number;

-- name: take
-- The run, for one attempt of one activity, with a fence of its own: whoever had it before writes nothing more. No row: it
-- is Temporal's no longer, or a later attempt or activity has had it. That the attempt before neither left it in order nor
-- brought its step to an end is a crash; at the third the run fails.
WITH held AS MATERIALIZED (
    SELECT trajectories.id,
           (dispatches.turn = %(sequence)s::integer AND dispatches.try_number < %(attempt)s::integer
            AND NOT dispatches.is_left
            AND NOT EXISTS (SELECT FROM routines.steps WHERE steps.trajectory_id = trajectories.id
                            AND steps.attempt = dispatches.attempt AND steps.status <> 'running'))::integer AS crash
    FROM routines.dispatches JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
    WHERE dispatches.trajectory_id = %(id)s::bigint AND dispatches.number = %(generation)s::integer
      AND trajectories.attempt = dispatches.attempt AND trajectories.status = 'running'
      AND (dispatches.turn, dispatches.try_number) <= (%(sequence)s::integer, %(attempt)s::integer)
    FOR NO KEY UPDATE OF trajectories, dispatches
),
taken AS (
    UPDATE routines.trajectories
    SET attempt = attempt + 1, worker = %(worker)s::text, updated_at = now(), crashes = crashes + crash,
        status = CASE WHEN crashes + crash < %(max_crashes)s::integer THEN 'running' ELSE 'failed' END,
        error = CASE WHEN crashes + crash >= %(max_crashes)s::integer
                     THEN 'worker lost: ' || crashes + crash || ' workers were lost while they ran it' END,
        ended_at = CASE WHEN crashes + crash >= %(max_crashes)s::integer THEN now() END,
        lease_expires_at = CASE WHEN crashes + crash < %(max_crashes)s::integer THEN lease_expires_at END
    FROM held WHERE trajectories.id = held.id
    RETURNING trajectories.id, trajectories.attempt, collection_id, task_id, task_version, init_params, deadline_at,
              first_workflow_id, status
),
noted AS (
    UPDATE routines.dispatches
    SET attempt = taken.attempt, turn = %(sequence)s::integer, try_number = %(attempt)s::integer, is_left = false,
        waits = false, submitted_at = coalesce(submitted_at, now())
    FROM taken WHERE trajectory_id = taken.id AND taken.status = 'running'
)
SELECT taken.id, taken.attempt AS fence, taken.collection_id, taken.task_id, taken.first_workflow_id AS workflow_id,
       taken.init_params, task_versions.workflow,
       extract(epoch FROM taken.deadline_at - now())::float8 AS seconds_left,
       routines.finished_steps(taken.id) AS finished_steps,
       coalesce((SELECT jsonb_object_agg(name, try_number) FROM routines.steps
                 WHERE trajectory_id = taken.id AND status <> 'completed'), '{}') AS tries
FROM taken
JOIN routines.task_versions ON task_versions.task_id = taken.task_id AND task_versions.version = taken.task_version
WHERE taken.status = 'running';

-- name: leave
-- A worker that stops in the middle of a step says so: the next attempt is no crash.
UPDATE routines.dispatches SET is_left = true
WHERE trajectory_id = %(id)s::bigint AND number = %(generation)s::integer AND turn = %(sequence)s::integer
  AND try_number = %(attempt)s::integer;

-- name: step_error
-- Why a step failed, as it was written.
SELECT error FROM routines.steps WHERE trajectory_id = %(id)s::bigint AND name = %(name)s::text AND error IS NOT NULL;

-- name: status
SELECT status FROM routines.trajectories WHERE id = %(id)s::bigint;

-- name: taken_away
-- Dispatches whose run was taken from Temporal: cancelled, late or deleted. There it has to be cancelled. SKIP LOCKED and told_at: of
-- the programs that ask, one tells Temporal.
WITH over AS MATERIALIZED (
    SELECT dispatches.trajectory_id
    FROM routines.dispatches
    LEFT JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
         AND trajectories.attempt = dispatches.attempt AND trajectories.status = 'running'
    WHERE trajectories.id IS NULL
      AND (dispatches.told_at IS NULL OR dispatches.told_at <= now() - make_interval(secs => %(again_seconds)s::float8))
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE OF dispatches SKIP LOCKED
)
UPDATE routines.dispatches SET told_at = now()
FROM over WHERE dispatches.trajectory_id = over.trajectory_id
RETURNING dispatches.trajectory_id AS id, number AS generation, workflow_id;

-- name: forget
-- Temporal knows that the run was taken from it. A later dispatch of the same run is another one.
DELETE FROM routines.dispatches WHERE trajectory_id = %(id)s::bigint AND number = %(generation)s::integer;

-- name: unsettled
-- Dispatches that Temporal has not been asked about for a while: whether it has them, and whether they go on there.
WITH due AS MATERIALIZED (
    SELECT dispatches.trajectory_id
    FROM routines.dispatches
    JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
         AND trajectories.attempt = dispatches.attempt AND trajectories.status = 'running'
    WHERE dispatches.checked_at <= now() - make_interval(
              secs => CASE WHEN submitted_at IS NULL THEN %(unsubmitted_seconds)s ELSE %(submitted_seconds)s END::float8)
    ORDER BY dispatches.checked_at
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE OF dispatches SKIP LOCKED
),
checked AS (
    UPDATE routines.dispatches SET checked_at = now() FROM due WHERE dispatches.trajectory_id = due.trajectory_id
    RETURNING dispatches.trajectory_id, number, attempt, workflow_id, submitted_at IS NOT NULL AS is_submitted
)
SELECT checked.trajectory_id AS id, checked.attempt AS fence, number AS generation, checked.workflow_id, is_submitted, task_versions.workflow,
       greatest(0, extract(epoch FROM deadline_at - now()))::float8 AS seconds_left,
       ARRAY(SELECT name FROM routines.steps WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed'
             ORDER BY position) AS finished,
       coalesce((SELECT jsonb_object_agg(name, try_number) FROM routines.steps
                 WHERE steps.trajectory_id = trajectories.id AND steps.status <> 'completed'), '{}') AS tries
FROM checked
JOIN routines.trajectories ON trajectories.id = checked.trajectory_id
JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
     AND task_versions.version = trajectories.task_version;

-- name: give_back
-- Temporal had it and knows it no longer: as when a worker is lost, it goes back to the queue, and fails at the third loss.
WITH held AS MATERIALIZED (
    SELECT trajectories.id, crashes + 1 >= %(max_crashes)s::integer AS is_poison
    FROM routines.dispatches JOIN routines.trajectories ON trajectories.id = dispatches.trajectory_id
    WHERE dispatches.trajectory_id = %(id)s::bigint AND dispatches.number = %(generation)s::integer
      AND dispatches.attempt = %(fence)s::integer
      AND trajectories.attempt = dispatches.attempt AND trajectories.status = 'running'
    FOR NO KEY UPDATE OF trajectories, dispatches
),
given AS (
    UPDATE routines.trajectories
    SET attempt = attempt + 1, crashes = crashes + 1, engine = 'postgres', lease_expires_at = NULL, updated_at = now(),
        status = CASE WHEN is_poison THEN 'failed' ELSE 'pending' END,
        error = CASE WHEN is_poison THEN 'worker lost: Temporal no longer knows the run' END,
        ended_at = CASE WHEN is_poison THEN now() END
    FROM held WHERE trajectories.id = held.id
    RETURNING trajectories.id, trajectories.status
),
gone AS (
    DELETE FROM routines.dispatches USING held WHERE trajectory_id = held.id
)
SELECT id, status FROM given;

-- name: in_hand
-- How many runs Temporal has, and how many of those it is not known to have accepted.
SELECT count(*) AS runs, count(*) FILTER (WHERE submitted_at IS NULL) AS unsubmitted FROM routines.dispatches;
