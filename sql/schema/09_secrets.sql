-- Ciphertexts. Other rows refer to them by id; only workers decrypt them.

-- No triggers.
CREATE TABLE routines.secrets (
    id            uuid CONSTRAINT secrets_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT secrets_collection_id_fkey REFERENCES routines.collections (id),
    kind          text NOT NULL CONSTRAINT secrets_kind_is_known
                  CHECK (kind IN ('secret_param', 'webhook_secret', 'environment')),
    field         text NOT NULL,
    owner         text NOT NULL CONSTRAINT secrets_owner_is_known CHECK (owner ~ '^((routine|run|rule):[1-9][0-9]*)?$'),
    key_id        text NOT NULL,
    ciphertext    bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX secrets_key_id_idx ON routines.secrets (key_id);
COMMENT ON TABLE  routines.secrets IS
    'AES-256-GCM ciphertexts. The associated data binds each to its collection, kind, field, owner and id.';
COMMENT ON COLUMN routines.secrets.id IS 'Chosen by the program that encrypts, because the ciphertext authenticates it.';
COMMENT ON COLUMN routines.secrets.collection_id IS 'The tenant. Authenticated.';
COMMENT ON COLUMN routines.secrets.kind IS 'What it is used for. Authenticated.';
COMMENT ON COLUMN routines.secrets.field IS
    'The name of the secret param or environment variable; empty for a webhook secret. Authenticated.';
COMMENT ON COLUMN routines.secrets.owner IS
    'routine:<id>, run:<trajectory id> or rule:<id> of an alert rule; empty for the collection itself. Authenticated. A program that decrypts takes collection, field and owner from the row that refers to the secret, never from here; these columns serve rotation and the doctor.';
COMMENT ON COLUMN routines.secrets.key_id IS 'The key of ROUTINES_ENCRYPTION_KEYS that opens it. Rotation searches by it.';
COMMENT ON COLUMN routines.secrets.ciphertext IS 'Version, key id, nonce, ciphertext and tag.';
COMMENT ON COLUMN routines.secrets.created_at IS 'When it was stored.';
SELECT routines.protect('routines.secrets');

-- Rules are few, so a foreign key does what a trigger does for routines.
ALTER TABLE routines.alert_rules ADD CONSTRAINT alert_rules_webhook_secret_id_fkey
    FOREIGN KEY (webhook_secret_id) REFERENCES routines.secrets (id);

-- A secret is deleted when a routine or a rule replaces it or is deleted, and when the last run or webhook that needs it has
-- ended.
CREATE FUNCTION routines.forget_secrets(secret_ids uuid[], of_routine_id bigint, but_trajectory_id bigint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM routines.secrets WHERE id = ANY (forget_secrets.secret_ids)
        AND NOT EXISTS (SELECT FROM routines.routines WHERE routines.id = of_routine_id
                        AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.alert_rules WHERE webhook_secret_id = secrets.id)
        -- The routine's own active runs, each kind by its index.
        AND NOT EXISTS (SELECT FROM routines.trajectories
                        WHERE triggered_by_routine_id = of_routine_id AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
                          AND trajectories.id IS DISTINCT FROM but_trajectory_id
                          AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.trajectories
                        WHERE triggered_by_routine_id = of_routine_id AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
                          AND trajectories.id IS DISTINCT FROM but_trajectory_id
                          AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.webhook_deliveries
                        WHERE secret_id = secrets.id AND next_attempt_at IS NOT NULL);
$$;
COMMENT ON FUNCTION routines.forget_secrets IS
    'Deletes those of these secrets that neither the routine, nor another active run of it, nor a rule, nor a due webhook still needs.';
