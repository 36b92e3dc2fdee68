-- What the chaos tests add to a migrated database, in a schema of their own: the driver's orders, and a journal of every
-- write, kept by triggers. The product's own tables and statements are unchanged.

CREATE SCHEMA chaos;

-- The changes that the driver made. Each row is written in the transaction of the change itself, under the routine's row
-- lock, so the order and the change are both there or both missing, whatever was killed in between.
CREATE TABLE chaos.orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    routine_id  bigint NOT NULL,
    kind        text NOT NULL,
    away        interval NOT NULL,  -- the offset of the routine, which never changes; 0 without a spread
    -- This and all later times are on the routine's own clock, which is behind by `away`.
    at          timestamptz NOT NULL,
    cadence     jsonb NOT NULL,
    paused      boolean NOT NULL,
    was         timestamptz,  -- next_run_at before the change: the first slot that had no outcome yet
    was_paused_at timestamptz,  -- paused_at before the change; null if it was not paused
    heavy       boolean NOT NULL,  -- its fires fail to start: the parameters are too large
    first       timestamptz,  -- the first slot that the driver left without outcome; null if the product set next_run_at
    became      timestamptz,  -- next_run_at after the change
    until       timestamptz,  -- when the pause that it leaves behind ends by itself
    note        text,         -- the note of that pause
    policy      text NOT NULL,  -- overlap_policy and max_concurrent of the routine, which never change
    most        integer NOT NULL
);

CREATE TABLE chaos.run_journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trajectory_id bigint NOT NULL,
    routine_id bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- within the transaction: before its commit
    transaction_at timestamptz NOT NULL DEFAULT now(),
    writer text NOT NULL DEFAULT session_user,          -- each process connects as its own role
    old_status text, status text NOT NULL,
    old_fence integer, fence integer NOT NULL,
    old_crashes integer, crashes integer NOT NULL,
    old_lease timestamptz, lease timestamptz,           -- null for infinity: Temporal has the run
    deadline timestamptz,
    old_place integer, place integer
);

-- Only of the collection "chaos": others may attack it, and the checker knows nothing of their runs. SECURITY DEFINER,
-- because the programs write as their roles, which have no rights here.
CREATE FUNCTION chaos.journal_run() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NEW.collection_id <> (SELECT id FROM routines.collections WHERE name = 'chaos') THEN
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' AND OLD.ended_at IS NOT NULL AND NEW.status = OLD.status THEN
        RETURN NULL;  -- a rerun has become its next attempt
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO chaos.run_journal (trajectory_id, routine_id, status, fence, crashes, lease, place)
        VALUES (NEW.id, NEW.triggered_by_routine_id, NEW.status, NEW.fence, NEW.crashes,
                nullif(NEW.lease_expires_at, 'infinity'), NEW.place);
    ELSE
        INSERT INTO chaos.run_journal (trajectory_id, routine_id, old_status, status, old_fence, fence,
                                       old_crashes, crashes, old_lease, lease, deadline, old_place, place)
        VALUES (NEW.id, NEW.triggered_by_routine_id, OLD.status, NEW.status, OLD.fence, NEW.fence,
                OLD.crashes, NEW.crashes, nullif(OLD.lease_expires_at, 'infinity'),
                nullif(NEW.lease_expires_at, 'infinity'), OLD.deadline_at, OLD.place, NEW.place);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_journal AFTER INSERT OR UPDATE ON routines.trajectories
    FOR EACH ROW EXECUTE FUNCTION chaos.journal_run();

CREATE TABLE chaos.step_journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trajectory_id bigint NOT NULL,
    step text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    transaction_at timestamptz NOT NULL DEFAULT now(),
    old_status text, status text NOT NULL,
    fence integer NOT NULL,
    current_fence integer NOT NULL
);

CREATE FUNCTION chaos.journal_step() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.step_journal (trajectory_id, step, old_status, status, fence, current_fence)
    SELECT NEW.trajectory_id, NEW.name, CASE TG_OP WHEN 'UPDATE' THEN OLD.status END, NEW.status, NEW.fence,
           trajectories.fence
    FROM routines.trajectories
    WHERE id = NEW.trajectory_id AND collection_id = (SELECT id FROM routines.collections WHERE name = 'chaos');
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_journal AFTER INSERT OR UPDATE ON routines.steps
    FOR EACH ROW EXECUTE FUNCTION chaos.journal_step();

-- Stalls fires in the middle of a batch, between its locks and its writes, which leaves races open longer than a fast disk
-- would. Settings of the database say how often and for how long.
CREATE FUNCTION chaos.stall() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < coalesce(current_setting('chaos.stall_share', true), '0')::float8 THEN
        PERFORM pg_sleep(current_setting('chaos.stall_seconds', true)::float8);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_stall BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.trigger = 'schedule') EXECUTE FUNCTION chaos.stall();
