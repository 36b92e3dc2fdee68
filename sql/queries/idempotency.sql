-- Answers that are kept, so that a request sent twice is done once.

-- name: claim_answer
-- The first request puts its mark here and does its work in the same transaction; one that comes meanwhile waits for
-- that transaction's end. A mark that is a day old is as good as gone, and trigger forget_old_answers clears such marks
-- away. No row: the mark was there already.
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
