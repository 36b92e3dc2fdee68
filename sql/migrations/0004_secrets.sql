-- Ciphertexts. What refers to one holds its id; what it means is known to the worker alone.

CREATE TABLE routines.secrets (
    id            uuid CONSTRAINT secrets_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT secrets_collection_id_fkey REFERENCES routines.collections (id),
    kind          text NOT NULL CONSTRAINT secrets_kind_is_known
                  CHECK (kind IN ('secret_param', 'webhook_secret', 'environment')),
    key_id        text NOT NULL,
    ciphertext    bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX secrets_key_id_idx ON routines.secrets (key_id);
COMMENT ON TABLE  routines.secrets IS 'AES-256-GCM ciphertexts; the associated data binds each to its collection, kind and id.';
COMMENT ON COLUMN routines.secrets.id IS 'Made by the program that encrypts, since it is part of what is authenticated.';
COMMENT ON COLUMN routines.secrets.collection_id IS 'The tenant: part of what is authenticated.';
COMMENT ON COLUMN routines.secrets.kind IS 'What it is for: part of what is authenticated.';
COMMENT ON COLUMN routines.secrets.key_id IS 'Which key of ROUTINES_ENCRYPTION_KEYS opens it: what rotation looks for.';
COMMENT ON COLUMN routines.secrets.ciphertext IS 'Version, key id, nonce, ciphertext and tag.';
COMMENT ON COLUMN routines.secrets.created_at IS 'When it was stored.';
