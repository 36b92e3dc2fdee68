-- Overlap policies: what becomes of a slot that comes while a run of its routine is active. Under skip it is an overlap, which the
-- tick decides without this chapter. Under the other policies a scheduled run has a place: 1 to max_concurrent while it may run, or
-- 0 while it waits for one. trajectories_active_place_key keeps two runs out of one place, so at most one waits.
--   queue_one     a slot that comes while a run is active gets a run that waits until none is. If one waits already, the slot takes
--                 it over, and the slot that it had is recorded as coalesced
--   cancel_other  the same, and the workers stop the active runs. Those that they have not stopped after cancel_grace are fenced off
--   allow         up to max_concurrent runs are active at once. A slot beyond is an overlap
-- It makes no difference how the active runs were started. A waiting run is running, without a worker and with a lease that does not
-- expire, as a run that waits for its children; it has not begun, so nothing but admit_waiting_run looks for it.

CREATE TYPE routines.room AS (place smallint, waiting bigint, blocked_by bigint);
COMMENT ON TYPE routines.room IS
    'What a routine has room for: a run in this place; or the run `waiting`, which a slot may take over; or none, because `blocked_by` is active.';
COMMENT ON COLUMN routines.room.place IS 'The place of a new run; 0 to wait.';
COMMENT ON COLUMN routines.room.waiting IS 'The run that waits, locked until the transaction ends.';
COMMENT ON COLUMN routines.room.blocked_by IS 'The run in the way.';

CREATE FUNCTION routines.active_runs_of(of_routine bigint) RETURNS TABLE (trajectory_id bigint, place smallint)
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
BEGIN
    RETURN QUERY
    SELECT id, trajectories.place FROM routines.trajectories
    WHERE trigger = 'schedule' AND trajectories.place IS NULL AND final_status IS NULL AND triggered_by_routine_id = of_routine
    UNION ALL
    SELECT id, trajectories.place FROM routines.trajectories
    WHERE (trigger <> 'schedule' OR trajectories.place IS NOT NULL) AND final_status IS NULL AND triggered_by_routine_id = of_routine;
END $$;
COMMENT ON FUNCTION routines.active_runs_of IS 'The active runs of a routine, with the place that each has. VOLATILE, so that it takes its own snapshot.';

-- With the routine locked. It waits for no run: one that is locked is about to end, and its slot keeps it.
CREATE FUNCTION routines.find_room(of_routine bigint, overlap_policy text, max_concurrent smallint) RETURNS routines.room
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    active  bigint[];
    places  smallint[];
    waiting bigint;
    found   routines.room;
BEGIN
    SELECT array_agg(trajectory_id ORDER BY trajectory_id), array_agg(place) FILTER (WHERE place IS NOT NULL),
           min(trajectory_id) FILTER (WHERE place = 0)
    INTO active, places, waiting FROM routines.active_runs_of(of_routine);
    CASE
        WHEN overlap_policy = 'allow' AND cardinality(active) >= max_concurrent THEN
            found.blocked_by := active[1];
        WHEN overlap_policy = 'allow' THEN
            found.place := (SELECT min(free) FROM generate_series(1, max_concurrent) AS free WHERE free <> ALL (coalesce(places, '{}')));
        WHEN active IS NULL THEN
            found.place := 1;
        WHEN waiting IS NULL THEN
            found.place := 0;
        ELSE
            found.waiting := (SELECT id FROM routines.trajectories WHERE id = waiting AND place = 0 FOR UPDATE SKIP LOCKED);
            found.blocked_by := CASE WHEN found.waiting IS NULL THEN waiting END;
    END CASE;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.find_room IS 'What a routine with this policy, other than skip, has room for now. The caller has locked the routine.';

-- So that an INSERT typed in psql keeps to the policy too.
CREATE FUNCTION routines.check_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most integer := (SELECT CASE overlap_policy WHEN 'allow' THEN max_concurrent WHEN 'skip' THEN NULL ELSE 1 END
                     FROM routines.routines WHERE id = NEW.triggered_by_routine_id);
