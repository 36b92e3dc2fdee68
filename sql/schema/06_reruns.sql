-- Reruns: a run that has ended runs again, whole or from a step, because a person asks for it. The steps before that one are not
-- executed again. They stay where they are, and kept_steps says which run executed each. A rerun has the version of the workflow and
-- the parameters of the run that it repeats, apart from those that are changed. Its secrets are today's.
--
-- A rerun of a run of a routine is its newest attempt, and so the outcome of its slot. The chain of attempts is the first run, its
-- retries, and the newest rerun alone, so that it does not grow with each rerun.

CREATE FUNCTION routines.steps_before(workflow json, from_step text, kept_steps jsonb, of_run bigint)
RETURNS TABLE (name text, kept_from bigint, is_finished boolean) LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT step.name, origin.run, EXISTS (SELECT FROM routines.steps WHERE trajectory_id = origin.run AND steps.name = step.name
                                          AND status = 'completed')
    FROM json_array_elements_text(workflow -> 'steps') WITH ORDINALITY AS step (name, position)
    CROSS JOIN LATERAL (SELECT coalesce((kept_steps ->> step.name)::bigint, of_run) AS run) AS origin
    WHERE position < (SELECT min(found.position) FROM json_array_elements_text(workflow -> 'steps') WITH ORDINALITY AS found (name, position)
                      WHERE found.name = from_step)
    ORDER BY position;
$$;
COMMENT ON FUNCTION routines.steps_before IS
    'The steps of a run before this one, each with the run that executed it, and whether that run has it as completed; no rows if the workflow has no such step.';

CREATE FUNCTION routines.refuse_rerun(cause text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', cause || ': cancel it first, or wait for its end'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_rerun_of_ended';
END $$;
COMMENT ON FUNCTION routines.refuse_rerun IS 'Raises the error of a run that cannot be rerun now.';

-- The chain has one end, which the lock on the first run keeps: of two reruns at once the second finds the first one active. It waits
-- for no run that may be about to end, since that may wait for the routine.
CREATE FUNCTION routines.link_rerun() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    original    record;
    last_retry  bigint;
    newest      bigint;
    attempt     record;
BEGIN
    SELECT retry_of, task_id, triggered_by_routine_id, ended_at INTO original FROM routines.trajectories
    WHERE id = NEW.rerun_of FOR KEY SHARE;
    IF (original.task_id, original.triggered_by_routine_id) IS DISTINCT FROM (NEW.task_id, NEW.triggered_by_routine_id) THEN
        RAISE EXCEPTION 'there is no run % of this task and routine', NEW.rerun_of
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'trajectories_rerun_of_exists';
    ELSIF original.ended_at IS NULL THEN
        PERFORM routines.refuse_rerun(format('run %s is active', NEW.rerun_of));
    END IF;
    SELECT id INTO last_retry FROM routines.trajectories
    WHERE id = coalesce(original.retry_of, NEW.rerun_of) AND triggered_by_routine_id IS NOT NULL
    FOR NO KEY UPDATE;
    NEW.retry_of := last_retry;
    newest := last_retry;
    WHILE newest IS NOT NULL LOOP
        SELECT rerun_of, retried_by, ended_at INTO attempt FROM routines.trajectories WHERE id = newest;
        IF attempt.ended_at IS NULL THEN
            PERFORM routines.refuse_rerun(format('run %s, a later attempt, is active', newest));
        ELSIF attempt.rerun_of IS NULL THEN
            last_retry := newest;
        END IF;
        EXIT WHEN NOT EXISTS (SELECT FROM routines.trajectories WHERE id = attempt.retried_by);
        newest := attempt.retried_by;
    END LOOP;
    UPDATE routines.trajectories SET retried_by = NEW.id WHERE id IN (last_retry, newest);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.link_rerun IS
    'Makes a rerun the newest attempt of a run of a routine. Rejects it while the run that it repeats, or a later attempt, is active.';

CREATE TRIGGER link_rerun BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.rerun_of IS NOT NULL) EXECUTE FUNCTION routines.link_rerun();

-- VOLATILE, so that it takes a snapshot of its own: retention asks once it has locked the run, which a rerun locks before it keeps a
-- step of it.
CREATE FUNCTION routines.is_kept(run bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM routines.trajectories
                   WHERE kept_steps IS NOT NULL AND final_status IS NULL
                     AND EXISTS (SELECT FROM jsonb_each_text(kept_steps) AS kept WHERE kept.value::bigint = run));
END $$;
COMMENT ON FUNCTION routines.is_kept IS 'Whether an active rerun keeps steps of this run.';
