"""The wheel contains every package and its own sql/, so users install what was tested."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import routines_core
from routines_core.db.statements import sql_dir
from support.service import ROOT, Service, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    [built] = out.glob("routines-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new virtual environment and return its `bin`.

    The dependencies come from this environment through a path entry after the new environment's own packages, so the
    test needs no network. The entry does not bring our editable install along: Python follows .pth files only in site
    directories.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_contains_every_package_and_every_sql_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.is_file()}
    expected = {str(path) for path in sources if "__pycache__" not in path.parts and "egg-info" not in str(path)}
    expected |= {f"routines_core/sql/{path.relative_to(ROOT / 'sql')}" for path in (ROOT / "sql").rglob("*.sql")}
    assert not expected - held


def test_the_installed_code_uses_the_installed_sql(installed: Path, tmp_path: Path) -> None:
    program = (
        "import routines_core; from routines_core.db.statements import sql_dir; "
        "print(routines_core.__file__, sql_dir())"
    )
    done = subprocess.run(
        [installed / "python", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    module, sql = [Path(path) for path in done.stdout.split()]
    assert module.is_relative_to(installed.parent)
    assert sql == module.parent / "sql"


def test_the_installed_command_starts_the_whole_service_in_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    service = Service(tmp_path, routines=[str(installed / "routines")])
    service.start()
    with service.client() as client:
        made = client.post("/routines/demo/hello", json={"name": "first", "cadence": {"type": "hourly"}})
        assert made.status_code == 201
        client.post("/routines/demo/hello/first/run-now")
        wait_until(lambda: client.get("/routines/demo/hello/first/runs").json()[0]["status"] == "completed")
    service.stop()


@pytest.mark.skipif(
    not Path(routines_core.__file__).is_relative_to(ROOT / "src"), reason="the tests run on an installed wheel"
)
def test_an_editable_install_uses_the_checkout() -> None:
    assert sql_dir() == ROOT / "sql"
