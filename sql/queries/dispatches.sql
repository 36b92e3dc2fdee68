-- Runs dispatched to Temporal. A dispatched run is running, with the lease `infinity`. dispatches.fence is the fence of the
-- current holder; if trajectories.fence differs, the run was taken from Temporal. Statements that lock both rows lock the
-- trajectory first.

-- name: taking_capacity
-- The number of runs dispatched to Temporal, and of those that wait there for a worker to begin them. Runs whose step waits for
-- children do not count, or they might wait forever.
SELECT count(*) AS runs, count(*) FILTER (WHERE sequence = 0) AS unbegun FROM routines.dispatches WHERE NOT waits;

-- name: dispatch
-- Runs in the transaction of the claim. From its commit on, the claimed runs belong to Temporal, even before Temporal knows
-- about them. Returns what Temporal is told about each.
WITH claimed AS (
    UPDATE routines.trajectories SET engine = 'temporal', lease_expires_at = 'infinity'
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[], %(workflow_ids)s::text[]) AS mine (id, fence, workflow_id)
    WHERE trajectories.id = mine.id AND trajectories.fence = mine.fence AND status = 'running'
    RETURNING trajectories.id, trajectories.collection_id, task_id, triggered_by_routine_id, trigger, scheduled_for,
              deadline_at, mine.workflow_id, trajectories.fence
),
made AS (
    INSERT INTO routines.dispatches (trajectory_id, collection_id, workflow_id, generation, fence)
    SELECT id, collection_id, workflow_id, fence, fence FROM claimed
    -- Left over from an earlier dispatch that was taken from Temporal.
    ON CONFLICT ON CONSTRAINT dispatches_pkey DO UPDATE
    SET generation = excluded.generation, fence = excluded.fence, workflow_id = excluded.workflow_id, sequence = 0, attempt = 0,
        holder = '', is_left = true, waits = false, dispatched_at = now(), submitted_at = NULL, checked_at = now(),
        told_at = NULL
)
SELECT claimed.id, claimed.fence AS generation, claimed.workflow_id,
       greatest(0, extract(epoch FROM deadline_at - now()))::float8 AS seconds_left, collections.name AS collection,
       tasks.name AS task, routines.name AS routine, trigger, scheduled_for
FROM claimed
JOIN routines.collections ON collections.id = claimed.collection_id
LEFT JOIN routines.tasks ON tasks.id = claimed.task_id
LEFT JOIN routines.routines ON routines.id = claimed.triggered_by_routine_id;

-- name: submitted
UPDATE routines.dispatches SET submitted_at = now(), checked_at = now()
FROM unnest(%(ids)s::bigint[], %(generations)s::integer[]) AS accepted (id, generation)
WHERE trajectory_id = accepted.id AND dispatches.generation = accepted.generation;

-- name: take
-- Claims the run for one attempt of one activity, with a fence of its own, so earlier holders are fenced off. No row if
-- Temporal no longer has the run, or if a later attempt or activity has claimed it. If there was another holder, and it did not
-- release the run cleanly, that counts as a crash; at the third the run fails.
WITH found AS MATERIALIZED (
    SELECT trajectories.id,
           (dispatches.sequence > 0 AND NOT dispatches.is_left AND dispatches.holder <> %(holder)s::text)::integer AS crash
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
    RETURNING trajectories.id, trajectories.fence, collection_id, task_id, task_version, deadline_at, init_params,
              first_workflow_id, trajectories.created_at, nonce, status, started_at, traceparent, trigger, kept_steps
),
noted AS (
    UPDATE routines.dispatches
    SET fence = taken.fence, sequence = %(sequence)s::integer, attempt = %(attempt)s::integer, holder = %(holder)s::text,
        is_left = false, waits = false, submitted_at = coalesce(submitted_at, now())
    FROM taken WHERE trajectory_id = taken.id AND taken.status = 'running'
    RETURNING trajectory_id, generation
)
SELECT id, taken.fence, collection_id, task_id, task_version, first_workflow_id AS workflow_id,
       routines.run_id(id, created_at, nonce)::text AS run_id, extract(epoch FROM deadline_at - now())::float8 AS seconds_left,
       -- As `claim` does: with its parameters if they are small and it never had another holder.
       CASE WHEN noted.generation = 1 AND taken.fence = 2 AND kept_steps IS NULL AND pg_column_size(init_params) <= %(inline_bytes)s::integer
            THEN init_params::text END AS init_params,
       extract(epoch FROM started_at)::float8 AS began_at, traceparent, trigger IN ('schedule', 'retry') AS is_scheduled
FROM taken JOIN noted ON trajectory_id = taken.id;

-- name: leave
-- Records that its holder releases the run, so that the next claim does not count as a crash.
UPDATE routines.dispatches SET is_left = true
WHERE trajectory_id = %(id)s::bigint AND generation = %(generation)s::integer AND holder = %(holder)s::text;

-- name: standing
-- What has become of a run that could not be claimed, or was lost.
SELECT trajectories.status, dispatches.trajectory_id IS NOT NULL AS has_dispatch,
       coalesce(dispatches.generation = %(generation)s::integer AND dispatches.fence = trajectories.fence, false) AS is_dispatched
FROM routines.trajectories LEFT JOIN routines.dispatches ON dispatches.trajectory_id = trajectories.id
WHERE trajectories.id = %(id)s::bigint;

-- name: taken_away
-- Dispatches whose run was taken from Temporal (cancelled, past its deadline or deleted), and which must be cancelled there.
-- SKIP LOCKED and told_at: only one of several concurrent programs tells Temporal.
WITH over AS MATERIALIZED (
    SELECT dispatches.trajectory_id
    FROM routines.dispatches
    -- One lookup for each, and no join, which may compare every row with every other.
    WHERE (SELECT fence FROM routines.trajectories
           WHERE trajectories.id = dispatches.trajectory_id AND status = 'running') IS DISTINCT FROM dispatches.fence
      AND (dispatches.told_at IS NULL OR dispatches.told_at <= now() - make_interval(secs => %(again_seconds)s::float8))
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE OF dispatches SKIP LOCKED
)
UPDATE routines.dispatches SET told_at = now()
WHERE trajectory_id = ANY (ARRAY(SELECT trajectory_id FROM over))
RETURNING trajectory_id AS id, generation, workflow_id;

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
       greatest(0, extract(epoch FROM deadline_at - now()))::float8 AS seconds_left, collections.name AS collection,
       tasks.name AS task, routines.name AS routine, trigger, scheduled_for,
       NOT EXISTS (
           SELECT FROM json_array_elements_text(CASE json_typeof(task_versions.workflow -> 'steps') WHEN 'array'
                                                THEN task_versions.workflow -> 'steps' ELSE '[]' END) AS step (name)
           WHERE NOT EXISTS (SELECT FROM routines.steps WHERE steps.trajectory_id = trajectories.id
                             AND steps.name = step.name AND steps.status = 'completed')
             AND NOT coalesce(trajectories.kept_steps ? step.name, false)) AS has_all_steps
FROM checked
JOIN routines.trajectories ON trajectories.id = checked.trajectory_id
JOIN routines.collections ON collections.id = trajectories.collection_id
LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
LEFT JOIN routines.routines ON routines.id = trajectories.triggered_by_routine_id
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
