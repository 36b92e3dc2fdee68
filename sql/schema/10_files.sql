-- Which runs use which files, so that a file is deleted after the last run that uses it. A run uses the files that its
-- parameters, inputs and outputs name and those that its steps saved. They are recognized by the form of a path, in the
-- transaction that writes it, so a statement typed in psql counts too. The queries that delete are in queries/retention.sql.

CREATE FUNCTION routines.file_paths(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT DISTINCT found[1] FROM regexp_matches($1, '([0-9a-f]{32}-[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})', 'g') AS found;
$$;
COMMENT ON FUNCTION routines.file_paths IS
    'Everything in a text that has the form of a file''s path. In running text a result may end in extra characters, so compare by file_id.';
CREATE FUNCTION routines.file_id(path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(path FROM '[0-9a-f]{32}');
COMMENT ON FUNCTION routines.file_id IS 'The 128 random bits at the start of a file''s path, unique to the file.';

-- Triggers:
--   AFTER DELETE  note_unused_file  if it was the last use: adds the file to unused_files
CREATE TABLE routines.file_uses (
    trajectory_id bigint NOT NULL CONSTRAINT file_uses_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    path          text NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT file_uses_pkey PRIMARY KEY (trajectory_id, path)
);
CREATE INDEX file_uses_file_idx ON routines.file_uses (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.file_uses IS
    'Files that a run was given, saved, or names in its parameters, inputs or outputs. A file is kept as long as one such run exists.';
COMMENT ON COLUMN routines.file_uses.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.file_uses.path IS 'The file''s path within the collection. The file may not exist.';
COMMENT ON COLUMN routines.file_uses.collection_id IS 'The tenant.';
SELECT routines.protect('routines.file_uses');

-- No triggers.
CREATE TABLE routines.unused_files (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT unused_files_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    path          text NOT NULL,
    noted_at      timestamptz NOT NULL DEFAULT now(),
    condemned_at  timestamptz
);
CREATE UNIQUE INDEX unused_files_file_key ON routines.unused_files (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.unused_files IS 'Files to delete because no run uses them. A row is deleted once its file is.';
COMMENT ON COLUMN routines.unused_files.id IS 'Database id.';
COMMENT ON COLUMN routines.unused_files.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.unused_files.path IS
    'The file''s path within the collection; with a leading dot, a file that was begun and never finished.';
COMMENT ON COLUMN routines.unused_files.noted_at IS
    'When it was found to be unused. It is checked again minutes later, once every transaction open at that moment has ended.';
COMMENT ON COLUMN routines.unused_files.condemned_at IS
    'When its deletion was decided, after which no use saves it; null before that.';
SELECT routines.protect('routines.unused_files');

-- A use saves a file from deletion unless the deletion was decided before. Both sides lock the row.
CREATE FUNCTION routines.use_files(of_run bigint, of_collection bigint, paths text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- the run's collection may not be the named one
    INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
    SELECT DISTINCT of_run, path, of_collection FROM unnest(paths) AS path
    ON CONFLICT DO NOTHING;
    DELETE FROM routines.unused_files
    WHERE collection_id = of_collection AND condemned_at IS NULL
      AND routines.file_id(path) = ANY (ARRAY(SELECT routines.file_id(used) FROM unnest(paths) AS used));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.use_files IS 'Records that a run uses these files.';
REVOKE EXECUTE ON FUNCTION routines.use_files FROM PUBLIC;

CREATE FUNCTION routines.note_unused_file() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.unused_files (collection_id, path)
    SELECT OLD.collection_id, OLD.path
    WHERE NOT EXISTS (SELECT FROM routines.file_uses
                      WHERE collection_id = OLD.collection_id AND routines.file_id(path) = routines.file_id(OLD.path))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_unused_file IS 'Marks a file for deletion once the last run that used it is gone.';
CREATE TRIGGER note_unused_file AFTER DELETE ON routines.file_uses
    FOR EACH ROW EXECUTE FUNCTION routines.note_unused_file();
