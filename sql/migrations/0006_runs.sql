-- Runs: a trajectory is one run of a task, the queue that workers claim from, and the outbox of the fire.

-- No foreign keys here, on purpose. History outlives the routine and the task, and an insert needs no lock on
-- rows that the ticker holds FOR UPDATE (a foreign key's KEY SHARE would make SKIP LOCKED pass routines over).
CREATE TABLE routines.trajectories (
    id                      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT trajectories_pkey PRIMARY KEY,
    collection_id           bigint NOT NULL,
    task_id                 bigint NOT NULL,
    task_version            integer NOT NULL,
    triggered_by_routine_id bigint,
    scheduled_for           timestamptz,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    started_at              timestamptz,
    ended_at                timestamptz,
    lease_expires_at        timestamptz,
    deadline_at             timestamptz,
    attempt                 integer NOT NULL DEFAULT 0,
    crashes                 smallint NOT NULL DEFAULT 0,
    trigger                 text NOT NULL CONSTRAINT trajectories_trigger_is_known
                            CHECK (trigger IN ('schedule', 'run-now', 'api')),
    status                  text NOT NULL DEFAULT 'pending' CONSTRAINT trajectories_status_is_known
                            CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'archived')),
    worker                  text,
    init_params             routines.json_object NOT NULL,
    secret_refs             routines.json_object NOT NULL DEFAULT '{}',
    webhook_url             text,
    webhook_secret_id       uuid,
    labels                  jsonb NOT NULL DEFAULT '[]' CONSTRAINT trajectories_labels_is_array CHECK (jsonb_typeof(labels) = 'array'),
    error                   text,
    CONSTRAINT trajectories_schedule_has_slot CHECK ((trigger = 'schedule') = (scheduled_for IS NOT NULL)),
    CONSTRAINT trajectories_trigger_has_routine CHECK ((trigger = 'api') = (triggered_by_routine_id IS NULL)),
    CONSTRAINT trajectories_end_fits_status CHECK ((ended_at IS NULL) = (status IN ('pending', 'running'))),
    CONSTRAINT trajectories_lease_fits_status CHECK ((lease_expires_at IS NOT NULL) = (status = 'running'))
) WITH (
    -- Room for pending -> running, lease renewals and checkpoints on the row's own page: they touch no indexed
    -- column, so that 87 % of them were HOT in a measurement, against none at fillfactor 100.
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05
);

-- One run per slot: the second guard against a double fire, after the lock on the routine.
CREATE UNIQUE INDEX trajectories_slot_key ON routines.trajectories (triggered_by_routine_id, scheduled_for)
    WHERE scheduled_for IS NOT NULL;
-- One active scheduled run per routine: the overlap policy, held by the database.
CREATE UNIQUE INDEX trajectories_active_schedule_key ON routines.trajectories (triggered_by_routine_id)
    WHERE trigger = 'schedule' AND ended_at IS NULL;
-- Active run-now runs, which also hold back the schedule. Nearly empty, so nearly free.
CREATE INDEX trajectories_active_run_now_idx ON routines.trajectories (triggered_by_routine_id)
    WHERE trigger = 'run-now' AND ended_at IS NULL;
-- A routine's run-now runs, newest first; its scheduled ones come from trajectories_slot_key.
CREATE INDEX trajectories_run_now_idx ON routines.trajectories (triggered_by_routine_id, id)
    WHERE trigger = 'run-now';
-- The queue. On ended_at, not on status: pending -> running then changes no indexed column and stays HOT.
CREATE INDEX trajectories_active_idx ON routines.trajectories (id) WHERE ended_at IS NULL;
-- A task's runs, newest first.
CREATE INDEX trajectories_task_id_idx ON routines.trajectories (task_id, id);

