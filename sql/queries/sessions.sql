-- How a connection becomes a session in which statements mean, and values read, the same on every database.

-- name: pin
-- Sets what differs, and the role. A server older than a setting goes without it: transaction_timeout came with Postgres 17. What is
-- set already is not set again, since only a superuser may set some of them. The role is that of the program if it exists and the
-- login may switch to it; otherwise the login's own.
SELECT name, set_config(name, setting, false) AS setting
FROM unnest(%(names)s::text[], %(settings)s::text[]) AS pinned (name, setting)
WHERE current_setting(name, true) IS DISTINCT FROM setting
  AND (current_setting(name, true) IS NOT NULL OR name LIKE 'routines.%%')
UNION ALL
SELECT 'role', set_config('role', (
    SELECT rolname FROM pg_roles
    WHERE rolname = %(role)s::text AND pg_has_role(
        session_user, oid,
        CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)), false);

-- name: read_back
-- In a transaction of its own: what a pooler gives to another session afterwards shows here.
SELECT jsonb_object_agg(name, current_setting(name, true)) AS settings FROM unnest(%(names)s::text[]) AS name;

-- name: backend
-- The process that serves this session. A pooler has told the client another one.
SELECT pg_backend_pid() AS pid;

-- name: end_when_idle
-- The server ends this session once it has waited that long for its client.
SELECT set_config('idle_session_timeout', %(milliseconds)s::integer || 'ms', false);
