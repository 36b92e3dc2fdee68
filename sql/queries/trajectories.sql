-- Runs as the API sees them, where they are called trajectories. The worker's statements for the same rows are in runs.sql.

-- name: find_trajectory
-- One run, with as much of its steps as `total_bytes` and `most_steps` allow. The view's own column `steps` is not used, so it is not computed.
-- Null temporal_ui: there is no link to Temporal.
SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at,
       init_params, step_configs, shown.steps, total_steps, completed_steps, labels, error, triggered_by_routine_id,
       scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by, rerun_of, backfill_id, fills_slot, kept_steps, lost_steps,
       nullif(routines.revision_of_run(trajectory_id), 1) AS routine_revision,
       parent_trajectory_id, parent_name, children,
       %(temporal_ui)s::text || '/workflows/' || replace(temporal_id, '/', chr(37) || '2F') AS temporal_url,
       shown.is_truncated AS truncated
FROM routines.trajectory_details
CROSS JOIN LATERAL routines.steps_shown(trajectory_id, kept_steps, %(total_bytes)s::integer, %(total_bytes)s::integer,
                                        %(work_bytes)s::bigint, %(most_steps)s::integer) AS shown
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND task_name = %(task)s::text AND trajectory_id = %(id)s::bigint;

-- name: read_steps
-- The steps of a large run as one text, which is passed on as it is.
SELECT shown.steps::text AS steps, shown.is_truncated AS truncated
FROM routines.trajectories
CROSS JOIN LATERAL routines.steps_shown(id, kept_steps, %(total_bytes)s::integer, %(total_bytes)s::integer,
                                        %(work_bytes)s::bigint, 2147483647) AS shown
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(id)s::bigint;

-- name: list_trajectories
-- A task's runs, newest first, each with its small values only; once the page is full, runs lose their steps and parameters too.
-- A null status or routine matches any; `before` is the last run of the page before, or more than any id. Conditions on the parameters alone switch each branch on
-- or off, so that one plan serves every filter by its own index and reads no more than the pages up to this one. Slots only
-- grow, so a routine's newest scheduled runs are the last of their index.
WITH task AS MATERIALIZED (
    SELECT id, collection_id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(task_id)s::bigint
),
page AS (
    SELECT id FROM (
        (SELECT id FROM routines.newest_ended((SELECT id FROM task), %(status)s::text, %(before)s::bigint,
                                              %(limit)s::bigint + %(offset)s::bigint) AS id
         WHERE %(routine_id)s::bigint IS NULL)
        UNION ALL
        -- Compares whole rows, as the ORDER BY does, so that only the end of trajectories_active_idx serves it, whatever the backlog.
        (SELECT id FROM routines.trajectories
         WHERE coalesce(%(status)s::text = 'pending', true) AND %(routine_id)s::bigint IS NULL
           AND ended_at IS NULL AND status = coalesce(%(status)s::text, status)
           AND (collection_id, task_id) >= ((SELECT collection_id FROM task), (SELECT id FROM task))
           AND (collection_id, task_id, id) < ((SELECT collection_id FROM task), (SELECT id FROM task), %(before)s::bigint)
         ORDER BY collection_id DESC, task_id DESC, id DESC LIMIT %(limit)s::bigint + %(offset)s::bigint)
        UNION ALL
        (SELECT running.id FROM routines.begun_runs CROSS JOIN LATERAL (
             SELECT id FROM routines.trajectories
             WHERE trajectories.id = begun_runs.trajectory_id AND status = 'running' LIMIT 1) AS running
         WHERE %(status)s::text = 'running' AND %(routine_id)s::bigint IS NULL AND begun_runs.task_id = (SELECT id FROM task)
           AND begun_runs.trajectory_id < %(before)s::bigint
         ORDER BY begun_runs.trajectory_id DESC LIMIT %(limit)s::bigint + %(offset)s::bigint)
        UNION ALL
        (SELECT id FROM routines.trajectories
         WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
           AND task_id = (SELECT id FROM task) AND (%(status)s::text IS NULL OR status = %(status)s::text)
           AND id < %(before)s::bigint
         ORDER BY scheduled_for DESC LIMIT %(limit)s::bigint + %(offset)s::bigint)
        UNION ALL
        (SELECT unscheduled.id FROM unnest(ARRAY['run-now', 'retry', 'rerun', 'backfill']) AS wanted (trigger)
         CROSS JOIN LATERAL (
             SELECT id FROM routines.trajectories
             WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NULL AND trigger = wanted.trigger
               AND task_id = (SELECT id FROM task) AND (%(status)s::text IS NULL OR status = %(status)s::text)
               AND id < %(before)s::bigint
             ORDER BY id DESC LIMIT %(limit)s::bigint + %(offset)s::bigint) AS unscheduled)
    ) AS runs
    ORDER BY id DESC LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint
)
SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at,
       CASE WHEN fits THEN init_params ELSE '{}' END AS init_params, CASE WHEN fits THEN step_configs ELSE '{}' END AS step_configs,
       CASE WHEN fits THEN steps ELSE '{}' END AS steps, total_steps, completed_steps, labels, error, triggered_by_routine_id,
       scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by, rerun_of, backfill_id, fills_slot, kept_steps, lost_steps,
       NULL::integer AS routine_revision,
       parent_trajectory_id, parent_name,
       '[]'::json AS children, NULL::text AS temporal_url, is_truncated OR NOT fits AS truncated
