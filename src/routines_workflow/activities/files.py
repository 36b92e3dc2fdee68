"""Activities on files of the collection."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import StepContext, activity


class FileToRead(msgspec.Struct, forbid_unknown_fields=True):
    """Which file."""

    path: Annotated[str, Meta(description="One of init_params.file_paths, or the path that save_text_file gave.")]


class FileContent(msgspec.Struct):
    """A file as text."""

    text: Annotated[str, Meta(description="The file's text.")]
    size_bytes: Annotated[int, Meta(description="Its size in bytes.")]


class FileToSave(msgspec.Struct, forbid_unknown_fields=True):
    """A name and a text."""

    name: Annotated[str, Meta(description="What the file shall be called, as report.txt.", min_length=1)]
    text: Annotated[str, Meta(description="What it shall hold.")]


class SavedFile(msgspec.Struct):
    """Where a file was saved."""

    path: Annotated[str, Meta(description="What reads it again.")]
    size_bytes: Annotated[int, Meta(description="Its size in bytes.")]


@activity("Reads a text file in UTF-8.", FileToRead, category="files")
async def read_text_file(given: FileToRead, context: StepContext) -> FileContent:
    """The file's text.

    Raises:
        InvalidError: There is no such file, or it is not UTF-8.
    """
    content = await context.services.read_file(given.path)
    try:
        return FileContent(content.decode("utf-8-sig"), len(content))
    except UnicodeDecodeError as error:
        raise InvalidError(f"{given.path} is not valid UTF-8 at byte {error.start + 1}") from None


@activity("Saves a text in UTF-8 as a file of the collection.", FileToSave, category="files")
async def save_text_file(given: FileToSave, context: StepContext) -> SavedFile:
    """Where it was saved."""
    content = given.text.encode()
    return SavedFile(await context.services.save_file(given.name, content), len(content))
