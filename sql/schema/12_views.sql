-- The views for a person at psql, and those that the API reads. docs/use/psql.md shows how to use them.

----------------------------------------------------------------------------------------------------- as the API shows it
CREATE VIEW routines.routine_details WITH (security_invoker = true) AS
    SELECT routines.id, routine_names.collection_id, routine_names.task_id, routine_names.name, tasks.name AS task_name,
           collections.name AS collection_name, routines.cadence_to_json(routines.cadence_of(routines)) AS cadence,
           init_params_overrides,
           CASE WHEN secret_refs = '{}' THEN '{}' ELSE ARRAY(SELECT jsonb_object_keys(secret_refs) ORDER BY 1) END AS secret_names,
           webhook_url,
           webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, paused_reason, last_run_at, next_run_at, overlap_policy,
           catchup_window_seconds, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
           init_params_from_slot, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left, max_concurrent,
           CASE WHEN init_params_from_slot IS NULL THEN '{}'
                ELSE ARRAY(SELECT key FROM jsonb_object_keys(init_params_from_slot) AS key
                           WHERE NOT task_versions.init_params ? key ORDER BY key) END AS undeclared_slot_keys,
           CASE WHEN init_params_overrides = '{}' THEN '{}'
                ELSE ARRAY(SELECT key FROM jsonb_object_keys(init_params_overrides) AS key
                           WHERE NOT task_versions.init_params ? key ORDER BY key) END AS undeclared_keys
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.collections ON collections.id = routine_names.collection_id;
COMMENT ON VIEW routines.routine_details IS
    'Routines as the API shows them. SELECT * FROM routines.routine_details WHERE collection_name = ''demo'';';
COMMENT ON COLUMN routines.routine_details.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routine_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.routine_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.routine_details.name IS 'Unique in its task.';
COMMENT ON COLUMN routines.routine_details.task_name IS 'The {task} of its path.';
COMMENT ON COLUMN routines.routine_details.collection_name IS 'The {collection} of its path.';
COMMENT ON COLUMN routines.routine_details.cadence IS 'A JSON object with the fields of the type routines.cadence that it has.';
COMMENT ON COLUMN routines.routine_details.init_params_overrides IS 'Merged over the task''s init_params when it fires.';
COMMENT ON COLUMN routines.routine_details.secret_names IS 'The names of its secret params.';
COMMENT ON COLUMN routines.routine_details.webhook_url IS 'Receives a webhook when a run has ended; null for none.';
COMMENT ON COLUMN routines.routine_details.has_webhook_secret IS 'True if its webhooks are signed.';
COMMENT ON COLUMN routines.routine_details.paused IS 'True if the schedule is stopped.';
COMMENT ON COLUMN routines.routine_details.paused_reason IS 'Why the scheduler paused it; null if a person did.';
COMMENT ON COLUMN routines.routine_details.paused_until IS 'When the pause ends by itself; null if it does not.';
COMMENT ON COLUMN routines.routine_details.paused_note IS 'What a person noted about the pause; null for nothing.';
COMMENT ON COLUMN routines.routine_details.last_run_at IS 'When it last started a run; null if never.';
COMMENT ON COLUMN routines.routine_details.next_run_at IS 'When it fires next, its spread included; null while paused, for manual, and once no slot is left.';
COMMENT ON COLUMN routines.routine_details.overlap_policy IS 'What becomes of a slot that comes while a run is active: skip, queue_one, cancel_other or allow.';
COMMENT ON COLUMN routines.routine_details.max_concurrent IS 'For allow: how many runs may be active at once; null otherwise.';
COMMENT ON COLUMN routines.routine_details.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.routine_details.ends_at IS 'No slot is later; null for no bound.';
COMMENT ON COLUMN routines.routine_details.spread_seconds IS 'Each slot fires up to this many seconds after its time; null for no spread.';
COMMENT ON COLUMN routines.routine_details.calendar IS 'Days on which it does not fire: {exclude, on_excluded}; null for none.';
COMMENT ON COLUMN routines.routine_details.active_hours IS 'Outside of these it does not fire: {timezone, windows, outside}; null for none.';
COMMENT ON COLUMN routines.routine_details.init_params_from_slot IS 'Parameters that each run takes from its slot; null for none.';
COMMENT ON COLUMN routines.routine_details.timeout_seconds IS 'How long its runs may take; null for as long as the worker allows.';
COMMENT ON COLUMN routines.routine_details.retry IS 'How a scheduled run that failed is retried; null for not at all.';
COMMENT ON COLUMN routines.routine_details.pause_after_failures IS 'After how many failed slots in a row it stops; null for never.';
COMMENT ON COLUMN routines.routine_details.after_failures IS 'How it stops then: pause or backoff; null for pause.';
COMMENT ON COLUMN routines.routine_details.backoff_left IS 'How many slots it will still skip after failures; null for none.';
COMMENT ON COLUMN routines.routine_details.undeclared_slot_keys IS 'Those of them that the task''s current version does not declare.';
COMMENT ON COLUMN routines.routine_details.undeclared_keys IS 'Override keys that the task''s current version does not declare.';
COMMENT ON COLUMN routines.routine_details.catchup_window_seconds IS
    'The age up to which a missed slot still fires after an outage; 0 to never catch up; null for the default of its cadence.';

