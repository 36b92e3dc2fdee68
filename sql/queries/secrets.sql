-- Ciphertexts as rotation and the doctor see them: row by row, whatever refers to them.

-- name: list_secrets
-- In the order of their ids, after the one given; null: from the first.
SELECT id, collection_id, kind, field, owner, ciphertext FROM routines.secrets
WHERE %(after)s::uuid IS NULL OR id > %(after)s::uuid
ORDER BY id LIMIT %(limit)s::integer;

-- name: list_stale_secrets
-- The same, of those alone that another key encrypts or that are of an older version than the first byte of a new one.
SELECT id, collection_id, kind, field, owner, ciphertext FROM routines.secrets
WHERE (%(after)s::uuid IS NULL OR id > %(after)s::uuid)
  AND (key_id <> %(key_id)s::text OR get_byte(ciphertext, 0) <> %(version)s::integer)
ORDER BY id LIMIT %(limit)s::integer;

-- name: replace_ciphertexts
-- Only where the old one still stands. SKIP LOCKED: a row that is being deleted or rotated at this moment is another's,
-- and who waits for no row is in no deadlock with a PATCH that deletes several.
WITH held AS MATERIALIZED (
    SELECT secrets.id, fresh.ciphertext
    FROM routines.secrets
    JOIN unnest(%(ids)s::uuid[], %(old)s::bytea[], %(new)s::bytea[]) AS fresh (id, old, ciphertext)
        ON fresh.id = secrets.id AND fresh.old = secrets.ciphertext
    FOR NO KEY UPDATE OF secrets SKIP LOCKED
)
UPDATE routines.secrets SET ciphertext = held.ciphertext, key_id = %(key_id)s::text
FROM held WHERE secrets.id = held.id;

-- name: list_peppers
SELECT id, ciphertext FROM routines.peppers ORDER BY created_at DESC, id;

-- name: find_pepper
SELECT id, ciphertext FROM routines.peppers WHERE id = %(id)s::uuid;

-- name: create_pepper
INSERT INTO routines.peppers (id, key_id, ciphertext) VALUES (%(id)s::uuid, %(key_id)s::text, %(ciphertext)s::bytea);

-- name: replace_pepper
UPDATE routines.peppers SET ciphertext = %(new)s::bytea, key_id = %(key_id)s::text
WHERE id = %(id)s::uuid AND ciphertext = %(old)s::bytea;
