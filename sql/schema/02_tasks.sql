-- Tasks and the immutable versions of their workflows.

-- Triggers:
--   BEFORE UPDATE  refuse_older_version  if version decreases: raises
--   AFTER UPDATE   note_limited_runs     when a limit is set: counts the runs that are already claimed
--   AFTER DELETE   keep_name_of_task     records the name for the runs that remain
--   AFTER INSERT, UPDATE or DELETE  note_task  adds to the audit (chapter 15_audit)
CREATE TABLE routines.tasks (
    id                  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tasks_pkey PRIMARY KEY,
    collection_id       bigint NOT NULL CONSTRAINT tasks_collection_id_fkey REFERENCES routines.collections (id),
    name                routines.slug NOT NULL,
    description         text NOT NULL DEFAULT '',
    version             integer NOT NULL DEFAULT 1 CONSTRAINT tasks_version_is_positive CHECK (version > 0),
    max_concurrent_runs integer CONSTRAINT tasks_max_concurrent_runs_is_positive CHECK (max_concurrent_runs > 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_name_key UNIQUE (collection_id, name),
    -- Target of routines_task_fkey, which keeps a routine in its task's collection.
    CONSTRAINT tasks_id_in_collection_key UNIQUE (id, collection_id)
);
COMMENT ON TABLE  routines.tasks IS 'A named workflow in a collection. The workflow itself is in task_versions.';
COMMENT ON COLUMN routines.tasks.id IS 'Database id, never exposed by HTTP.';
COMMENT ON COLUMN routines.tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.tasks.name IS 'The {task} in every path; unique in its collection.';
COMMENT ON COLUMN routines.tasks.description IS 'Free text for people.';
COMMENT ON COLUMN routines.tasks.version IS 'The row of task_versions that the next run starts with.';
COMMENT ON COLUMN routines.tasks.max_concurrent_runs IS
    'The maximum number of runs that workers may have claimed at once; null if the task sets no limit.';
COMMENT ON COLUMN routines.tasks.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.tasks.updated_at IS 'Its last change.';
SELECT routines.protect('routines.tasks');

CREATE FUNCTION routines.refuse_older_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'task % is at version %: insert a new version instead of going back to %', OLD.id, OLD.version, NEW.version
        USING ERRCODE = 'check_violation', CONSTRAINT = 'tasks_version_only_grows';
END $$;
COMMENT ON FUNCTION routines.refuse_older_version IS
    'Keeps versions growing, so that a task''s oldest run shows which versions are no longer needed.';
CREATE TRIGGER refuse_older_version BEFORE UPDATE OF version ON routines.tasks
    FOR EACH ROW WHEN (NEW.version < OLD.version) EXECUTE FUNCTION routines.refuse_older_version();

-- The function is defined with the collections, which have the same trigger.
CREATE TRIGGER note_limited_runs AFTER UPDATE OF max_concurrent_runs ON routines.tasks
    FOR EACH ROW WHEN (OLD.max_concurrent_runs IS NULL AND NEW.max_concurrent_runs IS NOT NULL)
    EXECUTE FUNCTION routines.note_limited_runs();

CREATE FUNCTION routines.keep_name_of_task() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.deleted_tasks (id, collection_id, name) VALUES (OLD.id, OLD.collection_id, OLD.name);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_name_of_task IS 'Records the name of a deleted task.';
CREATE TRIGGER keep_name_of_task AFTER DELETE ON routines.tasks
    FOR EACH ROW EXECUTE FUNCTION routines.keep_name_of_task();

-- No triggers.
CREATE TABLE routines.deleted_tasks (
    id            bigint CONSTRAINT deleted_tasks_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT deleted_tasks_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    deleted_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  routines.deleted_tasks IS 'Names of deleted tasks. Runs outlive their task and are still shown under its name.';
COMMENT ON COLUMN routines.deleted_tasks.id IS 'The id that the task had.';
COMMENT ON COLUMN routines.deleted_tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.deleted_tasks.name IS 'Its last name.';
COMMENT ON COLUMN routines.deleted_tasks.deleted_at IS 'When it was deleted.';
SELECT routines.protect('routines.deleted_tasks');

-- Triggers:
--   BEFORE INSERT  complete_version  fills in init_params from the workflow, and collection_id from the task
--   BEFORE UPDATE  refuse_change     raises: a version is immutable
--
-- No foreign key to tasks: a run keeps the version it started with even if the task is deleted in the meantime.
CREATE TABLE routines.task_versions (
    task_id       bigint NOT NULL,
    version       integer NOT NULL,
    collection_id bigint NOT NULL,
    workflow      json NOT NULL CONSTRAINT task_versions_workflow_is_object CHECK (json_typeof(workflow) = 'object'),
    init_params   routines.json_object NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT task_versions_pkey PRIMARY KEY (task_id, version)
);
COMMENT ON TABLE  routines.task_versions IS 'Each change of a workflow is a new row; rows never change.';
COMMENT ON COLUMN routines.task_versions.task_id IS 'The task, which may have been deleted.';
COMMENT ON COLUMN routines.task_versions.version IS 'Counts from 1 within the task.';
COMMENT ON COLUMN routines.task_versions.collection_id IS 'The tenant, the same as the task''s. A trigger fills it in if it is missing.';
COMMENT ON COLUMN routines.task_versions.workflow IS
    'As sent: {init_params, step_configs, steps}. json rather than jsonb, to preserve the order of keys.';
COMMENT ON COLUMN routines.task_versions.init_params IS
    'workflow.init_params as jsonb, filled in by a trigger: parsed once here instead of at every fire.';
COMMENT ON COLUMN routines.task_versions.created_at IS 'When this version was saved.';
SELECT routines.protect('routines.task_versions');

CREATE FUNCTION routines.complete_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.init_params := coalesce(NEW.workflow -> 'init_params', '{}')::jsonb;
    NEW.collection_id := coalesce(
        NEW.collection_id, (SELECT tasks.collection_id FROM routines.tasks WHERE tasks.id = NEW.task_id));
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.complete_version IS
    'Derives init_params from the workflow, and fills in the task''s collection if it is missing.';
CREATE TRIGGER complete_version BEFORE INSERT ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.complete_version();

CREATE FUNCTION routines.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a task version is immutable: insert version % and point tasks.version at it', OLD.version + 1
        USING ERRCODE = 'check_violation', CONSTRAINT = 'task_versions_is_immutable';
END $$;
COMMENT ON FUNCTION routines.refuse_change IS 'Keeps task_versions immutable.';
CREATE TRIGGER refuse_change BEFORE UPDATE ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.refuse_change();
