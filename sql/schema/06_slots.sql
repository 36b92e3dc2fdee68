-- What a run knows of the slot that it is for: the values of references such as slot.date.

-- Reads the newest scheduled runs one by one from trajectories_slot_key, up to the first that completed, and at most 1,000; and as many
-- from trajectories_fill_key.
CREATE FUNCTION routines.last_success(of_routine bigint, before timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
RETURN greatest(
    (SELECT scheduled_for FROM (
        SELECT scheduled_for, routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for < coalesce(before, 'infinity')
        ORDER BY scheduled_for DESC LIMIT 1000) AS newest
     WHERE status = 'completed' ORDER BY scheduled_for DESC LIMIT 1),
    (SELECT fills_slot FROM (
        SELECT fills_slot, routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND fills_slot < coalesce(before, 'infinity') AND rerun_of IS NULL
        ORDER BY fills_slot DESC LIMIT 1000) AS newest
     WHERE status = 'completed' ORDER BY fills_slot DESC LIMIT 1));
COMMENT ON FUNCTION routines.last_success IS
    'The newest slot of a routine whose run completed, or its retry, before this slot, or of all if that is null; also a slot that a backfill has filled. Looks at the newest 1,000 scheduled runs and as many of backfills; null if none of them completed.';

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

------------------------------------------------------------------------------------------- parameters taken from the slot
-- A null value leaves the parameter as it is, so that a default can stand for the first time.
CREATE FUNCTION routines.params_from_slot(init_params_from_slot jsonb, slot_values jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_object_agg(key, slot_values -> split_part(reference, '.', 2)), '{}')
    FROM jsonb_each_text(init_params_from_slot) AS taken (key, reference)
    WHERE slot_values ->> split_part(reference, '.', 2) IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.params_from_slot IS
    'The parameters that a routine takes from the slot of a run: those of them that the slot has.';

CREATE FUNCTION routines.refuse_slot_param(field text, rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'init_params_from_slot' || field || ': ' || rule, ERRCODE = 'check_violation',
        CONSTRAINT = 'routines_init_params_from_slot_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_slot_param IS 'Raises the error of parameters that cannot be taken from a slot.';

CREATE FUNCTION routines.check_slot_params(init_params_from_slot jsonb, known jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    names text[] := '{slot.scheduled_for,slot.date,slot.local_time,slot.previous,slot.last_success,slot.trigger}';
    taken record;
BEGIN
    IF jsonb_typeof(init_params_from_slot) <> 'object' THEN
        PERFORM routines.refuse_slot_param('', 'must be an object of parameters and references such as slot.date');
    ELSIF (SELECT count(*) FROM jsonb_object_keys(init_params_from_slot)) > 50 THEN
        PERFORM routines.refuse_slot_param('', 'must have at most 50 parameters');
    END IF;
    FOR taken IN SELECT key, value FROM jsonb_each(init_params_from_slot) LOOP
        IF jsonb_typeof(taken.value) <> 'string' OR taken.value #>> '{}' <> ALL (names) THEN
            PERFORM routines.refuse_slot_param('.' || left(taken.key, 100), 'must be ' || array_to_string(trim_array(names, 1), ', ')
                                               || ' or ' || names[cardinality(names)]);
        ELSIF NOT known ? taken.key THEN
            PERFORM routines.refuse_slot_param('.' || left(taken.key, 100), 'the task declares no such parameter');
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.check_slot_params IS
    'Raises an error if a parameter is not among the keys of `known`, or takes something that a slot does not have.';

-- A trigger and not constraints, which each fire would check. A parameter that the task no longer declares may stay, like an override.
CREATE FUNCTION routines.check_run_settings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.timeout_seconds < 1 THEN
        RAISE EXCEPTION USING MESSAGE = 'timeout_seconds: must be at least 1', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_timeout_seconds_is_positive';
    END IF;
    IF NEW.init_params_from_slot IS NOT NULL THEN
        PERFORM routines.check_slot_params(NEW.init_params_from_slot, task_versions.init_params || CASE TG_OP
            WHEN 'UPDATE' THEN coalesce(OLD.init_params_from_slot, '{}') ELSE '{}' END)
        FROM routines.tasks
        JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
        WHERE tasks.id = NEW.task_id;
        NEW.init_params_from_slot := nullif(NEW.init_params_from_slot, '{}');
    END IF;
    IF NEW.retry IS NOT NULL THEN
        PERFORM routines.check_retry(NEW.retry);
    END IF;
    IF NEW.pause_after_failures NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING MESSAGE = 'pause_after_failures: must be 1 to 100', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_pause_after_failures_in_range';
    ELSIF NEW.after_failures NOT IN ('pause', 'backoff') THEN
        RAISE EXCEPTION USING MESSAGE = 'then: must be pause or backoff', ERRCODE = 'check_violation',
            CONSTRAINT = 'routines_after_failures_is_known';
    END IF;
    IF NEW.overlap_policy <> 'allow' AND TG_OP = 'UPDATE' AND NEW.max_concurrent = OLD.max_concurrent THEN
        NEW.max_concurrent := NULL;  -- only the policy was changed
    ELSIF (NEW.overlap_policy = 'allow') <> (NEW.max_concurrent IS NOT NULL) OR NEW.max_concurrent NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING MESSAGE = 'max_concurrent: must be 1 to 100 with overlap_policy allow, and is not taken with the others',
            ERRCODE = 'check_violation', CONSTRAINT = 'routines_max_concurrent_fits_policy';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_run_settings IS 'Rejects an init_params_from_slot, a timeout_seconds, a retry, a pause_after_failures, an after_failures or a max_concurrent that is not valid.';
CREATE TRIGGER check_run_settings BEFORE INSERT OR UPDATE OF init_params_from_slot, timeout_seconds, retry, pause_after_failures, after_failures,
        overlap_policy, max_concurrent
    ON routines.routines
    FOR EACH ROW WHEN (NEW.overlap_policy = 'allow' OR num_nonnulls(
        NEW.init_params_from_slot, NEW.timeout_seconds, NEW.retry, NEW.pause_after_failures, NEW.after_failures, NEW.max_concurrent) > 0)
    EXECUTE FUNCTION routines.check_run_settings();
