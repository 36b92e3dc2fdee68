-- The logins of the programs, for a cluster that serves Routines alone. The image of Postgres runs this once, when it creates
-- the cluster; compose.yaml mounts it. The passwords come from the environment and appear in no command line and no log.
-- The owner is no superuser and may not create roles, so all of this is done before `routines migrate`.

\set ON_ERROR_STOP on
\getenv owner_password ROUTINES_OWNER_PASSWORD
\getenv api_password ROUTINES_API_PASSWORD
\getenv ticker_password ROUTINES_TICKER_PASSWORD
\getenv worker_password ROUTINES_WORKER_PASSWORD

BEGIN;
CREATE ROLE routines_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE routines_api LOGIN PASSWORD :'api_password';
ALTER ROLE routines_api SET statement_timeout = '10s';
ALTER ROLE routines_api SET lock_timeout = '5s';
ALTER ROLE routines_api SET idle_in_transaction_session_timeout = '2s';
CREATE ROLE routines_ticker LOGIN PASSWORD :'ticker_password';
ALTER ROLE routines_ticker SET statement_timeout = '10s';
ALTER ROLE routines_ticker SET lock_timeout = '1s';
ALTER ROLE routines_ticker SET idle_in_transaction_session_timeout = '2s';
CREATE ROLE routines_worker LOGIN PASSWORD :'worker_password';
ALTER ROLE routines_worker SET statement_timeout = '30s';
ALTER ROLE routines_worker SET lock_timeout = '30s';
ALTER ROLE routines_worker SET idle_in_transaction_session_timeout = '2s';
-- For people at psql: ALTER ROLE routines_reader LOGIN PASSWORD '…'.
CREATE ROLE routines_reader NOLOGIN;
ALTER ROLE routines_reader SET statement_timeout = '60s';
ALTER ROLE routines_reader SET lock_timeout = '5s';
ALTER ROLE routines_reader SET idle_in_transaction_session_timeout = '60s';

-- The age of the oldest snapshot: the ticker warns about it, and the API's metrics ask as the owner.
GRANT pg_read_all_stats TO routines_ticker, routines_owner;

SELECT current_database() AS database \gset
ALTER DATABASE :"database" OWNER TO routines_owner;
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO routines_api, routines_ticker, routines_worker, routines_reader;
-- No login of a program has anything to do in the other databases. template0 takes no connections anyway.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
COMMIT;
