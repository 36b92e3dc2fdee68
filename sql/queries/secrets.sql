-- Ciphertexts for rotation and the doctor: row by row, whatever refers to them.

-- name: list_secrets
-- By id, after the given one; from the first if that is null.
SELECT id, collection_id, kind, field, owner, ciphertext FROM routines.secrets
WHERE %(after)s::uuid IS NULL OR id > %(after)s::uuid
ORDER BY id LIMIT %(limit)s::integer;

-- name: list_stale_secrets
-- The same, limited to secrets that another key encrypts.
SELECT id, collection_id, kind, field, owner, ciphertext FROM routines.secrets
WHERE (%(after)s::uuid IS NULL OR id > %(after)s::uuid)
  AND key_id <> %(key_id)s::text
ORDER BY id LIMIT %(limit)s::integer;

-- name: replace_ciphertexts
-- Only if the row still has the old ciphertext. SKIP LOCKED passes over rows that are being deleted or rotated, and avoids
-- deadlocking with a concurrent PATCH that deletes several.
WITH unchanged AS MATERIALIZED (
    SELECT secrets.id, fresh.ciphertext
    FROM routines.secrets
    JOIN unnest(%(ids)s::uuid[], %(old)s::bytea[], %(new)s::bytea[]) AS fresh (id, old, ciphertext)
        ON fresh.id = secrets.id AND fresh.old = secrets.ciphertext
    FOR NO KEY UPDATE OF secrets SKIP LOCKED
)
UPDATE routines.secrets SET ciphertext = unchanged.ciphertext, key_id = %(key_id)s::text
FROM unchanged WHERE secrets.id = unchanged.id;

-- name: list_peppers
SELECT id, ciphertext FROM routines.peppers ORDER BY created_at DESC, id;

-- name: find_pepper
SELECT id, ciphertext FROM routines.peppers WHERE id = %(id)s::uuid;

-- name: create_pepper
INSERT INTO routines.peppers (id, key_id, ciphertext) VALUES (%(id)s::uuid, %(key_id)s::text, %(ciphertext)s::bytea);

-- name: replace_pepper
UPDATE routines.peppers SET ciphertext = %(new)s::bytea, key_id = %(key_id)s::text
WHERE id = %(id)s::uuid AND ciphertext = %(old)s::bytea;
