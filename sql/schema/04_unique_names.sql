-- The names of routines, which are unique in a task, and of deleted routines.

-- No triggers.
--
-- The table that every fire writes keeps two hot indexes: its key, and the due index. A fire moves next_run_at, so each index
-- of `routines` gets a new entry for each fire, and those of names are scattered: among a million routines, 10,000 fires
-- touched 5,600 pages of it. So names have their index here, in a table that no fire writes.
CREATE TABLE routines.routine_names (
    task_id       bigint NOT NULL,
    name          routines.slug NOT NULL,
    routine_id    bigint NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT routines_name_key PRIMARY KEY (task_id, name),
    -- For calendar feeds, which a foreign key deletes with their routine. One to routines would cost each fire.
    CONSTRAINT routine_names_routine_id_key UNIQUE (routine_id),
    CONSTRAINT routines_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id)
);
-- Counts the routines of a collection, for its limit.
CREATE INDEX routine_names_collection_id_idx ON routines.routine_names (collection_id);
COMMENT ON TABLE  routines.routine_names IS 'Which routine has which name. Maintained by triggers on routines; do not write it directly.';
COMMENT ON COLUMN routines.routine_names.task_id IS 'The routine''s task.';
COMMENT ON COLUMN routines.routine_names.name IS 'Its name, unique in its task.';
COMMENT ON COLUMN routines.routine_names.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.routine_names.collection_id IS 'The tenant, the same as the task''s.';
SELECT routines.protect('routines.routine_names');

-- No triggers.
CREATE TABLE routines.deleted_routines (
    id            bigint CONSTRAINT deleted_routines_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT deleted_routines_collection_id_fkey REFERENCES routines.collections (id),
    task_id       bigint NOT NULL,
    name          routines.slug NOT NULL,
    deleted_at    timestamptz NOT NULL DEFAULT now()
);
-- A report finds the routines that were deleted since it begins.
CREATE INDEX deleted_routines_collection_id_idx ON routines.deleted_routines (collection_id, deleted_at);
COMMENT ON TABLE  routines.deleted_routines IS 'Names of deleted routines. Their slots outlive them in the ledger, and in reports of the time before.';
COMMENT ON COLUMN routines.deleted_routines.id IS 'The id that the routine had.';
COMMENT ON COLUMN routines.deleted_routines.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.deleted_routines.task_id IS 'Its task, which may have been deleted.';
COMMENT ON COLUMN routines.deleted_routines.name IS 'Its last name.';
COMMENT ON COLUMN routines.deleted_routines.deleted_at IS 'When it was deleted.';
SELECT routines.protect('routines.deleted_routines');

CREATE FUNCTION routines.keep_names() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO routines.routine_names (task_id, name, routine_id, collection_id)
            SELECT task_id, name, id, collection_id FROM inserted;
        WHEN 'UPDATE' THEN
            UPDATE routines.routine_names
            SET task_id = NEW.task_id, name = NEW.name, routine_id = NEW.id, collection_id = NEW.collection_id
            WHERE task_id = OLD.task_id AND name = OLD.name;
        WHEN 'DELETE' THEN
            DELETE FROM routines.routine_names WHERE task_id = OLD.task_id AND name = OLD.name;
            INSERT INTO routines.deleted_routines (id, collection_id, task_id, name)
            VALUES (OLD.id, OLD.collection_id, OLD.task_id, OLD.name) ON CONFLICT DO NOTHING;
        WHEN 'TRUNCATE' THEN
            DELETE FROM routines.routine_names;
    END CASE;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_names IS
    'Keeps routine_names in step with routines, which also rejects a name that is taken and a task that does not exist; records the name of a deleted routine.';
CREATE TRIGGER keep_names_of_new AFTER INSERT ON routines.routines
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_changed AFTER UPDATE OF id, collection_id, task_id, name ON routines.routines
    FOR EACH ROW WHEN ((OLD.id, OLD.collection_id, OLD.task_id, OLD.name) IS DISTINCT FROM
                       (NEW.id, NEW.collection_id, NEW.task_id, NEW.name)) EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_truncated AFTER TRUNCATE ON routines.routines
    FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();
