-- Webhooks that arrive: the outbox becomes a queue of its own, endpoints that keep failing are stopped, and what is old goes.

ALTER TABLE routines.webhook_deliveries
    ADD COLUMN event_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN event_status    text NOT NULL DEFAULT 'completed',
    ADD COLUMN routine_id      bigint,
    ADD COLUMN host            text NOT NULL GENERATED ALWAYS AS (coalesce(lower(substring(url FROM '^https?://([^/?#]*)')), '')) STORED,
    ADD COLUMN body            bytea,
    ADD COLUMN attempt         integer NOT NULL DEFAULT 0,
    ADD COLUMN claimed_at      timestamptz,
    ADD COLUMN failures        integer NOT NULL DEFAULT 0,
    ADD COLUMN is_redelivery   boolean NOT NULL DEFAULT false,
    ADD COLUMN give_up_reason  text,
    ADD CONSTRAINT webhook_deliveries_claim_fits_state CHECK (claimed_at IS NULL OR next_attempt_at IS NOT NULL),
    ADD CONSTRAINT webhook_deliveries_end_has_outcome
        CHECK (next_attempt_at IS NOT NULL OR delivered_at IS NOT NULL OR give_up_reason IS NOT NULL) NOT VALID;
-- The lanes of the queue: a receiver's deliveries, the one that is due first at their head.
CREATE INDEX webhook_deliveries_lane_idx ON routines.webhook_deliveries (collection_id, host, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
-- What workers have in hand: a few rows.
CREATE INDEX webhook_deliveries_claimed_idx ON routines.webhook_deliveries (collection_id, host) WHERE claimed_at IS NOT NULL;
-- A routine's deliveries, newest first.
CREATE INDEX webhook_deliveries_routine_id_idx ON routines.webhook_deliveries (routine_id, id);
-- Whether a webhook that is due still needs a secret: asked by routines.forget_secrets.
CREATE INDEX webhook_deliveries_secret_id_idx ON routines.webhook_deliveries (secret_id)
    WHERE secret_id IS NOT NULL AND next_attempt_at IS NOT NULL;
COMMENT ON COLUMN routines.webhook_deliveries.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.webhook_deliveries.event_id IS
    'The webhook-id of every attempt. Random: after a restore no other event gets it, which a receiver would take for a repetition.';
COMMENT ON COLUMN routines.webhook_deliveries.event_status IS 'The final status that it tells of; the run may be archived since.';
COMMENT ON COLUMN routines.webhook_deliveries.routine_id IS 'The routine that caused the run; null: started by the API.';
COMMENT ON COLUMN routines.webhook_deliveries.host IS 'Host and port of the URL: deliveries to one receiver wait for one another, never for those to others.';
COMMENT ON COLUMN routines.webhook_deliveries.body IS 'What is sent, the same bytes at every attempt; null: before the first.';
COMMENT ON COLUMN routines.webhook_deliveries.attempt IS 'The fence: raised by every claim, and named by every later write of the worker.';
COMMENT ON COLUMN routines.webhook_deliveries.claimed_at IS 'Since when a worker has it in hand; null: none has. Its lease ends at next_attempt_at.';
COMMENT ON COLUMN routines.webhook_deliveries.failures IS 'Attempts that failed since it was made or asked for again: its place in the schedule of retries.';
COMMENT ON COLUMN routines.webhook_deliveries.is_redelivery IS 'Asked for again by a person: its next attempt is made though the endpoint be stopped.';
COMMENT ON COLUMN routines.webhook_deliveries.give_up_reason IS 'Why it is not tried again; null: it was delivered, or is still due.';
COMMENT ON COLUMN routines.webhook_deliveries.attempts IS 'The newest 50 attempts: {at, status, error, duration_seconds}.';
COMMENT ON COLUMN routines.webhook_deliveries.next_attempt_at IS 'When to try next, or when the lease of the worker that is trying ends; null: delivered or given up.';
COMMENT ON COLUMN routines.webhook_deliveries.delivered_at IS 'When the receiver took it, the last time; null: it has not.';

CREATE FUNCTION routines.noted_attempt(
    attempts jsonb, at timestamptz, status integer, error text, duration_seconds float8
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_array_length(attempts) >= 50 THEN attempts - 0 ELSE attempts END || jsonb_build_object(
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'status', status, 'error', error,
        'duration_seconds', duration_seconds);
COMMENT ON FUNCTION routines.noted_attempt IS 'These attempts of a delivery and one more, the newest 50 of them.';

UPDATE routines.webhook_deliveries SET routine_id = triggered_by_routine_id, event_status = status
FROM routines.trajectories WHERE trajectories.id = trajectory_id;
ALTER TABLE routines.webhook_deliveries ALTER COLUMN event_status DROP DEFAULT;
CREATE OR REPLACE FUNCTION routines.settle_end_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.lease_expires_at := NULL;
    NEW.secret_refs := '{}';
    IF NEW.webhook_url IS NOT NULL THEN
        INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url, secret_id)
        VALUES (NEW.collection_id, NEW.id, NEW.triggered_by_routine_id, NEW.status, NEW.webhook_url, NEW.webhook_secret_id);
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION routines.forget_secret_of_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Of two deliveries that end at once the second waits here, and then sees that the first has ended.
    PERFORM FROM routines.secrets WHERE id = OLD.secret_id FOR UPDATE;
    PERFORM routines.forget_secrets(ARRAY[OLD.secret_id], OLD.routine_id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_delivery IS 'After the last delivery that needed a secret has ended, it goes.';
CREATE TRIGGER forget_secret_of_ended AFTER UPDATE OF next_attempt_at ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL AND NEW.next_attempt_at IS NULL)
    EXECUTE FUNCTION routines.forget_secret_of_delivery();
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_delivery();

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
-- On a digest: a URL may be longer than an index takes.
CREATE UNIQUE INDEX webhook_endpoints_url_key ON routines.webhook_endpoints (collection_id, md5(url));
COMMENT ON TABLE  routines.webhook_endpoints IS
    'Webhook URLs that fail, or were stopped since they did; one that works has no row. DELETE a row in psql to start it again; after 90 days it goes by itself.';
COMMENT ON COLUMN routines.webhook_endpoints.id IS 'Database id.';
COMMENT ON COLUMN routines.webhook_endpoints.collection_id IS 'The tenant: another''s failures stop nothing here.';
COMMENT ON COLUMN routines.webhook_endpoints.url IS 'The whole URL.';
COMMENT ON COLUMN routines.webhook_endpoints.host IS 'As in webhook_deliveries.';
COMMENT ON COLUMN routines.webhook_endpoints.failing_since IS 'The first failure since it last worked.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_at IS 'Since when nothing is sent there; null: it is still tried.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_reason IS 'Why it was stopped; null: it was not.';

CREATE FUNCTION routines.start_endpoint_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.webhook_endpoints WHERE collection_id = NEW.collection_id AND md5(url) = md5(NEW.webhook_url);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.start_endpoint_again IS 'Whoever names a URL anew wants it tried.';
-- Named so that they come before forget_replaced_secrets: the end of a delivery too locks the endpoint before the secret.
CREATE TRIGGER follow_created_webhook_url AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS NOT NULL) EXECUTE FUNCTION routines.start_endpoint_again();
CREATE TRIGGER follow_changed_webhook_url AFTER UPDATE OF webhook_url ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS DISTINCT FROM OLD.webhook_url AND NEW.webhook_url IS NOT NULL)
    EXECUTE FUNCTION routines.start_endpoint_again();