-- What reading a stored value costs, in bytes, without reading it. A compressed value may become a hundred times as large; a
-- step's inputs and outputs are at most 1 MiB each.
CREATE FUNCTION routines.cost_of_reading(stored jsonb) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN pg_column_compression(stored) IS NULL THEN coalesce(pg_column_size(stored), 0)
            ELSE least(100 * pg_column_size(stored), 1048576) END;
COMMENT ON FUNCTION routines.cost_of_reading IS
    'An upper estimate of the bytes that a stored value expands to. Reads no value that is stored out of line.';

-- Appended as text, because json_build_object would show both fields of every step.
CREATE FUNCTION routines.with_tries(step json, tries integer, answer jsonb, kept_from bigint) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN tries = 1 AND answer IS NULL AND kept_from IS NULL THEN step
            ELSE (left(step::text, -1) || CASE WHEN tries > 1 THEN ', "tries" : ' || tries ELSE '' END
                  || coalesce(', "answer" : ' || answer::text, '') || coalesce(', "kept_from" : ' || kept_from, '') || '}')::json END;
COMMENT ON FUNCTION routines.with_tries IS
    'A step as the API shows it, with the number of tries if there was more than one, the response that made it fail, and the run that it is kept from.';

-- Bounded work whatever the run: values are left out by their stored size before they are read, and by their length as text
-- before they are shown. The smallest steps are shown first.
CREATE FUNCTION routines.steps_shown(
    of_run bigint, kept_steps jsonb, value_bytes integer, total_bytes integer, work_bytes bigint, most_steps integer)