COMMENT ON TABLE  routines.trajectories IS 'One run of a task: history, queue and the outbox of the fire.';
COMMENT ON COLUMN routines.trajectories.id IS 'trajectory_id in the API; workflow_id ends in it.';
COMMENT ON COLUMN routines.trajectories.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.trajectories.task_id IS 'The task, which may be gone by now.';
COMMENT ON COLUMN routines.trajectories.task_version IS 'The version it runs: fixed when the run was made.';
COMMENT ON COLUMN routines.trajectories.triggered_by_routine_id IS 'The routine that caused it, which may be gone by now; null: started by the API.';
COMMENT ON COLUMN routines.trajectories.scheduled_for IS 'The slot; null: not on schedule.';
COMMENT ON COLUMN routines.trajectories.created_at IS 'When it was fired; created_at - scheduled_for is the start delay.';
COMMENT ON COLUMN routines.trajectories.updated_at IS 'Its last change of state or checkpoint.';
COMMENT ON COLUMN routines.trajectories.started_at IS 'When a worker first claimed it; null: none yet.';
COMMENT ON COLUMN routines.trajectories.ended_at IS 'When it reached a final status; null: it is active.';
COMMENT ON COLUMN routines.trajectories.lease_expires_at IS 'Until when the worker holds it, by this database''s clock; null: nobody does.';
COMMENT ON COLUMN routines.trajectories.deadline_at IS 'When it fails, wherever it is; set by the first claim.';
COMMENT ON COLUMN routines.trajectories.attempt IS 'The fence: every write of a worker names it, and whatever takes the run away raises it.';
COMMENT ON COLUMN routines.trajectories.crashes IS 'How often its worker was lost. At three it fails.';
COMMENT ON COLUMN routines.trajectories.trigger IS 'schedule, run-now or api.';
COMMENT ON COLUMN routines.trajectories.status IS 'pending, running, and the final completed, failed, cancelled, archived.';
COMMENT ON COLUMN routines.trajectories.worker IS 'Who claimed it last: host and process.';
COMMENT ON COLUMN routines.trajectories.init_params IS 'The task''s init_params with the routine''s overrides merged over them.';
COMMENT ON COLUMN routines.trajectories.secret_refs IS 'Secret params by name: ids in secrets; emptied when the run ends.';
COMMENT ON COLUMN routines.trajectories.webhook_url IS 'Told when the run has ended; null: nobody is.';
COMMENT ON COLUMN routines.trajectories.webhook_secret_id IS 'Signs that webhook; null: unsigned.';
COMMENT ON COLUMN routines.trajectories.labels IS 'Array of {key, value, author}.';
COMMENT ON COLUMN routines.trajectories.error IS 'Why it failed, a sentence that names step and cause; null: it did not.';

CREATE TABLE routines.steps (
    trajectory_id bigint NOT NULL CONSTRAINT steps_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    name          text NOT NULL,
    position      integer NOT NULL,
    attempt       integer NOT NULL,
    status        text NOT NULL CONSTRAINT steps_status_is_known CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    activity      text NOT NULL,
    inputs        routines.json_object NOT NULL,
    outputs       jsonb,
    error         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    CONSTRAINT steps_pkey PRIMARY KEY (trajectory_id, name),
    CONSTRAINT steps_end_fits_status CHECK ((ended_at IS NULL) = (status = 'running'))
);
COMMENT ON TABLE  routines.steps IS 'The checkpoints of a run: a resumed run does not repeat what is completed here.';
COMMENT ON COLUMN routines.steps.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.steps.name IS 'The step''s name in the workflow.';
COMMENT ON COLUMN routines.steps.position IS 'Its place in workflow.steps, from 0.';
COMMENT ON COLUMN routines.steps.attempt IS 'The attempt of the run that wrote it.';
COMMENT ON COLUMN routines.steps.status IS 'running, completed, failed or cancelled.';
COMMENT ON COLUMN routines.steps.activity IS 'The activity it called.';
COMMENT ON COLUMN routines.steps.inputs IS 'Its parameters with the references resolved.';
COMMENT ON COLUMN routines.steps.outputs IS 'What the activity returned; null: nothing yet.';
COMMENT ON COLUMN routines.steps.error IS 'Why it failed; null: it did not.';
COMMENT ON COLUMN routines.steps.created_at IS 'When it started.';
COMMENT ON COLUMN routines.steps.ended_at IS 'When it ended; null: it has not.';

