# Installs PgBouncer for tests/core/db/test_poolers.py if this is Debian and we are root, in at most a minute and a half.
# Without it these tests are skipped with a message.
if ! command -v pgbouncer >/dev/null && [ ! -x /usr/sbin/pgbouncer ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  DEBIAN_FRONTEND=noninteractive timeout 90 bash -c '
    install() { apt-get install --yes --no-install-recommends --quiet=2 pgbouncer; }
    install || { apt-get update --quiet=2 && install; }' </dev/null >/dev/null 2>&1 \
    || echo "POOLER TESTS SKIPPED: pgbouncer could not be installed." >&2
fi
