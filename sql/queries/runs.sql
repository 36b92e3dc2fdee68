-- Runs as workers see them (the API's statements for the same rows are in trajectories.sql). Every write after the claim names
-- the fence: no row means that the run no longer belongs to this worker. A statement that takes a run away raises its fence.
-- Only the database's clock counts.

-- name: claim
-- Claims the oldest runs of each task, as many as routines.fair_shares allots. SKIP LOCKED leaves rows alone that another
-- worker is claiming. Returns ids and small columns only, so no tenant's data can make the claim of others fail; the rest
-- is loaded for each run. A run without any step so far comes with its parameters if they take at most inline_bytes.
WITH pending AS MATERIALIZED (
    SELECT shares.place, shares.is_limited, oldest.id
    FROM routines.fair_shares(%(capacity)s::integer, %(after)s::bigint, %(last_tasks)s::jsonb, %(but_collections)s::bigint[],
                              %(most_each)s::integer) AS shares
    CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending'
          -- An array, so that only the head of trajectories_active_idx has this order: see newest_ended. A plan with another
          -- index would read the backlog.
          AND trajectories.collection_id = ANY (ARRAY[shares.collection_id]) AND trajectories.task_id = shares.task_id
        ORDER BY trajectories.collection_id, id
        LIMIT shares.share
        FOR UPDATE SKIP LOCKED
    ) AS oldest
),
claimed AS (
    UPDATE routines.trajectories
    SET status = 'running', fence = fence + 1, worker = %(worker)s::text,
        lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8),
        started_at = coalesce(started_at, now()), updated_at = now(),
        later_claims = CASE WHEN started_at IS NULL THEN later_claims
            ELSE CASE WHEN jsonb_array_length(later_claims) >= 50 THEN later_claims - 0 ELSE coalesce(later_claims, '[]') END
                 || jsonb_build_object('at', now(), 'fence', fence + 1, 'crashes', crashes) END,
        deadline_at = coalesce(deadline_at, now() + make_interval(secs => least(%(deadline_seconds)s::float8, timeout_seconds))),
        first_workflow_id = coalesce(first_workflow_id, routines.workflow_id(
            (SELECT name FROM routines.collections WHERE collections.id = trajectories.collection_id),
            coalesce((SELECT name::text FROM routines.tasks WHERE tasks.id = trajectories.task_id), task_id::text),
            trajectories.id))
    -- An array instead of a join: the planner guesses the result of a LIMIT as a share of the table, and a join would read all
    -- of it.
    WHERE id = ANY (ARRAY(SELECT id FROM pending))
    RETURNING id, created_at, nonce, fence, collection_id, task_id, task_version, init_params, deadline_at, first_workflow_id,
              triggered_by_routine_id, started_at, traceparent, trigger, kept_steps
),
limited AS (
    INSERT INTO routines.limited_runs (trajectory_id, collection_id, task_id)
    SELECT id, collection_id, task_id FROM claimed JOIN pending USING (id) WHERE is_limited
    ON CONFLICT DO NOTHING
)
SELECT claimed.id, claimed.fence, claimed.collection_id, claimed.task_id, claimed.task_version,
       claimed.first_workflow_id AS workflow_id, routines.run_id(claimed.id, claimed.created_at, claimed.nonce)::text AS run_id,
       extract(epoch FROM claimed.deadline_at - now())::float8 AS seconds_left,
       CASE WHEN claimed.fence = 1 AND claimed.kept_steps IS NULL AND pg_column_size(claimed.init_params) <= %(inline_bytes)s::integer
            THEN claimed.init_params::text END AS init_params,
       (SELECT name FROM routines.collections WHERE collections.id = claimed.collection_id) || '/'
       || (SELECT name FROM routines.tasks WHERE tasks.id = claimed.task_id) AS task,
       (SELECT name FROM routines.routines WHERE routines.id = claimed.triggered_by_routine_id)::text AS routine,
       extract(epoch FROM claimed.started_at)::float8 AS began_at, claimed.traceparent,
       claimed.trigger IN ('schedule', 'retry') AS is_scheduled
