"""What is built is the same wherever it is built, and contains every package and its own sql/."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import routines_core
from routines_core.db.statements import sql_dir
from support.service import ROOT, Service, wait_until

pytestmark = pytest.mark.slow


BUILT_FROM = ("src", "sql", "locks", "deploy")


def build(source: Path, out: Path, **environment: str) -> None:
    """Build as `make dist` does: the sdist from the sources, and the wheel from the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, umask=0o077
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the checkout, and return the directory with the sdist and the wheel."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """Return the wheel."""
    [built] = dist.glob("routines_scheduler-*.whl")
    return built


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(wheel: Path, sha256: str, python: Path) -> subprocess.CompletedProcess[str]:
    """Install the wheel if it has this hash."""
    _, version, *_ = wheel.name.split("-")
    wanted = wheel.with_name(f"{sha256}.txt")
    wanted.write_text(f"routines-scheduler=={version} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    hashes = ["--require-hashes", "--find-links", str(wheel.parent), "--requirement", str(wanted)]
    return subprocess.run([*pip, *hashes], capture_output=True, text=True, check=False)


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
    done = install(wheel, hash_of(wheel), python)
    assert done.returncode == 0, done.stderr
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_same_sources_give_the_same_files_byte_by_byte(dist: Path, tmp_path: Path) -> None:
    source, again = tmp_path / "elsewhere" / "copy", tmp_path / "again"
    for folder in BUILT_FROM:
        # Files without their times and modes.
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile
        )
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, source / name)
    build(source, again, TZ="Asia/Kathmandu", PYTHONHASHSEED="1", LC_ALL="C")
    built = {path.name: hash_of(path) for path in dist.iterdir() if path.suffix in {".whl", ".gz"}}
    assert len(built) == 2
    assert {path.name: hash_of(path) for path in again.iterdir()} == built


def test_a_wheel_with_another_hash_is_not_installed(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    done = install(wheel, "0" * 64, tmp_path / "bin" / "python")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "bin" / "routines").exists()


def test_the_sdist_brings_the_locks_and_what_deploys_it_but_no_tests(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("locks", "deploy"):
        assert {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()} <= held
    assert not [name for name in held if name.startswith(("tests/", "docs/"))]


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