FROM (
    SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at, init_params,
           step_configs, shown.steps, total_steps, completed_steps, labels, left(error, %(value_bytes)s::integer) AS error,
           triggered_by_routine_id, scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by, rerun_of, backfill_id, fills_slot, kept_steps, lost_steps,
           parent_trajectory_id, parent_name, shown.is_truncated,
           sum(octet_length(shown.steps::text) + octet_length(init_params::text) + octet_length(step_configs::text)
               + octet_length(labels::text)) OVER (ORDER BY trajectory_id DESC) <= %(page_bytes)s::integer AS fits
    FROM page JOIN routines.trajectory_details ON trajectory_id = page.id
    CROSS JOIN LATERAL routines.steps_shown(trajectory_id, kept_steps, %(value_bytes)s::integer, %(page_bytes)s::integer,
                                            %(page_bytes)s::bigint, %(most_steps)s::integer) AS shown
) AS listed
ORDER BY trajectory_id DESC;

-- name: count_trajectories
-- The number of runs that list_trajectories would list in all, counted up to a bound.
WITH task AS MATERIALIZED (
    SELECT id, collection_id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(task_id)s::bigint
),
running AS MATERIALIZED (
    SELECT found.id FROM routines.begun_runs CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE trajectories.id = begun_runs.trajectory_id AND status = 'running' LIMIT 1) AS found
    WHERE %(status)s::text IN ('pending', 'running') AND %(routine_id)s::bigint IS NULL
      AND begun_runs.task_id = (SELECT id FROM task)
)
SELECT least(count(*), %(most)s::bigint) AS total FROM (
    -- Compares and sorts by all columns of its index, so that nothing else serves it: a new task seems to have all runs if there is
    -- one old task.
    (SELECT ended.id FROM unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS wanted (final_status)
     CROSS JOIN LATERAL (
         SELECT id FROM routines.trajectories
         WHERE final_status IS NOT NULL AND (task_id, final_status) >= ((SELECT id FROM task), wanted.final_status)
           AND (task_id, final_status) <= ((SELECT id FROM task), wanted.final_status)
         ORDER BY task_id, final_status, id LIMIT %(most)s::bigint) AS ended
     WHERE %(routine_id)s::bigint IS NULL AND coalesce(wanted.final_status = %(status)s::text, true)
     LIMIT %(most)s::bigint)
    UNION ALL
    -- Active runs that are not running are pending, so this reads the index only.
    (SELECT id FROM routines.trajectories
     WHERE coalesce(%(status)s::text = 'pending', true) AND %(routine_id)s::bigint IS NULL AND ended_at IS NULL
       AND (collection_id, task_id) >= ((SELECT collection_id FROM task), (SELECT id FROM task))
       AND (collection_id, task_id) <= ((SELECT collection_id FROM task), (SELECT id FROM task))
     ORDER BY collection_id, task_id, id OFFSET (SELECT count(*) FROM running) LIMIT %(most)s::bigint)
    UNION ALL
    (SELECT id FROM running WHERE %(status)s::text = 'running' AND %(routine_id)s::bigint IS NULL LIMIT %(most)s::bigint)
    UNION ALL
    (SELECT id FROM routines.trajectories
     WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
       AND task_id = (SELECT id FROM task) AND (%(status)s::text IS NULL OR status = %(status)s::text)
     LIMIT %(most)s::bigint)
    UNION ALL
    (SELECT id FROM routines.trajectories
     WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NULL
       AND task_id = (SELECT id FROM task) AND (%(status)s::text IS NULL OR status = %(status)s::text)
     LIMIT %(most)s::bigint)
) AS runs;

