-- Stored answers, so that a repeated request is executed once.

-- name: claim_answer
-- The first request inserts its mark and does its work in the same transaction; a concurrent one waits for that transaction.
-- A mark that is a day old does not count, and the trigger forget_old_answers deletes such marks. No row if there was a mark
-- already.
INSERT INTO routines.idempotency_keys AS mark (key_id, idempotency_key, request_hash)
VALUES (%(key_id)s::routines.caller, %(idempotency_key)s::text, %(request_hash)s::bytea)
ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
SET request_hash = excluded.request_hash, created_at = now(), status = NULL, body = NULL
WHERE mark.created_at < now() - interval '1 day'
RETURNING key_id;

-- name: keep_answer
UPDATE routines.idempotency_keys SET status = %(status)s::smallint, body = %(body)s::bytea
WHERE key_id = %(key_id)s::routines.caller AND idempotency_key = %(idempotency_key)s::text;

-- name: kept_answer
SELECT request_hash, status::integer, body FROM routines.idempotency_keys
WHERE key_id = %(key_id)s::routines.caller AND idempotency_key = %(idempotency_key)s::text;
