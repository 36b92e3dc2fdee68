"""`make up` installs with uv from where pip is told to look, and with pip where uv cannot be had."""

import base64
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from support.service import ROOT

SCRIPT = ROOT / ".ci" / "install.py"
BACKEND = """
import base64, hashlib, zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nRequires-Dist: part==1.0\\nProvides-Extra: embedded\\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "tiny.py": "",
    }
    files["tiny-1.0.dist-info/RECORD"] = "".join(f"{each},,\\n" for each in files)
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        for each, text in files.items():
            wheel.writestr(each, text)
    return name
"""  # noqa: E501
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1.0"
dependencies = ["part==1.0"]

[project.optional-dependencies]
embedded = []
"""


def module() -> object:
    """Load the script, which is not in a package."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["install"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


INSTALL = module()


def options_for(listed: str) -> tuple[dict[str, str], list[str], list[str]]:
    options = INSTALL.uv_options(INSTALL.pip_settings(listed))
    return options.environment, options.arguments, options.unknown


def test_uv_is_told_every_place_that_pip_knows() -> None:
    listed = """:env:.cert='/etc/ca.pem'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/wheels /more'
global.index-url='https://index.example/simple'
global.trusted-host='index.example'
global.constraint='/etc/constraints.txt'
global.timeout='60'"""
    environment, arguments, unknown = options_for(listed)
    assert environment == {
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_INSECURE_HOST": "index.example",
    }
    assert arguments == ["--constraint", "/etc/constraints.txt"]
    assert unknown == []


def test_the_environment_wins_over_files_and_install_over_global() -> None:
    listed = """:env:.index-url='https://environment.example'
global.index-url='https://global.example'
install.index-url='https://install.example'"""
    assert options_for(listed)[0] == {"UV_DEFAULT_INDEX": "https://environment.example"}
    assert options_for(listed.partition("\n")[2])[0] == {"UV_DEFAULT_INDEX": "https://install.example"}


@pytest.mark.parametrize(("given", "arguments"), [("true", ["--no-index"]), ("1", ["--no-index"]), ("false", [])])
def test_uv_stays_offline_where_pip_does(given: str, arguments: list[str]) -> None:
    assert options_for(f"global.no-index='{given}'")[1] == arguments


@pytest.mark.parametrize("setting", ["client-cert", "only-binary", "pre", "something-new"])
def test_a_setting_that_uv_does_not_have_is_left_to_pip(setting: str) -> None:
    assert options_for(f"global.{setting}='x'")[2] == [setting]


def make_wheel(folder: Path, name: str) -> Path:
    """Write a wheel without content."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.py": "",
    }
    digests = {
        each: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for each, text in files.items()
    }
    files[f"{info}/RECORD"] = "".join(f"{each},sha256={digests.get(each, '')},\n" for each in files)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in files.items():
            wheel.writestr(each, text)
    return path


class Index(SimpleHTTPRequestHandler):
    """A package index on loopback that remembers who asked for what."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("User-Agent", "")))
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Generator[tuple[str, list[tuple[str, str]]]]:
    """Serve an index that has the one package `part`."""
    made = make_wheel(tmp_path / "index" / "part", "part")
    (made.parent / "index.html").write_text(f'<a href="{made.name}">{made.name}</a>')
    asked: list[tuple[str, str]] = []
    handler = type("Asked", (Index,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "index")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that needs `part`, with an environment that has pip and, unless it is hidden, uv."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "tiny.py").write_text("")
    (folder / "constraints.txt").write_text(f"uv=={version('uv')}\n")
    venv.create(folder / ".venv", with_pip=False)
    give(folder, "pip")
    return folder


def packages_of(project: Path) -> Path:
    base = {"base": str(project / ".venv"), "platbase": str(project / ".venv")}
    return Path(sysconfig.get_path("purelib", vars=base))


def give(project: Path, package: str) -> None:
    """Put a package of this environment into the project's."""
    own = Path(sysconfig.get_path("purelib"))
    for found in (own / package, *own.glob(f"{package}-*.dist-info")):
        (packages_of(project) / found.name).symlink_to(found)
    (project / ".venv" / "bin" / package).symlink_to(Path(sysconfig.get_path("scripts")) / package)


def install(project: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script under these settings of pip alone."""
    kept = {name: value for name, value in os.environ.items() if not re.match("PIP_|UV_|PYTHON", name)}
    environment = {**kept, "PIP_CONFIG_FILE": os.devnull, "HOME": str(project), **settings}
    return subprocess.run(
        [project / ".venv" / "bin" / "python", SCRIPT, "embedded"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_uv_asks_the_index_that_pip_is_configured_with(project: Path, index: tuple[str, list[tuple[str, str]]]) -> None:
    url, asked = index
    give(project, "uv")
    done = install(project, PIP_INDEX_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with uv" in done.stdout
    assert "with pip" not in done.stdout
    assert {agent.partition("/")[0] for path, agent in asked if path.startswith("/part/")} == {"uv"}
    assert (packages_of(project) / "part.py").exists()


@pytest.mark.slow
def test_pip_installs_where_it_cannot_get_uv(project: Path, index: tuple[str, list[tuple[str, str]]]) -> None:
    url, asked = index
    done = install(project, PIP_INDEX_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "==> 3/3 Installing .[embedded] with pip" in done.stdout
    assert {agent.partition("/")[0] for path, agent in asked if path.startswith("/part/")} == {"pip"}
    assert (packages_of(project) / "part.py").exists()


@pytest.mark.slow
def test_pip_installs_where_uv_fails(project: Path, index: tuple[str, list[tuple[str, str]]]) -> None:
    url, _ = index
    give(project, "uv")
    uv = project / ".venv" / "bin" / "uv"
    uv.unlink()
    uv.write_text("#!/bin/sh\nexit 2\n")
    uv.chmod(0o755)
    done = install(project, PIP_INDEX_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("with uv") < done.stdout.index("with pip")
    assert (packages_of(project) / "part.py").exists()


@pytest.mark.slow
def test_a_failure_of_both_is_reported(project: Path, index: tuple[str, list[tuple[str, str]]]) -> None:
    url, _ = index
    for file in ("pyproject.toml", "backend.py"):
        (project / file).write_text((project / file).read_text().replace("part==1.0", "absent==1.0"))
    done = install(project, PIP_INDEX_URL=url)
    assert done.returncode == 1
    assert "Installed in" not in done.stdout
