-- Alert rules and alerts as the API sees them. The key determines the collection.

-- name: draw_rule_id
SELECT nextval(pg_get_serial_sequence('routines.alert_rules', 'id')) AS id
WHERE routines.collection_of_key(%(key_id)s::routines.caller) IS NOT NULL;

-- name: create_rule
-- With the id that its secret is bound to. No row if the task or the routine of its scope does not exist.
WITH scope AS (
    SELECT collections.id AS collection_id, tasks.id AS task_id, routine_names.routine_id
    FROM routines.collections
    LEFT JOIN routines.tasks ON tasks.collection_id = collections.id AND tasks.name = %(task)s::text
    LEFT JOIN routines.routine_names ON routine_names.task_id = tasks.id AND routine_names.name = %(routine)s::text
    WHERE collections.id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
      AND (%(task)s::text IS NULL OR tasks.id IS NOT NULL)
      AND (%(routine)s::text IS NULL OR routine_names.routine_id IS NOT NULL)
),
made AS (
    INSERT INTO routines.alert_rules (id, collection_id, name, events, task_id, routine_id, after_seconds, streak, webhook_url,
                                      webhook_secret_id, digest_at_utc)
    OVERRIDING SYSTEM VALUE
    SELECT %(id)s::bigint, collection_id, %(name)s::text, %(events)s::text[], task_id, routine_id, %(after_seconds)s::integer,
           %(streak)s::integer, %(webhook_url)s::text, %(webhook_secret_id)s::uuid, %(digest_at_utc)s::time
    FROM scope
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

-- name: replace_rule
-- Replaces it whole; only the secret may be kept. No row if it was deleted, has no secret to keep, or its scope does not exist.
WITH scope AS (
    SELECT collections.id AS collection_id, tasks.id AS task_id, routine_names.routine_id
    FROM routines.collections
    LEFT JOIN routines.tasks ON tasks.collection_id = collections.id AND tasks.name = %(task)s::text
    LEFT JOIN routines.routine_names ON routine_names.task_id = tasks.id AND routine_names.name = %(routine)s::text
    WHERE collections.id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
      AND (%(task)s::text IS NULL OR tasks.id IS NOT NULL)
      AND (%(routine)s::text IS NULL OR routine_names.routine_id IS NOT NULL)
),
made AS (
    UPDATE routines.alert_rules
    SET events = %(events)s::text[], task_id = scope.task_id, routine_id = scope.routine_id, after_seconds = %(after_seconds)s::integer,
        streak = %(streak)s::integer, webhook_url = %(webhook_url)s::text, digest_at_utc = %(digest_at_utc)s::time,
        webhook_secret_id = CASE WHEN %(keeps_secret)s::boolean THEN webhook_secret_id ELSE %(webhook_secret_id)s::uuid END
    FROM scope
    WHERE alert_rules.id = %(id)s::bigint AND alert_rules.collection_id = scope.collection_id AND alert_rules.name = %(name)s::text
      AND (NOT %(keeps_secret)s::boolean OR webhook_secret_id IS NOT NULL)
    RETURNING alert_rules.id, alert_rules.collection_id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM made, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                      %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
               AS secret (id, kind, field, owner, key_id, ciphertext)
)
SELECT id FROM made;

-- name: find_rule
SELECT alert_rules.id, alert_rules.name, events, after_seconds, streak, tasks.name AS task, routine_names.name AS routine, webhook_url,
       webhook_secret_id IS NOT NULL AS has_webhook_secret, to_char(digest_at_utc, 'HH24:MI') AS digest_at_utc, alert_rules.updated_at
FROM routines.alert_rules
LEFT JOIN routines.tasks ON tasks.id = alert_rules.task_id
LEFT JOIN routines.routine_names ON routine_names.routine_id = alert_rules.routine_id
WHERE alert_rules.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND alert_rules.name = %(name)s::text;

-- name: list_rules
-- By name, after the name in the cursor.
SELECT alert_rules.id, alert_rules.name, events, after_seconds, streak, tasks.name AS task, routine_names.name AS routine, webhook_url,
       webhook_secret_id IS NOT NULL AS has_webhook_secret, to_char(digest_at_utc, 'HH24:MI') AS digest_at_utc, alert_rules.updated_at
FROM routines.alert_rules
LEFT JOIN routines.tasks ON tasks.id = alert_rules.task_id
LEFT JOIN routines.routine_names ON routine_names.routine_id = alert_rules.routine_id
WHERE alert_rules.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND (%(after)s::text IS NULL OR alert_rules.name > %(after)s::text)
ORDER BY alert_rules.name
LIMIT %(limit)s::integer;

-- name: delete_rule
DELETE FROM routines.alert_rules
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(name)s::text;

-- name: list_alerts
-- Newest first, older than the cursor.
SELECT id, rule, event, task, routine, routine_id, scheduled_for, trajectory_id, detail, state, opened_at, notice, notified_at,
       recovered_at, suppressed_at, suppressed_reason
FROM routines.alert_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND (%(state)s::text IS NULL OR state = %(state)s::text)
  AND (%(event)s::text IS NULL OR event = %(event)s::text)
  AND (%(rule)s::text IS NULL OR rule = %(rule)s::text)
  AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
ORDER BY id DESC
LIMIT %(limit)s::integer;
