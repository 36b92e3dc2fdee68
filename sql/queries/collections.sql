-- A key's own collection, for the API.

-- name: find_collection
SELECT name, description, created_at FROM routines.collections WHERE id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller));

-- name: environment
SELECT ARRAY(SELECT jsonb_object_keys(environment_refs) ORDER BY 1) AS names
FROM routines.collections WHERE id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller));

-- name: patch_environment
-- Sets and removes variables and keeps the others. The trigger forget_replaced_environment deletes replaced ciphertexts. Of two
-- concurrent changes the second waits for the row and starts from the first one's result. No row if a variable to keep, whose
-- mask was sent back, does not exist.
WITH patched AS (
    UPDATE routines.collections
    SET environment_refs = (environment_refs - %(removed)s::text[]) || %(refs)s::jsonb
    WHERE id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND environment_refs ?& %(kept)s::text[]
    RETURNING id
),
sealed AS (
    INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
    SELECT secret.id, patched.id, kind, field, owner, key_id, ciphertext
    FROM patched, unnest(%(secret_ids)s::uuid[], %(secret_kinds)s::text[], %(secret_fields)s::text[],
                         %(secret_owners)s::text[], %(secret_key_ids)s::text[], %(ciphertexts)s::bytea[])
                  AS secret (id, kind, field, owner, key_id, ciphertext)
)
SELECT id FROM patched;