RETURNS TABLE (steps json, is_truncated boolean) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT coalesce(json_object_agg(name, routines.with_tries(CASE WHEN is_whole THEN json_build_object(
                       'status', status, 'activity', activity, 'inputs', inputs::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error)
                   ELSE json_build_object(
                       'status', status, 'activity', activity, 'inputs', coalesce(inputs, '{}')::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error,
                       'truncated', true) END, attempt, answer, kept_from) ORDER BY position), '{}'),
           coalesce(bool_or(NOT is_whole) OR max(known) > most_steps, false)
    FROM (
        SELECT name, position, status, activity, created, ended, seconds, error, attempt, answer, kept_from, known,
               CASE WHEN fits AND octet_length(inputs) <= value_bytes THEN inputs END AS inputs,
               CASE WHEN fits AND octet_length(outputs) <= value_bytes THEN outputs END AS outputs,
               fits AND octet_length(inputs) <= value_bytes AND octet_length(coalesce(outputs, '')) <= value_bytes
                   AND has_outputs = (outputs IS NOT NULL) AS is_whole
        FROM (
            SELECT *, coalesce(sum(octet_length(inputs) + octet_length(coalesce(outputs, '')))
                                   OVER (ORDER BY octet_length(inputs) + octet_length(coalesce(outputs, '')), position)
                               <= total_bytes, false) AS fits
            FROM (
                SELECT name, position, status, activity, left(error, value_bytes) AS error, attempt, answer, known,
                       nullif(trajectory_id, of_run) AS kept_from,
                       outputs IS NOT NULL AS has_outputs,
                       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created,
                       to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS ended,
                       extract(epoch FROM ended_at - created_at)::float8 AS seconds,
                       CASE WHEN is_cheap AND pg_column_size(inputs) <= value_bytes THEN inputs::text END AS inputs,
                       CASE WHEN is_cheap AND pg_column_size(outputs) <= value_bytes THEN outputs::text END AS outputs
                FROM (
                    SELECT *, sum(cost) OVER (ORDER BY cost, position) <= work_bytes AS is_cheap
                    FROM (
                        SELECT step.*, count(*) OVER () AS known,
                               routines.cost_of_reading(inputs) + routines.cost_of_reading(outputs) AS cost
                        FROM routines.steps_of(of_run, kept_steps) AS step
                        ORDER BY position LIMIT most_steps
                    ) AS listed
                ) AS weighed
            ) AS read
        ) AS measured
    ) AS shown;
$$;
COMMENT ON FUNCTION routines.steps_shown IS
    'The steps of a run as trajectory_details shows them, within bounds. A value of more than value_bytes, an error beyond as many characters, and values of the largest steps beyond total_bytes, are left out: inputs read {}, outputs null, and the step has "truncated": true. No more than work_bytes are read, and no more than most_steps steps are shown. is_truncated: something was left out.';

