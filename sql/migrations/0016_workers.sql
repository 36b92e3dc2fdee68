-- What workers share: turns of the collections, limits, a bell for the idle, and what the end of a run takes with it.

-- The queue, by collection and task, so that a claim goes from one to the next however long the backlog of each is. No
-- column of it changes while a run is active: pending -> running and every renewal stay HOT.
DROP INDEX routines.trajectories_active_idx;
CREATE INDEX trajectories_active_idx ON routines.trajectories (collection_id, task_id, id) WHERE ended_at IS NULL;

ALTER TABLE routines.trajectories ADD COLUMN first_workflow_id text;
COMMENT ON COLUMN routines.trajectories.first_workflow_id IS
    'Its workflow_id at the first claim: the idempotency keys of its steps begin with it, and stay when the task is renamed or deleted; null: never claimed.';

-- Counting what is in hand by an index on status would cost every run its HOT updates. So what is limited is noted apart.
CREATE TABLE routines.limited_runs (
    trajectory_id bigint CONSTRAINT limited_runs_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    task_id       bigint NOT NULL
);
CREATE INDEX limited_runs_collection_id_idx ON routines.limited_runs (collection_id);
CREATE INDEX limited_runs_task_id_idx ON routines.limited_runs (task_id);
COMMENT ON TABLE  routines.limited_runs IS
    'Runs that workers have in hand and that count towards a limit: of limited collections and tasks, and not waiting for children.';
COMMENT ON COLUMN routines.limited_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.limited_runs.collection_id IS 'Its collection.';
COMMENT ON COLUMN routines.limited_runs.task_id IS 'Its task.';

CREATE FUNCTION routines.room_of_collection(of_id bigint) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    most integer := (SELECT max_concurrent_runs FROM routines.collections WHERE id = of_id);
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    -- Of two claims one goes first; the other leaves the collection to it. NO KEY, since an insert that refers to the row
    -- holds its key, and SKIP LOCKED would pass the collection over.
    PERFORM FROM routines.collections WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN greatest(0, most - (SELECT count(*) FROM routines.limited_runs WHERE collection_id = of_id));
END $$;
COMMENT ON FUNCTION routines.room_of_collection IS
    'How many more runs of a collection may be claimed; null: no limit. Locks a limited one until the transaction ends. VOLATILE so that it counts with a snapshot taken once it has the lock.';

CREATE FUNCTION routines.room_of_task(of_id bigint) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    most integer := (SELECT max_concurrent_runs FROM routines.tasks WHERE id = of_id);
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM routines.tasks WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN greatest(0, most - (SELECT count(*) FROM routines.limited_runs WHERE task_id = of_id));
END $$;
COMMENT ON FUNCTION routines.room_of_task IS
    'How many more runs of a task may be claimed; null: no limit. Locks a limited one until the transaction ends, and counts like room_of_collection.';

