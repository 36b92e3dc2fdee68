-- Child runs, which a step starts and waits for, and ended runs that a step may read.

-- name: start_child
-- Returns the child of this step and index, starting it if necessary. If an earlier attempt of the step started one that did
-- not complete, a new one replaces it. A child of this same attempt is found again, however it ended, so that a worker that
-- resumes the attempt does not start it twice. The parent is locked so that it cannot end before the child exists to be
-- cancelled with it. While the parent waits it counts towards no limit. No child is started once the parent's tree has
-- most_children runs below its root; null for no limit. The lock on the parent makes this exact among its own children. Runs of
-- one tree that start children at the same moment do not wait for one another, so the tree may exceed the limit by one child for
-- each further connection of the workers. Locking the root instead would invert the order of the locks of a cancel.
WITH RECURSIVE parent AS (
    SELECT id, collection_id, parent_id FROM routines.trajectories
    WHERE id = %(parent_id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
    FOR NO KEY UPDATE
),
line AS (
    SELECT parent_id, 1 AS depth FROM parent
    UNION ALL
    SELECT above.parent_id, depth + 1 FROM line JOIN routines.trajectories AS above ON above.id = line.parent_id
),
-- From the locked parent, so that siblings committed while this statement waited for the lock are counted.
tree AS MATERIALIZED (
    SELECT coalesce(routines.tree_size(id, %(most_children)s::bigint) >= %(most_children)s::bigint, false) AS is_full
    FROM parent WHERE %(most_children)s::bigint IS NOT NULL
),
task AS (
    SELECT tasks.id, tasks.version, tasks.collection_id, task_versions.init_params,
           ARRAY(SELECT key FROM jsonb_object_keys(%(init_params)s::jsonb) AS key
                 WHERE NOT task_versions.init_params ? key ORDER BY key) AS unknown_keys
    FROM parent
    JOIN routines.tasks ON tasks.collection_id = parent.collection_id AND tasks.name = %(task)s::text
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
),
replaced AS (
    UPDATE routines.trajectories SET child_index = NULL
    FROM task
    WHERE unknown_keys = '{}' AND trajectories.parent_id = %(parent_id)s::bigint
      AND trajectories.parent_step = %(step)s::text AND trajectories.child_index = %(child_index)s::integer
      AND ended_at IS NOT NULL AND status <> 'completed' AND coalesce(parent_attempt, 1) < %(attempt)s::integer
    RETURNING trajectories.id
),
started AS (
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params,
                                       parent_id, parent_step, child_index, parent_attempt, traceparent)
    SELECT collection_id, id, version, 'api', init_params || %(init_params)s::jsonb,
           %(parent_id)s::bigint, %(step)s::text, %(child_index)s::integer, %(attempt)s::integer,
           %(traceparent)s::text
    FROM task
    WHERE unknown_keys = '{}' AND (SELECT max(depth) FROM line) < %(max_depth)s::integer
      AND NOT EXISTS (SELECT FROM tree WHERE is_full)
      -- After the replaced child has given up its place.
      AND (SELECT count(*) FROM replaced) >= 0
    ON CONFLICT (parent_id, parent_step, child_index) WHERE parent_id IS NOT NULL DO NOTHING
    RETURNING id
),
freed AS (
    DELETE FROM routines.limited_runs USING parent WHERE trajectory_id = parent.id
),
waiting AS (
    UPDATE routines.dispatches SET waits = true FROM parent WHERE trajectory_id = parent.id AND NOT waits
)
SELECT coalesce((SELECT id FROM started),
                (SELECT id FROM routines.trajectories
                 WHERE parent_id = %(parent_id)s::bigint AND parent_step = %(step)s::text
                   AND child_index = %(child_index)s::integer
                   AND id NOT IN (SELECT id FROM replaced))) AS id,
       EXISTS (SELECT FROM parent) AS is_ours,
       EXISTS (SELECT FROM task) AS has_task,
       EXISTS (SELECT FROM tree WHERE is_full) AS is_tree_full,
       coalesce((SELECT unknown_keys FROM task), '{}') AS unknown_keys;

-- name: ended
-- The runs among these that have ended. Their outputs are loaded one run at a time.
SELECT id AS trajectory_id, status, error FROM routines.trajectories
WHERE id = ANY (%(ids)s::bigint[]) AND ended_at IS NOT NULL;

-- name: outputs
-- The outputs of a run's completed steps by name, as text that the worker passes on unread.
SELECT coalesce(jsonb_object_agg(name, outputs), '{}')::text AS outputs FROM routines.steps
WHERE trajectory_id = %(id)s::bigint AND status = 'completed';

-- name: count_again
-- A run whose wait is over counts towards its limits again, even if that exceeds one: it does not wait for capacity.
WITH working AS (
    UPDATE routines.dispatches SET waits = false
    WHERE trajectory_id = %(id)s::bigint AND fence = %(fence)s::integer AND waits
)
INSERT INTO routines.limited_runs (trajectory_id, collection_id, task_id)
SELECT trajectories.id, trajectories.collection_id, trajectories.task_id
FROM routines.trajectories
JOIN routines.collections ON collections.id = trajectories.collection_id
LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
WHERE trajectories.id = %(id)s::bigint AND fence = %(fence)s::integer AND status = 'running'
  AND (collections.max_concurrent_runs IS NOT NULL OR tasks.max_concurrent_runs IS NOT NULL)
FOR NO KEY UPDATE OF trajectories
ON CONFLICT DO NOTHING;

-- name: find_ended
-- Ended runs of a task of the collection, newest first. A null status matches any. Null outputs: the steps of the runs up to
-- this one hold more than most_bytes.
WITH found AS MATERIALIZED (
    SELECT trajectories.id, trajectories.status, trajectories.init_params, trajectories.kept_steps,
           sum(trajectories.step_bytes) OVER (ORDER BY trajectories.id DESC) AS bytes_so_far
    FROM routines.tasks
    CROSS JOIN LATERAL routines.newest_ended(tasks.id, %(status)s::text, NULL, %(limit)s::integer) AS ended (id)
    JOIN routines.trajectories ON trajectories.id = ended.id
    WHERE tasks.collection_id = %(collection_id)s::bigint AND tasks.name = %(task)s::text
)
SELECT id AS trajectory_id, status, init_params::text AS init_params,
       CASE WHEN bytes_so_far <= %(most_bytes)s::bigint THEN (
           SELECT coalesce(jsonb_object_agg(name, outputs), '{}') FROM routines.steps_of(found.id, kept_steps) AS step
           WHERE step.status = 'completed')::text END AS outputs
FROM found
ORDER BY id DESC;