CREATE VIEW routines.trajectory_details WITH (security_invoker = true) AS
    SELECT trajectories.id AS trajectory_id, trajectories.collection_id, trajectories.task_id,
           coalesce(tasks.name, deleted_tasks.name, 'deleted')::routines.slug AS task_name,
           routines.workflow_id(collections.name, coalesce(tasks.name, deleted_tasks.name, 'deleted'), trajectories.id) AS workflow_id,
           routines.run_id(trajectories.id, trajectories.created_at, nonce)::text AS run_id,
           collections.name || '/' || coalesce(tasks.name, deleted_tasks.name, 'deleted') AS name, status,
           trajectories.created_at AS created, trajectories.updated_at AS updated, trajectories.created_at, started_at,
           ended_at, trajectories.init_params, coalesce(task_versions.workflow -> 'step_configs', '{}') AS step_configs,
           (SELECT coalesce(json_object_agg(steps.name, routines.with_tries(json_build_object(
                       'status', steps.status, 'activity', activity, 'inputs', inputs, 'outputs', outputs,
                       'created', to_char(steps.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'ended', to_char(steps.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'duration_seconds', extract(epoch FROM steps.ended_at - steps.created_at)::float8,
                       'error', steps.error), steps.attempt, steps.answer, nullif(steps.trajectory_id, trajectories.id))
                       ORDER BY position), '{}')
            FROM routines.steps_of(trajectories.id, kept_steps) AS steps) AS steps,
           coalesce(json_array_length(task_versions.workflow -> 'steps'), 0) AS total_steps,
           (SELECT count(*) FROM routines.steps
            WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed')::integer
           + (SELECT count(*) FROM jsonb_object_keys(kept_steps))::integer AS completed_steps,
           labels, error, triggered_by_routine_id, scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by, rerun_of,
           backfill_id, fills_slot, kept_steps,
           CASE WHEN kept_steps IS NULL THEN '{}' ELSE ARRAY(
               SELECT kept.key FROM jsonb_each_text(kept_steps) AS kept
               WHERE NOT EXISTS (SELECT FROM routines.trajectories AS origin WHERE origin.id = kept.value::bigint)
               ORDER BY kept.key) END AS lost_steps,
           parent_id AS parent_trajectory_id,
           (SELECT routines.run_name(parents) FROM routines.trajectories AS parents
            WHERE parents.id = trajectories.parent_id) AS parent_name,
           (SELECT coalesce(json_agg(json_build_object('trajectory_id', children.id, 'name', routines.run_name(children),
                                                       'status', children.status) ORDER BY children.id), '[]')
            FROM (SELECT * FROM routines.trajectories AS started WHERE started.parent_id = trajectories.id
                  ORDER BY id LIMIT 1000) AS children) AS children,
           CASE engine WHEN 'temporal' THEN first_workflow_id || '/' || routines.run_id(trajectories.id, trajectories.created_at, nonce)
           END AS temporal_id
    FROM routines.trajectories
    JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
                                AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id
    LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = trajectories.task_id;
COMMENT ON VIEW routines.trajectory_details IS
    'Runs as the API shows them, with their steps. SELECT * FROM routines.trajectory_details WHERE trajectory_id = 1;';
COMMENT ON COLUMN routines.trajectory_details.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.trajectory_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectory_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.trajectory_details.task_name IS 'The {task} of its path; for a deleted task, its last name.';
COMMENT ON COLUMN routines.trajectory_details.workflow_id IS 'What clients poll with.';
COMMENT ON COLUMN routines.trajectory_details.run_id IS 'The run, as a UUID that no other run has.';
COMMENT ON COLUMN routines.trajectory_details.name IS 'collection/task.';
COMMENT ON COLUMN routines.trajectory_details.status IS 'pending, running, or one of the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectory_details.created IS 'The same as created_at.';
COMMENT ON COLUMN routines.trajectory_details.updated IS 'Its last change of status or checkpoint.';
COMMENT ON COLUMN routines.trajectory_details.created_at IS 'When it was fired.';
COMMENT ON COLUMN routines.trajectory_details.started_at IS 'When a worker first claimed it; null if none has.';
COMMENT ON COLUMN routines.trajectory_details.ended_at IS 'When it reached a final status; null while it is active.';
COMMENT ON COLUMN routines.trajectory_details.init_params IS 'The parameters of this run.';
COMMENT ON COLUMN routines.trajectory_details.step_configs IS 'The step_configs of the task version that this run uses.';
COMMENT ON COLUMN routines.trajectory_details.steps IS 'By step name: {status, activity, inputs, outputs, created, ended, duration_seconds, error}, with tries if there was more than one, answer, the HTTP response that made it fail, and kept_from, the run that it is kept from.';
COMMENT ON COLUMN routines.trajectory_details.total_steps IS 'The number of steps in the workflow.';
COMMENT ON COLUMN routines.trajectory_details.completed_steps IS 'The number of steps that have completed, with those that a rerun keeps.';
COMMENT ON COLUMN routines.trajectory_details.labels IS 'Array of {key, value, author}.';
COMMENT ON COLUMN routines.trajectory_details.error IS 'Why it failed; null if it did not.';
COMMENT ON COLUMN routines.trajectory_details.triggered_by_routine_id IS 'The routine that started it; null if the API started it.';
COMMENT ON COLUMN routines.trajectory_details.scheduled_for IS 'Its slot; null if it was not started on schedule.';
COMMENT ON COLUMN routines.trajectory_details.trigger IS 'schedule, run-now, api, retry, rerun or backfill.';
COMMENT ON COLUMN routines.trajectory_details.webhook_url IS 'Receives a webhook when it has ended; null for none.';
COMMENT ON COLUMN routines.trajectory_details.retry_of IS 'Of a later attempt at a run of a routine, a retry or a rerun: the first one; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retry_number IS 'Of a retry: which one it is, from 1; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retried_by IS 'Of a run of a routine: its retry or, after the last retry, its newest rerun; null for none.';
COMMENT ON COLUMN routines.trajectory_details.rerun_of IS 'Of a rerun: the run that it repeats; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.backfill_id IS 'The backfill that started it; null for none.';
COMMENT ON COLUMN routines.trajectory_details.fills_slot IS 'The slot that it fills, if a backfill started it; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.kept_steps IS 'Of a rerun from a step: the steps before it, each with the run that executed it; null if it keeps none.';
COMMENT ON COLUMN routines.trajectory_details.lost_steps IS 'Those of kept_steps whose run has been deleted since.';
COMMENT ON COLUMN routines.trajectory_details.parent_trajectory_id IS 'The run whose step started it; null for none.';
COMMENT ON COLUMN routines.trajectory_details.parent_name IS 'collection/task of that run.';
COMMENT ON COLUMN routines.trajectory_details.temporal_id IS 'Its id in Temporal; null if it was not executed there.';
COMMENT ON COLUMN routines.trajectory_details.children IS 'The first 1,000 runs that its steps started, oldest first: [{trajectory_id, name, status}].';

-- A step ends in the statement that starts the next one, at the same moment, so its end is ranked first.
CREATE VIEW routines.run_events WITH (security_invoker = true) AS
    SELECT id AS trajectory_id, collection_id, created_at AS at, -2 AS rank, 0::bigint AS position, 0 AS attempt,
           'run_created' AS event, NULL::text AS step, NULL::integer AS fence, trigger AS detail
    FROM routines.trajectories
    UNION ALL
    SELECT id, collection_id, started_at, -1, 0, 0, 'run_started', NULL, NULL, NULL
    FROM routines.trajectories WHERE started_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, (claimed.value ->> 'at')::timestamptz, -1, 0, 0, 'run_resumed', NULL,
           (claimed.value ->> 'fence')::integer, 'workers lost so far: ' || (claimed.value ->> 'crashes')
    FROM routines.trajectories CROSS JOIN LATERAL jsonb_array_elements(later_claims) AS claimed
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'at')::timestamptz, 3 * steps.position, steps.position,
           tried.number::integer, 'step_try_failed', name, NULL, tried.value ->> 'error'
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'started_at')::timestamptz, 3 * steps.position + 1, steps.position,
           tried.number::integer, 'step_started', name, NULL, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    WHERE tried.value ? 'started_at'
    UNION ALL
    SELECT trajectories.id, collection_id, steps.created_at, 3 * steps.position + 1, steps.position, steps.attempt,
           'step_started', name, steps.fence, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    UNION ALL
    SELECT trajectories.id, collection_id, steps.ended_at, 3 * steps.position + 2, steps.position, steps.attempt,
           'step_' || steps.status, name, steps.fence, steps.error
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id WHERE steps.ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, ended_at, 2000000000, 0, 0,
           'run_' || CASE status WHEN 'archived' THEN 'ended' ELSE status END, NULL, fence, error
    FROM routines.trajectories WHERE ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, updated_at, 2000000001, 0, 0, 'run_archived', NULL, NULL, NULL
    FROM routines.trajectories WHERE status = 'archived'
    UNION ALL
    SELECT trajectory_id, collection_id, (tried.value ->> 'at')::timestamptz, 2000000002, id, tried.number::integer,
           'webhook_attempted', NULL, NULL, concat_ws(': ', tried.value ->> 'status', tried.value ->> 'error')
    FROM routines.webhook_deliveries
    CROSS JOIN LATERAL jsonb_array_elements(attempts) WITH ORDINALITY AS tried (value, number)
    WHERE trajectory_id IS NOT NULL;
COMMENT ON VIEW routines.run_events IS
    'The history of a run. SELECT * FROM routines.run_events WHERE trajectory_id = 1 ORDER BY at, rank, position, attempt;';
COMMENT ON COLUMN routines.run_events.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.run_events.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.run_events.at IS 'When it happened. A step that another worker took over started when that one did.';
COMMENT ON COLUMN routines.run_events.rank IS
    'Orders events of the same moment: the start of the run, its steps in order, its end.';
COMMENT ON COLUMN routines.run_events.position IS 'The step''s place in the workflow, or the id of the webhook delivery.';
COMMENT ON COLUMN routines.run_events.attempt IS 'The attempt of the step or of the delivery; 0 for events of the run.';
COMMENT ON COLUMN routines.run_events.event IS
    'run_created, run_started (its first claim), run_resumed (a later claim, after its worker was lost or released it), step_started, step_try_failed, step_completed, step_failed, step_cancelled, run_completed, run_failed, run_cancelled, run_ended (of a run archived since), run_archived, webhook_attempted.';
COMMENT ON COLUMN routines.run_events.step IS 'The step; null for events of the run.';
COMMENT ON COLUMN routines.run_events.fence IS 'The fence under which it was written; null where it was not recorded.';
COMMENT ON COLUMN routines.run_events.detail IS
    'The trigger of the run, the activity of the step, or the error; for a webhook, the HTTP status and the error.';

----------------------------------------------------------------------------------------------------------- at a glance
-- `needs_attention` is the rule by which the console sorts its overview (static/health.js). A test compares the two.
CREATE VIEW routines.routine_status WITH (security_invoker = true) AS
    SELECT collections.name || '/' || tasks.name || '/' || routine_names.name AS routine,
           routines.cadence_in_words(routines.cadence_of(routines)) AS cadence,
           CASE WHEN paused_until <= now() THEN 'due'
                WHEN paused AND paused_reason IS NOT NULL THEN 'paused by the scheduler'
                WHEN paused THEN 'paused'
                WHEN cadence_type = 'manual' THEN 'manual'
                WHEN next_run_at IS NULL THEN 'ended'
                WHEN next_run_at <= now() THEN 'due'
                ELSE 'scheduled' END AS state,
           next_run_at, last.scheduled_for AS last_slot, last.outcome AS last_outcome, last_run_at,
           coalesce(CASE WHEN paused_until IS NULL AND paused_note IS NULL THEN paused_reason
                         ELSE routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note) END, last.detail) AS detail,
           coalesce(paused_reason IS NOT NULL OR least(next_run_at, paused_until) < now() - interval '60 s'
                    OR NOT paused AND found.troubles IS NOT NULL, false) AS needs_attention,
           CASE WHEN NOT paused THEN found.troubles END AS trouble, routines.id AS routine_id, routine_names.collection_id
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.collections ON collections.id = routine_names.collection_id
    LEFT JOIN LATERAL (
        (SELECT scheduled_for, routines.status_of_slot(id, status, retried_by) AS outcome,
                CASE WHEN retried_by IS NULL THEN error
                     ELSE (SELECT attempt.error FROM routines.trajectories AS attempt
                           WHERE attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by)) END AS detail,
                scheduled_for AS at
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1)
        UNION ALL
        (SELECT NULL, routines.status_of_slot(id, status, retried_by),
                CASE WHEN retried_by IS NULL THEN error
                     ELSE (SELECT attempt.error FROM routines.trajectories AS attempt
                           WHERE attempt.id = routines.last_attempt(trajectories.id, trajectories.retried_by)) END, created_at
         FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NULL AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1)
        UNION ALL
        (SELECT last_scheduled_for, reason, coalesce(detail, 'run ' || blocking_trajectory_id || ' was active'), scheduled_for
         FROM routines.skips
         WHERE skips.routine_id = routine_names.routine_id
         ORDER BY scheduled_for DESC LIMIT 1)
        ORDER BY at DESC LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT string_agg(kind || coalesce(': ' || split_part(detail, E'\n', 1), ''), '; ') AS troubles
        FROM routines.troubles_of(routine_names.routine_id)) AS found;
