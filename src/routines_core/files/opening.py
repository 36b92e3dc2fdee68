"""Opens the file store that the settings name."""

from pathlib import Path

from routines_core.distribution import how_to_install
from routines_core.errors import ConfigurationError
from routines_core.files.directory import DirectoryStore
from routines_core.files.missing import MissingStore
from routines_core.files.store import FileStore
from routines_core.settings import Settings


def open_file_store(settings: Settings) -> FileStore:
    """Open the store that ROUTINES_FILES names; by default a directory in the data directory.

    If the database is not that of the data directory, there is no default: saving and reading files then raises.

    Raises:
        ConfigurationError: It names a bucket, but the `s3` extra is not installed or the address is malformed.
    """
    where = settings.files or (str(settings.data_dir / "files") if settings.has_data_dir else None)
    if where is None:
        return MissingStore()
    if "://" not in where:
        return DirectoryStore(Path(where))
    if not where.startswith("s3://"):
        raise ConfigurationError("ROUTINES_FILES: must be a directory or s3://bucket/prefix.")
    try:
        from routines_core.files.bucket import BucketStore
    except ModuleNotFoundError:
        raise ConfigurationError(f"ROUTINES_FILES: s3:// needs an extra package: {how_to_install('s3')}.") from None
    return BucketStore(where)