FROM claimed JOIN pending USING (id)
ORDER BY pending.place, claimed.id;

-- name: load
-- What a step process needs of a run beside its workflow, as text that the worker passes on unread. No row if the run no
-- longer belongs to the worker. Null finished_steps: they hold more than most_bytes. log_events counts what
-- routines.run_events shows of a run that goes on.
SELECT init_params::text AS init_params,
       CASE WHEN step_bytes <= %(most_bytes)s::integer THEN (
           SELECT coalesce(jsonb_object_agg(name, CASE WHEN has_file
               THEN jsonb_build_object('inputs', inputs, 'outputs', outputs, 'has_file', true)
               ELSE jsonb_build_object('inputs', inputs, 'outputs', outputs) END), '{}')
           FROM routines.steps_of(trajectories.id, kept_steps) AS step WHERE step.status = 'completed')::text END AS finished_steps,
       (SELECT coalesce(jsonb_object_agg(name, attempt), '{}') FROM routines.steps
        WHERE trajectory_id = trajectories.id AND status <> 'completed') AS attempts,
       counted.finished + (SELECT count(*) FROM jsonb_object_keys(kept_steps))::integer AS finished,
       2 + coalesce(jsonb_array_length(later_claims), 0) + counted.events AS log_events
FROM routines.trajectories
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE steps.status = 'completed')::integer AS finished,
           coalesce(sum(1 + 2 * jsonb_array_length(earlier_errors) + (steps.ended_at IS NOT NULL)::integer), 0)::integer AS events
    FROM routines.steps WHERE trajectory_id = trajectories.id
) AS counted
WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running';

-- name: load_workflow
-- A version of a task's workflow, as text that the worker passes on unread. Versions never change.
SELECT workflow::text AS workflow FROM routines.task_versions
WHERE task_id = %(task_id)s::bigint AND version = %(version)s::integer;

-- name: slot
-- What the run's references to slot refer to. The first question fixes it. No row if the run no longer belongs to the worker.
WITH fixed AS (
    UPDATE routines.trajectories
    SET slot_values = routines.slot_values(triggered_by_routine_id, scheduled_for, trigger)
    WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running' AND slot_values IS NULL
    RETURNING slot_values
),
known AS (
    SELECT coalesce((SELECT slot_values FROM fixed), slot_values) AS slot FROM routines.trajectories
    WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
)
SELECT slot FROM known WHERE slot IS NOT NULL;

-- name: request_wakeup
-- Records that this worker is idle: the next statement that inserts runs notifies it. See routines.wake_workers.
INSERT INTO routines.wakeups (worker) VALUES (%(worker)s::text) ON CONFLICT DO NOTHING;

-- name: listen
LISTEN routines_pending;

-- name: renew
-- The heartbeat of all runs that a worker has claimed. A run that is not returned is lost to it. A run that another session
-- has locked is returned as not renewed, so that it does not delay the heartbeat of the others.
WITH mine AS MATERIALIZED (
    SELECT trajectories.id
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
    JOIN routines.trajectories ON trajectories.id = claimed.id AND trajectories.fence = claimed.fence
    WHERE status = 'running'
),
free AS MATERIALIZED (
    SELECT trajectories.id
    FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
    JOIN routines.trajectories ON trajectories.id = claimed.id AND trajectories.fence = claimed.fence
    WHERE status = 'running'
    FOR NO KEY UPDATE OF trajectories SKIP LOCKED
),
renewed AS (
    UPDATE routines.trajectories
    SET lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8)
    FROM free WHERE trajectories.id = free.id
    RETURNING trajectories.id
)
-- A hashed subplan: the planner may expect one row of each, and a join would then compare every row with every other.
SELECT id, id IN (SELECT id FROM renewed) AS renewed FROM mine;