COMMENT ON VIEW routines.routine_status IS
    'The state of each routine. To list problems: SELECT * FROM routines.routine_status WHERE needs_attention;';
COMMENT ON COLUMN routines.routine_status.routine IS 'collection/task/name, as the functions why() and next() take it.';
COMMENT ON COLUMN routines.routine_status.cadence IS 'When its slots fall; in UTC unless it names a time zone.';
COMMENT ON COLUMN routines.routine_status.state IS 'scheduled; due (a slot, or the end of a pause, waits for a ticker); paused; paused by the scheduler (after three strikes, or after failures); manual; ended (no slot is left).';
COMMENT ON COLUMN routines.routine_status.next_run_at IS 'When it fires next, its spread included; null while paused, for manual, and once no slot is left.';
COMMENT ON COLUMN routines.routine_status.last_slot IS 'The newest slot that has its outcome; null if there is none yet, or if a run-now is newer.';
COMMENT ON COLUMN routines.routine_status.last_outcome IS
    'The status of the last attempt at that slot, or the reason why the slot was skipped; the status of the newest run-now if that is newer.';
COMMENT ON COLUMN routines.routine_status.last_run_at IS 'When it last started a run, on schedule or by run-now.';
COMMENT ON COLUMN routines.routine_status.detail IS 'Why it is paused, why the last run failed, or why the last slot was skipped.';
COMMENT ON COLUMN routines.routine_status.needs_attention IS
    'True if the scheduler paused it, if a slot or the end of its pause has waited for a ticker for over a minute, or if it is not paused and troubles_of() finds something.';
