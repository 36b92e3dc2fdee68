-- Routines as the API sees them. A path names a routine by task and name, and the key determines the collection. Each
-- statement checks the key itself: collection_of_key raises for a revoked or expired one. Names are looked up in
-- routine_names; statements that write also check the routine's own name, which may have changed while they waited for the
-- lock.

-- name: draw_routine_id
SELECT nextval(pg_get_serial_sequence('routines.routines', 'id')) AS id
WHERE routines.collection_of_key(%(key_id)s::routines.caller) IS NOT NULL;

-- name: create_routine
-- Creates the routine and its secrets, or nothing. If there are secrets, its id was drawn before, because they are bound to
-- it. No row if the task does not exist or does not declare the key of an override.
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
        id, collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor,
        once_at, starts_at, ends_at, init_params_overrides, secret_refs, webhook_url, webhook_secret_id, paused,
        catchup_window_seconds, spread_seconds, calendar, active_hours, init_params_from_slot,
        timeout_seconds, retry, pause_after_failures, after_failures, overlap_policy, max_concurrent)
    OVERRIDING SYSTEM VALUE
    SELECT coalesce(%(id)s::bigint, nextval(pg_get_serial_sequence('routines.routines', 'id'))),
           collection_id, task.id, %(name)s::text, cadence.type, cadence.hour_utc, cadence.minute_utc, cadence.day_of_week,
           cadence.expression, cadence.timezone, cadence.every_minutes, cadence.anchor, cadence.at, %(starts_at)s::timestamptz,
           %(ends_at)s::timestamptz, %(init_params_overrides)s::jsonb, %(secret_refs)s::jsonb,
           %(webhook_url)s::text, %(webhook_secret_id)s::uuid, %(paused)s::boolean,
           %(catchup_window_seconds)s::integer, %(spread_seconds)s::integer, %(calendar)s::jsonb, %(active_hours)s::jsonb,
           %(init_params_from_slot)s::jsonb, %(timeout_seconds)s::integer, %(retry)s::jsonb,
           %(pause_after_failures)s::integer, %(after_failures)s::text, %(overlap_policy)s::text, %(max_concurrent)s::smallint
    FROM task, routines.cadence_from_json(%(cadence)s::jsonb) AS cadence
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
-- A null parameter keeps the value; fields that may be set to null have a flag. Overrides that the task no longer declares may
-- stay, but none may be added or changed. A secret to keep, whose mask was sent back, must exist. New secrets are bound to the
-- routine's id, which must still belong to this name. No row if any of this fails or the routine does not exist.
WITH patched AS (
    UPDATE routines.routines AS routine
    SET name = coalesce(%(name)s::text, routine.name),
        (cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor, once_at) = (
            SELECT new.type, new.hour_utc, new.minute_utc, new.day_of_week, new.expression, new.timezone, new.every_minutes,
                   new.anchor, new.at
            FROM routines.cadence_from_json(coalesce(%(cadence)s::jsonb, to_jsonb(routines.cadence_of(routine)))) AS new),
        init_params_overrides = coalesce(%(init_params_overrides)s::jsonb, init_params_overrides),
        secret_refs = CASE WHEN %(secret_refs)s::jsonb IS NULL THEN secret_refs
                      ELSE %(secret_refs)s::jsonb || (SELECT coalesce(jsonb_object_agg(kept, secret_refs -> kept), '{}')
                                                      FROM unnest(%(kept_secrets)s::text[]) AS kept) END,
        webhook_url = CASE WHEN %(sets_webhook_url)s::boolean THEN %(webhook_url)s::text ELSE webhook_url END,
        webhook_secret_id = CASE WHEN %(sets_webhook_secret)s::boolean THEN %(webhook_secret_id)s::uuid
                            ELSE webhook_secret_id END,
        paused = coalesce(%(paused)s::boolean, paused),
        paused_until = CASE WHEN %(sets_paused_until)s::boolean THEN %(paused_until)s::timestamptz ELSE paused_until END,
        paused_note = CASE WHEN %(sets_paused_note)s::boolean THEN %(paused_note)s::text ELSE paused_note END,
        catchup_window_seconds = CASE WHEN %(sets_catchup_window)s::boolean THEN %(catchup_window_seconds)s::integer
                                 ELSE catchup_window_seconds END,
        starts_at = CASE WHEN %(sets_starts_at)s::boolean THEN %(starts_at)s::timestamptz ELSE starts_at END,
        ends_at = CASE WHEN %(sets_ends_at)s::boolean THEN %(ends_at)s::timestamptz ELSE ends_at END,
        spread_seconds = CASE WHEN %(sets_spread)s::boolean THEN %(spread_seconds)s::integer ELSE spread_seconds END,
        calendar = CASE WHEN %(sets_calendar)s::boolean THEN %(calendar)s::jsonb ELSE calendar END,
        active_hours = CASE WHEN %(sets_active_hours)s::boolean THEN %(active_hours)s::jsonb ELSE active_hours END,
        init_params_from_slot = CASE WHEN %(sets_init_params_from_slot)s::boolean THEN %(init_params_from_slot)s::jsonb
                                ELSE init_params_from_slot END,
        timeout_seconds = CASE WHEN %(sets_timeout)s::boolean THEN %(timeout_seconds)s::integer ELSE timeout_seconds END,
        retry = CASE WHEN %(sets_retry)s::boolean THEN %(retry)s::jsonb ELSE retry END,
        pause_after_failures = CASE WHEN %(sets_pause_after_failures)s::boolean THEN %(pause_after_failures)s::integer
                               ELSE pause_after_failures END,
        after_failures = CASE WHEN %(sets_after_failures)s::boolean THEN %(after_failures)s::text ELSE after_failures END,
        overlap_policy = coalesce(%(overlap_policy)s::text, overlap_policy),
        max_concurrent = coalesce(%(max_concurrent)s::smallint, max_concurrent)
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
SELECT id, name, task_name, collection_name, cadence, init_params_overrides,
       secret_names, webhook_url, has_webhook_secret, paused, last_run_at, next_run_at, overlap_policy, undeclared_keys,
       catchup_window_seconds, paused_reason, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
       init_params_from_slot, undeclared_slot_keys, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left,
       max_concurrent
FROM routines.routine_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND task_name = %(task)s::text AND name = %(name)s::text;

-- name: find_routines
-- Those of these ids that there are, as far as their overrides take `page_bytes`.
SELECT id, name, task_name, collection_name, cadence, init_params_overrides,
       secret_names, webhook_url, has_webhook_secret, paused, last_run_at, next_run_at, overlap_policy, undeclared_keys,
       catchup_window_seconds, paused_reason, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
       init_params_from_slot, undeclared_slot_keys, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left,
       max_concurrent
FROM (
    SELECT *, sum(octet_length(init_params_overrides::text)) OVER (ORDER BY id) AS total
    FROM routines.routine_details
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = ANY (%(ids)s::bigint[])
) AS found
WHERE total < %(page_bytes)s::bigint
ORDER BY id;

-- name: list_routines
-- By task and name, after the routine in the cursor. A null task matches any. Goes task by task through the index
-- routines_name_key, so the cost depends on the page size and not on the number of routines. The page ends once its overrides take
-- `page_bytes`, with is_cut in its last row.
SELECT id, name, task_name, collection_name, cadence, init_params_overrides, secret_names, webhook_url, has_webhook_secret, paused,
       last_run_at, next_run_at, overlap_policy, undeclared_keys, catchup_window_seconds, paused_reason,
       paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
       init_params_from_slot, undeclared_slot_keys, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left,
       max_concurrent, has_next AND total >= %(page_bytes)s::bigint AS is_cut
FROM (
    SELECT *, sum(size) OVER (ORDER BY task_name, name) AS total,
           lead(id) OVER (ORDER BY task_name, name) IS NOT NULL AS has_next
    FROM (
        SELECT page.*, octet_length(init_params_overrides::text) AS size
        FROM (
            SELECT tasks.id, tasks.name FROM routines.tasks
            WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
              AND (%(task)s::text IS NULL OR tasks.name = %(task)s::text)
              AND (%(after_task)s::text IS NULL OR tasks.name >= %(after_task)s::text)
            ORDER BY tasks.name
        ) AS task
        CROSS JOIN LATERAL (
            SELECT id, name, task_name, collection_name, cadence, init_params_overrides, secret_names, webhook_url,
                   has_webhook_secret, paused, last_run_at, next_run_at, overlap_policy, undeclared_keys, catchup_window_seconds,
                   paused_reason, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
                   init_params_from_slot, undeclared_slot_keys, timeout_seconds, retry, pause_after_failures, after_failures,
                   backoff_left, max_concurrent
            FROM routines.routine_details
            WHERE task_id = task.id
              AND (%(after_task)s::text IS NULL OR task.name > %(after_task)s::text OR name > %(after_name)s::text)
            ORDER BY name
            LIMIT %(limit)s::integer
        ) AS page
        ORDER BY task.name, page.name
        LIMIT %(limit)s::integer
    ) AS listed
) AS measured
WHERE total - size < %(page_bytes)s::bigint
ORDER BY task_name, name;

-- name: set_paused
-- Waits for a tick that has locked the routine. Once a pause is acknowledged, nothing fires until its end. A null end or note
-- replaces one that was set before.
UPDATE routines.routines AS routine
SET paused = %(paused)s::boolean, paused_until = %(until)s::timestamptz, paused_note = %(note)s::text
FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text AND routine.id = routine_names.routine_id AND routine.name = routine_names.name;

-- name: delete_routine
DELETE FROM routines.routines AS routine
USING routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text AND routine.id = routine_names.routine_id AND routine.name = routine_names.name;

-- name: run_now
-- Locks the routine FOR UPDATE before it creates the run, so a tick of it comes before or after. A null id: it creates nothing, since
-- the task does not declare `unknown_keys` of `init_params`, or since it `respects_overlap` and as many runs are active as may be, of
-- which `blocked_by` is the first. Secrets are bound to the routine's id, which must still belong to this name. No row if the routine
-- does not exist.
WITH locked AS MATERIALIZED (
    SELECT routines.*, task_versions.version, task_versions.init_params AS declared
    FROM routines.tasks
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.routine_names ON routine_names.task_id = tasks.id
    JOIN routines.routines ON routines.id = routine_names.routine_id AND routines.name = routine_names.name
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND routine_names.name = %(name)s::text AND (%(id)s::bigint IS NULL OR routines.id = %(id)s::bigint)
    FOR UPDATE OF routines
),
-- Once the routine is locked: see slot_values and active_runs_of, which take snapshots of their own. Without `as_of` the run is for no
-- slot, so that only few of the values are there.
considered AS MATERIALIZED (
    SELECT *,
           CASE WHEN init_params_from_slot IS NOT NULL OR %(as_of)s::timestamptz IS NOT NULL
                THEN routines.slot_values(id, %(as_of)s::timestamptz, 'run-now') END AS slot_values,
           ARRAY(SELECT key FROM jsonb_object_keys(%(init_params)s::jsonb) AS key WHERE NOT declared ? key ORDER BY key) AS unknown_keys,
           CASE WHEN %(respects_overlap)s::boolean
                THEN (SELECT min(trajectory_id) FROM routines.active_runs_of(locked.id)
                      HAVING count(*) >= coalesce(max_concurrent, 1)) END AS blocked_by
    FROM locked
),
started AS (
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                       init_params, slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds,
                                       traceparent)
    SELECT collection_id, task_id, version, id, 'run-now',
           declared || init_params_overrides || routines.params_from_slot(init_params_from_slot, slot_values) || %(init_params)s::jsonb,
           slot_values, secret_refs || %(secret_refs)s::jsonb, webhook_url, webhook_secret_id, timeout_seconds,
           %(traceparent)s::text
    FROM considered WHERE unknown_keys = '{}' AND blocked_by IS NULL
    RETURNING id, collection_id, triggered_by_routine_id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM started, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                         %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
                  AS secret (id, kind, field, owner, key_id, ciphertext)
),
noted AS (
    UPDATE routines.routines SET last_run_at = now() FROM started WHERE routines.id = started.triggered_by_routine_id
)
SELECT (SELECT id FROM started) AS id, unknown_keys, blocked_by FROM considered;
