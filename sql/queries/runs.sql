-- What a worker does with runs. After the claim every write names the attempt, the fence: no row means that the run
-- is no longer this worker's. Whatever takes a run away raises the fence in the same statement. Only the database's
-- clock counts.

-- name: claim
-- The oldest runs of each task, by the shares of routines.turns. SKIP LOCKED: what another worker is claiming is its own.
WITH pending AS MATERIALIZED (
    SELECT turns.turn, turns.is_limited, oldest.id
    FROM routines.turns(%(capacity)s::integer, %(after)s::bigint, %(last_tasks)s::jsonb) AS turns
    CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending'
          -- Whole rows, like the ORDER BY: the head of trajectories_active_idx alone serves that, and a plan by another
          -- index would read the backlog.
          AND (trajectories.collection_id, trajectories.task_id) >= (turns.collection_id, turns.task_id)
          AND (trajectories.collection_id, trajectories.task_id) <= (turns.collection_id, turns.task_id)
        ORDER BY trajectories.collection_id, trajectories.task_id, id
        LIMIT turns.share
        FOR UPDATE SKIP LOCKED
    ) AS oldest
),
claimed AS (
    UPDATE routines.trajectories
    SET status = 'running', attempt = attempt + 1, worker = %(worker)s::text,
        lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8),
        started_at = coalesce(started_at, now()), updated_at = now(),
        later_claims = CASE WHEN started_at IS NULL THEN later_claims
            ELSE CASE WHEN jsonb_array_length(later_claims) >= 50 THEN later_claims - 0 ELSE coalesce(later_claims, '[]') END
                 || jsonb_build_object('at', now(), 'attempt', attempt + 1, 'crashes', crashes) END,
        deadline_at = coalesce(deadline_at, now() + make_interval(secs => %(deadline_seconds)s::float8)),
        first_workflow_id = coalesce(first_workflow_id, routines.workflow_id(
            (SELECT name FROM routines.collections WHERE collections.id = trajectories.collection_id),
            coalesce((SELECT name::text FROM routines.tasks WHERE tasks.id = trajectories.task_id), task_id::text),
            trajectories.id))
    -- An array, and no join: how many a LIMIT leaves is guessed as a share of the table, and a join would read it whole.
    WHERE id = ANY (ARRAY(SELECT id FROM pending))
    RETURNING id, attempt, collection_id, task_id, task_version, init_params, deadline_at, first_workflow_id
),
limited AS (
    INSERT INTO routines.limited_runs (trajectory_id, collection_id, task_id)
    SELECT id, collection_id, task_id FROM claimed JOIN pending USING (id) WHERE is_limited
    ON CONFLICT DO NOTHING
)
SELECT claimed.id, claimed.attempt AS fence, claimed.collection_id, claimed.task_id, claimed.first_workflow_id AS workflow_id,
       claimed.init_params, task_versions.workflow,
       extract(epoch FROM claimed.deadline_at - now())::float8 AS seconds_left,
       routines.finished_steps(claimed.id) AS finished_steps,
       coalesce((SELECT jsonb_object_agg(name, try_number) FROM routines.steps
                 WHERE trajectory_id = claimed.id AND status <> 'completed'), '{}') AS tries
FROM claimed JOIN pending USING (id)
JOIN routines.task_versions ON task_versions.task_id = claimed.task_id AND task_versions.version = claimed.task_version
ORDER BY pending.turn, claimed.id;

-- name: request_wakeup
-- Says that this worker is idle: whoever inserts runs next takes the bell and notifies. See routines.ring.
INSERT INTO routines.bells (worker) VALUES (%(worker)s::text) ON CONFLICT DO NOTHING;

-- name: listen
LISTEN routines_pending;

