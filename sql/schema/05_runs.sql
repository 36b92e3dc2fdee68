-- Runs. A trajectory is one run of a task: the clients' word is trajectory, the programs' word is run, and both are one row
-- of routines.trajectories. The same table is the queue that workers claim from.

-- Triggers, in the order in which they fire. Where two share an event, Postgres fires them by name.
--   BEFORE INSERT                 check_place        with a place only: raises if the routine has no such place free; 0 waits
--                                                    (chapter 06_overlap)
--   BEFORE INSERT                 find_root          children only: fills in root_id
--   BEFORE INSERT                 hold_routine       run-now, reruns, backfills: locks the routine, so its ticks come before or after
--   BEFORE INSERT                 link_rerun         reruns only: raises if the run that is rerun is active; makes it the newest
--                                                    attempt (chapter 06_reruns)
--   BEFORE UPDATE of status       refuse_second_end  if the run has ended: raises, except for archiving
--   BEFORE UPDATE of status       settle_end         if the run ends: closes its steps, inserts a retry if it is to be retried,
--                                                    clears lease and secret_refs, queues the webhook
--   AFTER INSERT                  note_started_run   inserted as running, as a retry that waits, but not for a place: adds to
--                                                    begun_runs and file_uses
--   AFTER INSERT                  mark_day_of_created  for a slot of half an hour ago: notes that its day has changed
--                                                    (chapter 14_day_sums)
--   AFTER INSERT, per statement   note_late_starts   slots that started late: notes them for alert rules (chapter 08_alerts)
--   AFTER INSERT, per statement   refuse_overlap     raises for a scheduled run without a place next to any other active run
--   AFTER INSERT, per statement   wake_workers       notifies idle workers
--   AFTER UPDATE of status        follow_end         if the run ends: cancels its children, deletes it from begun_runs and
--                                                    dispatches, notes how a slot ended for alert rules, deletes secrets that
--                                                    no other row needs, admits the run that waits for its place
--   AFTER UPDATE of status        leave_queue        pending to another status: adds to begun_runs if running, and to
--                                                    file_uses at the first time
--   AFTER UPDATE of status        leave_worker       running to another status: stops counting it towards limits
--   AFTER UPDATE                  mark_day_of_changed  the same for what reports count, and for retries
--   AFTER DELETE                  forget_active_run  deleted while active: deletes it from begun_runs and limited_runs
--   AFTER DELETE, per statement   mark_days_of_deleted  the same
-- A fire is an INSERT without rows for note_started_run. Renewing a lease fires none of them.
--
-- No foreign keys, on purpose. History outlives the routine and the task, and an insert needs no lock on rows that the ticker
-- holds FOR UPDATE (a foreign key's KEY SHARE would make SKIP LOCKED pass routines over).
CREATE TABLE routines.trajectories (
    id                      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT trajectories_pkey PRIMARY KEY,
    collection_id           bigint NOT NULL,
    task_id                 bigint NOT NULL,
    task_version            integer NOT NULL,
    nonce                   integer NOT NULL DEFAULT (random() * 4294967295 - 2147483648)::integer,
    triggered_by_routine_id bigint,
    scheduled_for           timestamptz,
    due_at                  timestamptz,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    started_at              timestamptz,
    ended_at                timestamptz,
    lease_expires_at        timestamptz,
    deadline_at             timestamptz,
    timeout_seconds         integer,
    fence                   integer NOT NULL DEFAULT 0,
    step_bytes              integer NOT NULL DEFAULT 0,
    crashes                 smallint NOT NULL DEFAULT 0,
    trigger                 text NOT NULL CONSTRAINT trajectories_trigger_is_known
                            CHECK (trigger IN ('schedule', 'run-now', 'api', 'retry', 'rerun', 'backfill')),
    status                  text NOT NULL DEFAULT 'pending' CONSTRAINT trajectories_status_is_known
                            CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'archived')),
    engine                  text NOT NULL DEFAULT 'postgres' CONSTRAINT trajectories_engine_is_known
                            CHECK (engine IN ('postgres', 'temporal')),
    worker                  text,
    later_claims            jsonb CONSTRAINT trajectories_later_claims_is_array CHECK (jsonb_typeof(later_claims) = 'array'),
    first_workflow_id       text,
    traceparent             text CONSTRAINT trajectories_traceparent_is_valid
                            CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    parent_id               bigint,
    parent_step             text,
    parent_attempt          integer,
    child_index             integer,
    root_id                 bigint,
    retry_of                bigint,
    retried_by              bigint,
    retry_number            smallint,
    rerun_of                bigint,
    kept_steps              jsonb,
    backfill_id             bigint,
    fills_slot              timestamptz,
    place                   smallint,
    taken_over_as           bigint,
    is_transient            boolean,
    init_params             routines.json_object NOT NULL,
    secret_refs             routines.json_object NOT NULL DEFAULT '{}',
    webhook_url             text,
    webhook_secret_id       uuid,
    slot_values             jsonb,
    labels                  jsonb NOT NULL DEFAULT '[]' CONSTRAINT trajectories_labels_is_array CHECK (jsonb_typeof(labels) = 'array'),
    error                   text,
    final_status            text GENERATED ALWAYS AS (CASE WHEN ended_at IS NOT NULL THEN status END) STORED,
    -- One rule for slots, retries, reruns and backfills, because each fire checks it.
    CONSTRAINT trajectories_schedule_has_slot CHECK (
        CASE WHEN scheduled_for IS NOT NULL THEN trigger = 'schedule'
             ELSE trigger <> 'schedule' AND (trigger = 'retry') = (retry_of IS NOT NULL AND retry_number IS NOT NULL)
                  AND (trigger <> 'rerun' OR rerun_of IS NOT NULL)
                  AND (trigger = 'backfill') = (backfill_id IS NOT NULL AND fills_slot IS NOT NULL) END),
    CONSTRAINT trajectories_trigger_has_routine CHECK (trigger = 'rerun' OR (trigger = 'api') = (triggered_by_routine_id IS NULL)),
    CONSTRAINT trajectories_end_fits_status CHECK ((ended_at IS NULL) = (status IN ('pending', 'running'))),
    CONSTRAINT trajectories_lease_fits_status CHECK ((lease_expires_at IS NOT NULL) = (status = 'running')),
    CONSTRAINT trajectories_parent_is_whole CHECK (
        (parent_id IS NULL) = (parent_step IS NULL) AND (parent_id IS NOT NULL OR child_index IS NULL AND parent_attempt IS NULL))
) WITH (
    -- Room on the row's own page for pending -> running, lease renewals and checkpoints: they change no indexed column, and
    -- 82-87 % of them were HOT in measurements, against none at fillfactor 100. The rest are ends of runs, which leave the
    -- partial indexes and cannot be HOT.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05
);

