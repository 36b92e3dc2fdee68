-- Routines as the API sees them.

-- name: insert_routine
INSERT INTO routines.routines (
    collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, init_params_overrides,
    webhook_url, paused)
VALUES (%(collection_id)s::bigint, %(task_id)s::bigint, %(name)s::text, %(cadence_type)s::text, %(hour_utc)s::smallint,
        %(minute_utc)s::smallint, %(day_of_week)s::text, %(init_params_overrides)s::jsonb, %(webhook_url)s::text,
        %(paused)s::boolean);

-- name: list_routines
-- By task and name; null for task or name means any.
SELECT routines.id, routines.name, tasks.name AS task_name, collections.name AS collection_name,
       cadence_type, hour_utc::integer, minute_utc::integer, day_of_week, init_params_overrides, secret_refs,
       webhook_url, webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, last_run_at, next_run_at,
       overlap_policy
FROM routines.routines
JOIN routines.tasks ON tasks.id = routines.task_id
JOIN routines.collections ON collections.id = routines.collection_id
WHERE routines.collection_id = %(collection_id)s::bigint
  AND (%(task)s::text IS NULL OR tasks.name = %(task)s::text)
  AND (%(name)s::text IS NULL OR routines.name = %(name)s::text)
ORDER BY tasks.name, routines.name;

-- name: set_paused
UPDATE routines.routines SET paused = %(paused)s::boolean
WHERE collection_id = %(collection_id)s::bigint AND id = %(id)s::bigint;

-- name: delete_routine
DELETE FROM routines.routines WHERE collection_id = %(collection_id)s::bigint AND id = %(id)s::bigint;

-- name: run_now
-- The routine is held FOR UPDATE before its run is made: a tick of it goes before or after, never beside.
WITH held AS MATERIALIZED (
    SELECT routines.*, task_versions.version, task_versions.init_params AS declared
    FROM routines.routines
    JOIN routines.tasks ON tasks.id = routines.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE routines.collection_id = %(collection_id)s::bigint AND routines.id = %(id)s::bigint
    FOR UPDATE OF routines
),
started AS (
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                       init_params, secret_refs, webhook_url, webhook_secret_id)
    SELECT collection_id, task_id, version, id, 'run-now', declared || init_params_overrides, secret_refs,
           webhook_url, webhook_secret_id
    FROM held
    RETURNING id, triggered_by_routine_id
)
UPDATE routines.routines SET last_run_at = now()
FROM started WHERE routines.id = started.triggered_by_routine_id
RETURNING started.id;