-- name: renew
-- The heartbeat of all runs that a worker has in hand. What does not come back is lost to it. What another session has
-- locked at this moment comes back as it is: the heartbeat of the others waits for nobody.
WITH held AS MATERIALIZED (
    SELECT trajectories.id
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, attempt)
    JOIN routines.trajectories ON trajectories.id = held.id AND trajectories.attempt = held.attempt
    WHERE status = 'running'
),
free AS MATERIALIZED (
    SELECT trajectories.id
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, attempt)
    JOIN routines.trajectories ON trajectories.id = held.id AND trajectories.attempt = held.attempt
    WHERE status = 'running'
    FOR NO KEY UPDATE OF trajectories SKIP LOCKED
),
renewed AS (
    UPDATE routines.trajectories
    SET lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8)
    FROM free WHERE trajectories.id = free.id
    RETURNING trajectories.id
)
SELECT held.id, renewed.id IS NOT NULL AS renewed FROM held LEFT JOIN renewed USING (id);

-- name: held
-- Which of these runs are still the worker's: a read, by which it hears of a cancel before its next renewal.
SELECT trajectories.id
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, attempt)
JOIN routines.trajectories ON trajectories.id = held.id AND trajectories.attempt = held.attempt
WHERE status = 'running';

-- name: checkpoint
-- Of many runs at once: steps that started or ended, the end of the run where it has one, and the renewal of its lease;
-- for each run all of it or nothing. `runs` is an array of {id, attempt, status, error, steps}; the status is null while
-- the run goes on. SKIP LOCKED: a run that somebody else has locked does not hold up the others; it is tried again. At
-- its end its secrets go and its webhook is due in the same transaction: trigger settle_end_of_run.
WITH given AS MATERIALIZED (
    SELECT id, fence AS attempt, status, error, steps
    FROM json_to_recordset(%(runs)s::json) AS given (id bigint, fence integer, status text, error text, steps json)
),
held AS MATERIALIZED (
    SELECT trajectories.id, given.attempt, given.status, given.error, given.steps
    FROM given JOIN routines.trajectories
         ON trajectories.id = given.id AND trajectories.attempt = given.attempt AND trajectories.status = 'running'
    FOR NO KEY UPDATE OF trajectories SKIP LOCKED
),
written AS (
    INSERT INTO routines.steps (trajectory_id, name, position, attempt, status, activity, inputs, outputs, error,
                                try_number, earlier_errors, ended_at)
    SELECT held.id, step.name, step.position, held.attempt, step.status, step.activity, step.inputs, step.outputs,
           step.error, step.attempt, CASE WHEN step.failed_try IS NULL THEN '[]'
               ELSE jsonb_build_array(jsonb_build_object('at', now(), 'error', step.failed_try)) END,
           CASE WHEN step.status <> 'running' THEN now() END
    FROM held CROSS JOIN LATERAL json_to_recordset(held.steps) AS step (
        name text, position integer, status text, activity text, inputs jsonb, outputs jsonb, error text,
        attempt integer, failed_try text)
    ON CONFLICT ON CONSTRAINT steps_pkey DO UPDATE
    SET attempt = excluded.attempt, status = excluded.status, activity = excluded.activity, inputs = excluded.inputs,
        outputs = excluded.outputs, error = excluded.error, ended_at = excluded.ended_at,
        try_number = excluded.try_number,
        -- Once for each try, also where the worker did not hear that it was written, and writes it again.
        earlier_errors = CASE WHEN excluded.try_number > steps.try_number
                              THEN steps.earlier_errors || excluded.earlier_errors ELSE steps.earlier_errors END,
        created_at = CASE WHEN excluded.status = 'running' THEN now() ELSE steps.created_at END
    -- What is finished stays as it is: it comes again where the worker did not hear that it was written.
    WHERE steps.status <> 'completed'
    RETURNING 1
)
UPDATE routines.trajectories
SET status = coalesce(held.status, 'running'), error = held.error, updated_at = now(),
    ended_at = CASE WHEN held.status IS NOT NULL THEN now() END,
    lease_expires_at = CASE WHEN held.status IS NULL THEN
        CASE engine WHEN 'temporal' THEN 'infinity' ELSE now() + make_interval(secs => %(lease_seconds)s::float8) END END
FROM held
WHERE trajectories.id = held.id
  -- The steps first, since the trigger close_steps closes what is still running at the end.
  AND (SELECT count(*) FROM written) >= 0
RETURNING trajectories.id;