-- One run per slot: the second guard against a double fire, after the lock on the routine.
CREATE UNIQUE INDEX trajectories_slot_key ON routines.trajectories (triggered_by_routine_id, scheduled_for)
    WHERE scheduled_for IS NOT NULL;
-- The same for slots that backfills fill: one run that is not a later attempt.
CREATE UNIQUE INDEX trajectories_fill_key ON routines.trajectories (triggered_by_routine_id, fills_slot)
    WHERE fills_slot IS NOT NULL AND rerun_of IS NULL;
-- The runs of a backfill, which comes to each slot once.
CREATE UNIQUE INDEX trajectories_backfill_key ON routines.trajectories (backfill_id, fills_slot) WHERE backfill_id IS NOT NULL;
-- One active scheduled run per routine: the database enforces the overlap policy skip. This index and the next are worded so that
-- no other can answer `active_runs`. If the queue could, a plan made while there were few runs would use it, and go on to read all
-- active runs for each batch: so they are on final_status, which is null exactly while ended_at is.
CREATE UNIQUE INDEX trajectories_active_schedule_key ON routines.trajectories (triggered_by_routine_id)
    WHERE trigger = 'schedule' AND place IS NULL AND final_status IS NULL;
-- All other active runs of routines, which also hold back the schedule: run-now runs, retries, reruns, runs
-- of backfills, and scheduled runs with a place.
-- Nearly empty where nobody uses these, so nearly free.
CREATE INDEX trajectories_active_other_idx ON routines.trajectories (triggered_by_routine_id)
    WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND triggered_by_routine_id IS NOT NULL AND final_status IS NULL;
