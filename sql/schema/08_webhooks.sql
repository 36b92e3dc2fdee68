-- Webhooks: an outbox that is a queue of its own, and endpoints that are stopped when they keep failing. The claim is in
-- queries/deliveries.sql.

-- Triggers:
--   AFTER UPDATE of next_attempt_at  forget_secret_of_ended    delivered or given up: deletes its secret if nothing else needs it
--   AFTER DELETE                     forget_secret_of_deleted  the same for a delivery that was still due
-- Rows are inserted by the trigger settle_end of trajectories.
CREATE TABLE routines.webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_deliveries_pkey PRIMARY KEY,
    collection_id   bigint NOT NULL,
    trajectory_id   bigint NOT NULL CONSTRAINT webhook_deliveries_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    routine_id      bigint,
    event_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    event_status    text NOT NULL,
    url             text NOT NULL,
    host            text NOT NULL GENERATED ALWAYS AS (coalesce(lower(substring(url FROM '^https?://([^/?#]*)')), '')) STORED,
    secret_id       uuid,
    body            bytea,
    fence           integer NOT NULL DEFAULT 0,
    claimed_at      timestamptz,
    attempts        jsonb NOT NULL DEFAULT '[]' CONSTRAINT webhook_deliveries_attempts_is_array CHECK (jsonb_typeof(attempts) = 'array'),
    failures        integer NOT NULL DEFAULT 0,
    is_redelivery   boolean NOT NULL DEFAULT false,
    next_attempt_at timestamptz DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    give_up_reason  text,
    CONSTRAINT webhook_deliveries_claim_fits_state CHECK (claimed_at IS NULL OR next_attempt_at IS NOT NULL),
    CONSTRAINT webhook_deliveries_end_has_outcome
        CHECK (next_attempt_at IS NOT NULL OR delivered_at IS NOT NULL OR give_up_reason IS NOT NULL)
);
-- All due deliveries, oldest first.
CREATE INDEX webhook_deliveries_next_attempt_at_idx ON routines.webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- The lanes of the queue: the deliveries to one receiver, the earliest due first.
CREATE INDEX webhook_deliveries_lane_idx ON routines.webhook_deliveries (collection_id, host, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
-- Claimed deliveries: few rows.
CREATE INDEX webhook_deliveries_claimed_idx ON routines.webhook_deliveries (collection_id, host) WHERE claimed_at IS NOT NULL;
-- A routine's deliveries, newest first.
CREATE INDEX webhook_deliveries_routine_id_idx ON routines.webhook_deliveries (routine_id, id);
-- A run's deliveries.
CREATE INDEX webhook_deliveries_trajectory_id_idx ON routines.webhook_deliveries (trajectory_id);
-- Due webhooks that need a secret, for routines.forget_secrets.
CREATE INDEX webhook_deliveries_secret_id_idx ON routines.webhook_deliveries (secret_id)
    WHERE secret_id IS NOT NULL AND next_attempt_at IS NOT NULL;
COMMENT ON TABLE  routines.webhook_deliveries IS 'The outbox of completion webhooks, written in the transaction that ends the run.';
COMMENT ON COLUMN routines.webhook_deliveries.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.webhook_deliveries.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.webhook_deliveries.trajectory_id IS 'The run that ended.';
COMMENT ON COLUMN routines.webhook_deliveries.routine_id IS 'The routine that started the run; null if the API started it.';
COMMENT ON COLUMN routines.webhook_deliveries.event_id IS
    'The webhook-id of every attempt. Random, so that after a restore no other event gets the same id, which a receiver would take for a repetition.';
COMMENT ON COLUMN routines.webhook_deliveries.event_status IS 'The final status that it reports. The run may have been archived since.';
COMMENT ON COLUMN routines.webhook_deliveries.url IS 'The URL to send to, as it was when the run was created.';
COMMENT ON COLUMN routines.webhook_deliveries.host IS
    'Host and port of the URL. Deliveries to one receiver wait for each other, never for those to other receivers.';
COMMENT ON COLUMN routines.webhook_deliveries.secret_id IS 'The secret that signs it; null for unsigned.';
COMMENT ON COLUMN routines.webhook_deliveries.body IS 'The body, the same bytes at every attempt; null before the first.';
COMMENT ON COLUMN routines.webhook_deliveries.fence IS 'Raised by every claim. Every later write of the worker names it.';
COMMENT ON COLUMN routines.webhook_deliveries.claimed_at IS
    'When a worker claimed it; null if it is not claimed. The lease ends at next_attempt_at.';
COMMENT ON COLUMN routines.webhook_deliveries.attempts IS 'The newest 50 attempts: {at, status, error, duration_seconds}.';
COMMENT ON COLUMN routines.webhook_deliveries.failures IS
    'Failed attempts since it was created or requested again: its place in the retry schedule.';
COMMENT ON COLUMN routines.webhook_deliveries.is_redelivery IS
    'True if a person requested it again: the next attempt is made even if the endpoint is stopped.';
COMMENT ON COLUMN routines.webhook_deliveries.next_attempt_at IS
    'When to try next, or when the lease of the worker that is trying ends; null once delivered or given up.';
COMMENT ON COLUMN routines.webhook_deliveries.created_at IS 'When the run ended.';
COMMENT ON COLUMN routines.webhook_deliveries.delivered_at IS 'When the receiver last accepted it; null if it has not.';
COMMENT ON COLUMN routines.webhook_deliveries.give_up_reason IS 'Why it is not tried again; null if delivered or still due.';
SELECT routines.protect('routines.webhook_deliveries');

CREATE FUNCTION routines.with_attempt(
    attempts jsonb, at timestamptz, status integer, error text, duration_seconds float8
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_array_length(attempts) >= 50 THEN attempts - 0 ELSE attempts END || jsonb_build_object(
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'status', status, 'error', error,
        'duration_seconds', duration_seconds);
COMMENT ON FUNCTION routines.with_attempt IS 'The attempts of a delivery with one more appended; the newest 50 are kept.';

CREATE FUNCTION routines.forget_secret_of_delivery() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Of two deliveries that end at once, the second waits here and then sees that the first has ended.
    PERFORM FROM routines.secrets WHERE id = OLD.secret_id FOR UPDATE;
    PERFORM routines.forget_secrets(ARRAY[OLD.secret_id], OLD.routine_id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_delivery IS 'Deletes a secret after the last delivery that needed it has ended.';
CREATE TRIGGER forget_secret_of_ended AFTER UPDATE OF next_attempt_at ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL AND NEW.next_attempt_at IS NULL)
    EXECUTE FUNCTION routines.forget_secret_of_delivery();
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_delivery();

-- No triggers.
CREATE TABLE routines.webhook_endpoints (
    id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_endpoints_pkey PRIMARY KEY,
    collection_id  bigint NOT NULL,
    url            text NOT NULL,
    host           text NOT NULL GENERATED ALWAYS AS (coalesce(lower(substring(url FROM '^https?://([^/?#]*)')), '')) STORED,
    failing_since  timestamptz NOT NULL,
    stopped_at     timestamptz,
    stopped_reason text,
    CONSTRAINT webhook_endpoints_stop_has_reason CHECK ((stopped_at IS NULL) = (stopped_reason IS NULL))
);
-- On a digest, because a URL may exceed the size limit of an index entry.
CREATE UNIQUE INDEX webhook_endpoints_url_key ON routines.webhook_endpoints (collection_id, md5(url));
COMMENT ON TABLE  routines.webhook_endpoints IS
    'Webhook URLs that are failing or were stopped for it. A working URL has no row. DELETE a row in psql to try the URL again; rows expire after 90 days.';
COMMENT ON COLUMN routines.webhook_endpoints.id IS 'Database id.';
COMMENT ON COLUMN routines.webhook_endpoints.collection_id IS 'The tenant. Failures in another collection stop nothing here.';
COMMENT ON COLUMN routines.webhook_endpoints.url IS 'The whole URL.';
COMMENT ON COLUMN routines.webhook_endpoints.host IS 'Same as in webhook_deliveries.';
COMMENT ON COLUMN routines.webhook_endpoints.failing_since IS 'The first failure since it last worked.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_at IS 'When sending to it was stopped; null while it is still tried.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_reason IS 'Why it was stopped; null while it is still tried.';
SELECT routines.protect('routines.webhook_endpoints');
