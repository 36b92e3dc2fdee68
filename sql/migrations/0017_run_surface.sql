-- What clients of the run surface read and change: runs by status, their events, names of deleted tasks, and a collection's environment.

-- A task's ended runs by status, newest first: lists with a filter, and counts from the index alone. On a column that is null
-- while a run is active: an index on status itself would touch every claim, and none of them would be HOT any more. With the
-- tenant, so that a policy on it reads no row.
ALTER TABLE routines.trajectories ADD COLUMN final_status text
    GENERATED ALWAYS AS (CASE WHEN ended_at IS NOT NULL THEN status END) STORED;
COMMENT ON COLUMN routines.trajectories.final_status IS 'The status of a run that has ended; null: it is active.';
CREATE INDEX trajectories_final_status_idx ON routines.trajectories (task_id, final_status, id) INCLUDE (collection_id)
    WHERE final_status IS NOT NULL;

-- It tells of whichever collections, and nothing but that: so one poll serves all requests of a process that wait.
CREATE FUNCTION routines.ended_runs(run_ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 10 SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT id FROM routines.trajectories WHERE id = ANY (run_ids) AND ended_at IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.ended_runs IS
    'Those of these runs that have ended, of whichever collections.';

-- Runs outlive their task, and show its name for ever.
CREATE TABLE routines.deleted_tasks (
    id            bigint CONSTRAINT deleted_tasks_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT deleted_tasks_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    deleted_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.deleted_tasks IS 'What tasks were called that are gone: their runs are still shown by that name.';
COMMENT ON COLUMN routines.deleted_tasks.id IS 'The id that the task had.';
COMMENT ON COLUMN routines.deleted_tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.deleted_tasks.name IS 'Its last name.';
COMMENT ON COLUMN routines.deleted_tasks.deleted_at IS 'When it went.';

CREATE FUNCTION routines.keep_name_of_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO routines.deleted_tasks (id, collection_id, name) VALUES (OLD.id, OLD.collection_id, OLD.name);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_name_of_task IS 'Notes the name of a task that is deleted.';
CREATE TRIGGER keep_name_of_task AFTER DELETE ON routines.tasks
    FOR EACH ROW EXECUTE FUNCTION routines.keep_name_of_task();

CREATE OR REPLACE VIEW routines.trajectory_details WITH (security_invoker = true) AS
    SELECT trajectories.id AS trajectory_id, trajectories.collection_id, trajectories.task_id,
           coalesce(tasks.name, deleted_tasks.name, 'deleted')::routines.slug AS task_name,
           routines.workflow_id(collections.name, coalesce(tasks.name, deleted_tasks.name, 'deleted'), trajectories.id) AS workflow_id,
           routines.run_id(trajectories.id)::text AS run_id,
           collections.name || '/' || coalesce(tasks.name, deleted_tasks.name, 'deleted') AS name, status,
           trajectories.created_at AS created, trajectories.updated_at AS updated, trajectories.created_at, started_at,
           ended_at, trajectories.init_params, coalesce(task_versions.workflow -> 'step_configs', '{}') AS step_configs,
           (SELECT coalesce(json_object_agg(steps.name, json_build_object(
                       'status', steps.status, 'activity', activity, 'inputs', inputs, 'outputs', outputs,
                       'created', to_char(steps.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'ended', to_char(steps.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       'duration_seconds', extract(epoch FROM steps.ended_at - steps.created_at)::float8,
                       'error', steps.error) ORDER BY position), '{}')
            FROM routines.steps WHERE steps.trajectory_id = trajectories.id) AS steps,
           coalesce(json_array_length(task_versions.workflow -> 'steps'), 0) AS total_steps,
           (SELECT count(*) FROM routines.steps
            WHERE steps.trajectory_id = trajectories.id AND steps.status = 'completed')::integer AS completed_steps,
           labels, error, triggered_by_routine_id, scheduled_for, trigger, webhook_url
    FROM routines.trajectories
    JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
                                AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id
    LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = trajectories.task_id;
COMMENT ON COLUMN routines.trajectory_details.task_name IS 'The {task} of its path; of a task that is gone, its last name.';

-- A step ends in the statement that starts the next one, and so at the same moment: its end comes first.
CREATE VIEW routines.run_events WITH (security_invoker = true) AS
    SELECT id AS trajectory_id, collection_id, created_at AS at, -2 AS rank, 0::bigint AS position, 0 AS try_number,
           'run_created' AS event, NULL::text AS step, NULL::integer AS attempt, trigger AS detail
    FROM routines.trajectories
    UNION ALL
    SELECT id, collection_id, started_at, -1, 0, 0, 'run_started', NULL, NULL, NULL
    FROM routines.trajectories WHERE started_at IS NOT NULL
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'at')::timestamptz, 3 * steps.position, steps.position,
           tried.number::integer, 'step_try_failed', name, NULL, tried.value ->> 'error'
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    UNION ALL
    SELECT trajectories.id, collection_id, steps.created_at, 3 * steps.position + 1, steps.position, steps.try_number,
           'step_started', name, steps.attempt, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    UNION ALL
    SELECT trajectories.id, collection_id, steps.ended_at, 3 * steps.position + 2, steps.position, steps.try_number,
           'step_' || steps.status, name, steps.attempt, steps.error
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id WHERE steps.ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, ended_at, 2000000000, 0, 0,
           'run_' || CASE status WHEN 'archived' THEN 'ended' ELSE status END, NULL, attempt, error
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
    'What happened to a run. SELECT * FROM routines.run_events WHERE trajectory_id = 1 ORDER BY at, rank, position, try_number;';
COMMENT ON COLUMN routines.run_events.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.run_events.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.run_events.at IS 'When. Of a step that was done again, its start is the latest one.';
COMMENT ON COLUMN routines.run_events.rank IS
    'What comes first of two events of one moment: the run''s beginning, its steps one after the other, its end.';
COMMENT ON COLUMN routines.run_events.position IS 'The step''s place in the workflow, or the webhook''s delivery.';
COMMENT ON COLUMN routines.run_events.try_number IS 'Which try of the step or of the delivery; 0: of neither.';
COMMENT ON COLUMN routines.run_events.event IS
    'run_created, run_started (its first claim), step_started, step_try_failed, step_completed, step_failed, step_cancelled, run_completed, run_failed, run_cancelled, run_ended (archived since), run_archived, webhook_attempted.';
COMMENT ON COLUMN routines.run_events.step IS 'The step; null: the event is the run''s.';
COMMENT ON COLUMN routines.run_events.attempt IS 'The fence under which it was written, as far as that is known.';
COMMENT ON COLUMN routines.run_events.detail IS 'What triggered the run, the activity, or why it failed; of a webhook, the HTTP status and the error.';

-- Environment variables go with the names that stood for them.
CREATE FUNCTION routines.forget_replaced_environment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.secrets WHERE id = ANY (routines.secret_ids(OLD.environment_refs, NULL))
        AND NOT id = ANY (routines.secret_ids(NEW.environment_refs, NULL));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_replaced_environment IS 'After a variable was replaced or removed, its ciphertext goes in the same transaction.';
CREATE TRIGGER forget_replaced_environment AFTER UPDATE OF environment_refs ON routines.collections
    FOR EACH ROW WHEN (OLD.environment_refs IS DISTINCT FROM NEW.environment_refs)
    EXECUTE FUNCTION routines.forget_replaced_environment();
ALTER TABLE routines.collections ADD CONSTRAINT collections_environment_refs_is_bounded
    CHECK (cardinality(routines.secret_ids(environment_refs, NULL)) <= 100);