CREATE FUNCTION routines.newest_run(of_routine bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1),
        (SELECT id FROM routines.trajectories WHERE triggered_by_routine_id = of_routine AND trigger = 'run-now'
         ORDER BY id DESC LIMIT 1));
$$;
COMMENT ON FUNCTION routines.newest_run IS 'The newest run of a routine; null: it has none.';

CREATE FUNCTION routines.refuse_older_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'task % is at version %: insert a new version instead of going back to %', OLD.id, OLD.version, NEW.version
        USING ERRCODE = 'check_violation', CONSTRAINT = 'tasks_version_only_grows';
END $$;
COMMENT ON FUNCTION routines.refuse_older_version IS
    'Keeps a task''s versions growing, so that its oldest run says which versions no run needs any more.';
CREATE TRIGGER refuse_older_version BEFORE UPDATE OF version ON routines.tasks
    FOR EACH ROW WHEN (NEW.version < OLD.version) EXECUTE FUNCTION routines.refuse_older_version();

CREATE TABLE routines.retention (
    what          text CONSTRAINT retention_pkey PRIMARY KEY
                  CONSTRAINT retention_what_is_known CHECK (what IN ('trajectories', 'skips')),
    deleted_until timestamptz NOT NULL
);
COMMENT ON TABLE  routines.retention IS 'How far the ledger may have gaps, since what was older than its age went.';
COMMENT ON COLUMN routines.retention.what IS 'trajectories or skips.';
COMMENT ON COLUMN routines.retention.deleted_until IS 'The newest slot that went: of slots up to this one the outcome may be gone; of every later one it is there.';
