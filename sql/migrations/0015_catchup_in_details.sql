-- The catch-up window, shown with the rest of a routine.

CREATE OR REPLACE VIEW routines.routine_details WITH (security_invoker = true) AS
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
COMMENT ON COLUMN routines.routine_details.catchup_window_seconds IS
    'How old a slot may be to still fire after an outage; 0: never catch up; null: the default of its cadence.';
