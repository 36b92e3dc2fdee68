-- Answers that are kept, so that a request sent twice is done once.

-- name: claim_answer
-- The first request puts its mark here and does its work in the same transaction; one that comes meanwhile waits for
-- that transaction's end. Marks that are a day old go, a few at a time. No row: the mark was there already.
WITH expired AS (
    DELETE FROM routines.idempotency_keys
    WHERE (key_id, idempotency_key) IN (
        SELECT key_id, idempotency_key FROM routines.idempotency_keys
        WHERE created_at < now() - interval '1 day'
          AND (key_id, idempotency_key) <> (%(key_id)s::bigint, %(idempotency_key)s::text)
        ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED)
)
INSERT INTO routines.idempotency_keys AS mark (key_id, idempotency_key, request_hash)
VALUES (%(key_id)s::bigint, %(idempotency_key)s::text, %(request_hash)s::bytea)
ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
SET request_hash = excluded.request_hash, created_at = now(), status = NULL, body = NULL
WHERE mark.created_at < now() - interval '1 day'
RETURNING key_id;

-- name: keep_answer
UPDATE routines.idempotency_keys SET status = %(status)s::smallint, body = %(body)s::bytea
WHERE key_id = %(key_id)s::bigint AND idempotency_key = %(idempotency_key)s::text;

-- name: kept_answer
SELECT request_hash, status::integer, body FROM routines.idempotency_keys
WHERE key_id = %(key_id)s::bigint AND idempotency_key = %(idempotency_key)s::text;
