-- Tasks and their workflows.

-- name: insert_task
WITH task AS (
    INSERT INTO routines.tasks (collection_id, name, description)
    VALUES ((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(name)s::text, %(description)s::text)
    RETURNING id, collection_id
)
INSERT INTO routines.task_versions (task_id, version, workflow, collection_id)
SELECT id, 1, %(workflow)s::json, collection_id FROM task;

-- name: update_task
-- A null parameter keeps the value. A workflow becomes a new version; existing runs keep the one they started with.
WITH task AS (
    UPDATE routines.tasks
    SET name = coalesce(%(new_name)s::text, name), description = coalesce(%(description)s::text, description),
        version = version + CASE WHEN %(workflow)s::json IS NULL THEN 0 ELSE 1 END, updated_at = now()
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text
    RETURNING id, version, collection_id
),
saved AS (
    INSERT INTO routines.task_versions (task_id, version, workflow, collection_id)
    SELECT id, version, %(workflow)s::json, collection_id FROM task WHERE %(workflow)s::json IS NOT NULL
)
SELECT id FROM task;

-- name: find_task
SELECT tasks.id, tasks.name, tasks.description, tasks.version, task_versions.workflow,
       tasks.created_at, tasks.updated_at
FROM routines.tasks
JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(name)s::text;

-- name: list_versions
-- The versions of a task before the one in the cursor, newest first: those that are kept for runs, and those that only the audit has.
-- Both are read in this order and no further, since workflows may be large. Versions of a task grow with the entries of the audit.
WITH task AS MATERIALIZED (
    SELECT id, collection_id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text
)
SELECT version, coalesce(noted.at, kept.created_at) AS saved_at, noted.actor
FROM (SELECT version, created_at FROM routines.task_versions
      WHERE task_id = (SELECT id FROM task) AND version < %(before)s::bigint
      ORDER BY task_id DESC, version DESC LIMIT %(limit)s::integer) AS kept
FULL JOIN (SELECT (after ->> 'version')::integer AS version, at, actor FROM routines.audit
           WHERE kind = 'task' AND object_id = ANY (ARRAY(SELECT id FROM task)) AND collection_id = (SELECT collection_id FROM task)
             AND after ->> 'workflow' IS NOT NULL AND (after ->> 'version')::integer < %(before)s::bigint
           ORDER BY object_id DESC, id DESC LIMIT %(limit)s::integer) AS noted USING (version)
ORDER BY version DESC LIMIT %(limit)s::integer;

-- name: find_version
-- A version of a task with its workflow, as it was sent if it is kept. The audit has a workflow that jsonb cannot hold as a text.
WITH task AS MATERIALIZED (
    SELECT id, collection_id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text
)
SELECT version, coalesce(noted.at, kept.created_at) AS saved_at, noted.actor,
       coalesce(kept.workflow, CASE jsonb_typeof(noted.workflow) WHEN 'string' THEN (noted.workflow #>> '{}')::json
                               ELSE noted.workflow::json END) AS workflow
FROM (SELECT version, created_at, workflow FROM routines.task_versions
      WHERE task_id = (SELECT id FROM task) AND version = %(version)s::bigint) AS kept
FULL JOIN (SELECT (after ->> 'version')::integer AS version, at, actor, after -> 'workflow' AS workflow FROM routines.audit
           WHERE kind = 'task' AND object_id = ANY (ARRAY(SELECT id FROM task)) AND collection_id = (SELECT collection_id FROM task)
             AND after ->> 'workflow' IS NOT NULL AND (after ->> 'version')::integer = %(version)s::bigint
           ORDER BY object_id DESC, id DESC LIMIT 1) AS noted USING (version);

-- name: list_tasks
-- By name, after the task in the cursor. The page ends once its workflows take `page_bytes`, with is_cut in its last row.
SELECT id, name, description, version, workflow, created_at, updated_at, has_next AND total >= %(page_bytes)s::bigint AS is_cut
FROM (
    SELECT *, sum(size) OVER (ORDER BY name) AS total, lead(id) OVER (ORDER BY name) IS NOT NULL AS has_next
    FROM (
        SELECT tasks.id, tasks.name, tasks.description, tasks.version, task_versions.workflow, tasks.created_at,
               tasks.updated_at, octet_length(task_versions.workflow::text) + octet_length(tasks.description) AS size
        FROM routines.tasks
        JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
        WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
          AND (%(after)s::text IS NULL OR tasks.name > %(after)s::text)
        ORDER BY tasks.name
        LIMIT %(limit)s::integer
    ) AS page
) AS measured
WHERE total - size < %(page_bytes)s::bigint
ORDER BY name;

-- name: delete_task
-- Rejected by routines_task_fkey while the task has routines. Its versions and runs are kept.
DELETE FROM routines.tasks
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND name = %(name)s::text;

-- name: apply_task
-- Saves a task from a file. Creates the task and its collection if they are new, and a new version if the workflow differs.
WITH collection AS (
    INSERT INTO routines.collections (name) VALUES (%(collection)s::text)
    ON CONFLICT ON CONSTRAINT collections_name_key DO UPDATE SET name = excluded.name
    RETURNING id
),
task AS (
    INSERT INTO routines.tasks AS task (collection_id, name, description)
    SELECT id, %(name)s::text, %(description)s::text FROM collection
    ON CONFLICT ON CONSTRAINT tasks_name_key DO UPDATE
    SET description = excluded.description, updated_at = now(),
        version = task.version + CASE WHEN (
            SELECT workflow::text FROM routines.task_versions
            WHERE task_id = task.id AND task_versions.version = task.version) = %(workflow)s::text THEN 0 ELSE 1 END
    RETURNING id, version, collection_id
),
saved AS (
    INSERT INTO routines.task_versions (task_id, version, workflow, collection_id)
    SELECT id, version, %(workflow)s::json, collection_id FROM task
    ON CONFLICT ON CONSTRAINT task_versions_pkey DO NOTHING
)
SELECT version FROM task;
