"""What a deploy did, gathered from its events."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pyinfra_deploys.events import Event, OperationDone, Outcome

_STYLES = {"changed": "yellow", "would change": "yellow", "failed": "bold red", "unchanged": "dim"}


@dataclass(slots=True)
class PartResult:
    """What became of one part on one machine."""

    operations: "list[OperationDone]" = field(default_factory=list)
    error: str | None = None

    def count(self, outcome: "Outcome") -> int:
        """Return how many operations went so."""
        return Counter(operation.outcome for operation in self.operations)[outcome]

    @property
    def failed(self) -> bool:
        """Whether it did not come to its end."""
        return self.error is not None or self.count("failed") > 0


@dataclass(slots=True)
class MachineResult:
    """What became of one machine."""

    error: str | None = None
    parts: dict[str, PartResult] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether anything went wrong with it."""
        return self.error is not None or any(part.failed for part in self.parts.values())


@dataclass(slots=True)
class DeployResult:
    """What became of all."""

    machines: dict[str, MachineResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    succeeded: bool | None = None
    """None as long as the run has not ended by itself."""

    def take(self, event: "Event") -> None:
        """Take an event in."""
        if event.kind == "note":
            if event.level == "warning":
                self.notes.append(event.text)
        elif event.kind == "ended":
            self.succeeded = event.succeeded
        elif event.kind == "connected":
            self.machines.setdefault(event.machine, MachineResult()).error = event.error
        else:
            part = self.machines.setdefault(event.machine, MachineResult()).parts.setdefault(event.part, PartResult())
            if event.kind == "operation":
                part.operations.append(event)
            elif event.kind == "part failed":
                part.error = event.text

    def failures(self) -> Iterator[str]:
        """Yield what went wrong, in sentences."""
        for name, machine in self.machines.items():
            if machine.error is not None:
                yield f"{name}: {machine.error}"
            for part_name, part in machine.parts.items():
                if part.error is not None:
                    yield f"{name}, {part_name}: {part.error}"
                for operation in part.operations:
                    if operation.outcome == "failed":
                        yield f"{name}, {part_name}: {operation.title} failed\n{operation.text or ''}".rstrip()

    def table(self, *, dry: bool) -> Table:
        """Return a summary: a line for each part of each machine."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("Machine")
        table.add_column("Part")
        for heading in ("Would change" if dry else "Changed", "Unchanged", "Failed"):
            table.add_column(heading, justify="right")
        for name, machine in self.machines.items():
            if machine.error is not None:
                table.add_row(Text(name), Text("not reached", style=_STYLES["failed"]))
            for number, (part_name, part) in enumerate(machine.parts.items()):
                changed = part.count("changed") + part.count("would change")
                failed = part.count("failed") + (part.error is not None)
                table.add_row(
                    Text(name if number == 0 else ""),
                    Text(part_name),
                    Text(str(changed), style=_STYLES["changed"] if changed else _STYLES["unchanged"]),
                    Text(str(part.count("unchanged")), style=_STYLES["unchanged"]),
                    Text(str(failed), style=_STYLES["failed"] if failed else _STYLES["unchanged"]),
                )
        return table

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for scripts."""
        return {
            "succeeded": bool(self.succeeded),
            "notes": self.notes,
            "machines": [
                {
                    "machine": name,
                    "error": machine.error,
                    "parts": [
                        {
                            "part": part_name,
                            "error": part.error,
                            "changed": part.count("changed") + part.count("would change"),
                            "unchanged": part.count("unchanged"),
                            "failed": part.count("failed"),
                            "operations": [
                                operation.model_dump(mode="json", exclude={"kind", "machine", "part"})
                                for operation in part.operations
                            ],
                        }
                        for part_name, part in machine.parts.items()
                    ],
                }
                for name, machine in self.machines.items()
            ],
        }