-- name: stats
-- Counts of all runs, from the index, and durations of the newest ended ones.
WITH task AS MATERIALIZED (
    SELECT id, collection_id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(task)s::text
),
wanted AS (SELECT unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS final_status),
running AS MATERIALIZED (
    SELECT count(*) AS runs FROM routines.begun_runs CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE trajectories.id = begun_runs.trajectory_id AND status = 'running' LIMIT 1) AS found
    WHERE begun_runs.task_id = (SELECT id FROM task)
),
counted AS (
    SELECT wanted.final_status AS status, ended.runs
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT count(*) AS runs FROM routines.trajectories
        WHERE final_status IS NOT NULL AND (task_id, final_status) >= ((SELECT id FROM task), wanted.final_status)
          AND (task_id, final_status) <= ((SELECT id FROM task), wanted.final_status)) AS ended
    WHERE ended.runs > 0
    UNION ALL
    SELECT 'running', runs FROM running WHERE runs > 0
    UNION ALL
    SELECT 'pending', count(*) - (SELECT runs FROM running) FROM routines.trajectories
    WHERE ended_at IS NULL AND (collection_id, task_id) >= ((SELECT collection_id FROM task), (SELECT id FROM task))
      AND (collection_id, task_id) <= ((SELECT collection_id FROM task), (SELECT id FROM task))
    HAVING count(*) > (SELECT runs FROM running)
),
recent AS (
    SELECT extract(epoch FROM ended_at - started_at)::float8 AS seconds
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT id, started_at, ended_at FROM routines.trajectories
        WHERE final_status IS NOT NULL AND started_at IS NOT NULL
          AND (task_id, final_status) >= ((SELECT id FROM task), wanted.final_status)
          AND (task_id, final_status) <= ((SELECT id FROM task), wanted.final_status)
        ORDER BY task_id DESC, final_status DESC, id DESC LIMIT %(most)s::bigint) AS ended
    ORDER BY id DESC LIMIT %(most)s::bigint
)
SELECT (SELECT coalesce(jsonb_object_agg(status, runs), '{}') FROM counted) AS counts,
       count(seconds) AS measured, avg(seconds) AS avg_seconds, min(seconds) AS min_seconds, max(seconds) AS max_seconds,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50_seconds,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95_seconds
FROM task LEFT JOIN recent ON true
GROUP BY task.id;

-- name: draw_trajectory_id
SELECT nextval(pg_get_serial_sequence('routines.trajectories', 'id')) AS id
WHERE routines.collection_of_key(%(key_id)s::routines.caller) IS NOT NULL;

