-- The roles of Routines, as a connection meets them.

-- name: take_role
-- A program does no more than its role from here on. No row: there is no such role, or the login may not take it on, and
-- all stays as it was.
SELECT set_config('role', rolname, false) AS role FROM pg_roles
WHERE rolname = %(role)s::text
  AND pg_has_role(session_user, oid, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END);

-- name: role_report
-- Who this connection is, and what row-level security means to it.
SELECT current_user::text AS login, rolsuper OR rolbypassrls AS bypasses_row_security, routines.is_owner() AS is_owner,
       ARRAY(SELECT DISTINCT role FROM routines.role_grants WHERE to_regrole(role) IS NULL ORDER BY 1) AS missing_roles,
       ARRAY(SELECT DISTINCT role FROM routines.role_grants JOIN pg_roles ON rolname = role
             WHERE pg_has_role(session_user, pg_roles.oid,
                               CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
             ORDER BY 1) AS can_take_roles,
       -- A policy of tenants that is not forced, or was taken off, holds nobody.
       ARRAY(SELECT relname::text FROM pg_class
             WHERE relnamespace = 'routines'::regnamespace AND relkind = 'r'
               AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = 'tenant')
               AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY 1) AS open_tables
FROM pg_roles WHERE rolname = current_user;
