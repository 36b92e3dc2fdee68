"""Activities that read and save files of the collection."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.errors import InvalidError
from routines_workflow.activity import StepContext, activity
from routines_workflow.sizes import MAX_BYTES


class FileToRead(msgspec.Struct, forbid_unknown_fields=True):
    """The file to read."""

    path: Annotated[str, Meta(description="One of init_params.file_paths, or a path returned by save_text_file.")]


class FileContent(msgspec.Struct):
    """A file as text."""

    text: Annotated[str, Meta(description="The file's text.")]
    size_bytes: Annotated[int, Meta(description="Its size in bytes.")]


class FileToSave(msgspec.Struct, forbid_unknown_fields=True):
    """The name and content of a file."""

    name: Annotated[str, Meta(description="File name, for example report.txt.", min_length=1)]
    text: Annotated[str, Meta(description="Content of the file.")]


class SavedFile(msgspec.Struct):
    """A file that was saved."""

    path: Annotated[str, Meta(description="Path to read the file by.")]
    size_bytes: Annotated[int, Meta(description="Its size in bytes.")]


@activity("Reads a text file in UTF-8.", FileToRead, category="files")
async def read_text_file(given: FileToRead, context: StepContext) -> FileContent:
    """Read a file as text; a byte order mark is dropped.

    Raises:
        InvalidError: The file does not exist, is larger than 1 MiB or is not valid UTF-8.
    """
    content = await context.services.read_file(given.path, MAX_BYTES)
    try:
        return FileContent(content.decode("utf-8-sig"), len(content))
    except UnicodeDecodeError as error:
        raise InvalidError(f"{given.path} is not valid UTF-8 at byte {error.start + 1}") from None


@activity("Saves a text as a UTF-8 file of the collection.", FileToSave, category="files")
async def save_text_file(given: FileToSave, context: StepContext) -> SavedFile:
    """Save the text as a new file.

    Raises:
        InvalidError: The name contains a secret.
    """
    # Not masked: the file store changes and cuts the name, so that masking would not find what is left of the secret.
    if context.mask(given.name) != given.name:
        raise InvalidError("name: must not contain a secret, since the paths of files are shown")
    content = given.text.encode()
    return SavedFile(await context.services.save_file(given.name, content), len(content))