-- name: start_run
-- Starts a run of a task and stores its secrets, or nothing. If there are secrets, its id was drawn before, because they are
-- bound to it. file_paths is allowed in addition to the declared params. No row if the task does not exist or does not declare
-- a key.
WITH task AS (
    SELECT tasks.id, tasks.collection_id, tasks.version, task_versions.init_params AS declared
    FROM routines.tasks
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND NOT EXISTS (SELECT FROM jsonb_object_keys(%(init_params)s::jsonb) AS key
                      WHERE NOT task_versions.init_params ? key)
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM task, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                      %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
               AS secret (id, kind, field, owner, key_id, ciphertext)
)
INSERT INTO routines.trajectories (id, collection_id, task_id, task_version, trigger, init_params, secret_refs, webhook_url,
                                   webhook_secret_id, traceparent)
OVERRIDING SYSTEM VALUE
SELECT coalesce(%(id)s::bigint, nextval(pg_get_serial_sequence('routines.trajectories', 'id'))),
       collection_id, id, version, 'api', declared || %(init_params)s::jsonb || %(file_params)s::jsonb, %(secret_refs)s::jsonb,
       %(webhook_url)s::text, %(webhook_secret_id)s::uuid, %(traceparent)s::text
FROM task
RETURNING id;

-- name: rerun
-- Runs an ended run again, whole or from a step, by the version of the workflow that it had. The trigger link_rerun makes it the newest
-- attempt. No row if the task has no such run. A null id: nothing was started, since the run is active, since the workflow does not
-- declare `unknown_keys` or has no such step, since `unready_step` before it, of the run `unready_run`, has not completed or was deleted,
-- or since the webhook was signed by a secret that is gone (needs_webhook_secret). Secrets, webhook and its secret are those of the routine
-- today. If it was deleted or there was none, they are those that are sent. All runs are locked in the order of their ids, as in
-- set_statuses, before it is known that their steps can be kept.
WITH original AS MATERIALIZED (
    SELECT trajectories.*, task_versions.workflow, task_versions.init_params AS declared
    FROM routines.tasks
    JOIN routines.trajectories ON trajectories.task_id = tasks.id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = trajectories.task_version
    WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
      AND trajectories.id = %(id)s::bigint
),
before AS MATERIALIZED (
    SELECT step.* FROM original CROSS JOIN LATERAL routines.steps_before(workflow, %(from_step)s::text, kept_steps, original.id) AS step
),
held AS MATERIALIZED (
    SELECT id FROM routines.trajectories
    WHERE id = ANY (ARRAY(SELECT kept_from FROM before UNION SELECT unnest(ARRAY[id, retry_of]) FROM original))
    ORDER BY id
    FOR KEY SHARE
),
unready AS MATERIALIZED (
    SELECT name, kept_from FROM before WHERE NOT (is_finished AND kept_from IN (SELECT id FROM held)) LIMIT 1
),
considered AS MATERIALIZED (
    SELECT original.*, routine.id AS routine_id, routine.secret_refs AS routine_secrets, routine.webhook_url AS routine_url,
           routine.webhook_secret_id AS routine_webhook_secret, unready.name AS unready_step, unready.kept_from AS unready_run,
           ARRAY(SELECT key FROM jsonb_object_keys(%(init_params)s::jsonb) AS key WHERE NOT declared ? key ORDER BY key) AS unknown_keys,
           %(from_step)s::text IS NULL OR %(from_step)s::text IN (SELECT json_array_elements_text(workflow -> 'steps')) AS has_step,
           routine.id IS NULL AND original.webhook_url IS NOT NULL AND original.webhook_secret_id IS NOT NULL
               AND %(webhook_secret_id)s::uuid IS NULL AS needs_webhook_secret
    FROM original
    LEFT JOIN routines.routines AS routine ON routine.id = original.triggered_by_routine_id
    LEFT JOIN unready ON true
    WHERE original.id IN (SELECT id FROM held)
),
started AS (
    INSERT INTO routines.trajectories (id, collection_id, task_id, task_version, triggered_by_routine_id, trigger, rerun_of, kept_steps,
                                       step_bytes, init_params, slot_values, secret_refs, webhook_url, webhook_secret_id,
                                       timeout_seconds, traceparent)
    OVERRIDING SYSTEM VALUE
    SELECT coalesce(%(new_id)s::bigint, nextval(pg_get_serial_sequence('routines.trajectories', 'id'))), collection_id, task_id,
           task_version, triggered_by_routine_id, 'rerun', id, kept.steps, CASE WHEN kept.steps IS NULL THEN 0 ELSE step_bytes END,
           init_params || %(init_params)s::jsonb, coalesce(slot_values, CASE WHEN slot.at IS NOT NULL THEN routines.slot_values(triggered_by_routine_id, slot.at, 'schedule') END),
           coalesce(routine_secrets, '{}') || %(secret_refs)s::jsonb,
           CASE WHEN routine_id IS NULL THEN webhook_url ELSE routine_url END,
           CASE WHEN routine_id IS NULL THEN %(webhook_secret_id)s::uuid ELSE routine_webhook_secret END, timeout_seconds,
           %(traceparent)s::text
    FROM considered
    CROSS JOIN LATERAL (SELECT jsonb_object_agg(name, kept_from) AS steps FROM before) AS kept
    CROSS JOIN LATERAL (SELECT coalesce(scheduled_for, (
        SELECT first.scheduled_for FROM routines.trajectories AS first WHERE first.id = considered.retry_of)) AS at) AS slot
    WHERE ended_at IS NOT NULL AND unknown_keys = '{}' AND has_step AND unready_step IS NULL AND NOT needs_webhook_secret
    RETURNING id, collection_id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, collection_id, kind, field, owner, key_id, ciphertext
    FROM started, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                         %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
                  AS secret (id, kind, field, owner, key_id, ciphertext)
)
SELECT (SELECT id FROM started) AS id, status, ended_at IS NOT NULL AS has_ended, unknown_keys, ARRAY(SELECT jsonb_object_keys(declared)) AS declared_keys,
       has_step, unready_step, unready_run, needs_webhook_secret
