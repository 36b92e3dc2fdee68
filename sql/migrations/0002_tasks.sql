-- Tasks and their immutable versions.

CREATE TABLE routines.tasks (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tasks_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT tasks_collection_id_fkey REFERENCES routines.collections (id),
    name          routines.slug NOT NULL,
    description   text NOT NULL DEFAULT '',
    version       integer NOT NULL DEFAULT 1 CONSTRAINT tasks_version_is_positive CHECK (version > 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_name_key UNIQUE (collection_id, name),
    -- The target of routines_task_fkey: a routine and its task share their collection.
    CONSTRAINT tasks_id_in_collection_key UNIQUE (id, collection_id)
);
COMMENT ON TABLE  routines.tasks IS 'A named workflow in a collection. Its content stands in task_versions.';
COMMENT ON COLUMN routines.tasks.id IS 'Database id; never leaves by HTTP.';
COMMENT ON COLUMN routines.tasks.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.tasks.name IS 'The {task} of every path; unique in its collection.';
COMMENT ON COLUMN routines.tasks.description IS 'Free text for people.';
COMMENT ON COLUMN routines.tasks.version IS 'The version that the next run starts with: a row of task_versions.';
COMMENT ON COLUMN routines.tasks.created_at IS 'When it was made.';
COMMENT ON COLUMN routines.tasks.updated_at IS 'Its last change.';

-- No foreign key to tasks: a run keeps the version it started with, even when the task is deleted meanwhile.
CREATE TABLE routines.task_versions (
    task_id     bigint NOT NULL,
    version     integer NOT NULL,
    workflow    json NOT NULL CONSTRAINT task_versions_workflow_is_object CHECK (json_typeof(workflow) = 'object'),
    init_params routines.json_object NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT task_versions_pkey PRIMARY KEY (task_id, version)
);
COMMENT ON TABLE  routines.task_versions IS 'Each change of a workflow is a new row; none is ever changed.';
COMMENT ON COLUMN routines.task_versions.task_id IS 'The task, which may be gone by now.';
COMMENT ON COLUMN routines.task_versions.version IS 'Counts from 1 within the task.';
COMMENT ON COLUMN routines.task_versions.workflow IS 'As it was sent, {init_params, step_configs, steps}; json, not jsonb, so that keys keep their order.';
COMMENT ON COLUMN routines.task_versions.init_params IS 'workflow.init_params as jsonb, kept by a trigger: parsed once here, not at every fire.';
COMMENT ON COLUMN routines.task_versions.created_at IS 'When this version was saved.';

CREATE FUNCTION routines.keep_init_params() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.init_params := coalesce(NEW.workflow -> 'init_params', '{}')::jsonb;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_init_params IS 'Derives task_versions.init_params from the workflow.';

CREATE TRIGGER keep_init_params BEFORE INSERT ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.keep_init_params();

CREATE FUNCTION routines.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a task version is immutable: insert version % and point tasks.version at it', OLD.version + 1
        USING ERRCODE = 'check_violation', CONSTRAINT = 'task_versions_is_immutable';
END $$;
COMMENT ON FUNCTION routines.refuse_change IS 'Keeps task_versions immutable.';

CREATE TRIGGER refuse_change BEFORE UPDATE ON routines.task_versions
    FOR EACH ROW EXECUTE FUNCTION routines.refuse_change();
