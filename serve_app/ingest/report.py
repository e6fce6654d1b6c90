"""What an ingest did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileFailure:
    """A file that was left out; what the collection had of it stays."""

    document_id: str
    message: str


@dataclass(slots=True)
class IngestReport:
    """Counts of files (documents) and chunks."""

    collection: str
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    pruned: int = 0
    ignored: int = 0  # of a suffix that no parser reads
    chunks_written: int = 0
    chunks_pruned: int = 0
    elapsed_s: float = 0.0
    failures: list[FileFailure] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many files were left out."""
        return len(self.failures)

    @property
    def exit_code(self) -> int:
        """0, or 1 when any file failed."""
        return 1 if self.failures else 0
