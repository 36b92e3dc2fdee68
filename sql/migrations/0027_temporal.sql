-- Runs in the hands of Temporal: the second engine. Why so: docs/decisions/0016.

-- A constant default: no row is rewritten. No index has it, so that to dispatch a run stays HOT.
ALTER TABLE routines.trajectories ADD COLUMN engine text NOT NULL DEFAULT 'postgres'
    CONSTRAINT trajectories_engine_is_known CHECK (engine IN ('postgres', 'temporal'));
COMMENT ON COLUMN routines.trajectories.engine IS
    'Who has it in hand, or had at its end: a worker by its lease (postgres), or temporal; noted when it is dispatched. Pending runs are anybody''s.';
COMMENT ON COLUMN routines.trajectories.lease_expires_at IS
    'Until when the worker holds it, by this database''s clock; infinity: Temporal has it; null: nobody does.';

-- What is still to be settled between the two: as small as the runs that Temporal has at this moment.
CREATE TABLE routines.dispatches (
    trajectory_id bigint CONSTRAINT dispatches_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    workflow_id   text NOT NULL,
    number        integer NOT NULL,
    attempt       integer NOT NULL,
    turn          integer NOT NULL DEFAULT 0,
    try_number    integer NOT NULL DEFAULT 0,
    is_left       boolean NOT NULL DEFAULT true,
    waits         boolean NOT NULL DEFAULT false,
    dispatched_at timestamptz NOT NULL DEFAULT now(),
    submitted_at  timestamptz,
    checked_at    timestamptz NOT NULL DEFAULT now(),
    told_at       timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
COMMENT ON TABLE  routines.dispatches IS
    'Runs that Temporal has in hand: written with the claim, before Temporal is asked, and deleted once both know the end.';
COMMENT ON COLUMN routines.dispatches.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.dispatches.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.dispatches.workflow_id IS 'By which Temporal knows it, and accepts it once.';
COMMENT ON COLUMN routines.dispatches.number IS 'The fence as it was at the dispatch: what an earlier dispatch of the same run still does in Temporal is told apart by it.';
COMMENT ON COLUMN routines.dispatches.attempt IS 'The fence of whoever does a step now. Another one in trajectories: the run was taken from Temporal.';
COMMENT ON COLUMN routines.dispatches.turn IS 'Which activity of the workflow has the run, counted from 1; 0: none yet.';
COMMENT ON COLUMN routines.dispatches.try_number IS 'Which attempt of that activity, as Temporal counts.';
COMMENT ON COLUMN routines.dispatches.is_left IS 'Whether that attempt has left the run in order, as at a shutdown: the next one does not count as a crash.';
COMMENT ON COLUMN routines.dispatches.waits IS 'Whether its step waits for children: then it counts towards no limit.';
COMMENT ON COLUMN routines.dispatches.dispatched_at IS 'When it was claimed for Temporal.';
COMMENT ON COLUMN routines.dispatches.submitted_at IS 'When Temporal was known to have it; null: not known.';
COMMENT ON COLUMN routines.dispatches.checked_at IS 'When Temporal was last asked what became of it.';
COMMENT ON COLUMN routines.dispatches.told_at IS 'When Temporal was last told that the run was taken from it; null: not yet, or it was not.';

-- Whatever takes a run away raises the fence; the holder alone ends it as it is, and then Temporal knows the end already.
CREATE FUNCTION routines.forget_dispatch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.dispatches WHERE trajectory_id = NEW.id AND attempt = NEW.attempt;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_dispatch IS 'What Temporal itself has brought to its end is settled in the same transaction.';
CREATE TRIGGER forget_dispatch AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.engine = 'temporal' AND OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND NEW.attempt = OLD.attempt)
    EXECUTE FUNCTION routines.forget_dispatch();

SELECT routines.protect('routines.dispatches');
INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    ('routines_worker', 'routines.dispatches', 'SELECT, INSERT, UPDATE, DELETE'),
    ('routines_reader', 'routines.dispatches', 'SELECT');
SELECT routines.set_up_roles();
