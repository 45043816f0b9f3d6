"""From tokens' bytes to text that may be shown: whole characters only, cut at stop strings."""

import codecs


class Utf8Stream:
    """Incremental UTF-8; holds back an incomplete character, replaces invalid bytes by U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        """Return the characters completed by these bytes."""
        return self._decoder.decode(data)

    def take(self) -> bytes:
        """Take back the bytes of an incomplete character."""
        held, _ = self._decoder.getstate()
        self._decoder.reset()
        return held

    def flush(self) -> str:
        """Return what is left; an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


def overlap(text: str, word: str) -> int:
    """Return the length of the longest proper prefix of `word` that `text` ends with."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0


class StopStrings:
    """Lets text through up to the first stop string; holds back what may become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self._dropped = 0
        self.stopped = False

    @property
    def held(self) -> int:
        """Characters that came and are not shown, or not yet."""
        return len(self._held) + self._dropped

    def push(self, text: str) -> str:
        """Return what may be shown now; sets `stopped` when a stop string was found (it is never shown)."""
        if not self._stops:
            return text
        if self.stopped:
            self._dropped += len(text)
            return ""
        text = self._held + text
        cut = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.stopped, self._held, self._dropped = True, "", len(text) - cut
            return text[:cut]
        hold = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - hold :] if hold else ""
        return text[: len(text) - hold]

    def flush(self) -> str:
        """Return what was held back; nothing follows."""
        held, self._held = self._held, ""
        return held
