"""What a user installs is what was tested: the wheel carries every package and its own sql/."""

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
    """The wheel, built from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    [built] = out.glob("routines-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new virtual environment that holds the wheel.

    Its dependencies are the ones of this environment, by a path that comes after its own packages: the tests need no
    network. That path brings no editable install along, since .pth files are followed in site directories only.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_it_holds_every_package_and_every_file_of_sql(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.is_file()}
    expected = {str(path) for path in sources if "__pycache__" not in path.parts and "egg-info" not in str(path)}
    expected |= {f"routines_core/sql/{path.relative_to(ROOT / 'sql')}" for path in (ROOT / "sql").rglob("*.sql")}
    assert not expected - held


def test_its_code_and_its_sql_are_the_installed_ones(installed: Path, tmp_path: Path) -> None:
    program = "import routines_core; from routines_core.db.statements import sql_dir; print(routines_core.__file__, sql_dir())"
    done = subprocess.run(
        [installed / "python", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    places = [Path(place) for place in done.stdout.split()]
    assert all(place.is_relative_to(installed.parent) for place in places)
    assert places[1] == places[0].parent / "sql"


def test_it_brings_up_the_whole_service_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
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
