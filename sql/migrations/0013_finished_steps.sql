-- What earlier attempts of a run finished, seen as it is once a worker has claimed the run.

CREATE FUNCTION routines.finished_steps(run_id bigint) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(jsonb_object_agg(name, jsonb_build_object('inputs', inputs, 'outputs', outputs)), '{}')
    FROM routines.steps WHERE trajectory_id = run_id AND status = 'completed';
$$;
COMMENT ON FUNCTION routines.finished_steps IS
    'Inputs and outputs of a run''s completed steps by name. VOLATILE so that it takes a snapshot of its own: another worker may have finished a step and given the run back after the calling claim''s snapshot.';
