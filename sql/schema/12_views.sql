-- The views and functions for a person at psql. docs/use/psql.md shows how to use them. The API reads the detail views and gives
-- the same sentences, from here.

----------------------------------------------------------------------------------------------------- as the API shows it
CREATE VIEW routines.routine_details WITH (security_invoker = true) AS
    SELECT routines.id, routine_names.collection_id, routine_names.task_id, routine_names.name, tasks.name AS task_name,
           collections.name AS collection_name, routines.cadence_to_json(routines.cadence_of(routines)) AS cadence,
           init_params_overrides, ARRAY(SELECT jsonb_object_keys(secret_refs) ORDER BY 1) AS secret_names, webhook_url,
           webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, paused_reason, last_run_at, next_run_at, overlap_policy,
           catchup_window_seconds, paused_until, paused_note, starts_at, ends_at, spread_seconds, calendar, active_hours,
           init_params_from_slot, timeout_seconds, retry, pause_after_failures, after_failures, backoff_left,
           ARRAY(SELECT key FROM jsonb_object_keys(init_params_from_slot) AS key
                 WHERE NOT task_versions.init_params ? key ORDER BY key) AS undeclared_slot_keys,
           ARRAY(SELECT key FROM jsonb_object_keys(init_params_overrides) AS key
                 WHERE NOT task_versions.init_params ? key ORDER BY key) AS undeclared_keys
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
COMMENT ON COLUMN routines.routine_details.overlap_policy IS 'skip.';
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
CREATE FUNCTION routines.with_tries(step json, tries integer, answer jsonb) RETURNS json LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN tries = 1 AND answer IS NULL THEN step
            ELSE (left(step::text, -1) || CASE WHEN tries > 1 THEN ', "tries" : ' || tries ELSE '' END
                  || coalesce(', "answer" : ' || answer::text, '') || '}')::json END;
COMMENT ON FUNCTION routines.with_tries IS
    'A step as the API shows it, with the number of tries if there was more than one, and the response that made it fail.';

-- Bounded work whatever the run: values are left out by their stored size before they are read, and by their length as text
-- before they are shown. The smallest steps are shown first.
CREATE FUNCTION routines.steps_shown(
    of_run bigint, value_bytes integer, total_bytes integer, work_bytes bigint, most_steps integer)
