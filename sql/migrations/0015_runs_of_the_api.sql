-- What runs need beyond the schedule: a collection's environment, runs started by steps, and steps tried again.

ALTER TABLE routines.collections
    ADD COLUMN environment_refs routines.json_object NOT NULL DEFAULT '{}',
    ADD COLUMN max_concurrent_runs integer CONSTRAINT collections_max_concurrent_runs_is_positive CHECK (max_concurrent_runs > 0);
COMMENT ON COLUMN routines.collections.environment_refs IS 'Environment variables by name: ids in secrets.';
COMMENT ON COLUMN routines.collections.max_concurrent_runs IS 'The most runs that workers have in hand at once; null: no limit of its own.';

ALTER TABLE routines.tasks
    ADD COLUMN max_concurrent_runs integer CONSTRAINT tasks_max_concurrent_runs_is_positive CHECK (max_concurrent_runs > 0);
COMMENT ON COLUMN routines.tasks.max_concurrent_runs IS 'The most runs that workers have in hand at once; null: no limit of its own.';

ALTER TABLE routines.trajectories
    ADD COLUMN parent_id bigint,
    ADD COLUMN parent_step text,
    ADD COLUMN child_index integer,
    ADD CONSTRAINT trajectories_parent_is_whole
        CHECK ((parent_id IS NULL) = (parent_step IS NULL) AND (parent_id IS NULL) = (child_index IS NULL));
-- A step that is done again finds the child that it started before.
CREATE UNIQUE INDEX trajectories_child_key ON routines.trajectories (parent_id, parent_step, child_index)
    WHERE parent_id IS NOT NULL;
COMMENT ON COLUMN routines.trajectories.parent_id IS 'The run that a step of started it; null: none.';
COMMENT ON COLUMN routines.trajectories.parent_step IS 'That step.';
COMMENT ON COLUMN routines.trajectories.child_index IS 'Its place among the children of that step, from 0.';

ALTER TABLE routines.steps
    ADD COLUMN try_number integer NOT NULL DEFAULT 1 CONSTRAINT steps_try_number_is_positive CHECK (try_number > 0),
    ADD COLUMN earlier_errors jsonb NOT NULL DEFAULT '[]'
        CONSTRAINT steps_earlier_errors_is_array CHECK (jsonb_typeof(earlier_errors) = 'array');
COMMENT ON COLUMN routines.steps.try_number IS 'Which try of the step this is, from 1: its retries, not the run''s attempts.';
COMMENT ON COLUMN routines.steps.earlier_errors IS 'Why the tries before this one failed: array of {at, error}.';