FROM considered;

-- name: ended_runs
-- One query for all waiting requests, without a key: it only tells which runs have ended. Each answer is then read with the key
-- of its request.
SELECT id FROM routines.ended_runs(%(ids)s::bigint[]) AS id;

-- name: set_statuses
-- Cancels active runs and archives ended ones, all or none. FOR UPDATE in the order of ids: a run that a worker or another
-- request is ending has ended by the time this checks it, and two such requests cannot deadlock. The fence is raised, so late
-- writes of a worker change nothing.
WITH task AS (
    SELECT id FROM routines.tasks
    WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND name = %(task)s::text
),
asked AS MATERIALIZED (
    SELECT trajectories.id, trajectories.status, wanted.status AS wanted,
           CASE wanted.status WHEN 'cancelled' THEN trajectories.status IN ('pending', 'running', 'cancelled')
                              WHEN 'archived' THEN trajectories.status NOT IN ('pending', 'running') END AS is_allowed
    FROM unnest(%(ids)s::bigint[], %(statuses)s::text[]) AS wanted (id, status)
    JOIN routines.trajectories ON trajectories.id = wanted.id AND trajectories.task_id = (SELECT id FROM task)
    ORDER BY trajectories.id
    FOR UPDATE OF trajectories
),
changed AS (
    UPDATE routines.trajectories
    SET status = wanted, fence = fence + 1, ended_at = coalesce(ended_at, now()), lease_expires_at = NULL, updated_at = now()
    FROM asked
    WHERE trajectories.id = asked.id AND asked.status <> wanted
      AND (SELECT bool_and(is_allowed) AND count(*) = cardinality(%(ids)s::bigint[]) FROM asked)
)
SELECT id, status, wanted, is_allowed FROM asked;