COMMENT ON COLUMN routines.routine_status.trouble IS
    'What troubles_of() finds wrong with it: failed, failed_to_start or missed; backoff; slow; webhook; null for nothing, and while it is paused.';
COMMENT ON COLUMN routines.routine_status.routine_id IS 'Its id, for use with routines and occurrences.';
COMMENT ON COLUMN routines.routine_status.collection_id IS 'The tenant.';

CREATE VIEW routines.help WITH (security_invoker = true) AS
    SELECT shown AS ask,
           CASE WHEN shown LIKE '%(%' THEN obj_description(to_regprocedure(shown), 'pg_proc')
                ELSE obj_description(to_regclass(shown), 'pg_class') END AS description
    FROM unnest(ARRAY[
        'routines.routine_status', 'routines.occurrences', 'routines.why(text, timestamptz)', 'routines.next(text, integer)',
        'routines.report(text, timestamptz, timestamptz, integer)', 'routines.gaps(text, timestamptz, timestamptz, boolean, integer)',
        'routines.slots_to_fill(bigint, timestamptz, timestamptz, text, text, timestamptz, integer, integer, timestamptz)',
        'routines.backfills', 'routines.changes', 'routines.spec_at(bigint, integer)', 'routines.revision_of_run(bigint)',
        'routines.alert_details', 'routines.routine_details', 'routines.trajectory_details', 'routines.run_events',
        'routines.next_fire(routines.cadence, timestamptz)',
        'routines.next_slots(routines.cadence, timestamptz, integer)',
        'routines.preview(routines.cadence, timestamptz, timestamptz, integer, timestamptz, integer)',
        'routines.preview_warnings(routines.cadence, timestamptz, timestamptz, integer, timestamptz, bigint)',
        'routines.collections', 'routines.tasks', 'routines.routines', 'routines.trajectories', 'routines.steps', 'routines.skips',
        'routines.alert_rules', 'routines.webhook_deliveries', 'routines.webhook_endpoints', 'routines.api_keys']) WITH ORDINALITY AS listed (shown, position)
    ORDER BY position;
COMMENT ON VIEW routines.help IS 'Where to start at psql: TABLE routines.help; then \d+ on what it names.';
COMMENT ON COLUMN routines.help.ask IS 'A view, a function or a table.';
COMMENT ON COLUMN routines.help.description IS 'Its comment, often with a statement to try.';
