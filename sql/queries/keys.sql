-- Bearer keys and their request rates.

-- name: create_key
WITH collection AS (
    INSERT INTO routines.collections (name) VALUES (%(collection)s::text)
    ON CONFLICT ON CONSTRAINT collections_name_key DO UPDATE SET name = excluded.name
    RETURNING id
)
INSERT INTO routines.api_keys (collection_id, secret_hash, pepper_id, expires_at)
SELECT id, %(secret_hash)s::bytea, %(pepper_id)s::uuid, now() + make_interval(secs => %(expires_in_seconds)s::float8) FROM collection
RETURNING id;

-- name: find_key
-- Through a function of its own, because no collection may be named before the token is checked.
SELECT secret_hash, pepper_id, collection_id, collection_name FROM routines.key_to_check(%(id)s::bigint);

-- name: list_keys
SELECT api_keys.id, collections.name AS collection_name, api_keys.created_at, expires_at, revoked_at, last_used_at,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END AS state
FROM routines.api_keys JOIN routines.collections ON collections.id = api_keys.collection_id
ORDER BY api_keys.id;

-- name: revoke_key
UPDATE routines.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s::bigint;

-- name: succeed_key
-- Ends the old key of two that overlap: it stays valid for the grace period, or until it would have expired anyway.
UPDATE routines.api_keys
SET expires_at = least(expires_at, now() + make_interval(secs => %(grace_seconds)s::float8))
FROM routines.collections
WHERE api_keys.id = %(id)s::bigint AND collections.id = collection_id
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING collections.name AS collection_name;

-- name: take_tokens
-- Takes `wanted` tokens out of the key's bucket, which holds at most `burst` and gains `rate` per second. No row if it holds
-- too few. Also records that the key was used, once a minute.
WITH used AS (
    UPDATE routines.api_keys SET last_used_at = date_trunc('minute', now())
    WHERE id = %(key_id)s::routines.caller AND (last_used_at IS NULL OR last_used_at < date_trunc('minute', now()))
)
INSERT INTO routines.rate_buckets AS bucket (key_id, tokens, filled_at)
VALUES (%(key_id)s::routines.caller, %(burst)s::float8 - %(wanted)s::float8, clock_timestamp())
ON CONFLICT ON CONSTRAINT rate_buckets_pkey DO UPDATE
SET filled_at = greatest(bucket.filled_at, excluded.filled_at),  -- later if this statement waited for the row
    tokens = least(excluded.tokens, bucket.tokens - %(wanted)s::float8
                   + %(rate)s::float8 * greatest(0, extract(epoch FROM excluded.filled_at - bucket.filled_at)::float8))
WHERE bucket.tokens - %(wanted)s::float8
      + %(rate)s::float8 * greatest(0, extract(epoch FROM excluded.filled_at - bucket.filled_at)::float8) >= 0
RETURNING tokens;
