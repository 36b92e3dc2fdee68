-- Steps: the checkpoints of runs.

-- Triggers:
--   AFTER INSERT            note_files          if inputs or outputs name a file: adds to file_uses
--   AFTER UPDATE of either  note_changed_files  the same
CREATE TABLE routines.steps (
    trajectory_id  bigint NOT NULL CONSTRAINT steps_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    name           text NOT NULL,
    position       integer NOT NULL,
    fence          integer NOT NULL,
    attempt        integer NOT NULL DEFAULT 1 CONSTRAINT steps_attempt_is_positive CHECK (attempt > 0),
    status         text NOT NULL CONSTRAINT steps_status_is_known CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    activity       text NOT NULL,
    inputs         routines.json_object NOT NULL,
    outputs        jsonb,
    has_file       boolean NOT NULL DEFAULT false
                   CONSTRAINT steps_has_file_with_a_path CHECK (NOT has_file OR coalesce(outputs ->> 'file_path', '') <> ''),
    error          text,
    answer         jsonb,
    is_transient   boolean,
    earlier_errors jsonb NOT NULL DEFAULT '[]'
                   CONSTRAINT steps_earlier_errors_is_array CHECK (jsonb_typeof(earlier_errors) = 'array'),
    created_at     timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz,
    CONSTRAINT steps_pkey PRIMARY KEY (trajectory_id, name),
    CONSTRAINT steps_end_fits_status CHECK ((ended_at IS NULL) = (status = 'running'))
) WITH (
    -- A step is inserted as running and updated once, in no indexed column. With this room on its page 70 % of these updates
    -- were HOT (20,000 runs of two steps), against 33 % at fillfactor 70 and none at 100.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02
);
COMMENT ON TABLE  routines.steps IS 'The checkpoints of a run. A resumed run does not repeat steps that are completed here.';
COMMENT ON COLUMN routines.steps.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.steps.name IS 'The step''s name in the workflow.';
COMMENT ON COLUMN routines.steps.position IS 'Its place in workflow.steps, from 0.';
COMMENT ON COLUMN routines.steps.fence IS 'The fence of the run when this was written.';
COMMENT ON COLUMN routines.steps.attempt IS 'Which attempt of the step this is, from 1.';
COMMENT ON COLUMN routines.steps.status IS 'running, completed, failed or cancelled.';
COMMENT ON COLUMN routines.steps.activity IS 'The activity that it calls.';
COMMENT ON COLUMN routines.steps.inputs IS 'Its parameters, with references resolved.';
COMMENT ON COLUMN routines.steps.outputs IS 'The result of the activity; null if there is none yet.';
COMMENT ON COLUMN routines.steps.has_file IS
    'Whether the outputs were too large for the record: outputs is then {file_path, bytes}, and that file holds them as JSON. Set by the engine alone, so that no activity can return a value that is taken for such a reference.';
COMMENT ON COLUMN routines.steps.error IS 'Why it failed; null if it did not.';
COMMENT ON COLUMN routines.steps.answer IS
    'The HTTP response that made it fail: {status, headers, body, truncated}, with at most 4 KiB of its body and no secrets; null if there was none.';
COMMENT ON COLUMN routines.steps.is_transient IS
    'Of a step that failed by an error of its own: true if the cause may go away by itself, see trajectories.is_transient; null otherwise.';
COMMENT ON COLUMN routines.steps.earlier_errors IS
    'Why earlier attempts failed: an array of {started_at, at, error, answer}. The newest five keep the answer, if there was one.';
COMMENT ON COLUMN routines.steps.created_at IS 'When it started.';
COMMENT ON COLUMN routines.steps.ended_at IS 'When it ended; null while it is running.';
SELECT routines.protect('routines.steps',
                        'EXISTS (SELECT FROM routines.trajectories WHERE trajectories.id = steps.trajectory_id)');

-- Plain SQL, which disappears from plans. Each kept step is one search by key.
CREATE FUNCTION routines.steps_of(of_run bigint, kept_steps jsonb) RETURNS SETOF routines.steps LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT * FROM routines.steps WHERE trajectory_id = of_run
    UNION ALL
    SELECT found.* FROM jsonb_each_text(kept_steps) AS kept (step, run)
    CROSS JOIN LATERAL (
        SELECT * FROM routines.steps WHERE trajectory_id = kept.run::bigint AND name = kept.step LIMIT 1) AS found;
$$;
COMMENT ON FUNCTION routines.steps_of IS
    'The steps of a run, with those that it keeps of other runs, as far as these still exist.';

-- Checking the pattern costs a few microseconds a step, so each text is checked once.
CREATE FUNCTION routines.note_files_of_step() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
    of_collection bigint;
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    SELECT collection_id INTO of_collection FROM routines.trajectories WHERE id = NEW.trajectory_id;
    PERFORM routines.use_files(NEW.trajectory_id, of_collection,
                               ARRAY(SELECT routines.file_paths(concat_ws(' ', NEW.inputs, NEW.outputs))));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_files_of_step IS 'Records the files that a step''s inputs and outputs name.';
CREATE TRIGGER note_files AFTER INSERT ON routines.steps
    FOR EACH ROW WHEN (NEW.inputs::text ~ '[0-9a-f]{32}-' OR NEW.outputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();
CREATE TRIGGER note_changed_files AFTER UPDATE OF inputs, outputs ON routines.steps
    FOR EACH ROW WHEN (OLD.outputs IS DISTINCT FROM NEW.outputs AND NEW.outputs::text ~ '[0-9a-f]{32}-'
                       OR OLD.inputs IS DISTINCT FROM NEW.inputs AND NEW.inputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();
