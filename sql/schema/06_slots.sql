-- What a run knows of the slot that it is for: the values of references such as slot.date.

-- Reads the newest scheduled runs one by one from trajectories_slot_key, up to the first that completed, and at most 1,000.
CREATE FUNCTION routines.last_success(of_routine bigint, before timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT scheduled_for FROM (
        SELECT scheduled_for, status FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for < coalesce(before, 'infinity')
        ORDER BY scheduled_for DESC LIMIT 1000) AS newest
    WHERE status = 'completed' ORDER BY scheduled_for DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.last_success IS
    'The slot of the newest scheduled run of a routine that completed, before this slot, or of all if that is null. Looks at the newest 1,000 scheduled runs; null if none of them completed.';

-- VOLATILE, so that it takes snapshots of its own. The tick and run-now call it once they have locked the routine, whose cadence may
-- have been changed since they began.
CREATE FUNCTION routines.slot_values(of_routine bigint, slot timestamptz, trigger text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    cadence routines.cadence := routines.current_cadence(of_routine);
    -- Null without a cadence: the routine was deleted, and no date is better than a wrong one.
    zone    text := CASE WHEN (cadence).type IS NOT NULL THEN routines.clocks_of(coalesce((cadence).timezone, 'UTC')) END;
BEGIN
    RETURN jsonb_build_object(
        'scheduled_for', routines.utc(slot),
        'date', to_char(timezone(zone, slot), 'YYYY-MM-DD'),
        'local_time', routines.iso_local(zone, slot),
        'previous', routines.utc(routines.latest_slot(cadence, slot - interval '1 microsecond')),
        'last_success', routines.utc(routines.last_success(of_routine, slot)),
        'trigger', trigger);
END $$;
COMMENT ON FUNCTION routines.slot_values IS
    'What the references slot.scheduled_for, slot.date, slot.local_time, slot.previous, slot.last_success and slot.trigger of a run refer to. A null slot: the run is for none.';
