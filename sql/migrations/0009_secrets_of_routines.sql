-- The secrets of a routine go with it: when they are replaced, when it is deleted, and when the last run that was
-- started with them has ended.

CREATE FUNCTION routines.secret_ids(secret_refs jsonb, webhook_secret_id uuid) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT value::uuid FROM jsonb_each_text(secret_refs)) || array_remove(ARRAY[webhook_secret_id], NULL);
COMMENT ON FUNCTION routines.secret_ids IS 'The ids in secrets that a routine or a run refers to.';

CREATE FUNCTION routines.forget_secrets(secret_ids uuid[], of_routine_id bigint, but_trajectory_id bigint) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM routines.secrets WHERE id = ANY (forget_secrets.secret_ids)
        AND NOT EXISTS (SELECT FROM routines.routines WHERE routines.id = of_routine_id
                        AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.trajectories
                        WHERE triggered_by_routine_id = of_routine_id AND ended_at IS NULL
                          AND trajectories.id IS DISTINCT FROM but_trajectory_id
                          AND secrets.id = ANY (routines.secret_ids(secret_refs, webhook_secret_id)))
        AND NOT EXISTS (SELECT FROM routines.webhook_deliveries
                        WHERE secret_id = secrets.id AND next_attempt_at IS NOT NULL);
$$;
COMMENT ON FUNCTION routines.forget_secrets IS
    'Deletes those of these secrets that neither the routine, nor another active run of it, nor a webhook that is due still needs.';

CREATE FUNCTION routines.forget_secrets_of_routine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM routines.forget_secrets(routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_routine IS 'After a routine has let go of secrets, those go too.';

CREATE TRIGGER forget_secrets_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();
CREATE TRIGGER forget_replaced_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();

CREATE FUNCTION routines.forget_secrets_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM routines.forget_secrets(
        routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.triggered_by_routine_id, OLD.id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_run IS 'After a run has ended, the secrets that it alone still had go.';
CREATE TRIGGER forget_secrets_of_run AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
                       AND (OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL))
    EXECUTE FUNCTION routines.forget_secrets_of_run();