-- The other overlap policies: one active run in each place of a routine.
CREATE UNIQUE INDEX trajectories_active_place_key ON routines.trajectories (triggered_by_routine_id, place)
    WHERE place IS NOT NULL AND final_status IS NULL;
-- The runs that wait for a place. A search for that of one routine says place < 1, which this index cannot answer.
CREATE INDEX trajectories_waiting_idx ON routines.trajectories (id) WHERE place = 0 AND final_status IS NULL;
-- A routine's run-now runs, its retries, its reruns and those of backfills, newest first. Its scheduled runs come from trajectories_slot_key.
CREATE INDEX trajectories_unscheduled_idx ON routines.trajectories (triggered_by_routine_id, trigger, id)
    WHERE scheduled_for IS NULL AND triggered_by_routine_id IS NOT NULL;
-- The queue, by collection and task, so that a claim goes from one to the next whatever the backlog of each. Its columns do
-- not change while a run is active, and it is on ended_at rather than status: pending -> running and lease renewals stay HOT.
-- A search for active runs by another key says status IN ('pending', 'running'), which this index cannot answer: a plan made while
-- the index was empty would read all of it for each run.
CREATE INDEX trajectories_active_idx ON routines.trajectories (collection_id, task_id, id) WHERE ended_at IS NULL;
-- A task's ended runs by status, newest first, for lists and for counts from the index alone. On a column that is null while a run
-- is active: with an index on status, no claim would be HOT. It includes the tenant so that the policy on it needs no access to the
-- table. There is no index of all runs of a task: together with the queue this one holds them, and a fire writes one entry less.
CREATE INDEX trajectories_final_status_idx ON routines.trajectories (task_id, final_status, id) INCLUDE (collection_id)
    WHERE final_status IS NOT NULL;
-- A collection's runs by when they ended, for clients that follow it. A fire writes no entry, and a claim stays HOT: both leave ended_at null.
CREATE INDEX trajectories_ended_at_idx ON routines.trajectories (collection_id, ended_at) WHERE ended_at IS NOT NULL;
-- The oldest version of a task that a retry or a rerun has: newer than other runs, and with an older version.
CREATE INDEX trajectories_repeated_version_idx ON routines.trajectories (task_id, task_version)
    WHERE trigger <> 'schedule' AND (retry_of IS NOT NULL OR rerun_of IS NOT NULL);
-- The active reruns that keep steps of other runs.
CREATE INDEX trajectories_keeping_idx ON routines.trajectories (id) WHERE kept_steps IS NOT NULL AND final_status IS NULL;
-- A step that is repeated finds the child that it started before.
CREATE UNIQUE INDEX trajectories_child_key ON routines.trajectories (parent_id, parent_step, child_index)
    WHERE parent_id IS NOT NULL;
-- The runs of a tree, for their limit. Only children are in it.
CREATE INDEX trajectories_root_id_idx ON routines.trajectories (root_id) WHERE root_id IS NOT NULL;

COMMENT ON TABLE  routines.trajectories IS
    'One run of a task: history and queue. Clients call it a trajectory, the programs call it a run.';
COMMENT ON COLUMN routines.trajectories.id IS 'trajectory_id in the API, and the last part of workflow_id.';
COMMENT ON COLUMN routines.trajectories.nonce IS
    '32 random bits that run_id is made of, since ids are given out again after a restore. See docs/decisions/0020.';
COMMENT ON COLUMN routines.trajectories.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectories.task_id IS 'The task, which may have been deleted.';
COMMENT ON COLUMN routines.trajectories.task_version IS 'The version that it runs, fixed when the run was created.';
COMMENT ON COLUMN routines.trajectories.triggered_by_routine_id IS
    'The routine that started it, which may have been deleted; null if the API started it.';
COMMENT ON COLUMN routines.trajectories.scheduled_for IS 'Its slot; null if it was not started on schedule, also for a retry, whose slot is that of retry_of.';
COMMENT ON COLUMN routines.trajectories.due_at IS
    'When its slot was due, if its routine had a spread: scheduled_for plus the offset of the routine; null if it was due at scheduled_for.';
COMMENT ON COLUMN routines.trajectories.created_at IS
    'When it was fired. created_at - coalesce(due_at, scheduled_for) is the start delay.';
