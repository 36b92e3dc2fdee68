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
