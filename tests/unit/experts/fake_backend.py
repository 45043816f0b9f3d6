"""A backend without weights: deterministic, instant, and strict about what a real context would not forgive.

A token is a byte; control tokens follow. What the "model" says is decided by a script: a function from the
prompt's text to the answer's. Every batch is checked like llama.cpp checks it, so a scheduler that loses
count fails loudly.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from appliance.experts.backend import ClientGrammar, Grammar, Image, ModelInfo, Picture, Run, Steps
from appliance.experts.chat.templates import CHATML
from appliance.experts.errors import InvalidRequestError, StepError
from appliance.experts.sampling import Sampling
from appliance.experts.settings import EngineSettings
from appliance.experts.tuning.costs import CostModel

SPECIALS = ("<|im_start|>", "<|im_end|>", "<|end|>")
IM_START, IM_END, END = range(256, 259)

type Script = Callable[[str], str]
"""From the whole prompt's text to the answer."""


def echo(prompt: str) -> str:
    """Answer with the last message of the prompt, or with the prompt if it is no chat."""
    turns = [turn.split("<|im_end|>")[0] for turn in prompt.split("<|im_start|>")[1:]]
    if len(turns) < 2:
        return prompt
    return turns[-2].partition("\n")[2]


@dataclass(slots=True)
class FakeSampler:
    """Says what the script wrote, a byte a token, and then the end."""

    backend: "FakeBackend"
    answer: list[int] | None = None
    constraints: list[Grammar | None] = field(default_factory=list)
    closed: bool = False

    def sample(self, row: int, output: int = 0) -> int | None:
        """Return the answer's next token; the row must have logits."""
        if self.closed:
            raise AssertionError("A closed sampler was used.")
        if self.answer is None:
            self.answer = list(self.backend.script(self.backend.text_before(row, output)).encode())
        self.backend.check_row(row, output)
        return self.answer.pop(0) if self.answer else END

    def logprobs(self, row: int, token: int, top: int, output: int = 0) -> tuple[float, list[tuple[int, float]]]:
        """Say that the token has one chance in two, and the alphabet's first letters fewer each."""
        self.backend.check_row(row, output)
        return -0.693147, [(token, -0.693147), *((97 + rank, -1.0 - rank) for rank in range(top))][:top]

    def constrain(self, grammar: Grammar | None) -> None:
        """Note the grammar."""
        self.constraints.append(grammar)

    def close(self) -> None:
        """Note it."""
        self.closed = True


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A KV cell; sequences that share it have the same object."""

    token: int
    place: int
    """Its index in the context: the lowest that was free."""


@dataclass(slots=True)
class FakeBackend:
    """A context of `settings.sequences` + 1 sequences and `settings.kv_cells` cells that exist only as objects."""

    settings: EngineSettings
    script: Script = echo
    token_seconds: float = 0.0
    """Time that a token in a batch takes."""
    step_seconds: float = 0.0
    """Time that a batch takes besides."""
    fail_when: Callable[[Sequence[Run]], bool] = lambda _runs: False
    """Whether a batch fails."""
    costs: CostModel | None = None
    divisible: bool = True
    """Whether a sequence can be cut, unlike a recurrent model's."""
    takes_back: bool = True
    """Whether saved states are taken back."""
    cells: dict[int, dict[int, "Cell"]] = field(default_factory=dict)
    """By sequence and position; a cell may be in several sequences."""
    steps: list[list[Run]] = field(default_factory=list)
    """Every batch that was computed."""
    samplers: list[FakeSampler] = field(default_factory=list)
    vector_steps: int = 0
    """Steps of computing embeddings."""
    closed: bool = False
    info: ModelInfo = field(init=False)

    def __post_init__(self) -> None:
        """Describe the model."""
        self.info = ModelInfo(
            description="fake",
            chat_template=CHATML,
            bos="",
            eos=SPECIALS[2],
            adds_bos=False,
            bos_token=-1,
            vocabulary=259,
            trained_context=1 << 20,
            state_key="fake",
            special_texts=SPECIALS,
        )

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the bytes, and the control tokens if asked for."""
        tokens: list[int] = []
        while special and (found := [(text.find(word), word) for word in SPECIALS if word in text]):
            at, word = min(found)
            tokens += text[:at].encode(errors="replace")
            tokens.append(256 + SPECIALS.index(word))
            text = text[at + len(word) :]
        return [*tokens, *text.encode(errors="replace")]

    def piece(self, token: int) -> bytes:
        """Return the byte."""
        return bytes([token]) if token < 256 else b""

    def picture(self, image: Image) -> Picture:
        """Say that an image is its number of pixels."""
        return Picture((image.width * image.height,))

    def compile_grammar(self, source: str, param: str = "grammar") -> ClientGrammar:
        """Take everything that has a root."""
        if "root ::=" not in source:
            raise InvalidRequestError(f"{param}: there is no root.", param=param)
        return ClientGrammar(source, None)

    def is_end(self, token: int) -> bool:
        """Whether it is one of the two ends."""
        return token in (IM_END, END)

    def sampler(self, sampling: Sampling) -> FakeSampler:  # noqa: ARG002  # nothing to choose
        """Prepare to say what the script answers."""
        self.samplers.append(FakeSampler(self))
        return self.samplers[-1]

    def decode(self, runs: Sequence[Run]) -> None:
        """Store the tokens, after checking that they continue what is there."""
        count = sum(len(run.tokens) for run in runs)
        if not count or count > max(self.settings.batch_tokens, self.settings.slots):
            raise AssertionError(f"A batch of {count} tokens is not allowed.")
        if len({run.seq for run in runs}) != len(runs):
            raise AssertionError("A sequence is in the batch twice.")
        if self.token_seconds or self.step_seconds:
            time.sleep(self.step_seconds + self.token_seconds * count)
        if self.fail_when(runs):
            raise StepError("The fake was told to fail.")
        for run in runs:
            cells = self.cells.setdefault(run.seq, {})
            if not 0 <= run.seq < self.settings.sequences or run.position != len(cells) or not run.tokens:
                raise AssertionError(f"{run} does not continue {len(cells)} cells.")
            cells.update(enumerate(self._new_cells(run.tokens), run.position))
            if list(cells) != list(range(len(cells))):
                raise AssertionError(f"The sequence {run.seq} has gaps: {list(cells)}.")
        if self.used > self.settings.kv_cells:
            raise AssertionError("There are more tokens than cells.")
        self.steps.append(list(runs))

    def tokens(self, seq: int) -> list[int]:
        """Return what a sequence holds, by position."""
        return [cell.token for _, cell in sorted(self.cells.get(seq, {}).items())]

    def keep(self, seq: int, tokens: int) -> int:
        """Cut a sequence."""
        cells = self.cells.setdefault(seq, {})
        if not self.divisible and tokens != len(cells):
            tokens = 0
        self.cells[seq] = {position: cell for position, cell in cells.items() if position < tokens}
        return len(self.cells[seq])

    def cut(self, seq: int, start: int, end: int) -> None:
        """Remove a range."""
        if not self.divisible:
            raise AssertionError("This state can't be cut.")
        for position in range(start, end):
            del self.cells[seq][position]

    def copy(self, source: int, target: int, start: int, end: int) -> int:
        """Share cells."""
        cells = self.cells.setdefault(target, {})
        if not self.divisible and (cells or start or end != len(self.cells[source])):
            raise AssertionError("This state can only be copied whole, to an empty sequence.")
        for position in range(start, end):
            if position in cells:
                raise AssertionError(f"The sequence {target} has the position {position} already.")
            cells[position] = self.cells[source][position]
        self.cells[target] = dict(sorted(cells.items()))
        return end

    def state_bytes(self, seq: int) -> int:
        """Return how long `save` would be."""
        return len(self.save(seq))

    def save(self, seq: int) -> memoryview:
        """Write the cells as JSON."""
        return memoryview(json.dumps({at: cell.token for at, cell in self.cells[seq].items()}).encode())

    def restore(self, seq: int, data: memoryview) -> bool:
        """Read them back."""
        self.cells[seq] = {}
        if self.takes_back:
            saved = json.loads(bytes(data))
            self.cells[seq] = dict(zip(map(int, saved), self._new_cells(saved.values()), strict=True))
        if self.used > self.settings.kv_cells:
            raise AssertionError("There are more tokens than cells.")
        return self.takes_back

    def embed(self, texts: Sequence[Sequence[int]]) -> Steps:
        """Compute vectors that depend on the tokens, a text at each step."""
        vectors: list[list[float]] = []
        for tokens in texts:
            counts = [float(sum(token % 8 == index for token in tokens)) for index in range(8)]
            length = sum(value * value for value in counts) ** 0.5 or 1.0
            vectors.append([value / length for value in counts])
            self.vector_steps += 1
            yield
        return vectors

    def rank(self, pairs: Sequence[Sequence[int]]) -> Steps:
        """Say that a pair is the more relevant the shorter it is."""
        yield
        return [[1 / len(pair)] for pair in pairs]

    def close(self) -> None:
        """Note it."""
        self.closed = True

    @property
    def used(self) -> int:
        """Cells in use."""
        return len({id(cell) for cells in self.cells.values() for cell in cells.values()})

    @property
    def last_cell(self) -> int:
        """How many cells attention would pass over."""
        return max((place + 1 for place in self._places()), default=0)

    def _places(self) -> set[int]:
        return {cell.place for cells in self.cells.values() for cell in cells.values()}

    def _new_cells(self, tokens: Iterable[int]) -> list[Cell]:
        taken = self._places()
        free = (place for place in count() if place not in taken)
        return [Cell(token, place) for token, place in zip(tokens, free, strict=False)]

    def text_before(self, row: int, output: int) -> str:
        """Return the text of the sequence that a row of the last batch belongs to, up to one of its outputs."""
        run = self.steps[-1][row]
        tokens = self.tokens(run.seq)[: run.position + len(run.tokens) - run.outputs + output + 1]
        text = b"".join(SPECIALS[token - 256].encode() if token >= 256 else bytes([token]) for token in tokens)
        return text.decode(errors="replace")

    def check_row(self, row: int, output: int) -> None:
        """Fail unless the row of the last batch has logits."""
        if output >= self.steps[-1][row].outputs:
            raise AssertionError("A token was sampled where there are no logits.")
