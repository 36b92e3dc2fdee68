"""Outputs too large for a step's record: kept in files of the collection, and read when a later step refers to them."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import msgspec

from routines_core.errors import InvalidError
from routines_engine.steps.masking_services import MaskingServices
from routines_workflow.bindings import Binding

MAX_LARGE_BYTES = 16 * 1024 * 1024
"""Maximum size as JSON of the outputs of a step, of all large outputs that one step refers to, and of those that are
kept in memory for a run."""
FILE_NAME = "outputs.json"


class OutputsReference(TypedDict):
    """What the record of a step has in place of large outputs, with `has_file` beside it.

    Only has_file makes it a reference. An activity that returns such an object has returned an object.
    """

    file_path: str
    bytes: int


class LargeOutputs:
    """The large outputs of one run.

    Args:
        services: Saves and reads files of the run's collection.
        finished_steps: As for the Stepper.
    """

    def __init__(self, services: MaskingServices, finished_steps: Mapping[str, Any]) -> None:
        self._services = services
        self._references: dict[str, OutputsReference] = {
            name: step["outputs"] for name, step in finished_steps.items() if step.get("has_file")
        }
        self._read: OrderedDict[str, Any] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """What the files hold together."""
        return sum(reference["bytes"] for reference in self._references.values())

    async def save(self, step: str, content: bytes) -> OutputsReference:
        """Save a step's outputs, masked and as JSON. Returns what its record holds instead.

        Raises:
            InvalidError: They are larger than MAX_LARGE_BYTES, or the collection may have no more files.
            StorageError: The file store is unavailable.
        """
        if len(content) > MAX_LARGE_BYTES:
            raise InvalidError(
                f"its outputs are larger than {MAX_LARGE_BYTES} bytes as JSON: keep large data in a file"
            )
        reference = OutputsReference(
            file_path=await self._services.save_outputs(FILE_NAME, content), bytes=len(content)
        )
        self._references[step] = reference
        return reference

    async def referred_to(self, bindings: Iterable[Binding]) -> dict[str, Any]:
        """Return the outputs that are in files and that a step refers to, by the name of their steps.

        Raises:
            InvalidError: They are larger than MAX_LARGE_BYTES together, or a file is missing.
            StorageError: The file store is unavailable.
        """
        wanted = {
            reference.root: self._references[reference.root]
            for binding in bindings
            for reference in binding.references()
            if reference.root in self._references and reference.members[:1] in {(), ("outputs",)}
        }
        size = sum(reference["bytes"] for reference in wanted.values())
        if size > MAX_LARGE_BYTES:
            raise InvalidError(
                f"the outputs of {', '.join(sorted(wanted))} hold {size} bytes together, more than the "
                f"{MAX_LARGE_BYTES} bytes of large outputs that a step may refer to"
            )
        return {name: await self._outputs(name) for name in wanted}

    async def _outputs(self, step: str) -> Any:
        """Return a step's outputs, from memory if they were read before."""
        if step not in self._read:
            content = await self._services.read_file(self._references[step]["file_path"], MAX_LARGE_BYTES)
            self._read[step] = msgspec.json.decode(content)
        self._read.move_to_end(step)
        while sum(self._references[name]["bytes"] for name in self._read) > MAX_LARGE_BYTES:
            self._read.popitem(last=False)
        return self._read[step]