-- name: still_claimed
-- Those of these runs that still belong to the worker. A read, which tells it of a cancel before its next renewal. must_stop: by the
-- policy cancel_other, because the run of a later slot waits. See stop_run.
SELECT trajectories.id,
       EXISTS (SELECT FROM routines.trajectories AS waiting
               JOIN routines.routines ON routines.id = waiting.triggered_by_routine_id AND overlap_policy = 'cancel_other'
               WHERE waiting.triggered_by_routine_id = trajectories.triggered_by_routine_id
                 AND waiting.place < 1 AND waiting.final_status IS NULL) AS must_stop
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
JOIN routines.trajectories ON trajectories.id = claimed.id AND trajectories.fence = claimed.fence
WHERE status = 'running';

-- name: checkpoint
-- Writes for many runs at once the steps that started or ended, the end of the run if it has ended, and the renewal of its
-- lease; for each run all of it or nothing. `runs` is an array of {id, fence, status, error, bytes, steps}, with a null status
-- while the run goes on. SKIP LOCKED: a run that another session has locked does not delay the others, and is tried again. The
-- trigger settle_end queues the webhook of an ended run, or inserts its retry, in the same transaction.
WITH given AS MATERIALIZED (
    SELECT id, fence, status, error, bytes, steps
    FROM json_to_recordset(%(runs)s::json) AS given (id bigint, fence integer, status text, error text, bytes integer, steps json)
),
mine AS MATERIALIZED (
    SELECT trajectories.id, given.fence, given.status, given.error, given.bytes, given.steps
    FROM given JOIN routines.trajectories
         ON trajectories.id = given.id AND trajectories.fence = given.fence AND trajectories.status = 'running'
    FOR NO KEY UPDATE OF trajectories SKIP LOCKED
),
written AS (
    INSERT INTO routines.steps (trajectory_id, name, position, fence, attempt, status, activity, inputs, outputs, has_file,
                                error, answer, is_transient, earlier_errors, ended_at)
    SELECT mine.id, step.name, step.position, mine.fence, step.attempt, step.status, step.activity, step.inputs, step.outputs,
           coalesce(step.has_file, false), step.error, CASE WHEN step.failed_try IS NULL THEN step.answer END, step.is_transient,
           CASE WHEN step.failed_try IS NULL THEN '[]' ELSE jsonb_build_array(
               jsonb_build_object('at', now(), 'error', step.failed_try)
               || CASE WHEN step.answer IS NULL THEN '{}' ELSE jsonb_build_object('answer', step.answer) END) END,
           CASE WHEN step.status <> 'running' THEN now() END
    FROM mine CROSS JOIN LATERAL json_to_recordset(mine.steps) AS step (
        name text, position integer, attempt integer, status text, activity text, inputs jsonb, outputs jsonb,
        has_file boolean, error text, answer jsonb, failed_try text, is_transient boolean)
    ON CONFLICT ON CONSTRAINT steps_pkey DO UPDATE
    SET fence = excluded.fence, attempt = excluded.attempt, status = excluded.status, activity = excluded.activity,
        inputs = excluded.inputs, outputs = excluded.outputs, has_file = excluded.has_file, error = excluded.error,
        answer = excluded.answer, is_transient = excluded.is_transient, ended_at = excluded.ended_at,
        -- Once per attempt, even if the worker missed the answer and writes it again.
        -- The newest five keep what was answered.
        earlier_errors = CASE WHEN excluded.attempt > steps.attempt THEN (steps.earlier_errors || jsonb_set(
                                  excluded.earlier_errors, '{0,started_at}', to_jsonb(steps.created_at))) #- '{-6,answer}'
                              ELSE steps.earlier_errors END,
        created_at = CASE WHEN excluded.status = 'running' THEN now() ELSE steps.created_at END
    -- A completed step stays as it is. It is written again if the worker missed the answer.
    WHERE steps.status <> 'completed'
    RETURNING 1
)
UPDATE routines.trajectories
SET status = coalesce(mine.status, 'running'), error = mine.error, updated_at = now(),
    step_bytes = greatest(step_bytes, mine.bytes),
    ended_at = CASE WHEN mine.status IS NOT NULL THEN now() END,
    lease_expires_at = CASE WHEN mine.status IS NULL THEN
        CASE engine WHEN 'temporal' THEN 'infinity' ELSE now() + make_interval(secs => %(lease_seconds)s::float8) END END
