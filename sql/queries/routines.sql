-- Routines as the API sees them. A path names a routine by task and name; the key says in which collection. That it
-- still opens one is checked in the statement itself: collection_of_key raises for a key that is revoked or expired.
-- Names are found in routine_names; whoever writes asks the routine itself for its name once more, since it may have got
-- another one while the statement waited for its lock.

-- name: draw_routine_id
SELECT nextval(pg_get_serial_sequence('routines.routines', 'id')) AS id
WHERE routines.collection_of_key(%(key_id)s::routines.caller) IS NOT NULL;

-- name: create_routine
-- The routine and its secrets, or nothing. Secrets are bound to its id, which is then drawn before. No row: there is no such
-- task, or it does not declare an override's key.
WITH task AS (
    SELECT tasks.id, tasks.collection_id
    FROM routines.tasks
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND NOT EXISTS (SELECT FROM jsonb_object_keys(%(init_params_overrides)s::jsonb) AS key
                      WHERE NOT task_versions.init_params ? key)
),
made AS (
    INSERT INTO routines.routines (
        id, collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, init_params_overrides,
        secret_refs, webhook_url, webhook_secret_id, paused, catchup_window_seconds)
    OVERRIDING SYSTEM VALUE
    SELECT coalesce(%(id)s::bigint, nextval(pg_get_serial_sequence('routines.routines', 'id'))),
           collection_id, id, %(name)s::text, %(cadence_type)s::text, %(hour_utc)s::smallint,
           %(minute_utc)s::smallint, %(day_of_week)s::text, %(init_params_overrides)s::jsonb, %(secret_refs)s::jsonb,
           %(webhook_url)s::text, %(webhook_secret_id)s::uuid, %(paused)s::boolean,
           %(catchup_window_seconds)s::integer
    FROM task
    RETURNING id, collection_id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM made, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                      %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
               AS secret (id, kind, field, owner, key_id, ciphertext)
)
SELECT id FROM made;

-- name: patch_routine
-- What is null stays as it is; what may be set to null has a flag. An override that the task no longer declares may
-- stay, but none may be added or changed. A secret that is kept, since its mask was sent back, must be there; new ones
-- are bound to the routine's id, which must still be the one of this name. No row: one of these does not hold, or there
-- is no such routine.
WITH patched AS (
    UPDATE routines.routines AS routine
    SET name = coalesce(%(name)s::text, routine.name),
        cadence_type = coalesce(%(cadence_type)s::text, cadence_type),
        hour_utc = CASE WHEN %(cadence_type)s::text IS NULL THEN hour_utc ELSE %(hour_utc)s::smallint END,
        minute_utc = CASE WHEN %(cadence_type)s::text IS NULL THEN minute_utc ELSE %(minute_utc)s::smallint END,
        day_of_week = CASE WHEN %(cadence_type)s::text IS NULL THEN day_of_week ELSE %(day_of_week)s::text END,
        init_params_overrides = coalesce(%(init_params_overrides)s::jsonb, init_params_overrides),
        secret_refs = CASE WHEN %(secret_refs)s::jsonb IS NULL THEN secret_refs
                      ELSE %(secret_refs)s::jsonb || (SELECT coalesce(jsonb_object_agg(kept, secret_refs -> kept), '{}')
                                                      FROM unnest(%(kept_secrets)s::text[]) AS kept) END,
        webhook_url = CASE WHEN %(sets_webhook_url)s::boolean THEN %(webhook_url)s::text ELSE webhook_url END,
        webhook_secret_id = CASE WHEN %(sets_webhook_secret)s::boolean THEN %(webhook_secret_id)s::uuid
                            ELSE webhook_secret_id END,
        paused = coalesce(%(paused)s::boolean, paused),
        catchup_window_seconds = CASE WHEN %(sets_catchup_window)s::boolean THEN %(catchup_window_seconds)s::integer
                                 ELSE catchup_window_seconds END
    FROM routines.tasks
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.routine_names ON routine_names.task_id = tasks.id
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND routine_names.name = %(current_name)s::text AND routine.id = routine_names.routine_id
      AND routine.name = routine_names.name
      AND (%(id)s::bigint IS NULL OR routine.id = %(id)s::bigint)
      AND NOT EXISTS (SELECT FROM jsonb_each(%(init_params_overrides)s::jsonb) AS override
                      WHERE NOT task_versions.init_params ? override.key
                        AND override.value IS DISTINCT FROM routine.init_params_overrides -> override.key)
      AND routine.secret_refs ?& %(kept_secrets)s::text[]
      AND (NOT %(keeps_webhook_secret)s::boolean OR routine.webhook_secret_id IS NOT NULL)
    RETURNING routine.id, routine.collection_id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM patched, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                         %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
                  AS secret (id, kind, field, owner, key_id, ciphertext)
)
SELECT id FROM patched;

-- name: find_routine
SELECT id, name, task_name, collection_name, cadence_type, hour_utc, minute_utc, day_of_week, init_params_overrides,
       secret_names, webhook_url, has_webhook_secret, paused, last_run_at, next_run_at, overlap_policy, undeclared_keys,
       catchup_window_seconds, paused_reason
FROM routines.routine_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND task_name = %(task)s::text AND name = %(name)s::text;

-- name: list_routines
-- By task and name, after the routine that the cursor names; null for task means any. Task by task through the index
-- routines_name_key, so that a page costs what it holds, however many routines there are.
SELECT page.*
FROM (
    SELECT tasks.id, tasks.name FROM routines.tasks
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
      AND (%(task)s::text IS NULL OR tasks.name = %(task)s::text)
      AND (%(after_task)s::text IS NULL OR tasks.name >= %(after_task)s::text)
    ORDER BY tasks.name
) AS task
CROSS JOIN LATERAL (
    SELECT id, name, task_name, collection_name, cadence_type, hour_utc, minute_utc, day_of_week,
           init_params_overrides, secret_names, webhook_url, has_webhook_secret, paused, last_run_at, next_run_at,
           overlap_policy, undeclared_keys, catchup_window_seconds, paused_reason
    FROM routines.routine_details
    WHERE task_id = task.id
      AND (%(after_task)s::text IS NULL OR task.name > %(after_task)s::text OR name > %(after_name)s::text)
    ORDER BY name
    LIMIT %(limit)s::integer
) AS page
ORDER BY task.name, page.name
LIMIT %(limit)s::integer;

-- name: set_paused
-- Waits for a tick that holds the routine: once this is acknowledged, nothing fires.
UPDATE routines.routines AS routine SET paused = %(paused)s::boolean
FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text AND routine.id = routine_names.routine_id AND routine.name = routine_names.name;

-- name: delete_routine
DELETE FROM routines.routines AS routine
USING routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text AND routine.id = routine_names.routine_id AND routine.name = routine_names.name;

-- name: run_now
-- The routine is held FOR UPDATE before its run is made: a tick of it goes before or after, never beside.
WITH held AS MATERIALIZED (
    SELECT routines.*, task_versions.version, task_versions.init_params AS declared
    FROM routines.tasks
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.routine_names ON routine_names.task_id = tasks.id
    JOIN routines.routines ON routines.id = routine_names.routine_id AND routines.name = routine_names.name
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND routine_names.name = %(name)s::text
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
