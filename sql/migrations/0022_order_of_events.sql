-- A step ends in the statement that starts the next one, and so at the same moment: its end comes first.
CREATE OR REPLACE VIEW routines.run_events WITH (security_invoker = true) AS
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
COMMENT ON COLUMN routines.run_events.rank IS
    'What comes first of two events of one moment: the run''s beginning, its steps one after the other, its end.';
