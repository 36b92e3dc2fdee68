-- Where a connection stands: what a program says when it starts, and what /readyz checks.

-- name: standing
-- The role in effect, and the newest migration of the database.
SELECT current_user::text AS role, session_user::text AS login,
       (SELECT name FROM routines.schema_migrations ORDER BY version DESC LIMIT 1) AS schema_version,
       current_setting('transaction_read_only')::boolean AS is_read_only;

-- name: lacking_rights
-- What role_grants gives to a role and this grantee may not do.
SELECT on_object || ' ' || string_agg(DISTINCT privilege, ', ' ORDER BY privilege) AS right
FROM (
    SELECT on_object, found[1] AS privilege, nullif(trim(column_name), '') AS column_name
    FROM routines.role_grants
    CROSS JOIN regexp_matches(privileges, '([A-Z]+)(?:\s*\(([^)]*)\))?', 'g') AS found
    LEFT JOIN LATERAL unnest(string_to_array(found[2], ',')) AS column_name ON true
    WHERE role = %(role)s::text
) AS wanted
WHERE NOT coalesce(CASE
    WHEN on_object ~ '^FUNCTION ' THEN has_function_privilege(%(grantee)s::name, to_regprocedure(substr(on_object, 10)), privilege)
    WHEN on_object ~ '^SEQUENCE ' THEN has_sequence_privilege(%(grantee)s::name, to_regclass(substr(on_object, 10)), privilege)
    WHEN column_name IS NULL THEN has_table_privilege(%(grantee)s::name, to_regclass(on_object), privilege)
    ELSE has_column_privilege(%(grantee)s::name, to_regclass(on_object), column_name, privilege)
END, false)
GROUP BY on_object ORDER BY on_object;

-- name: holds_other_tables
-- True if somebody else uses the database: it has tables and none of ours. Those of extensions do not count.
SELECT to_regclass('routines.schema_migrations') IS NULL AND EXISTS (
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND nspname <> 'information_schema' AND nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
) AS holds;
