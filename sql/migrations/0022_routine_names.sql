-- The table that every fire writes keeps two indexes: its key, and what is due. A fire moves next_run_at, so each index of
-- `routines` gets a new entry for each fire, and those of names lie all over: among a million routines, 10,000 fires fell on
-- 5,600 pages of it. So names have their index in a table of their own, which no fire touches. Why so: docs/decisions/0013.

CREATE TABLE routines.routine_names (
    task_id       bigint NOT NULL,
    name          routines.slug NOT NULL,
    routine_id    bigint NOT NULL,
    collection_id bigint NOT NULL
);
COMMENT ON TABLE  routines.routine_names IS 'Which routine has a name. Kept by a trigger of routines; nobody else writes it.';
COMMENT ON COLUMN routines.routine_names.task_id IS 'The routine''s task.';
COMMENT ON COLUMN routines.routine_names.name IS 'Its name, unique in its task.';
COMMENT ON COLUMN routines.routine_names.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.routine_names.collection_id IS 'The tenant, the same as the task''s.';

LOCK TABLE routines.routines IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO routines.routine_names (task_id, name, routine_id, collection_id)
SELECT task_id, name, id, collection_id FROM routines.routines ORDER BY task_id, name;

-- Both rules keep the names by which programs and people know them.
ALTER TABLE routines.routines DROP CONSTRAINT routines_name_key, DROP CONSTRAINT routines_task_fkey;
ALTER TABLE routines.routine_names
    ADD CONSTRAINT routines_name_key PRIMARY KEY (task_id, name),
    ADD CONSTRAINT routines_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id);

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
        WHEN 'TRUNCATE' THEN
            DELETE FROM routines.routine_names;
    END CASE;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.keep_names IS
    'Keeps routine_names as routines has it; so a name that is taken, and a task that is not there, are refused.';
CREATE TRIGGER keep_names_of_new AFTER INSERT ON routines.routines
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_changed AFTER UPDATE OF id, collection_id, task_id, name ON routines.routines
    FOR EACH ROW WHEN ((OLD.id, OLD.collection_id, OLD.task_id, OLD.name) IS DISTINCT FROM
                       (NEW.id, NEW.collection_id, NEW.task_id, NEW.name)) EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_names();
CREATE TRIGGER keep_names_of_truncated AFTER TRUNCATE ON routines.routines
    FOR EACH STATEMENT EXECUTE FUNCTION routines.keep_names();
COMMENT ON COLUMN routines.routines.name IS 'Unique in its task: see routine_names.';
COMMENT ON COLUMN routines.routines.task_id IS 'What it runs; a task cannot go while a routine hangs on it: see routine_names.';

-- To delete a secret asked every routine whether it signs with it, since that has no index, and may have none. Now it is
-- asked when a routine comes to refer to a secret, of its parameters too. No secret goes while its routine refers to it:
-- see forget_secrets.
ALTER TABLE routines.routines DROP CONSTRAINT routines_webhook_secret_id_fkey;
CREATE FUNCTION routines.refuse_missing_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    missing uuid;
BEGIN
    SELECT referred.id INTO missing
    FROM unnest(routines.secret_ids(NEW.secret_refs, NEW.webhook_secret_id)) AS referred (id)
    WHERE NOT EXISTS (SELECT FROM routines.secrets
                      WHERE secrets.id = referred.id AND secrets.collection_id = NEW.collection_id);
    IF FOUND THEN
        RAISE EXCEPTION 'routine % refers to the secret %, which its collection does not have', NEW.id, missing
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'routines_secrets_are_there';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_missing_secrets IS 'Refuses a routine that refers to a secret which its collection does not have.';
CREATE TRIGGER refuse_missing_secrets_of_new AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.secret_refs <> '{}' OR NEW.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.refuse_missing_secrets();
CREATE TRIGGER refuse_missing_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.refuse_missing_secrets();

CREATE OR REPLACE VIEW routines.routine_details WITH (security_invoker = true) AS
    SELECT routines.id, routine_names.collection_id, routine_names.task_id, routine_names.name, tasks.name AS task_name,
           collections.name AS collection_name, cadence_type, hour_utc::integer, minute_utc::integer, day_of_week,
           init_params_overrides, ARRAY(SELECT jsonb_object_keys(secret_refs) ORDER BY 1) AS secret_names, webhook_url,
           webhook_secret_id IS NOT NULL AS has_webhook_secret, paused, paused_reason, last_run_at, next_run_at, overlap_policy,
           ARRAY(SELECT key FROM jsonb_object_keys(init_params_overrides) AS key
                 WHERE NOT task_versions.init_params ? key ORDER BY key) AS undeclared_keys,
           catchup_window_seconds
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    JOIN routines.collections ON collections.id = routine_names.collection_id;

SELECT routines.protect('routines.routine_names');
INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    ('routines_api', 'routines.routine_names', 'SELECT'),
    ('routines_reader', 'routines.routine_names', 'SELECT');
SELECT routines.set_up_roles();
