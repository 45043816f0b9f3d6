"""How a backup is made: a consistent copy, restic, and what is no longer kept."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance import __version__, durable_files
from appliance.backup.contents import left_out, sources, walk
from appliance.backup.errors import BackupError, MissingError, StateError
from appliance.backup.manifest import NAME, Manifest, Model
from appliance.backup.place import Place
from appliance.backup.snapshots import TAG
from appliance.backup.staging import Staging
from appliance.models.errors import ModelError
from appliance.models.folder import ModelFolder
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

type OnProgress = Callable[[int, int], None]
"""Gets the bytes that are done, and all that there are."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    snapshot: str
    files: int
    size: int
    added: int
    seconds: float
    problems: tuple[str, ...]
    forgotten: int
    """Older backups that were removed."""


def initialise(place: Place) -> bool:
    """Make the repository unless it is there, and return whether it was made.

    Raises:
        BackupError: it can't be made, or another password opens it.
    """
    try:
        place.restic.reach()
    except MissingError:
        place.restic.run("init")
        return True
    return False


def make(
    place: Place, settings: Settings, *, config_dir: Path, node: str, on_progress: OnProgress = lambda _done, _of: None
) -> Made:
    """Back this machine up, and forget what the settings no longer keep.

    The first backup makes the repository. Later ones never do: where it was and is no more, most likely its disk is
    not mounted.

    Raises:
        BackupError: it could not be done; what was there before is still there.
    """
    began = time.time()
    record = place.book.read()
    place.book.write(record.model_copy(update={"attempted": began}))
    if record.repository == place.restic.repository:
        place.restic.reach()
    else:
        initialise(place)
    staging = Staging(place.staging)
    staging.begin()
    try:
        manifest = _stage(staging, place, settings, config_dir=config_dir, node=node)
        summary = _send(place, node, on_progress)
    finally:
        staging.end()
    forgotten = _forget(place, settings, node)
    made = Made(
        snapshot=str(summary.get("snapshot_id", ""))[:8],
        files=len(manifest),
        size=sum(entry.size for entry in manifest.entries),
        added=_number(summary, "data_added"),
        seconds=time.time() - began,
        problems=manifest.problems,
        forgotten=forgotten,
    )
    place.book.write(
        place.book.read().model_copy(
            update={
                "repository": place.restic.repository,
                "succeeded": time.time(),
                "files": made.files,
                "size": made.size,
                "added": made.added,
                "seconds": made.seconds,
                "problems": len(made.problems),
            }
        )
    )
    return made


def _stage(staging: Staging, place: Place, settings: Settings, *, config_dir: Path, node: str) -> Manifest:
    without = left_out(settings)
    if not settings.paths.state.is_dir():
        raise StateError(f"{settings.paths.state}: there is no state to back up")
    for source in sources(settings, config_dir):
        staging.take(walk(source, without))
    manifest = Manifest(
        node=node,
        roles=settings.node.roles,
        rouse=__version__,
        made=datetime.now(UTC),
        entries=tuple(staging.entries),
        models=_models(settings, staging.problems),
        problems=tuple(staging.problems),
    )
    try:
        durable_files.write(place.staging / NAME, manifest.model_dump_json(indent=1).encode(), mode=0o600)
    except OSError as error:
        raise StateError(f"{place.staging}: can't be written: {error.strerror}") from error
    for problem in manifest.problems:
        _log.warning("%s", problem)
    return manifest


def _models(settings: Settings, problems: list[str]) -> tuple[Model, ...]:
    try:
        present = ModelFolder(settings.paths.models).present()
    except ModelError as error:
        problems.append(f"the models are not listed: {error}")
        return ()
    return tuple(
        Model(
            name=name,
            size=one.size,
            model=one.record.model if one.record else None,
            sha256=one.record.sha256 if one.record else None,
        )
        for name, one in present.items()
    )


def _send(place: Place, node: str, on_progress: OnProgress) -> Mapping[str, Any]:
    summary: dict[str, Any] = {}

    def note(message: Mapping[str, Any]) -> None:
        if message.get("message_type") == "summary":
            summary.update(message)
        elif message.get("message_type") == "status":
            on_progress(_number(message, "bytes_done"), _number(message, "total_bytes"))

    tops = sorted(path.name for path in place.staging.iterdir())
    # The copy is new each time, so its inodes and change times say nothing; size and modification time do.
    place.restic.run(
        "backup", "--json", "--host", node, "--tag", TAG, "--ignore-inode", "--ignore-ctime", *tops,
        folder=place.staging, on_message=note,
    )  # fmt: skip
    return summary


def _forget(place: Place, settings: Settings, node: str) -> int:
    """Remove what the settings no longer keep. A backup that was made is not undone by this going wrong."""
    kept = settings.backup
    wanted = (("daily", kept.keep_daily), ("weekly", kept.keep_weekly), ("monthly", kept.keep_monthly))
    options = [option for name, count in wanted if count for option in (f"--keep-{name}", str(count))]
    try:
        groups = place.restic.messages("forget", "--host", node, "--tag", TAG, "--group-by", "host,tags", *options)
        removed = sum(len(group.get("remove") or ()) for group in groups if isinstance(group, dict))
        if removed:
            place.restic.run("prune")
    except BackupError as error:
        _log.warning("older backups were not removed: %s", error)
        return 0
    return removed


def _number(message: Mapping[str, Any], key: str) -> int:
    value = message.get(key, 0)
    return value if isinstance(value, int) else 0
