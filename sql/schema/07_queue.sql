-- How workers share the queue of runs: fair shares between collections and tasks, limits, and wakeups for idle workers. The
-- claim itself is in queries/runs.sql.

-- No triggers. An index on the status of trajectories would cost every run its HOT updates, so limited runs are counted here.
CREATE TABLE routines.limited_runs (
    trajectory_id bigint CONSTRAINT limited_runs_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    task_id       bigint NOT NULL
);
CREATE INDEX limited_runs_collection_id_idx ON routines.limited_runs (collection_id);
CREATE INDEX limited_runs_task_id_idx ON routines.limited_runs (task_id);
COMMENT ON TABLE  routines.limited_runs IS
    'Claimed runs that count towards a limit: those of limited collections and tasks that are not waiting for children.';
COMMENT ON COLUMN routines.limited_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.limited_runs.collection_id IS 'Its collection.';
COMMENT ON COLUMN routines.limited_runs.task_id IS 'Its task.';
SELECT routines.protect('routines.limited_runs');

CREATE FUNCTION routines.free_capacity_of_collection(of_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most integer := (SELECT max_concurrent_runs FROM routines.collections WHERE id = of_id);
BEGIN
    IF most IS NULL THEN
        RETURN NULL;
    END IF;
    -- Of two concurrent claims one gets the lock and the other leaves the collection to it. NO KEY, because an insert that
    -- refers to the row locks its key, and SKIP LOCKED would pass the collection over.
    PERFORM FROM routines.collections WHERE id = of_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    RETURN greatest(0, most - (SELECT count(*) FROM routines.limited_runs WHERE collection_id = of_id));
END $$;
COMMENT ON FUNCTION routines.free_capacity_of_collection IS
    'How many more runs of a collection may be claimed; null without a limit. Locks a limited collection until the transaction ends. VOLATILE, so that it counts with a snapshot taken once it has the lock.';

CREATE FUNCTION routines.free_capacity_of_task(of_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
COMMENT ON FUNCTION routines.free_capacity_of_task IS
    'How many more runs of a task may be claimed; null without a limit. Locks and counts like free_capacity_of_collection.';
REVOKE EXECUTE ON FUNCTION routines.free_capacity_of_collection, routines.free_capacity_of_task FROM PUBLIC;

-- Each lookup is one step in trajectories_active_idx. It passes over running runs, and over no pending ones. Conditions and
-- order use whole rows, because other indexes could serve a condition on a single column by reading all ended runs.
CREATE FUNCTION routines.collection_with_pending(after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT collection_id FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND collection_id > after
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.collection_with_pending IS 'The next collection after this one that has a pending run; null if there is none.';

CREATE FUNCTION routines.task_with_pending(of_collection bigint, after bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN collection_id = of_collection THEN task_id END FROM routines.trajectories
        WHERE ended_at IS NULL AND status = 'pending' AND (collection_id, task_id) > (of_collection, after)
        ORDER BY collection_id, task_id LIMIT 1);
COMMENT ON FUNCTION routines.task_with_pending IS 'The next task of a collection after this one that has a pending run; null if there is none.';

CREATE FUNCTION routines.fair_shares(
    capacity integer, after bigint, last_tasks jsonb, but_collections bigint[] DEFAULT '{}', most_each integer DEFAULT NULL
)
RETURNS TABLE (place integer, collection_id bigint, task_id bigint, share integer, is_limited boolean)
LANGUAGE plpgsql VOLATILE ROWS 10 AS $$
DECLARE
    collections      bigint[] := '{}';
    collections_free integer[] := '{}';
    tasks            bigint[];
    tasks_free       integer[];
    free             integer;
    first            bigint;
    own_share        integer;
    lap              integer := 0;
BEGIN
    -- From the collection after the last one served, round to that one.
    collection_id := after;
    WHILE cardinality(collections) < capacity LOOP
        collection_id := routines.collection_with_pending(collection_id);
        IF collection_id IS NULL AND lap = 0 THEN
            lap := 1;
            collection_id := routines.collection_with_pending(0);
        END IF;
        EXIT WHEN collection_id IS NULL OR lap = 1 AND collection_id > after;
        CONTINUE WHEN collection_id = ANY (but_collections);
        free := routines.free_capacity_of_collection(collection_id);
        IF free IS NULL OR free > 0 THEN
            collections := collections || collection_id;
            collections_free := collections_free || free;
        END IF;
    END LOOP;
    FOR i IN 1 .. cardinality(collections) LOOP
        collection_id := collections[i];
        own_share := least(capacity / cardinality(collections), collections_free[i], most_each);
        tasks := '{}';
        tasks_free := '{}';
        -- The same for the tasks of the collection.
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
            free := routines.free_capacity_of_task(task_id);
            IF free IS NULL OR free > 0 THEN
                tasks := tasks || task_id;
                tasks_free := tasks_free || free;
            END IF;
        END LOOP;
        FOR j IN 1 .. cardinality(tasks) LOOP
            place := i;
            task_id := tasks[j];
            share := least(own_share / cardinality(tasks), tasks_free[j]);
            is_limited := collections_free[i] IS NOT NULL OR tasks_free[j] IS NOT NULL;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.fair_shares IS
    'Divides the capacity of a claim equally between the collections with pending runs, starting after the collection `after`, and within each between its tasks, starting after its entry in last_tasks. Collections in but_collections get nothing, and no collection gets more than most_each. Limits are respected. The cost does not depend on how many runs are pending.';

-- No triggers. UNLOGGED: after a crash the table is empty, and workers poll anyway.
CREATE UNLOGGED TABLE routines.wakeups (
    worker       text CONSTRAINT wakeups_pkey PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.wakeups IS
    'Idle workers that asked to be woken. The next statement that inserts a run deletes these rows and sends one notification.';
COMMENT ON COLUMN routines.wakeups.worker IS 'Host and process.';
COMMENT ON COLUMN routines.wakeups.requested_at IS 'When it became idle.';

-- A notification costs each transaction that sends one a lock of the whole database at its commit. So only the first insert
-- after a worker became idle sends one, and a busy system sends none. A row that another transaction has locked is left to
-- that transaction. This is a hint: a worker that is not woken polls before long.
CREATE FUNCTION routines.wake_idle_workers() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.wakeups
    WHERE worker = ANY (ARRAY(SELECT worker FROM routines.wakeups ORDER BY worker FOR UPDATE SKIP LOCKED));
    IF FOUND THEN
        PERFORM pg_notify('routines_pending', '');
    END IF;
END $$;
COMMENT ON FUNCTION routines.wake_idle_workers IS 'Notifies the workers that asked to be woken.';

CREATE FUNCTION routines.wake_workers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM routines.wakeups) AND EXISTS (SELECT FROM inserted) THEN
        PERFORM routines.wake_idle_workers();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.wake_workers IS 'Wakes idle workers when runs are inserted.';
CREATE TRIGGER wake_workers AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.wake_workers();