COMMENT ON COLUMN routines.trajectories.updated_at IS 'Its last change of status or checkpoint.';
COMMENT ON COLUMN routines.trajectories.started_at IS
    'When a worker first claimed it; null if none has. Later claims are in later_claims.';
COMMENT ON COLUMN routines.trajectories.ended_at IS 'When it reached a final status; null while it is active.';
COMMENT ON COLUMN routines.trajectories.lease_expires_at IS
    'When its worker''s lease expires, by this database''s clock, or without a worker when its wait is over, as that of a retry; infinity while Temporal has it, or while it waits without a worker for its children or for a place; null if it is not running.';
COMMENT ON COLUMN routines.trajectories.deadline_at IS 'When it fails if it has not ended; set by the first claim.';
COMMENT ON COLUMN routines.trajectories.timeout_seconds IS
    'The timeout_seconds of its routine when it was created; null for as long as the worker allows.';
COMMENT ON COLUMN routines.trajectories.fence IS
    'Raised by each claim and by anything else that takes the run from its worker. Every write of a worker names it, so earlier holders are fenced off.';
COMMENT ON COLUMN routines.trajectories.crashes IS 'How many times its worker was lost. At three the run fails.';
COMMENT ON COLUMN routines.trajectories.step_bytes IS
    'How many bytes its steps hold as JSON, inputs and outputs together; counted as they are written.';
COMMENT ON COLUMN routines.trajectories.trigger IS 'schedule, run-now, api, retry, rerun or backfill.';
COMMENT ON COLUMN routines.trajectories.status IS 'pending, running, or one of the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectories.engine IS
    'The engine that runs it, or ran it at its end: postgres (a worker with a lease) or temporal, set at dispatch. Either may take a pending run.';
COMMENT ON COLUMN routines.trajectories.worker IS
    'The last worker that claimed it: host and process; null while it waits for the next attempt of a step, until lease_expires_at.';
COMMENT ON COLUMN routines.trajectories.later_claims IS
    'The newest 50 claims after the first, an array of {at, fence, crashes}; null if there were none.';
COMMENT ON COLUMN routines.trajectories.traceparent IS
    'The span of the request, step or tick that started it, if that was traced (W3C Trace Context).';
COMMENT ON COLUMN routines.trajectories.first_workflow_id IS
    'Its workflow_id at the first claim; null if never claimed. Its id in Temporal begins with it and survives renaming or deleting the task.';
COMMENT ON COLUMN routines.trajectories.parent_id IS 'The run whose step started it; null for none.';
COMMENT ON COLUMN routines.trajectories.parent_step IS 'That step.';
COMMENT ON COLUMN routines.trajectories.parent_attempt IS 'The attempt of that step; null for the first, and without a parent.';
COMMENT ON COLUMN routines.trajectories.child_index IS
    'Its place among the children of that step, from 0. Null with a parent: it did not complete and a later attempt replaced it.';
COMMENT ON COLUMN routines.trajectories.root_id IS
    'The run at the root of its tree, which no other run started; null for that run itself. A trigger fills it in.';
COMMENT ON COLUMN routines.trajectories.retry_of IS 'Of a later attempt at a run of a routine, a retry or a rerun: the first one; null otherwise.';
COMMENT ON COLUMN routines.trajectories.retried_by IS 'Of a run of a routine: the next attempt, which is its retry or, after the last retry, the newest rerun; null for none. The last run of the chain is the outcome of the slot: see last_attempt.';
COMMENT ON COLUMN routines.trajectories.retry_number IS 'Of a retry: which one it is, from 1; null otherwise.';
COMMENT ON COLUMN routines.trajectories.rerun_of IS 'Of a rerun, also one by a backfill: the run that it repeats; null otherwise.';
COMMENT ON COLUMN routines.trajectories.kept_steps IS
    'Of a rerun from a step: the steps before it, each with the run that executed it, {step: run}. They are not copied. Null if it keeps none.';
COMMENT ON COLUMN routines.trajectories.backfill_id IS 'The backfill that started it; null for none.';
COMMENT ON COLUMN routines.trajectories.fills_slot IS 'The slot that it fills, if a backfill started it; null otherwise.';
COMMENT ON COLUMN routines.trajectories.place IS
    'Of a scheduled run, if the overlap policy of its routine is not skip: its place among the runs that may be active at once, from 1, or 0 while it waits for one; null otherwise.';