BEGIN
    IF NEW.trigger <> 'schedule' OR most IS NULL OR NEW.place NOT BETWEEN 0 AND most THEN
        RAISE EXCEPTION 'routine % has no place % for this run', NEW.triggered_by_routine_id, NEW.place
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_place_fits_policy';
    ELSIF NEW.place = 0 THEN
        NEW.status := 'running';
        NEW.lease_expires_at := 'infinity';
    ELSIF (SELECT count(*) FROM routines.active_runs_of(NEW.triggered_by_routine_id)) >= most THEN
        RAISE EXCEPTION 'routine % has as many active runs as it may have, %', NEW.triggered_by_routine_id, most
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_schedule_does_not_overlap';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_place IS 'Rejects a scheduled run in a place that its routine does not have, and lets one in place 0 wait.';
CREATE TRIGGER check_place BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.place IS NOT NULL) EXECUTE FUNCTION routines.check_place();

--------------------------------------------------------------------------------------------------------- coalescing
-- The run keeps its id, since clients may know it, and is otherwise as if the later slot had created it.
CREATE FUNCTION routines.take_over_waiting_run(
    waiting bigint, slot timestamptz, due_at timestamptz, task_version integer, init_params jsonb, slot_values jsonb, secret_refs jsonb,
    webhook_url text, webhook_secret_id uuid, timeout_seconds integer, at timestamptz
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old routines.trajectories := (SELECT trajectories FROM routines.trajectories WHERE id = waiting);
BEGIN
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, reason, detail, recorded_at)
    VALUES (old.collection_id, old.triggered_by_routine_id, old.scheduled_for, old.scheduled_for, old.due_at, 'coalesced',
            format('run %s, which waited, is now for the slot of %s', waiting, routines.utc(slot)), at);
    UPDATE routines.trajectories
    SET scheduled_for = slot, due_at = take_over_waiting_run.due_at, created_at = at, updated_at = at,
        task_version = take_over_waiting_run.task_version, init_params = take_over_waiting_run.init_params,
        slot_values = take_over_waiting_run.slot_values, secret_refs = take_over_waiting_run.secret_refs,
        webhook_url = take_over_waiting_run.webhook_url, webhook_secret_id = take_over_waiting_run.webhook_secret_id,
        timeout_seconds = take_over_waiting_run.timeout_seconds, taken_over_as = nextval('routines.trajectories_id_seq')
    WHERE id = waiting;
    IF (old.secret_refs, old.webhook_secret_id) IS DISTINCT FROM (secret_refs, webhook_secret_id) THEN
        PERFORM routines.forget_secrets(
            routines.secret_ids(old.secret_refs, old.webhook_secret_id), old.triggered_by_routine_id, NULL);
    END IF;
    RETURN waiting;
END $$;
COMMENT ON FUNCTION routines.take_over_waiting_run IS
    'Lets a waiting run, which find_room has locked, stand for a later slot, and records the slot that it had as coalesced.';

----------------------------------------------------------------------------------------------------------- admission
CREATE FUNCTION routines.cancel_grace() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN interval '30 s';
COMMENT ON FUNCTION routines.cancel_grace IS
    'How long the policy cancel_other leaves a worker to stop a run, before the run is fenced off.';

-- It is called where a run ends, which holds locks already, so it waits for none: a routine that is locked is left to the next call,
-- by a worker within about a second (admit in queries/runs.sql).
CREATE FUNCTION routines.admit_waiting_run(of_routine bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting bigint := (SELECT id FROM routines.trajectories
                       WHERE triggered_by_routine_id = of_routine AND place < 1 AND final_status IS NULL);
    places  smallint[];
    most    integer;
BEGIN
    IF waiting IS NULL THEN
        RETURN false;
    END IF;
    SELECT coalesce(max_concurrent, 1) INTO most FROM routines.routines WHERE id = of_routine FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (SELECT count(*) FROM routines.active_runs_of(of_routine) WHERE place IS DISTINCT FROM 0) >= most THEN
        RETURN false;
    END IF;
    places := ARRAY(SELECT active.place FROM routines.active_runs_of(of_routine) AS active WHERE active.place IS NOT NULL);
    UPDATE routines.trajectories
    SET status = 'pending', lease_expires_at = NULL, updated_at = now(),
        place = (SELECT min(free) FROM generate_series(1, most) AS free WHERE free <> ALL (places))
    WHERE id = waiting AND place = 0 AND status IN ('pending', 'running');
    IF FOUND THEN
        PERFORM routines.wake_idle_workers();
    END IF;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.admit_waiting_run IS
    'Puts the run of a routine that waits for a place into the queue, if as few other runs are active as it may run beside. Returns whether it did.';
REVOKE EXECUTE ON FUNCTION routines.find_room, routines.take_over_waiting_run, routines.admit_waiting_run FROM PUBLIC;
