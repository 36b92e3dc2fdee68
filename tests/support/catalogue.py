"""Everything that Postgres knows about the schema `routines`, as lines of text to compare."""

import difflib

from routines_core.db import Connection

_QUERIES = {
    "schema": """
        SELECT nspname, (SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest(nspacl) AS acl)
        FROM pg_namespace WHERE nspname = 'routines'""",
    "table": """
        SELECT relname, concat_ws(', ', relkind, relpersistence, array_to_string(reloptions, ' '),
                                  CASE WHEN relrowsecurity THEN 'row security' END,
                                  CASE WHEN relforcerowsecurity THEN 'forced' END)
        FROM pg_class WHERE relnamespace = 'routines'::regnamespace AND relkind NOT IN ('i', 't')""",
    "column": """
        SELECT relname || '.' || attname, concat_ws(', ',
                   row_number() OVER (PARTITION BY relname ORDER BY attnum), format_type(atttypid, atttypmod),
                   CASE WHEN attnotnull THEN 'not null' END, 'default ' || pg_get_expr(adbin, adrelid),
                   'identity ' || nullif(attidentity::text, ''), 'generated ' || nullif(attgenerated::text, ''),
                   'storage ' || attstorage::text, array_to_string(attoptions, ' '))
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'routines'::regnamespace AND relkind IN ('r', 'v', 'c')
          AND attnum > 0 AND NOT attisdropped""",
    "sequence": """
        SELECT seqrelid::regclass::text, concat_ws(
            ' ', seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle)
        FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE relnamespace = 'routines'::regnamespace""",
    "constraint": """
        SELECT coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text) || '.' || conname,
               pg_get_constraintdef(oid) || CASE WHEN convalidated THEN '' ELSE ' (not validated)' END
        FROM pg_constraint WHERE connamespace = 'routines'::regnamespace""",
    "index": """
        SELECT indexrelid::regclass::text,
               pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' (invalid)' END
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'routines'::regnamespace""",
    "function": """
        SELECT oid::regprocedure::text, pg_get_functiondef(oid)
        FROM pg_proc WHERE pronamespace = 'routines'::regnamespace AND prokind <> 'a'""",
    "aggregate": """
        SELECT aggfnoid::oid::regprocedure::text,
               concat_ws(' ', aggtransfn, aggtranstype::regtype, agginitval, proparallel)
        FROM pg_aggregate JOIN pg_proc ON pg_proc.oid = aggfnoid WHERE pronamespace = 'routines'::regnamespace""",
    "trigger": """
        SELECT tgrelid::regclass || '.' || tgname, pg_get_triggerdef(pg_trigger.oid) || ' ' || tgenabled::text
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE relnamespace = 'routines'::regnamespace AND NOT tgisinternal""",
    "view": """
        SELECT relname, pg_get_viewdef(oid)
        FROM pg_class WHERE relnamespace = 'routines'::regnamespace AND relkind = 'v'""",
    "type": """
        SELECT oid::regtype::text, concat_ws(', ', typtype, nullif(typbasetype, 0)::regtype, typdefault,
                                             CASE WHEN typnotnull THEN 'not null' END)
        FROM pg_type WHERE typnamespace = 'routines'::regnamespace AND typtype IN ('c', 'd', 'e')""",
    "comment": """
        SELECT pg_describe_object(classoid, objoid, objsubid), description
        FROM pg_description WHERE pg_describe_object(classoid, objoid, objsubid) ~ '\\mroutines(\\.|$)'""",
    "policy": """
        SELECT polrelid::regclass || '.' || polname, concat_ws(', ',
                   polcmd, CASE WHEN polpermissive THEN 'permissive' END,
                   'to ' || ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END
                                  FROM unnest(polroles) AS role ORDER BY 1)::text,
                   'using ' || pg_get_expr(polqual, polrelid), 'check ' || pg_get_expr(polwithcheck, polrelid))
        FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE relnamespace = 'routines'::regnamespace""",
    "grant on table": """
        SELECT relname, acl::text FROM pg_class, unnest(relacl) AS acl WHERE relnamespace = 'routines'::regnamespace""",
    "grant on column": """
        SELECT relname || '.' || attname, acl::text
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, unnest(attacl) AS acl
        WHERE relnamespace = 'routines'::regnamespace""",
    "grant on function": """
        SELECT pg_proc.oid::regprocedure::text, acl::text
        FROM pg_proc, unnest(coalesce(proacl, acldefault('f', proowner))) AS acl
        WHERE pronamespace = 'routines'::regnamespace""",
    "grant on type": """
        SELECT pg_type.oid::regtype::text, acl::text
        FROM pg_type, unnest(coalesce(typacl, acldefault('T', typowner))) AS acl
        WHERE typnamespace = 'routines'::regnamespace AND typtype IN ('c', 'd', 'e')""",
    "limit": "SELECT name, value::text FROM routines.built_in_limits",
    "role grant": "SELECT role || ' on ' || on_object, privileges FROM routines.role_grants",
}


async def catalogue(connection: Connection) -> list[str]:
    """Returns one line for each fact, sorted; a long definition takes several lines."""
    lines: list[str] = []
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path = pg_catalog")  # so that every name comes with its schema
        for kind, query in _QUERIES.items():
            rows = await (await connection.execute(query.encode())).fetchall()
            assert rows, f"the schema has no {kind}"
            for name, definition in sorted((str(name), str(definition)) for name, definition in rows):
                lines += [f"{kind} {name}: {line}" for line in definition.splitlines() or [""]]
    return lines


def differences(expected: list[str], actual: list[str]) -> list[str]:
    """Returns the lines that only one of the two has, `-` for the expected and `+` for the actual ones."""
    diff = list(difflib.unified_diff(expected, actual, "chapters", "migrations", lineterm="", n=0))
    return [line for line in diff[2:] if not line.startswith("@@")]