COMMENT ON COLUMN routines.trajectories.taken_over_as IS
    'Of a run that waited and was taken over by a later slot: the id that a new run would have had, by which its revision is found (chapter 15_audit); null otherwise.';
COMMENT ON COLUMN routines.trajectories.is_transient IS
    'Of a failed run: true if the cause may go away by itself, such as a timeout, a refused connection, an HTTP status of 408, 425, 429 or 500 and above, or lost workers; null if it has not failed.';
COMMENT ON COLUMN routines.trajectories.init_params IS 'The task''s init_params with the routine''s overrides merged over them.';
COMMENT ON COLUMN routines.trajectories.secret_refs IS 'Secret params: their names, with ids in secrets. Emptied when the run ends.';
COMMENT ON COLUMN routines.trajectories.webhook_url IS 'Receives a webhook when the run has ended; null for none.';
COMMENT ON COLUMN routines.trajectories.webhook_secret_id IS 'The secret that signs that webhook; null for unsigned.';
COMMENT ON COLUMN routines.trajectories.slot_values IS
    'What its references to slot refer to, see slot_values; null until something asks. Then fixed, so that a resumed run sees the same.';
COMMENT ON COLUMN routines.trajectories.labels IS 'Array of {key, value, author, created}, by the time at which each was set.';
COMMENT ON COLUMN routines.trajectories.error IS 'Why it failed, a sentence that names step and cause; null if it did not.';
COMMENT ON COLUMN routines.trajectories.final_status IS 'The status of an ended run; null while it is active.';
SELECT routines.protect('routines.trajectories');

CREATE FUNCTION routines.workflow_id(collection_name text, task_name text, trajectory_id bigint)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'flow-' || collection_name || '-' || task_name || '--' || trajectory_id;
COMMENT ON FUNCTION routines.workflow_id IS 'The workflow_id that clients poll with. They take the part after the last -- as the trajectory''s id.';

CREATE FUNCTION routines.run_id(trajectory_id bigint, created_at timestamptz, nonce integer) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN md5('routines.run.' || trajectory_id || '.' || extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00+00')
           || '.' || nonce)::uuid;
COMMENT ON FUNCTION routines.run_id IS
    'The run_id of the API. No other run has it, in this database or any other, also after a restore.';

CREATE FUNCTION routines.run_name(run routines.trajectories) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT collections.name || '/' || coalesce(tasks.name, deleted_tasks.name, 'deleted')
    FROM routines.collections
    LEFT JOIN routines.tasks ON tasks.id = run.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = run.task_id
    WHERE collections.id = run.collection_id
$$;
COMMENT ON FUNCTION routines.run_name IS 'collection/task, with the last name of a deleted task.';

CREATE FUNCTION routines.find_root() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.root_id := (SELECT coalesce(root_id, id) FROM routines.trajectories WHERE id = NEW.parent_id);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.find_root IS 'Fills in the root of the tree of a run that another run started.';
CREATE TRIGGER find_root BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION routines.find_root();

--------------------------------------------------------------------------------------------------- starting: overlaps
-- A run-now run, a rerun or a run of a backfill waits for a tick that has locked its routine, and holds off a later tick. So the tick's active-run
-- check, which looks once it has its locks, sees every such run that came before it.
CREATE FUNCTION routines.hold_routine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM routines.routines WHERE id = NEW.triggered_by_routine_id FOR UPDATE;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.hold_routine IS 'Serializes the ticks of a routine with run-now runs, reruns and runs of backfills.';
CREATE TRIGGER hold_routine BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.trigger IN ('run-now', 'rerun', 'backfill')) EXECUTE FUNCTION routines.hold_routine();

