# Installs the browser for tests/browser if this is Debian and we are root, in at most two and a half minutes. If a
# browser is available, installed here or before, its tests must run; otherwise they are skipped with a message.
if ! command -v chromedriver >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  DEBIAN_FRONTEND=noninteractive timeout 150 bash -c '
    install() { apt-get install --yes --no-install-recommends --quiet=2 chromium chromium-driver; }
    install || { apt-get update --quiet=2 && install; }' </dev/null >/dev/null 2>&1 \
    || echo "BROWSER TESTS SKIPPED: chromium and chromium-driver could not be installed." >&2
fi
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
  export ROUTINES_TEST_BROWSER=required
fi