RETURNS TABLE (steps json, is_truncated boolean) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT coalesce(json_object_agg(name, routines.with_tries(CASE WHEN is_whole THEN json_build_object(
                       'status', status, 'activity', activity, 'inputs', inputs::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error)
                   ELSE json_build_object(
                       'status', status, 'activity', activity, 'inputs', coalesce(inputs, '{}')::json, 'outputs', outputs::json,
                       'created', created, 'ended', ended, 'duration_seconds', seconds, 'error', error,
                       'truncated', true) END, attempt, answer) ORDER BY position), '{}'),
           coalesce(bool_or(NOT is_whole) OR max(known) > most_steps, false)
    FROM (
        SELECT name, position, status, activity, created, ended, seconds, error, attempt, answer, known,
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
                        FROM routines.steps AS step WHERE trajectory_id = of_run
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
                       'error', steps.error), steps.attempt, steps.answer) ORDER BY position), '{}')
            FROM routines.steps WHERE steps.trajectory_id = trajectories.id) AS steps,
           coalesce(json_array_length(task_versions.workflow -> 'steps'), 0) AS total_steps,
           (SELECT count(*) FROM routines.steps
            WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed')::integer AS completed_steps,
           labels, error, triggered_by_routine_id, scheduled_for, trigger, webhook_url, retry_of, retry_number, retried_by,
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
COMMENT ON COLUMN routines.trajectory_details.steps IS 'By step name: {status, activity, inputs, outputs, created, ended, duration_seconds, error}, with tries if there was more than one, and answer, the HTTP response that made it fail.';
COMMENT ON COLUMN routines.trajectory_details.total_steps IS 'The number of steps in the workflow.';
COMMENT ON COLUMN routines.trajectory_details.completed_steps IS 'The number of steps that have completed.';
COMMENT ON COLUMN routines.trajectory_details.labels IS 'Array of {key, value, author}.';
COMMENT ON COLUMN routines.trajectory_details.error IS 'Why it failed; null if it did not.';
COMMENT ON COLUMN routines.trajectory_details.triggered_by_routine_id IS 'The routine that started it; null if the API started it.';
COMMENT ON COLUMN routines.trajectory_details.scheduled_for IS 'Its slot; null if it was not started on schedule.';
COMMENT ON COLUMN routines.trajectory_details.trigger IS 'schedule, run-now, api or retry.';
COMMENT ON COLUMN routines.trajectory_details.webhook_url IS 'Receives a webhook when it has ended; null for none.';
COMMENT ON COLUMN routines.trajectory_details.retry_of IS 'Of a retry: the scheduled run that failed first; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retry_number IS 'Of a retry: which one it is, from 1; null otherwise.';
COMMENT ON COLUMN routines.trajectory_details.retried_by IS 'The run that retried it, or will; null for none.';
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
    CROSS JOIN LATERAL jsonb_array_elements(attempts) WITH ORDINALITY AS tried (value, number);
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

------------------------------------------------------------------------------------------------------------------ why
CREATE FUNCTION routines.first_line(told text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(split_part(told, E'\n', 1)) > 200 THEN left(split_part(told, E'\n', 1), 200) || '…'
            ELSE rtrim(split_part(told, E'\n', 1), '. ') END;
COMMENT ON FUNCTION routines.first_line IS 'The first line of an error, at most 200 characters, as sentences quote it.';

CREATE FUNCTION routines.duration_in_words(seconds float8) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN seconds < 120 THEN round(seconds::numeric) || ' seconds'
    WHEN seconds < 7200 THEN round(seconds::numeric / 60) || ' minutes'
    ELSE round(seconds::numeric / 3600, 1) || ' hours' END;
COMMENT ON FUNCTION routines.duration_in_words IS 'A duration as sentences show it: 90 seconds, 45 minutes or 2.5 hours.';

-- The step that a run has reached, or where it ended. It is found by the key of the steps; a workflow has few.
CREATE FUNCTION routines.step_of_end(run routines.trajectories) RETURNS routines.steps LANGUAGE sql STABLE AS $$
    SELECT steps FROM routines.steps
    WHERE trajectory_id = run.id AND status IN ('running', 'failed', 'cancelled') AND run.status <> 'completed'
    ORDER BY position DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.step_of_end IS
    'The step of a run that is running, or that failed or was cancelled; null for none and for a completed run.';

CREATE FUNCTION routines.run_in_words(run routines.trajectories, step routines.steps) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN format('run %s at %s', run.id, routines.utc(run.created_at)) || CASE run.status
    WHEN 'pending' THEN ', still waiting for a worker' || CASE WHEN run.started_at IS NOT NULL THEN ' to go on' ELSE '' END
    WHEN 'running' THEN coalesce(', running since ' || routines.utc(run.started_at),
                                 CASE WHEN run.retry_of IS NOT NULL THEN ', to begin at ' || routines.utc(run.lease_expires_at) END, ', running')
        || coalesce(', at try ' || step.attempt || ' of step ' || quote_literal(step.name), '')
    WHEN 'completed' THEN ', completed at ' || routines.utc(run.ended_at)
    WHEN 'failed' THEN ', failed at ' || routines.utc(run.ended_at)
        || coalesce(': step ' || quote_literal(step.name) || ' failed after ' || step.attempt
                    || CASE step.attempt WHEN 1 THEN ' try' ELSE ' tries' END, '')
        || coalesce(': ' || routines.first_line(coalesce(step.error, run.error)), '')
    WHEN 'cancelled' THEN ', cancelled at ' || routines.utc(run.ended_at) || coalesce(' during step ' || quote_literal(step.name), '')
        || coalesce(': ' || routines.first_line(regexp_replace(run.error, '^cancelled: ', '')), '')
    ELSE format(', ended at %s, now %s', routines.utc(run.ended_at), run.status)
        || coalesce(': ' || routines.first_line(run.error), '') END;
COMMENT ON FUNCTION routines.run_in_words IS
    'What became of a run: when it started and ended; the step at which it stands or ended, how often that was tried, and the cause.';

-- What held up a slot that was due at one time and decided at another. A ticker records outages only (Ticker.note_outage): if it
-- recorded none, tickers ran.
CREATE FUNCTION routines.longest_outage(due_at timestamptz, decided_at timestamptz) RETURNS routines.ticker_outages
LANGUAGE sql STABLE AS $$
    SELECT ticker_outages FROM routines.ticker_outages
    WHERE began_at < longest_outage.decided_at AND ended_at > longest_outage.due_at
    ORDER BY least(ended_at, longest_outage.decided_at) - greatest(began_at, longest_outage.due_at) DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.longest_outage IS 'The outage of all tickers that took most of this time; null for none.';

-- Not from began_at where that is earlier, because it may be the slot of another tenant.
CREATE FUNCTION routines.outage_in_words(outage routines.ticker_outages, due_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'no ticker ran from ' || routines.utc(greatest((outage).began_at, due_at)) || ' to ' || routines.utc((outage).ended_at);
COMMENT ON FUNCTION routines.outage_in_words IS 'An outage, from the time at which a slot was due; null for none.';

-- Since the routine's creation, every slot is in one of these groups: it is in the ledger, it is due, it falls in the current
-- pause, it lies in the future, or a person has set next_run_at past it. Any other time was not a slot, unless it is older than
-- what retention keeps. Rows of skips do not overlap, so only the latest that began by the time can contain it.
CREATE FUNCTION routines.explain_time(
    of_routine bigint, at_time timestamptz DEFAULT NULL, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    sentence text, kind text, at timestamptz, now timestamptz, scheduled_for timestamptz, last_scheduled_for timestamptz,
    slot_count bigint, recorded_at timestamptz, trajectory_id bigint, trajectory_status text, blocking_trajectory_id bigint,
    blocking_started_at timestamptz, blocking_ended_at timestamptz, detail text, routine_created_at timestamptz,
    paused_at timestamptz, paused_reason text, paused_until timestamptz, paused_note text, cadence_type text,
    is_slot_of_cadence boolean, next_slot timestamptz, due_at timestamptz, step text, tries integer, error text,
    delay_seconds float8, delay_reason text, missed_before bigint, last_trajectory_id bigint
) LANGUAGE sql STABLE ROWS 1 AS $$
    WITH asked AS MATERIALIZED (
        SELECT coalesce(at_time, (
            SELECT routines.latest_slot(routines.cadence_of(routines), routines.without_spread(routines, clock)) FROM routines.routines
            WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine), clock) AS at, clock AS now
    ),
    run AS (
        SELECT trajectories.*, ended_step, routines.run_in_words(trajectories, ended_step) AS in_words,
               created_at - coalesce(due_at, scheduled_for) AS delay
        FROM asked JOIN routines.trajectories ON scheduled_for = at
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE (of_collection IS NULL OR collection_id = of_collection)
          AND triggered_by_routine_id = of_routine
    ),
    last AS (
        SELECT trajectories.*, found.ended_step, routines.run_in_words(trajectories, found.ended_step) AS in_words
        FROM run JOIN routines.trajectories ON trajectories.id = routines.last_attempt(run.id, run.retried_by)
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE run.retried_by IS NOT NULL AND (of_collection IS NULL OR trajectories.collection_id = of_collection)
    ),
    begun AS (
        SELECT skips.*
        FROM asked JOIN routines.skips ON scheduled_for <= at
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND routine_id = of_routine
        ORDER BY scheduled_for DESC LIMIT 1
    ),
    skip AS (
        SELECT begun.* FROM asked, begun
        WHERE last_scheduled_for >= at
          AND coalesce(routines.is_slot_of_span(cadence, scheduled_for, last_scheduled_for, at), false)
    ),
    -- What held up a run that is more than a minute late, or a slot that was missed for no other reason.
    outage AS (
        SELECT routines.outage_in_words(longest, held.due_at) AS in_words, longest.ended_at
        FROM (SELECT coalesce(due_at, scheduled_for) AS due_at, created_at AS decided_at FROM run WHERE delay > interval '60 s'
              UNION ALL
              SELECT at + coalesce(skip.due_at - skip.last_scheduled_for, '0'), recorded_at FROM asked, skip
              WHERE reason = 'missed' AND detail IS NULL) AS held,
             LATERAL routines.longest_outage(held.due_at, held.decided_at) AS longest
        WHERE longest.id IS NOT NULL
    ),
    -- The first later slot that has its outcome, which may follow another cadence than today's.
    settled AS (
        SELECT min(slot) AS slot
        FROM asked, LATERAL (
            SELECT routines.next_slot_of_span(cadence, scheduled_for, last_scheduled_for, at) AS slot FROM begun
            UNION ALL
            SELECT min(scheduled_for) FROM routines.skips
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND routine_id = of_routine AND scheduled_for > at
            UNION ALL
            SELECT min(scheduled_for) FROM routines.trajectories
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND triggered_by_routine_id = of_routine AND scheduled_for > at) AS later
    ),
    routine AS (
        SELECT routines.*, own_now, coming, routines.without_spread(routines, paused_until) AS pause_end,
               coalesce(coming = at OR moved_to = at OR at = routines.latest_slot(routines.cadence_of(routines), at), false) AS is_slot,
               CASE WHEN at > own_now THEN routines.exclusion_of(routines, at) END AS exclusion,
               at > coalesce(settled_until, created_at) AND at < coming AS is_passed_over,
               CASE WHEN paused AND unsettled > own_now
                        THEN CASE WHEN paused_until IS NOT NULL THEN greatest(unsettled, routines.slot_after_pause(routines)) END
                    WHEN at >= own_now AND at < coming THEN coming
                    ELSE unsettled END AS next_slot
        -- On the clock of the routine, which its spread may set back.
        FROM asked, routines.routines, LATERAL (SELECT routines.without_spread(routines, now) AS own_now,
                                                       routines.without_spread(routines, next_run_at) AS coming) AS own,
             LATERAL (SELECT routines.next_fire(
            routines.cadence_of(routines), greatest(at, created_at, settled_until)) AS unsettled) AS next_fire
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine
    ),
    facts AS (
        SELECT CASE WHEN run.id IS NOT NULL THEN 'started'
                    WHEN skip.id IS NOT NULL THEN skip.reason
                    WHEN routine.id IS NULL THEN 'deleted'
                    WHEN at < routine.created_at AND at < coalesce(coming, routine.created_at) THEN 'before_creation'
                    WHEN at <= settled_until AND at <= (SELECT max(deleted_until) FROM routines.retention) THEN 'forgotten'
                    WHEN NOT is_slot THEN 'not_a_slot'
                    WHEN paused AND at > own_now AND (at >= pause_end) IS NOT TRUE THEN 'paused_in_future'
                    WHEN exclusion IS NOT NULL AND (paused OR coming <= at) THEN 'excluded_in_future'
                    WHEN paused AND at > own_now THEN 'future'
                    WHEN paused AND at > coalesce(settled_until, paused_at)
                        THEN CASE WHEN at >= pause_end THEN 'pending' ELSE 'paused' END
                    WHEN coming <= at THEN CASE WHEN at > own_now THEN 'future' ELSE 'pending' END
                    WHEN is_passed_over THEN 'passed_over'
                    ELSE 'not_a_slot' END AS kind,
               at, now,
               coalesce(run.scheduled_for, skip.scheduled_for) AS scheduled_for,
               coalesce(run.scheduled_for, skip.last_scheduled_for) AS last_scheduled_for,
               coalesce(skip.slot_count, CASE WHEN run.id IS NOT NULL THEN 1 END) AS slot_count,
               coalesce(run.created_at, skip.recorded_at) AS recorded_at,
               run.id AS trajectory_id, coalesce(last.status, run.status) AS trajectory_status,
               skip.blocking_trajectory_id,
               coalesce(blocking.started_at, blocking.created_at) AS blocking_started_at, blocking.ended_at AS blocking_ended_at,
               coalesce(skip.detail, exclusion, CASE WHEN is_slot AND is_passed_over THEN routines.passed_over_detail(next_run_at) END) AS detail,
               routine.created_at AS routine_created_at, routine.paused_at, routine.paused_reason, routine.paused_until,
               routine.paused_note, routine.cadence_type,
               coalesce(is_slot, false) AS is_slot_of_cadence, coalesce(settled.slot, next_slot) AS next_slot,
               CASE WHEN run.id IS NOT NULL THEN run.due_at
                    WHEN skip.id IS NOT NULL THEN at + (skip.due_at - skip.last_scheduled_for)
                    WHEN is_slot THEN at + spread_offset END AS due_at,
               (shown_step).name AS step, (shown_step).attempt AS tries,
               routines.first_line(coalesce((shown_step).error, CASE WHEN last.id IS NULL THEN run.error ELSE last.error END)) AS error,
               extract(epoch FROM run.delay)::float8 AS delay_seconds,
               CASE WHEN outage.in_words IS NOT NULL THEN 'no_ticker' WHEN run.delay > interval '60 s' THEN 'backlog' END AS delay_reason,
               -- Slots that the same tick recorded as missed, because this one is newer.
               CASE WHEN begun.reason = 'missed' AND begun.detail IS NULL AND begun.recorded_at = run.created_at
                    THEN begun.slot_count END AS missed_before, last.id AS last_trajectory_id
        FROM asked CROSS JOIN settled
        LEFT JOIN run ON true
        LEFT JOIN last ON true
        CROSS JOIN LATERAL (SELECT CASE WHEN last.id IS NULL THEN run.ended_step ELSE last.ended_step END AS shown_step) AS step_of_last
        LEFT JOIN skip ON true
        LEFT JOIN routine ON true
        LEFT JOIN outage ON true
        LEFT JOIN begun ON true
        LEFT JOIN routines.trajectories AS blocking ON blocking.id = skip.blocking_trajectory_id
    )
    SELECT CASE kind
           WHEN 'started' THEN 'Started: ' || (SELECT in_words FROM run) || '.'
               || coalesce(' ' || (SELECT CASE WHEN retry_number = 1 THEN 'Retried: ' ELSE format('Retried %s times, last: ', retry_number) END
                                          || in_words || '.' FROM last), '')
               || CASE WHEN delay_reason IS NULL THEN '' ELSE
               format(' It was %s late: %s.', routines.duration_in_words(delay_seconds), coalesce(
                   (SELECT in_words || CASE WHEN recorded_at - ended_at > interval '60 s' THEN ', and then the tickers were behind' ELSE '' END
                    FROM outage), 'the tickers were behind')) END
               || CASE WHEN missed_before > 1 THEN format(' The %s slots before it were missed.', missed_before)
                       WHEN missed_before = 1 THEN ' The slot before it was missed.' ELSE '' END
           WHEN 'overlap' THEN 'Skipped: run ' || blocking_trajectory_id || ' was still running'
               || coalesce(', started ' || routines.utc(blocking_started_at), '') || '.'
           WHEN 'missed' THEN 'Missed: ' || coalesce(detail, (SELECT in_words FROM outage), 'no ticker picked it up in time')
               || CASE WHEN slot_count > 1 THEN format(', as were all %s slots from %s to %s', slot_count,
                       routines.utc(scheduled_for), routines.utc(last_scheduled_for)) ELSE '' END
               || '; recorded ' || routines.utc(recorded_at) || '.'
           WHEN 'paused' THEN 'Skipped: ' || coalesce(detail, pause) || '.'
           WHEN 'failed_to_start' THEN 'Skipped: the run failed to start: ' || detail || '.'
           WHEN 'calendar' THEN 'Skipped: a calendar excludes the day: ' || detail || '.'
           WHEN 'backoff' THEN 'Skipped: ' || detail || '.'
           WHEN 'outside_hours' THEN 'Skipped: it was outside the active hours: ' || detail || '.'
           WHEN 'excluded_in_future' THEN 'It will be skipped: ' || detail || '.'
           WHEN 'pending' THEN 'Due since ' || routines.utc(coalesce(due_at, at)) || '; no ticker has picked it up yet.'
           WHEN 'future' THEN 'Upcoming: the slot is due at ' || routines.utc(coalesce(due_at, at)) || '.'
           WHEN 'passed_over' THEN 'It will be missed: ' || detail || '.'
           WHEN 'paused_in_future' THEN 'It will be skipped unless the routine is resumed: ' || pause || '.'
           WHEN 'before_creation' THEN 'No slot: the routine was created later, at ' || routines.utc(routine_created_at) || CASE
               WHEN facts.cadence_type = 'manual' THEN '; it is manual and has none.'
               WHEN routine_created_at <= (SELECT max(deleted_until) FROM routines.retention) THEN '.'
               ELSE coalesce(format('; its first slot %s ', CASE WHEN next_slot > now THEN 'is' ELSE 'was' END) || routines.utc(next_slot),
                             '; none is coming (' || pause || ')', '; none is coming') || '.' END
           WHEN 'forgotten' THEN 'No record: the ledger no longer goes back to that time.'
           WHEN 'deleted' THEN 'No record: the routine was deleted, and the ledger has no such slot.'
           ELSE 'No slot: ' || CASE
               WHEN facts.cadence_type = 'manual' THEN 'the routine is manual and has none.'
               WHEN is_slot_of_cadence THEN 'the routine had a different cadence then.'
               ELSE coalesce((SELECT format('it was moved to %s, since the rules of %s have changed; recorded %s', routines.utc(moved_to),
                                            timezone, routines.utc(moved_at))
                              FROM routines.slot_moves WHERE routine_id = of_routine AND moved_from = at
                                AND (of_collection IS NULL OR collection_id = of_collection) ORDER BY moved_at DESC LIMIT 1),
                             'the next is ' || routines.utc(next_slot), 'none is coming (' || pause || ')', 'none is coming') || '.' END
           END || coalesce(' ' || CASE WHEN is_slot_of_cadence THEN (
               SELECT routines.clock_note(routines.cadence_of(routines), at, kind NOT IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over'))
               FROM routines.routines WHERE id = of_routine) END, '')
           || CASE WHEN due_at IS NULL OR kind IN ('forgotten', 'before_creation', 'not_a_slot', 'deleted') THEN '' ELSE format(
               ' Its spread %s it due %s s after its time.',
               CASE WHEN kind IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over') THEN 'makes' ELSE 'made' END,
               extract(epoch FROM due_at - at)::integer) END,
           facts.*
    FROM facts, LATERAL (
        SELECT routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note) AS pause) AS present;
$$;
COMMENT ON FUNCTION routines.explain_time IS
    'Explains a time of a routine, by default its newest slot, even of a deleted one: a sentence, and the facts behind it. `clock` moves the clock in tests; `of_collection` restricts it to one collection.';

CREATE FUNCTION routines.routine_id(routine text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    found bigint := (
        SELECT routine_id FROM routines.routine_names
        JOIN routines.tasks ON tasks.id = routine_names.task_id
        JOIN routines.collections ON collections.id = routine_names.collection_id
        WHERE collections.name = split_part(routine, '/', 1) AND tasks.name = split_part(routine, '/', 2)
          AND routine_names.name = split_part(routine, '/', 3) AND split_part(routine, '/', 4) = '');
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no routine %', routine USING ERRCODE = 'no_data_found', HINT =
            'Name it as collection/task/name: see SELECT routine FROM routines.routine_status. For a deleted routine: SELECT * FROM routines.explain_time(id, time).';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.routine_id IS 'The id of a routine. Try: SELECT routines.routine_id(''demo/hello/every-hour'');';

CREATE FUNCTION routines.why(routine text, at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT sentence FROM routines.explain_time(routines.routine_id(routine), why.at);
$$;
COMMENT ON FUNCTION routines.why IS
    'Why a routine ran or did not run at a time, by default at its newest slot. Try: SELECT routines.why(''demo/hello/every-hour'', now() - interval ''1 day'');';

CREATE FUNCTION routines.next(routine text, slot_limit integer DEFAULT 10)
RETURNS TABLE (slot timestamptz, utc text, local_time text, dst text, due_at timestamptz, excluded text) LANGUAGE sql STABLE AS $$
    SELECT slot, routines.utc(slot), routines.local_time_of(cadence, slot), routines.dst_of(cadence, slot), slot + spread_offset,
           routines.exclusion_of(routine, slot)
    FROM (SELECT routines AS routine, routines.cadence_of(routines) AS cadence, routines.without_spread(routines, now()) AS own_now, spread_offset,
                 coalesce(routines.without_spread(routines, next_run_at), routines.slot_after_pause(routines)) AS first_slot
          FROM routines.routines WHERE id = routines.routine_id(routine)) AS found,
         routines.next_slots(cadence, greatest(own_now, first_slot - interval '1 microsecond'), slot_limit) AS slot
    WHERE first_slot IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.next IS
    'The coming slots of a routine, in UTC and, for cron, in local time, with the time at which each is due if the routine has a spread, and the reason why one will not fire; while it is paused, those after the end of the pause, or no rows if it has no end. Try: SELECT * FROM routines.next(''demo/hello/every-hour'', 3);';

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
                    OR NOT paused AND last.outcome IN ('failed', 'failed_to_start', 'missed', 'backoff'), false) AS needs_attention,
           routines.id AS routine_id, routine_names.collection_id
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
        (SELECT NULL, status, error, created_at FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NULL AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1)
        UNION ALL
        (SELECT last_scheduled_for, reason, coalesce(detail, 'run ' || blocking_trajectory_id || ' was active'), scheduled_for
         FROM routines.skips
         WHERE skips.routine_id = routine_names.routine_id
         ORDER BY scheduled_for DESC LIMIT 1)
        ORDER BY at DESC LIMIT 1
    ) AS last ON true;
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
    'True if the scheduler paused it, if a slot or the end of its pause has waited for a ticker for over a minute, or if it is not paused and its last outcome is failed, failed_to_start, missed or backoff.';
COMMENT ON COLUMN routines.routine_status.routine_id IS 'Its id, for use with routines and occurrences.';
COMMENT ON COLUMN routines.routine_status.collection_id IS 'The tenant.';

CREATE VIEW routines.help WITH (security_invoker = true) AS
    SELECT shown AS ask,
           CASE WHEN shown LIKE '%(%' THEN obj_description(to_regprocedure(shown), 'pg_proc')
                ELSE obj_description(to_regclass(shown), 'pg_class') END AS description
    FROM unnest(ARRAY[
        'routines.routine_status', 'routines.occurrences', 'routines.why(text, timestamptz)', 'routines.next(text, integer)',
        'routines.report(text, timestamptz, timestamptz, integer)', 'routines.gaps(text, timestamptz, timestamptz, boolean, integer)',
        'routines.routine_details', 'routines.trajectory_details', 'routines.run_events',
        'routines.next_fire(routines.cadence, timestamptz)',
        'routines.next_slots(routines.cadence, timestamptz, integer)',
        'routines.preview(routines.cadence, timestamptz, timestamptz, integer, timestamptz, integer)',
        'routines.preview_warnings(routines.cadence, timestamptz, timestamptz, integer, timestamptz, bigint)',
        'routines.collections', 'routines.tasks', 'routines.routines', 'routines.trajectories', 'routines.steps', 'routines.skips',
        'routines.webhook_deliveries', 'routines.webhook_endpoints', 'routines.api_keys']) WITH ORDINALITY AS listed (shown, position)
    ORDER BY position;
COMMENT ON VIEW routines.help IS 'Where to start at psql: TABLE routines.help; then \d+ on what it names.';
COMMENT ON COLUMN routines.help.ask IS 'A view, a function or a table.';
COMMENT ON COLUMN routines.help.description IS 'Its comment, often with a statement to try.';
