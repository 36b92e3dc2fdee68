-- No scheduled run starts while any run of its routine is active, however that one was triggered: held here, so that an
-- INSERT typed in psql is refused too. trajectories_active_schedule_key refuses it beside a scheduled run; this refuses it
-- beside a run-now run. Once per statement over all its rows: a trigger for each row would cost the tick far more. It takes no
-- lock: a run-now run that comes while the INSERT is open comes after it, and beside a scheduled run it may come.
CREATE FUNCTION routines.refuse_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    active record;
BEGIN
    SELECT trajectories.id, trajectories.triggered_by_routine_id AS routine_id INTO active
    FROM routines.trajectories
    JOIN inserted ON inserted.triggered_by_routine_id = trajectories.triggered_by_routine_id
    WHERE trajectories.trigger = 'run-now' AND trajectories.ended_at IS NULL AND inserted.trigger = 'schedule'
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'routine % has an active run, %: a scheduled run waits for its next slot', active.routine_id, active.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_schedule_does_not_overlap';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_overlap IS 'Refuses a scheduled run beside an active run-now run of the same routine.';
CREATE TRIGGER refuse_overlap AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.refuse_overlap();

CREATE FUNCTION routines.active_runs(routine_ids bigint[])
RETURNS TABLE (routine_id bigint, trajectory_id bigint) LANGUAGE sql VOLATILE ROWS 1 AS $$
    SELECT active.routine_id, min(active.id) FROM (
        SELECT triggered_by_routine_id AS routine_id, id FROM routines.trajectories
        WHERE trigger = 'schedule' AND ended_at IS NULL AND triggered_by_routine_id = ANY (routine_ids)
        UNION ALL
        SELECT triggered_by_routine_id, id FROM routines.trajectories
        WHERE trigger = 'run-now' AND ended_at IS NULL AND triggered_by_routine_id = ANY (routine_ids)
    ) AS active GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.active_runs IS
    'The oldest active run of each of these routines that has one. VOLATILE so that it takes a snapshot of its own: called by the tick once it holds its locks, it sees what was committed since the tick began.';
DROP FUNCTION routines.active_run_nows;

-- Which run stopped a fire, asked once the INSERT was refused: it may have ended by then.

CREATE FUNCTION routines.blocking_run(of_routine bigint, slot timestamptz) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT id FROM routines.trajectories
    WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
      AND NOT EXISTS (SELECT FROM routines.trajectories AS fired
                      WHERE fired.triggered_by_routine_id = of_routine AND fired.scheduled_for = slot)
    ORDER BY ended_at IS NULL DESC, id DESC
    LIMIT 1;
$$;
COMMENT ON FUNCTION routines.blocking_run IS
    'The scheduled run that stopped the fire of this slot: the active one, or the newest where it has ended meanwhile; null: the slot itself was fired before. VOLATILE so that it takes a snapshot of its own.';
