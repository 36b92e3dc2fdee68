-- Tasks and their workflows.

-- name: insert_task
WITH task AS (
    INSERT INTO routines.tasks (collection_id, name, description)
    VALUES (%(collection_id)s::bigint, %(name)s::text, %(description)s::text)
    RETURNING id
)
INSERT INTO routines.task_versions (task_id, version, workflow)
SELECT id, 1, %(workflow)s::json FROM task;

-- name: find_task
SELECT tasks.id, tasks.name, tasks.description, tasks.version, task_versions.workflow,
       tasks.created_at, tasks.updated_at
FROM routines.tasks
JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
WHERE tasks.collection_id = %(collection_id)s::bigint AND tasks.name = %(name)s::text;

-- name: list_tasks
SELECT tasks.id, tasks.name, tasks.description, tasks.version, task_versions.workflow,
       tasks.created_at, tasks.updated_at
FROM routines.tasks
JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
WHERE tasks.collection_id = %(collection_id)s::bigint
ORDER BY tasks.name;
