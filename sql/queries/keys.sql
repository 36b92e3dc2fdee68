-- Bearer keys.

-- name: create_key
WITH collection AS (
    INSERT INTO routines.collections (name) VALUES (%(collection)s::text)
    ON CONFLICT ON CONSTRAINT collections_name_key DO UPDATE SET name = excluded.name
    RETURNING id
)
INSERT INTO routines.api_keys (collection_id, secret_hash)
SELECT id, %(secret_hash)s::bytea FROM collection
RETURNING id;

-- name: find_key
SELECT api_keys.secret_hash, collections.id AS collection_id, collections.name AS collection_name
FROM routines.api_keys JOIN routines.collections ON collections.id = api_keys.collection_id
WHERE api_keys.id = %(id)s::bigint AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: list_keys
SELECT api_keys.id, collections.name AS collection_name, api_keys.created_at, expires_at, revoked_at, last_used_at
FROM routines.api_keys JOIN routines.collections ON collections.id = api_keys.collection_id
ORDER BY api_keys.id;

-- name: revoke_key
UPDATE routines.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s::bigint;