-- Each lookup below is a step in trajectories_active_idx that passes over what is running, and over nothing that waits.
-- Compared and ordered by whole rows, since other indexes would serve a condition on a single column: with all that ended.
CREATE FUNCTION routines.collection_with_pending(after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT collection_id FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND collection_id > after
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.collection_with_pending IS 'The next collection after this one that has a pending run; null: none.';

CREATE FUNCTION routines.task_with_pending(of_collection bigint, after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN collection_id = of_collection THEN task_id END FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND (collection_id, task_id) > (of_collection, after)
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.task_with_pending IS 'The next task of a collection after this one that has a pending run; null: none.';

CREATE FUNCTION routines.turns(slots integer, after bigint, last_tasks jsonb)
RETURNS TABLE (turn integer, collection_id bigint, task_id bigint, share integer, is_limited boolean)
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    collections bigint[] := '{}';
    rooms       integer[] := '{}';
    tasks       bigint[];
    task_rooms  integer[];
    room        integer;
    first       bigint;
    own_share   integer;
    lap         integer := 0;
BEGIN
    -- From the collection after the last one served, round to that one.
    collection_id := after;
    WHILE cardinality(collections) < slots LOOP
        collection_id := routines.collection_with_pending(collection_id);
        IF collection_id IS NULL AND lap = 0 THEN
            lap := 1;
            collection_id := routines.collection_with_pending(0);
        END IF;
        EXIT WHEN collection_id IS NULL OR lap = 1 AND collection_id > after;
        room := routines.room_of_collection(collection_id);
        IF room IS NULL OR room > 0 THEN
            collections := collections || collection_id;
            rooms := rooms || room;
        END IF;
    END LOOP;
    FOR i IN 1 .. cardinality(collections) LOOP
        collection_id := collections[i];
        own_share := least(slots / cardinality(collections), rooms[i]);
        tasks := '{}';
        task_rooms := '{}';
        -- The same for its tasks.
        first := coalesce((last_tasks ->> collection_id::text)::bigint, 0);
        task_id := first;
        lap := 0;
        WHILE cardinality(tasks) < own_share LOOP
            task_id := routines.task_with_pending(collection_id, task_id);
            IF task_id IS NULL AND lap = 0 THEN
                lap := 1;
                task_id := routines.task_with_pending(collection_id, 0);
            END IF;
            EXIT WHEN task_id IS NULL OR lap = 1 AND task_id > first;
            room := routines.room_of_task(task_id);
            IF room IS NULL OR room > 0 THEN
                tasks := tasks || task_id;
                task_rooms := task_rooms || room;
            END IF;
        END LOOP;
        FOR j IN 1 .. cardinality(tasks) LOOP
            turn := i;
            task_id := tasks[j];
            share := least(own_share / cardinality(tasks), task_rooms[j]);
            is_limited := rooms[i] IS NOT NULL OR task_rooms[j] IS NOT NULL;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.turns IS
    'How a claim of this many slots is shared: equally between the collections with pending runs, those after `after` first, and within each between its tasks, those after its entry in last_tasks first; never more than a limit leaves room for. Its cost does not depend on how many runs wait.';

CREATE FUNCTION routines.note_limited_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO routines.limited_runs (trajectory_id, collection_id, task_id)
    SELECT id, collection_id, task_id FROM routines.trajectories
    WHERE ended_at IS NULL AND status = 'running'
      AND CASE TG_TABLE_NAME WHEN 'collections' THEN collection_id = NEW.id ELSE task_id = NEW.id END
      AND NOT EXISTS (SELECT FROM routines.trajectories AS child
                      WHERE child.parent_id = trajectories.id AND child.ended_at IS NULL)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_limited_runs IS 'A limit that is set counts what is in hand already, but for runs that wait for children.';
CREATE TRIGGER note_limited_runs AFTER UPDATE OF max_concurrent_runs ON routines.collections
    FOR EACH ROW WHEN (OLD.max_concurrent_runs IS NULL AND NEW.max_concurrent_runs IS NOT NULL)
    EXECUTE FUNCTION routines.note_limited_runs();
CREATE TRIGGER note_limited_runs AFTER UPDATE OF max_concurrent_runs ON routines.tasks
    FOR EACH ROW WHEN (OLD.max_concurrent_runs IS NULL AND NEW.max_concurrent_runs IS NOT NULL)
    EXECUTE FUNCTION routines.note_limited_runs();

CREATE FUNCTION routines.free_limited_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.limited_runs WHERE trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.free_limited_run IS 'A run that no worker has in hand any more counts towards no limit.';
CREATE TRIGGER free_limited_run AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION routines.free_limited_run();
CREATE TRIGGER free_deleted_limited_run AFTER DELETE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'running') EXECUTE FUNCTION routines.free_limited_run();

-- BEFORE, like settle_end_of_run: the steps are closed while the run is still in the hands that it is taken from.
CREATE FUNCTION routines.close_steps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE routines.steps
    SET status = CASE NEW.status WHEN 'failed' THEN 'failed' ELSE 'cancelled' END, ended_at = now(), error = NEW.error
    WHERE trajectory_id = NEW.id AND status = 'running';
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.close_steps IS 'No step is running in a run that has ended, however it ended.';
CREATE TRIGGER close_steps BEFORE UPDATE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION routines.close_steps();

CREATE FUNCTION routines.cancel_children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE routines.trajectories
    SET status = 'cancelled', attempt = attempt + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
        error = 'cancelled: run ' || NEW.id || ', which started it, is ' || NEW.status
    WHERE parent_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.cancel_children IS 'Nobody waits for the children of a run that failed or was cancelled: they end with it.';
CREATE TRIGGER cancel_children AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.status IN ('failed', 'cancelled', 'archived'))
    EXECUTE FUNCTION routines.cancel_children();

-- UNLOGGED: after a crash no bell hangs, and the workers look by themselves.
CREATE UNLOGGED TABLE routines.bells (
    worker  text CONSTRAINT bells_pkey PRIMARY KEY,
    hung_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.bells IS 'Workers that found nothing to do: whoever inserts a run takes these rows and notifies once.';
COMMENT ON COLUMN routines.bells.worker IS 'Host and process.';
COMMENT ON COLUMN routines.bells.hung_at IS 'When it became idle.';

-- A notification costs every transaction that sends one a lock of the whole database at its commit. So only the first
-- insert after a worker became idle sends one: a busy system sends none. A bell that another transaction has in hand is
-- rung by that one. A hint: who is not rung for looks by itself before long.
CREATE FUNCTION routines.ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM routines.bells) AND EXISTS (SELECT FROM inserted) THEN
        DELETE FROM routines.bells
        WHERE worker = ANY (ARRAY(SELECT worker FROM routines.bells ORDER BY worker FOR UPDATE SKIP LOCKED));
        IF FOUND THEN
            PERFORM pg_notify('routines_pending', '');
        END IF;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.ring IS 'Wakes idle workers when runs were inserted.';
CREATE TRIGGER ring AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.ring();
