-- The roles of Routines, from the point of view of a connection.

-- name: role_report
-- The login of this connection, and how row-level security applies to it.
SELECT current_user::text AS login, rolsuper OR rolbypassrls AS bypasses_row_security, routines.is_owner() AS is_owner,
       ARRAY(SELECT DISTINCT role FROM routines.role_grants WHERE to_regrole(role) IS NULL ORDER BY 1) AS missing_roles,
       ARRAY(SELECT DISTINCT role FROM routines.role_grants JOIN pg_roles ON rolname = role
             WHERE pg_has_role(session_user, pg_roles.oid,
                               CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
             ORDER BY 1) AS can_take_roles,
       has_database_privilege('public', current_database(), 'TEMPORARY') AS lets_create_temporary_tables,
       current_database()::text AS database,
       -- Tables whose policy of tenants is not enforced.
       ARRAY(SELECT relname::text FROM pg_class
             WHERE relnamespace = 'routines'::regnamespace AND relkind = 'r'
               AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = 'tenant')
               AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY 1) AS open_tables
FROM pg_roles WHERE rolname = current_user;