FROM mine
WHERE trajectories.id = mine.id
  -- The steps first, because the trigger settle_end closes steps that are still running.
  AND (SELECT count(*) FROM written) >= 0
RETURNING trajectories.id;

-- name: release
-- A worker that stops releases its runs: pending again, fenced off from this worker, and without counting a crash.
UPDATE routines.trajectories
SET status = 'pending', fence = trajectories.fence + 1, lease_expires_at = NULL, updated_at = now()
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
WHERE trajectories.id = claimed.id AND trajectories.fence = claimed.fence AND status = 'running';

-- name: suspend
-- Lets a run wait without a worker, so it takes no capacity and counts towards no limit: for the next attempt of a step, or
-- with null seconds for its children. `reap` returns it to the queue when its wait is over.
WITH suspended AS (
    UPDATE routines.trajectories
    SET fence = fence + 1, worker = NULL, updated_at = now(),
        lease_expires_at = coalesce(now() + make_interval(secs => %(seconds)s::float8), 'infinity')
    WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
    RETURNING id
),
uncounted AS (
    DELETE FROM routines.limited_runs USING suspended WHERE trajectory_id = suspended.id
)
SELECT id FROM suspended;

-- name: stop_run
-- Ends a run that its worker has stopped for the run of a later slot. Its end admits that one. If that one no longer waits, because a
-- person has cancelled it, the run returns to the queue. SKIP LOCKED: what is being cancelled does not count, and if it waits after all,
-- fence_off ends the run.
WITH later AS MATERIALIZED (
    SELECT id FROM routines.trajectories
    WHERE triggered_by_routine_id = (SELECT triggered_by_routine_id FROM routines.trajectories WHERE id = %(id)s::bigint)
      AND place < 1 AND final_status IS NULL
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE routines.trajectories
SET status = CASE WHEN is_replaced THEN 'cancelled' ELSE 'pending' END, fence = fence + 1, updated_at = now(), lease_expires_at = NULL,
    ended_at = CASE WHEN is_replaced THEN now() END,
    error = CASE WHEN is_replaced THEN 'cancelled: by its overlap policy, for the run of a later slot' END
FROM (SELECT EXISTS (SELECT FROM later) AS is_replaced) AS found
WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
RETURNING is_replaced;

-- name: fence_off
-- Cancels the runs that no worker will stop for the run of a later slot (policy cancel_other): those that no worker has, that Temporal
-- has, or that were not stopped within cancel_grace. SKIP LOCKED: a run that is being written ends soon, or is found again.
WITH in_the_way AS MATERIALIZED (
    SELECT active.id
    FROM routines.trajectories AS waiting
    CROSS JOIN LATERAL (
        SELECT id FROM routines.routines WHERE id = waiting.triggered_by_routine_id AND overlap_policy = 'cancel_other' LIMIT 1
    ) AS routine
    CROSS JOIN LATERAL routines.active_runs_of(routine.id) AS other
    CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories AS found
        WHERE found.id = other.trajectory_id AND status IN ('pending', 'running')
          AND (status = 'pending' OR worker IS NULL OR engine = 'temporal'
               OR waiting.created_at <= now() - routines.cancel_grace())
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS active
    -- Locked too, so that no run is stopped for one that is being cancelled.
    CROSS JOIN LATERAL (
        SELECT FROM routines.trajectories AS still
        WHERE still.id = waiting.id AND place = 0 AND status = 'running'
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS waits
    WHERE waiting.place = 0 AND waiting.final_status IS NULL AND other.place IS DISTINCT FROM 0
    LIMIT %(most)s::integer
)
UPDATE routines.trajectories
SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
    error = 'cancelled: by its overlap policy, for the run of a later slot'
WHERE id = ANY (ARRAY(SELECT id FROM in_the_way))
RETURNING id;

-- name: admit
-- Puts waiting runs into the queue that their routines have room for. The end of a run does this itself, unless the routine was locked
-- at that moment, or another run ended in the same one. `replacing` counts the runs that still wait for runs to be cancelled.
SELECT count(*) FILTER (WHERE is_admitted)::integer AS admitted,
       count(*) FILTER (WHERE NOT is_admitted AND overlap_policy = 'cancel_other')::integer AS replacing
FROM (SELECT routines.admit_waiting_run(waiting.routine_id) AS is_admitted, overlap_policy
      FROM (SELECT triggered_by_routine_id AS routine_id FROM routines.trajectories
            WHERE place = 0 AND final_status IS NULL
            ORDER BY id LIMIT %(most)s::integer) AS waiting
      LEFT JOIN routines.routines ON routines.id = waiting.routine_id
      OFFSET 0) AS tried;

-- name: reap
-- Returns runs whose worker was lost to the queue, and fails them at the third loss; fails runs past their deadline; returns
-- runs to the queue whose wait is over, which no worker has lost: at its time, or once all their children have ended. Any
-- worker may do this for all. SKIP LOCKED: a run that is being written is alive. Looks up begun runs one by one by key, never
-- the backlog. The limit keeps this plan however many runs there are.
WITH overdue AS MATERIALIZED (
    SELECT found.id
    FROM routines.begun_runs CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE trajectories.id = begun_runs.trajectory_id
          AND status IN ('pending', 'running')
          AND (deadline_at <= now()
               OR status = 'running' AND (lease_expires_at <= now() OR worker IS NULL AND lease_expires_at = 'infinity'
                   AND NOT EXISTS (SELECT FROM routines.trajectories AS child
                                   WHERE child.parent_id = begun_runs.trajectory_id AND child.status IN ('pending', 'running'))))
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT %(most)s::integer
)
UPDATE routines.trajectories
SET fence = fence + 1,
    crashes = crashes + CASE WHEN deadline_at <= now() OR worker IS NULL THEN 0 ELSE 1 END,
    status = CASE WHEN deadline_at <= now() OR worker IS NOT NULL AND crashes + 1 >= %(max_crashes)s::integer THEN 'failed'
             ELSE 'pending' END,
    error = CASE WHEN deadline_at <= now() THEN 'deadline exceeded: the run took longer than it may'
                 WHEN worker IS NOT NULL AND crashes + 1 >= %(max_crashes)s::integer
                     THEN 'worker lost: ' || crashes + 1 || ' workers were lost while they ran it' END,
    ended_at = CASE WHEN deadline_at <= now() OR worker IS NOT NULL AND crashes + 1 >= %(max_crashes)s::integer THEN now() END,
    lease_expires_at = NULL, updated_at = now()
-- An array and no join, which may read the whole table: the planner can only guess the result of a LIMIT.
WHERE id = ANY (ARRAY(SELECT id FROM overdue))
RETURNING id, status, crashes::integer AS crashes, worker IS NULL AS has_waited;

-- name: use_file
-- Records that a file saved by a step belongs to its run, whatever the outcome of the step. No row if the run no longer
-- belongs to the worker.
SELECT routines.use_files(id, collection_id, ARRAY[%(path)s::text]) AS is_noted FROM routines.trajectories
WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
FOR NO KEY UPDATE;

-- name: sealed_secret
-- The secret of this name that a run may read: its own secret param, otherwise that of the run that started it, otherwise the
-- collection's environment variable. Its owner is taken from the row that refers to it, not from its own row; a null run_id
-- means the collection. A null secret_id means that it was deleted. Only the worker that has claimed the run gets it.
WITH RECURSIVE line AS (
    SELECT id, triggered_by_routine_id, parent_id, collection_id, secret_refs, 0 AS distance FROM routines.trajectories
    WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
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
