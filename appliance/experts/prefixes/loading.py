"""Brings prefixes from disk to memory without holding up the engine."""

import logging
from collections.abc import Callable
from weakref import WeakSet

from appliance.experts.backend import Backend
from appliance.experts.generation import Generation
from appliance.experts.prefixes.images import Image, ImageShelf
from appliance.experts.prefixes.store import PrefixStore, Stored
from appliance.experts.settings import EngineSettings

_log = logging.getLogger(__name__)

WORTH_READING = 64
"""Tokens that a file must add to what is known already."""


class StoredPrefixes:
    """The store, what is being read from it, and what has arrived; used by the engine thread."""

    def __init__(self, backend: Backend, settings: EngineSettings, wake: Callable[[], None]) -> None:
        """Open the folder and begin to read the prefixes that were used last; `wake` tells of each arrival."""
        self._wake = wake
        self._arrived: list[tuple[Stored, Image | None]] = []
        self._reading: set[Stored] = set()
        self._waiting: WeakSet[Generation] = WeakSet()
        self.store = _opened(backend, settings)
        if self.store is not None:
            room = settings.parked_bytes
            for stored in self.store.recent():
                room -= stored.size
                if room < 0:
                    break
                self._read(stored)

    def is_loading(self, generation: Generation) -> bool:
        """Whether a request waits for a file and none has arrived since."""
        return generation in self._waiting and not self._arrived

    def fetch(self, generation: Generation, known: int, shelf: ImageShelf) -> bool:
        """Begin to read the file that adds most to what is known of a prompt; whether there is one to wait for."""
        self._collect(shelf)
        self._waiting.discard(generation)
        if self.store is None:
            return False
        prompt = generation.request.prompt
        limit = len(prompt) - 1
        stored, most = self.store.best(prompt, limit)
        if stored is None or most < max(known, shelf.best(prompt, limit)[1]) + WORTH_READING:
            return False
        self._read(stored)
        self._waiting.add(generation)
        return True

    def close(self) -> None:
        """Finish what was begun to be written."""
        if self.store is not None:
            self.store.close()

    def _read(self, stored: Stored) -> None:
        if self.store is not None and stored not in self._reading:
            self._reading.add(stored)
            self.store.load(stored, lambda image: self._arrive(stored, image))

    def _arrive(self, stored: Stored, image: Image | None) -> None:
        """Called in the store's thread."""
        self._arrived.append((stored, image))
        self._wake()

    def _collect(self, shelf: ImageShelf) -> None:
        while self._arrived:
            stored, image = self._arrived.pop(0)
            self._reading.discard(stored)
            if image is not None and not shelf.put(image) and self.store is not None:
                self.store.forget(stored)


def _opened(backend: Backend, settings: EngineSettings) -> PrefixStore | None:
    if settings.prefix_folder is None or not settings.prefix_bytes:
        return None
    try:
        return PrefixStore(
            settings.prefix_folder,
            state=backend.info.state_key,
            capacity=settings.prefix_bytes,
            divisible=backend.divisible,
        )
    except OSError as error:
        _log.warning("no prefixes are kept on disk: %s", error)
        return None