-- Under the policy skip no scheduled run starts while any run of its routine is active, however that one was triggered. The
-- database enforces it, so an INSERT typed in psql is rejected too: trajectories_active_schedule_key rejects it next to a scheduled
-- run, this trigger next to any other. It runs once per statement over all rows, because a trigger per row would cost the tick far
-- more. It takes no lock: a run-now run that comes while the INSERT is open comes after it, and may run alongside a scheduled run.
CREATE FUNCTION routines.refuse_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    active record;
BEGIN
    SELECT id, triggered_by_routine_id AS routine_id INTO active
    FROM routines.trajectories
    WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
      AND triggered_by_routine_id = ANY (ARRAY(SELECT triggered_by_routine_id FROM inserted
                                               WHERE inserted.trigger = 'schedule' AND inserted.place IS NULL))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'routine % has an active run, %: a scheduled run waits for its next slot', active.routine_id, active.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_schedule_does_not_overlap';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_overlap IS 'Rejects a scheduled run without a place while any other run of the same routine is active.';
CREATE TRIGGER refuse_overlap AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.refuse_overlap();

-- VOLATILE, so that it takes a snapshot of its own. The tick calls it once it holds its locks, so it sees what was committed since
-- the tick began.
CREATE FUNCTION routines.active_runs(routine_ids bigint[])
RETURNS TABLE (routine_id bigint, trajectory_id bigint) LANGUAGE sql VOLATILE ROWS 1 AS $$
    SELECT active.routine_id, min(active.id) FROM (
        SELECT triggered_by_routine_id AS routine_id, id FROM routines.trajectories
        WHERE trigger = 'schedule' AND place IS NULL AND final_status IS NULL AND triggered_by_routine_id = ANY (routine_ids)
        UNION ALL
        SELECT triggered_by_routine_id, id FROM routines.trajectories
        WHERE (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL AND triggered_by_routine_id = ANY (routine_ids)
    ) AS active GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.active_runs IS
    'The oldest active run of each of these routines that has one. VOLATILE, so that it takes its own snapshot.';

CREATE FUNCTION routines.newest_run(of_routine bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1),
        (SELECT id FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1));
$$;
COMMENT ON FUNCTION routines.newest_run IS 'The newest run of a routine other than later attempts; null if it has none.';

