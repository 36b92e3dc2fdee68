-- What the API shows, as views: a person at psql sees the same, with names in the place of ids.

CREATE VIEW routines.routine_details WITH (security_invoker = true) AS
    SELECT routines.id, routines.collection_id, routines.task_id, routines.name, tasks.name AS task_name,
           collections.name AS collection_name, cadence_type, hour_utc::integer, minute_utc::integer, day_of_week,
           init_params_overrides, ARRAY(SELECT jsonb_object_keys(secret_refs) ORDER BY 1) AS secret_names, webhook_url,
           webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, paused_reason, last_run_at, next_run_at, overlap_policy,
           ARRAY(SELECT key FROM jsonb_object_keys(init_params_overrides) AS key
                 WHERE NOT task_versions.init_params ? key ORDER BY key) AS undeclared_keys,
           catchup_window_seconds
    FROM routines.routines
    JOIN routines.tasks ON tasks.id = routines.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.collections ON collections.id = routines.collection_id;
COMMENT ON VIEW routines.routine_details IS
    'Routines as the API shows them. SELECT * FROM routines.routine_details WHERE collection_name = ''demo'';';
COMMENT ON COLUMN routines.routine_details.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routine_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.routine_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.routine_details.name IS 'Unique in its task.';
COMMENT ON COLUMN routines.routine_details.task_name IS 'The {task} of its path.';
COMMENT ON COLUMN routines.routine_details.collection_name IS 'The {collection} of its path.';
COMMENT ON COLUMN routines.routine_details.cadence_type IS 'manual, hourly, daily, weekdays or weekly.';
COMMENT ON COLUMN routines.routine_details.hour_utc IS 'The hour of its slots; null: manual and hourly.';
COMMENT ON COLUMN routines.routine_details.minute_utc IS 'The minute of its slots.';
COMMENT ON COLUMN routines.routine_details.day_of_week IS 'The day of its slots; null: not weekly.';
COMMENT ON COLUMN routines.routine_details.init_params_overrides IS 'Merged over the task''s init_params when it fires.';
COMMENT ON COLUMN routines.routine_details.secret_names IS 'The names of its secret params.';
COMMENT ON COLUMN routines.routine_details.webhook_url IS 'Told when a run has ended; null: nobody is.';
COMMENT ON COLUMN routines.routine_details.has_webhook_secret IS 'Whether its webhooks are signed.';
COMMENT ON COLUMN routines.routine_details.paused IS 'Whether the schedule is stopped.';
COMMENT ON COLUMN routines.routine_details.paused_reason IS 'Why, where the scheduler itself paused it.';
COMMENT ON COLUMN routines.routine_details.last_run_at IS 'When it last started a run; null: never.';
COMMENT ON COLUMN routines.routine_details.next_run_at IS 'The next slot; null: paused or manual.';
COMMENT ON COLUMN routines.routine_details.overlap_policy IS 'skip.';
COMMENT ON COLUMN routines.routine_details.undeclared_keys IS 'Override keys that the task''s current version does not declare.';
COMMENT ON COLUMN routines.routine_details.catchup_window_seconds IS
    'How old a slot may be to still fire after an outage; 0: never catch up; null: the default of its cadence.';

CREATE VIEW routines.trajectory_details WITH (security_invoker = true) AS
    SELECT trajectories.id AS trajectory_id, trajectories.collection_id, trajectories.task_id, tasks.name AS task_name,
           routines.workflow_id(collections.name, tasks.name, trajectories.id) AS workflow_id,
           routines.run_id(trajectories.id)::text AS run_id, collections.name || '/' || tasks.name AS name, status,
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
    JOIN routines.tasks ON tasks.id = trajectories.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id;
COMMENT ON VIEW routines.trajectory_details IS
    'Runs as the API shows them, with their steps. SELECT * FROM routines.trajectory_details WHERE trajectory_id = 1;';
COMMENT ON COLUMN routines.trajectory_details.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.trajectory_details.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectory_details.task_id IS 'The task.';
COMMENT ON COLUMN routines.trajectory_details.task_name IS 'The {task} of its path.';
COMMENT ON COLUMN routines.trajectory_details.workflow_id IS 'What clients poll with.';
COMMENT ON COLUMN routines.trajectory_details.run_id IS 'Derived from the trajectory''s id.';
COMMENT ON COLUMN routines.trajectory_details.name IS 'collection/task.';
COMMENT ON COLUMN routines.trajectory_details.status IS 'pending, running, and the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectory_details.created IS 'The same as created_at.';
COMMENT ON COLUMN routines.trajectory_details.updated IS 'Its last change of state or checkpoint.';
COMMENT ON COLUMN routines.trajectory_details.created_at IS 'When it was fired.';
COMMENT ON COLUMN routines.trajectory_details.started_at IS 'When a worker first claimed it; null: none yet.';
COMMENT ON COLUMN routines.trajectory_details.ended_at IS 'When it reached a final status; null: it is active.';
COMMENT ON COLUMN routines.trajectory_details.init_params IS 'The parameters of this run.';
COMMENT ON COLUMN routines.trajectory_details.step_configs IS 'As the task''s version of this run has them.';
COMMENT ON COLUMN routines.trajectory_details.steps IS 'By the step''s name: {status, activity, inputs, outputs, created, ended, duration_seconds, error}.';
COMMENT ON COLUMN routines.trajectory_details.total_steps IS 'Steps of the workflow.';
COMMENT ON COLUMN routines.trajectory_details.completed_steps IS 'Steps that completed.';
COMMENT ON COLUMN routines.trajectory_details.labels IS 'Array of {key, value, author}.';
COMMENT ON COLUMN routines.trajectory_details.error IS 'Why it failed; null: it did not.';
COMMENT ON COLUMN routines.trajectory_details.triggered_by_routine_id IS 'The routine that caused it; null: started by the API.';
COMMENT ON COLUMN routines.trajectory_details.scheduled_for IS 'The slot; null: not on schedule.';
COMMENT ON COLUMN routines.trajectory_details.trigger IS 'schedule, run-now or api.';
COMMENT ON COLUMN routines.trajectory_details.webhook_url IS 'Told when it has ended; null: nobody is.';