CREATE TABLE routines.webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_deliveries_pkey PRIMARY KEY,
    collection_id   bigint NOT NULL,
    trajectory_id   bigint NOT NULL CONSTRAINT webhook_deliveries_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    url             text NOT NULL,
    secret_id       uuid,
    attempts        jsonb NOT NULL DEFAULT '[]' CONSTRAINT webhook_deliveries_attempts_is_array CHECK (jsonb_typeof(attempts) = 'array'),
    next_attempt_at timestamptz DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz
);
CREATE INDEX webhook_deliveries_next_attempt_at_idx ON routines.webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_deliveries_trajectory_id_idx ON routines.webhook_deliveries (trajectory_id);
COMMENT ON TABLE  routines.webhook_deliveries IS 'The outbox of completion webhooks, written in the transaction that ends the run.';
COMMENT ON COLUMN routines.webhook_deliveries.id IS 'Database id; the webhook-id of every retry comes from it.';
COMMENT ON COLUMN routines.webhook_deliveries.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.webhook_deliveries.trajectory_id IS 'The run that ended.';
COMMENT ON COLUMN routines.webhook_deliveries.url IS 'Where to, as it was when the run was made.';
COMMENT ON COLUMN routines.webhook_deliveries.secret_id IS 'What signs it; null: unsigned.';
COMMENT ON COLUMN routines.webhook_deliveries.attempts IS 'Each attempt: {at, status, error}.';
COMMENT ON COLUMN routines.webhook_deliveries.next_attempt_at IS 'When to try next; null: delivered or given up.';
COMMENT ON COLUMN routines.webhook_deliveries.created_at IS 'When the run ended.';
COMMENT ON COLUMN routines.webhook_deliveries.delivered_at IS 'When the receiver took it; null: it has not.';

CREATE FUNCTION routines.settle_end_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.lease_expires_at := NULL;
    NEW.secret_refs := '{}';
    IF NEW.webhook_url IS NOT NULL THEN
        INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, url, secret_id)
        VALUES (NEW.collection_id, NEW.id, NEW.webhook_url, NEW.webhook_secret_id);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_end_of_run IS
    'However a run ends, its secrets go and its webhook is due in the same transaction.';
CREATE TRIGGER settle_end_of_run BEFORE UPDATE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION routines.settle_end_of_run();

CREATE FUNCTION routines.refuse_second_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % is %: a final status is final', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'trajectories_final_is_final';
END $$;
COMMENT ON FUNCTION routines.refuse_second_end IS 'Keeps final statuses final; only archiving may follow.';
CREATE TRIGGER refuse_second_end BEFORE UPDATE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status AND NEW.status <> 'archived')
    EXECUTE FUNCTION routines.refuse_second_end();

-- A run-now run waits for a tick that holds its routine, and holds off a tick that comes after: so the tick's
-- active-run check, which looks only once it has its locks, sees every run-now run that came before it.
CREATE FUNCTION routines.hold_routine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM routines.routines WHERE id = NEW.triggered_by_routine_id FOR UPDATE;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.hold_routine IS 'Puts run-now runs and ticks of one routine in a row.';
CREATE TRIGGER hold_routine BEFORE INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.trigger = 'run-now') EXECUTE FUNCTION routines.hold_routine();

CREATE FUNCTION routines.active_run_nows(routine_ids bigint[])
RETURNS TABLE (routine_id bigint, trajectory_id bigint) LANGUAGE sql VOLATILE ROWS 1 AS $$
    SELECT triggered_by_routine_id, min(id) FROM routines.trajectories
    WHERE trigger = 'run-now' AND ended_at IS NULL AND triggered_by_routine_id = ANY (routine_ids)
    GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.active_run_nows IS
    'Active run-now runs of these routines. VOLATILE so that it takes a snapshot of its own: called by the tick once it holds its locks, it sees what was committed while the tick waited for nothing.';

CREATE FUNCTION routines.workflow_id(collection_name text, task_name text, trajectory_id bigint)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'flow-' || collection_name || '-' || task_name || '--' || trajectory_id;
COMMENT ON FUNCTION routines.workflow_id IS 'What clients poll with: they take what follows the last --.';

CREATE FUNCTION routines.run_id(trajectory_id bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN md5('routines.run.' || trajectory_id)::uuid;
COMMENT ON FUNCTION routines.run_id IS 'The run_id of the API, derived from the trajectory''s id.';
