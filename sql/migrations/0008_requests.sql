-- What the API keeps of requests: the answers that it may have to repeat, and how fast a key has been asking.

CREATE TABLE routines.idempotency_keys (
    key_id          bigint NOT NULL CONSTRAINT idempotency_keys_key_id_fkey REFERENCES routines.api_keys (id) ON DELETE CASCADE,
    idempotency_key text NOT NULL CONSTRAINT idempotency_keys_length CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_hash    bytea NOT NULL CONSTRAINT idempotency_keys_hash_is_sha256 CHECK (octet_length(request_hash) = 32),
    status          smallint,
    body            bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key_id, idempotency_key)
);
-- What has expired, oldest first.
CREATE INDEX idempotency_keys_created_at_idx ON routines.idempotency_keys (created_at);
COMMENT ON TABLE  routines.idempotency_keys IS 'The first answer to each Idempotency-Key, given again to whoever repeats the request.';
COMMENT ON COLUMN routines.idempotency_keys.key_id IS 'The API key that sent it: each has Idempotency-Keys of its own.';
COMMENT ON COLUMN routines.idempotency_keys.idempotency_key IS 'The header''s value.';
COMMENT ON COLUMN routines.idempotency_keys.request_hash IS 'HMAC-SHA256 of method, path and body under the bearer token: another request under the same header is refused.';
COMMENT ON COLUMN routines.idempotency_keys.status IS 'The HTTP status; null only inside the transaction of the first request.';
COMMENT ON COLUMN routines.idempotency_keys.body IS 'The answer, secrets masked as in any answer.';
COMMENT ON COLUMN routines.idempotency_keys.created_at IS 'When it was first sent; it is kept for a day.';

-- UNLOGGED: a write costs no WAL and no flush, and after a crash every bucket is simply full again.
CREATE UNLOGGED TABLE routines.rate_buckets (
    key_id    bigint CONSTRAINT rate_buckets_pkey PRIMARY KEY,
    tokens    float8 NOT NULL,
    filled_at timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.rate_buckets IS 'A token bucket for each API key, which all API processes draw from.';
COMMENT ON COLUMN routines.rate_buckets.key_id IS 'The API key.';
COMMENT ON COLUMN routines.rate_buckets.tokens IS 'Requests that it could make at once at filled_at.';
COMMENT ON COLUMN routines.rate_buckets.filled_at IS 'When tokens was computed.';

ALTER TABLE routines.routines
    ADD CONSTRAINT routines_webhook_url_is_http
        CHECK (webhook_url ~ '^https?://[^[:space:]/?#@]+([/?#][^[:space:]]*)?$' AND length(webhook_url) <= 2048);

CREATE FUNCTION routines.collection_of_key(key_id bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    opened bigint;
BEGIN
    SELECT collection_id INTO opened FROM routines.api_keys
    WHERE id = key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
    IF NOT FOUND THEN
        RAISE EXCEPTION 'API key % is unknown, revoked or expired', key_id USING ERRCODE = 'RT401';
    END IF;
    RETURN opened;
END $$;
COMMENT ON FUNCTION routines.collection_of_key IS
    'The collection that a key opens; raises RT401 for a key that opens none. Every statement of the API asks it, so that a revoked key neither sees nor changes anything from that moment on.';