-- One search for each final status, since the index holds the runs of a task by status. The array of one task keeps task_id in the
-- order, where an equality would drop it, so that no index but this one has that order: the planner may think that every run has the
-- task and the status, and that the primary key finds the newest at once. Not by comparing rows: before Postgres 18 such a search
-- ends at the last run of the task, whatever its status. Plain SQL, which disappears from plans.
CREATE FUNCTION routines.newest_ended(of_task bigint, of_status text, before_id bigint, most bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT ended.id FROM unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS wanted (final_status)
    CROSS JOIN LATERAL (
        SELECT id FROM routines.trajectories
        WHERE task_id = ANY (ARRAY[of_task]) AND final_status = wanted.final_status
          AND id < coalesce(before_id, 9223372036854775807)
        ORDER BY task_id DESC, id DESC LIMIT most) AS ended
    WHERE coalesce(wanted.final_status = of_status, true)
    ORDER BY ended.id DESC LIMIT most;
$$;
COMMENT ON FUNCTION routines.newest_ended IS
    'The newest ended runs of a task, newest first: those with this final status, or all if that is null, and with an id below before_id, if given.';

-- Searches each index in the same way.
CREATE FUNCTION routines.oldest_version_in_use(of_collection bigint, of_task bigint) RETURNS integer LANGUAGE sql STABLE
RETURN (SELECT min(task_version) FROM (
    (SELECT task_version FROM routines.trajectories
     WHERE ended_at IS NULL AND collection_id = ANY (ARRAY[of_collection]) AND task_id = of_task
     ORDER BY collection_id, id LIMIT 1)
    UNION ALL
    (SELECT ended.task_version FROM unnest(ARRAY['completed', 'failed', 'cancelled', 'archived']) AS wanted (final_status)
     CROSS JOIN LATERAL (
         SELECT task_version FROM routines.trajectories
         WHERE task_id = ANY (ARRAY[of_task]) AND final_status = wanted.final_status
         ORDER BY task_id, id LIMIT 1) AS ended)
    UNION ALL
    (SELECT task_version FROM routines.trajectories
     WHERE trigger <> 'schedule' AND (retry_of IS NOT NULL OR rerun_of IS NOT NULL) AND task_id = ANY (ARRAY[of_task])
     ORDER BY task_id, task_version LIMIT 1)
) AS oldest);
COMMENT ON FUNCTION routines.oldest_version_in_use IS
    'The oldest version of a task that a run has, active or ended; null if it has no runs. Versions only grow, so it is that of an oldest run, or of a retry or rerun, which has the version of an earlier run.';

-------------------------------------------------------------------------------------------- running: claims and returns
-- No triggers.
--
-- Begun runs apart from the backlog: queries for expired leases, deadlines or running runs of a task must not read all
-- pending runs. An index on the status would cost every claim its HOT update; a row here is written once, at a run's first
-- claim, and deleted at its end. Triggers maintain it, so that it also follows a statement typed in psql.
CREATE TABLE routines.begun_runs (
    task_id       bigint NOT NULL,
    trajectory_id bigint NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT begun_runs_pkey PRIMARY KEY (task_id, trajectory_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.begun_runs IS
    'Runs that a worker has claimed at least once and that have not ended: running, or pending again. Maintained by triggers.';
COMMENT ON COLUMN routines.begun_runs.task_id IS 'The task.';
COMMENT ON COLUMN routines.begun_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.begun_runs.collection_id IS 'The tenant.';
SELECT routines.protect('routines.begun_runs');

CREATE FUNCTION routines.note_started_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id) VALUES (NEW.task_id, NEW.id, NEW.collection_id)
    ON CONFLICT DO NOTHING;
    IF NEW.init_params::text ~ '[0-9a-f]{32}-' THEN
        PERFORM routines.use_files(NEW.id, NEW.collection_id, ARRAY(SELECT routines.file_paths(NEW.init_params::text)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_started_run IS 'Records a run that was inserted as running, and the files that its parameters name.';
CREATE TRIGGER note_started_run AFTER INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.status = 'running' AND NEW.place IS NULL) EXECUTE FUNCTION routines.note_started_run();

CREATE FUNCTION routines.leave_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status = 'running' THEN
        INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id) VALUES (NEW.task_id, NEW.id, NEW.collection_id)
        ON CONFLICT DO NOTHING;
    END IF;
    -- The files that its parameters name: here and not at the INSERT, because a tick has nothing to do with files. Deleting
    -- files looks at active runs itself. The pattern is the beginning of a path, see file_paths.
    IF OLD.fence = 0 AND NEW.init_params::text ~ '[0-9a-f]{32}-' THEN
        PERFORM routines.use_files(NEW.id, NEW.collection_id, ARRAY(SELECT routines.file_paths(NEW.init_params::text)));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.leave_queue IS
    'Records a run that has begun and, the first time, the files that its parameters name.';
CREATE TRIGGER leave_queue AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'pending' AND NEW.status <> 'pending') EXECUTE FUNCTION routines.leave_queue();

CREATE FUNCTION routines.leave_worker() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.limited_runs WHERE trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.leave_worker IS 'Stops counting a run towards limits once no worker has claimed it.';
CREATE TRIGGER leave_worker AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION routines.leave_worker();

CREATE FUNCTION routines.forget_active_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.begun_runs WHERE task_id = OLD.task_id AND trajectory_id = OLD.id;
    DELETE FROM routines.limited_runs WHERE trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_active_run IS 'Removes a deleted run from the tables of active runs.';
CREATE TRIGGER forget_active_run AFTER DELETE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION routines.forget_active_run();

---------------------------------------------------------------------------------------------------------- ending a run
CREATE FUNCTION routines.refuse_second_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % is %: a final status is final', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_final_is_final';
END $$;
COMMENT ON FUNCTION routines.refuse_second_end IS 'Keeps final statuses final. Only archiving may follow.';
CREATE TRIGGER refuse_second_end BEFORE UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status AND NEW.status <> 'archived')
    EXECUTE FUNCTION routines.refuse_second_end();