-- name: release
-- A worker that stops gives its runs back: pending again, fenced off from itself, and no crash is counted.
UPDATE routines.trajectories
SET status = 'pending', attempt = trajectories.attempt + 1, lease_expires_at = NULL, updated_at = now()
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, attempt)
WHERE trajectories.id = held.id AND trajectories.attempt = held.attempt AND status = 'running';

-- name: reap
-- Runs whose worker was lost go back to the queue, at the third loss they fail; runs past their deadline fail. Any
-- worker may do it for all. SKIP LOCKED: a run that is being written to at this moment is alive. It looks at what was begun, one
-- by one and by its key, and never at what only waits; so many at most, that the plan stays so however many there are.
WITH overdue AS MATERIALIZED (
    SELECT found.id, found.is_late, found.is_poison
    FROM routines.begun_runs CROSS JOIN LATERAL (
        SELECT id, deadline_at <= now() AS is_late, crashes + 1 >= %(max_crashes)s::integer AS is_poison
        FROM routines.trajectories
        WHERE trajectories.id = begun_runs.trajectory_id
          AND ended_at IS NULL AND (deadline_at <= now() OR status = 'running' AND lease_expires_at <= now())
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT %(most)s::integer
)
UPDATE routines.trajectories
SET attempt = attempt + 1,
    crashes = crashes + CASE WHEN is_late THEN 0 ELSE 1 END,
    status = CASE WHEN is_late OR is_poison THEN 'failed' ELSE 'pending' END,
    error = CASE WHEN is_late THEN 'deadline exceeded: the run took longer than it may'
                 WHEN is_poison THEN 'worker lost: ' || crashes + 1 || ' workers were lost while they ran it' END,
    ended_at = CASE WHEN is_late OR is_poison THEN now() END,
    lease_expires_at = NULL, updated_at = now()
FROM overdue
-- By an array too, since a join alone may read the table whole: how many a LIMIT leaves is a guess.
WHERE trajectories.id = overdue.id AND trajectories.id = ANY (ARRAY(SELECT id FROM overdue))
RETURNING trajectories.id, trajectories.status, trajectories.crashes::integer AS crashes;

-- name: use_file
-- A file that a step has saved belongs to its run from now on, whatever becomes of the step. No row: the run is no longer the worker's.
SELECT routines.use_files(id, collection_id, ARRAY[%(path)s::text]) AS is_noted FROM routines.trajectories
WHERE id = %(id)s::bigint AND attempt = %(fence)s::integer AND status = 'running'
FOR NO KEY UPDATE;

-- name: sealed_secret
-- The secret of this name that a run may read: its own secret param, else that of the run that started it, else the
-- collection's environment variable. With it whose it is, as what refers to it says and not as its own row does: null
-- run_id, the collection's. Null secret_id: it is referred to and gone. Only the worker that holds the run gets it.
WITH RECURSIVE line AS (
    SELECT id, triggered_by_routine_id, parent_id, collection_id, secret_refs, 0 AS distance FROM routines.trajectories
    WHERE id = %(id)s::bigint AND attempt = %(fence)s::integer AND status = 'running'
    UNION ALL
    SELECT parent.id, parent.triggered_by_routine_id, parent.parent_id, parent.collection_id, parent.secret_refs, distance + 1
    FROM line JOIN routines.trajectories AS parent ON parent.id = line.parent_id
),
referred AS (
    SELECT (secret_refs ->> %(name)s::text)::uuid AS secret_id, line.id AS run_id, triggered_by_routine_id AS routine_id, distance
    FROM line WHERE secret_refs ? %(name)s::text
    UNION ALL
    SELECT (environment_refs ->> %(name)s::text)::uuid, NULL, NULL, NULL
    FROM line JOIN routines.collections ON collections.id = line.collection_id
    WHERE distance = 0 AND environment_refs ? %(name)s::text
)
SELECT secrets.id AS secret_id, secrets.ciphertext, referred.run_id, referred.routine_id
FROM referred LEFT JOIN routines.secrets ON secrets.id = referred.secret_id
ORDER BY referred.distance NULLS LAST
LIMIT 1;
