"""A run of any task: its name and places, and how it is scaled, saved and registered."""

from __future__ import annotations

from typing import Any, Protocol

from pipelines.run import CheckpointSchedule, Scaling


class AnyRun(Protocol):
    """A run of a classification, a detection or a segmentation."""

    @property
    def name(self) -> str:
        """Its own name, or recipe and seed."""
        ...

    @property
    def folder(self) -> str:
        """The folder of its checkpoints and records: an absolute path or a URI."""
        ...

    @property
    def storage_path(self) -> str:
        """The folder of all runs' checkpoints."""
        ...

    @property
    def scaling(self) -> Scaling:
        """Its workers."""
        ...

    @property
    def checkpoints(self) -> CheckpointSchedule:
        """When its state is saved."""
        ...

    @property
    def promote(self) -> bool:
        """True if its model is registered."""
        ...

    @property
    def model_name(self) -> str | None:
        """The registered model that it becomes a version of, where one is named."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """As JSON's objects."""
        ...

    def model_dump_json(self) -> str:
        """As JSON."""
        ...