-- BEFORE, so that it can change the row, and so that steps are closed while the run still belongs to its worker.
CREATE FUNCTION routines.settle_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE routines.steps
    SET status = CASE NEW.status WHEN 'failed' THEN 'failed' ELSE 'cancelled' END, ended_at = now(), error = NEW.error
    WHERE trajectory_id = NEW.id AND status = 'running';
    IF NEW.status = 'failed' THEN
        NEW.is_transient := routines.is_transient_failure(NEW, OLD.crashes);
        IF NEW.trigger IN ('schedule', 'retry') THEN
            NEW.retried_by := routines.follow_failure(NEW);
        END IF;
    END IF;
    NEW.lease_expires_at := NULL;
    NEW.secret_refs := '{}';
    -- A run that is retried sends none: its receiver hears of the last attempt.
    IF NEW.webhook_url IS NOT NULL AND NEW.retried_by IS NULL THEN
        INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url, secret_id)
        VALUES (NEW.collection_id, NEW.id, NEW.triggered_by_routine_id, NEW.status, NEW.webhook_url, NEW.webhook_secret_id);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_end IS
    'However a run ends, in the same transaction no step of it stays running, its lease and secrets are gone, and its retry is inserted or else its webhook is queued.';
CREATE TRIGGER settle_end BEFORE UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION routines.settle_end();

CREATE FUNCTION routines.follow_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.status <> 'completed' THEN
        UPDATE routines.trajectories
        SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
            error = 'cancelled: run ' || NEW.id || ', which started it, is ' || NEW.status
        WHERE parent_id = NEW.id AND status IN ('pending', 'running');
    END IF;
    DELETE FROM routines.begun_runs WHERE task_id = OLD.task_id AND trajectory_id = OLD.id;
    -- If the fence is unchanged, Temporal itself ended the run and knows it. Otherwise the run was taken from Temporal, and
    -- the dispatch stays until Temporal has been told.
    IF OLD.engine = 'temporal' AND NEW.fence = OLD.fence THEN
        DELETE FROM routines.dispatches WHERE trajectory_id = NEW.id AND fence = NEW.fence;
    END IF;
    IF NEW.trigger IN ('schedule', 'retry', 'rerun') AND NEW.status IN ('completed', 'failed') AND NEW.retried_by IS NULL THEN
        PERFORM routines.note_end(NEW);
    END IF;
    IF OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL THEN
        PERFORM routines.forget_secrets(
            routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.triggered_by_routine_id, OLD.id);
    END IF;
    IF OLD.place > 0 OR OLD.trigger <> 'schedule' AND OLD.triggered_by_routine_id IS NOT NULL THEN
        PERFORM routines.admit_waiting_run(OLD.triggered_by_routine_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.follow_end IS
    'Cancels the children of a run that did not complete, notes for alert rules how a slot ended, deletes what only the active run needed (its rows in begun_runs and dispatches, and its secrets), and admits the run that waits for its place.';
CREATE TRIGGER follow_end AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION routines.follow_end();

-- Reports nothing but the end of runs, for any collection, so that one poll serves all waiting requests of a process.
CREATE FUNCTION routines.ended_runs(run_ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 10 SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM routines.trajectories WHERE id = ANY (run_ids) AND ended_at IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.ended_runs IS 'Those of these runs that have ended, in any collection.';
REVOKE EXECUTE ON FUNCTION routines.ended_runs FROM PUBLIC;

-------------------------------------------------------------------------------------- the last attempt at a slot
-- Step by step through the chain, which max_attempts bounds, since it ends with one rerun. An attempt that retention has deleted ends
-- it too.
CREATE FUNCTION routines.last_attempt(of_run bigint, retried_by bigint) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    later bigint;
BEGIN
    WHILE retried_by IS NOT NULL LOOP
        SELECT trajectories.retried_by INTO later FROM routines.trajectories WHERE id = last_attempt.retried_by;
        EXIT WHEN NOT FOUND;
        of_run := retried_by;
        retried_by := later;
    END LOOP;
    RETURN of_run;
END $$;
COMMENT ON FUNCTION routines.last_attempt IS 'The last run of the chain of attempts that begins with this run; the run itself if there was no other.';

CREATE FUNCTION routines.status_of_attempt(of_run bigint) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT status FROM routines.trajectories WHERE id = of_run);
END $$;
COMMENT ON FUNCTION routines.status_of_attempt IS 'The status of a run.';

-- Plain SQL, so that nothing is called for a run that was not retried.
CREATE FUNCTION routines.status_of_slot(run_id bigint, status text, retried_by bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN retried_by IS NULL THEN status
            ELSE routines.status_of_attempt(routines.last_attempt(run_id, retried_by)) END;
COMMENT ON FUNCTION routines.status_of_slot IS 'The status of the last attempt at the slot of this scheduled run.';