-- name: label
-- Replaces the label of this key and author, or adds one if there are fewer than `most`. No row if the run does not exist or its
-- labels would be too many or too large. Writes the labels alone: large parameters stay where they are stored.
WITH labelled AS (
    SELECT trajectories.id,
           (SELECT coalesce(jsonb_agg(label ORDER BY position), '[]')
            FROM jsonb_array_elements(labels) WITH ORDINALITY AS kept (label, position)
            WHERE (label ->> 'key', label ->> 'author') <> (%(key)s::text, %(author)s::text))
           || jsonb_build_object('key', %(key)s::text, 'value', %(value)s::jsonb, 'author', %(author)s::text,
                                 'created', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS new
    FROM routines.trajectories
    WHERE trajectories.id = %(id)s::bigint
      AND task_id = (SELECT tasks.id FROM routines.tasks
                     WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
                       AND tasks.name = %(task)s::text)
    FOR NO KEY UPDATE
)
UPDATE routines.trajectories SET labels = new FROM labelled
WHERE trajectories.id = labelled.id AND jsonb_array_length(new) <= %(most)s::integer
  AND octet_length(new::text) <= %(most_bytes)s::integer
RETURNING trajectories.id;

-- name: find_run_of_key
-- Any run of the collection.
SELECT trajectory_id, workflow_id, status, triggered_by_routine_id FROM routines.trajectory_details
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND trajectory_id = %(id)s::bigint;

-- name: list_events
-- Oldest first, after the event in the cursor.
SELECT at, rank, position, attempt, event, step, fence, left(detail, %(detail_length)s::integer) AS detail FROM routines.run_events
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND trajectory_id = %(id)s::bigint
  AND (%(after_at)s::timestamptz IS NULL
       OR (at, rank, position, attempt) > (%(after_at)s::timestamptz, %(after_rank)s::bigint,
                                           %(after_position)s::bigint, %(after_attempt)s::bigint))
ORDER BY at, rank, position, attempt
LIMIT %(limit)s::integer;

-- name: list_runs
-- A routine's runs, newest first, older than the cursor. Slots only grow, so the newest scheduled runs are the last of their
-- index. Each branch reads no more than it returns.
SELECT runs.id AS trajectory_id, routines.workflow_id(collections.name, tasks.name, runs.id) AS workflow_id, runs.status,
       runs.created_at, runs.scheduled_for, runs.trigger, runs.started_at, runs.ended_at, left(runs.error, %(detail_length)s::integer) AS error,
       runs.retry_of, runs.retry_number, runs.retried_by, runs.rerun_of, runs.backfill_id, runs.fills_slot
FROM routines.tasks
JOIN routines.collections ON collections.id = tasks.collection_id
JOIN routines.routine_names ON routine_names.task_id = tasks.id
CROSS JOIN LATERAL (
    (SELECT id, status, created_at, scheduled_for, trigger, started_at, ended_at, error, retry_of, retry_number, retried_by, rerun_of, backfill_id, fills_slot
     FROM routines.trajectories
     WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NOT NULL
       AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
     ORDER BY scheduled_for DESC LIMIT %(limit)s::integer)
    UNION ALL
    (SELECT unscheduled.* FROM unnest(ARRAY['run-now', 'retry', 'rerun', 'backfill']) AS wanted (trigger)
     CROSS JOIN LATERAL (
         SELECT id, status, created_at, scheduled_for, trigger, started_at, ended_at, error, retry_of, retry_number, retried_by, rerun_of, backfill_id, fills_slot
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NULL AND trigger = wanted.trigger
           AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
         ORDER BY id DESC LIMIT %(limit)s::integer) AS unscheduled)
) AS runs
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text
ORDER BY runs.id DESC
LIMIT %(limit)s::integer;
