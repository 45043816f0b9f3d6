"""What the scheduler needs of "a model and its context"; `llama.py` provides it.

All methods but `tokenize`, `piece` and `is_end` are called from the one engine thread only.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.experts.sampling import Sampling
from appliance.experts.tuning.costs import CostModel


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one sequence in a batch."""

    seq: int
    """Sequence id, 0 to `sequences`; the last one is for moving cells."""
    position: int
    """Position of the first token; equals the number of the sequence's tokens in the KV cache."""
    tokens: Sequence[int]
    outputs: int
    """Number of last tokens whose logits are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is fixed once the model is loaded."""

    description: str
    chat_template: str | None
    bos: str
    """Text of the begin-of-sequence token, empty if the model has none."""
    eos: str
    adds_bos: bool
    """Whether a prompt must start with the begin-of-sequence token."""
    bos_token: int
    vocabulary: int
    """Number of tokens."""
    trained_context: int
    """Tokens the model was trained for."""
    state_key: str
    """What a saved state depends on: the model's contents, llama.cpp's version, the context's settings."""
    special_texts: tuple[str, ...] = ()
    """Texts that tokenise to control tokens when special tokens are parsed."""
    sees: bool = False
    """Whether images may stand in a prompt."""
    generates: bool = True
    """Whether it writes text; a model that only encodes does not."""
    ranks: bool = False
    """Whether it has a head that scores how well a document answers a query."""
    text_tokens: int = 2048
    """Most tokens of a text that is turned into a vector."""
    text_start: tuple[int, ...] = ()
    """Tokens that a text to embed begins with."""
    text_end: tuple[int, ...] = ()
    """Tokens that it ends with."""
    pair_marks: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    """Tokens before a query, between it and a document, and after that."""
    rank_prompt: str | None = None
    """The model's own way of asking, with {query} and {document} in it, instead of the marks."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image as pixels."""

    width: int
    height: int
    pixels: bytes
    """Red, green and blue, a byte each, row by row."""


class Picture:
    """What an image is in a prompt; its ids below zero mean something as long as it is referred to."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens
        """Tokens, and ids below zero for rows of embeddings."""


@dataclass(frozen=True, slots=True)
class ClientGrammar:
    """A grammar that a client has a say in, compiled by the backend whose samplers take it."""

    source: str
    compiled: object


type Grammar = str | ClientGrammar
"""GBNF of our own making whose texts can be read in few ways, which llama.cpp enforces, or any other."""

type Steps = Generator[None, None, list[list[float]]]
"""A computation in steps, each of which may take its time in the engine thread; it returns vectors."""


class Sampler(Protocol):
    """Chooses the tokens of one request; owns native memory until closed."""

    def sample(self, row: int, output: int = 0) -> int | None:
        """Choose from the logits of a run, given by its index in the last batch, and remember the choice.

        `output` counts the run's tokens that have logits.

        None: no token can continue the grammar in force.
        """

    def logprobs(self, row: int, token: int, top: int, output: int = 0) -> tuple[float, list[tuple[int, float]]]:
        """Return the logarithm of a token's probability and the `top` most probable tokens with theirs, best first.

        Of the model's own distribution: before bias, penalties, grammar and temperature.
        """

    def constrain(self, grammar: Grammar | None) -> None:
        """Enforce a grammar from the next token on, or none.

        Raises InvalidRequestError if llama.cpp does not take the grammar.
        """

    def close(self) -> None:
        """Free it; closing twice is harmless."""


class Backend(Protocol):
    """A loaded model with a context of `sequences` + 1 sequences."""

    info: ModelInfo
    costs: CostModel | None
    """What a step costs on this machine, where it was measured."""
    divisible: bool
    """Whether a sequence's state can be cut and shared in part, unlike that of a recurrent or hybrid model."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Tokenise without adding anything; `special` parses control tokens in the text. Thread-safe."""

    def piece(self, token: int) -> bytes:
        """Return a token's text, empty for control tokens. Thread-safe."""

    def picture(self, image: Image) -> Picture:
        """Compute what an image is in a prompt. Thread-safe; takes seconds. Raises UnsupportedError."""

    def compile_grammar(self, source: str, param: str = "grammar") -> ClientGrammar:
        """Compile GBNF from outside, at a cost that is bounded whatever it says. Thread-safe; may take a second.

        Raises InvalidRequestError, which names the request's field.
        """

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation. Thread-safe."""

    def sampler(self, sampling: Sampling) -> Sampler:
        """Build a sampler. Penalties count what it generates, not the prompt: a called tool is named there already."""

    def decode(self, runs: Sequence[Run]) -> None:
        """Compute a batch.

        Raises StepError when the batch could not be computed (the sequences' cells are then undefined) and
        EngineBrokenError when nothing can be computed any more.
        """

    def keep(self, seq: int, tokens: int) -> int:
        """Remove all but the first `tokens` of a sequence's cells; return how many are left.

        A model that can't cut a sequence (recurrent, hybrid) loses it all.
        """

    def cut(self, seq: int, start: int, end: int) -> None:
        """Remove the cells at positions `start` to `end` - 1 of a sequence, of a divisible model."""

    def copy(self, source: int, target: int, start: int, end: int) -> int:
        """Let a sequence share another's cells at positions `start` to `end` - 1; return how many tokens it has then.

        Of an indivisible model, the whole state of the source is shared, and the target is empty before.
        """

    def state_bytes(self, seq: int) -> int:
        """Return the size of what `save` would return."""

    def save(self, seq: int) -> memoryview:
        """Return the state of a sequence: the contents of its cells."""

    def restore(self, seq: int, data: memoryview) -> bool:
        """Replace a sequence by a state that `save` returned; False, and an empty sequence, if that can't be.

        llama.cpp trusts the data: it must come from this very model and these settings.
        """

    def embed(self, texts: Sequence[Sequence[int]]) -> Steps:
        """Compute the embeddings of texts, of length 1, each of at most `text_tokens` tokens.

        Each step is bounded like a step of generation where the model allows it. Steps of two calls must not mix.
        Raises UnsupportedError or StepError.
        """

    def rank(self, pairs: Sequence[Sequence[int]]) -> Steps:
        """Compute the relevance, 0 to 1, of pairs of query and document, as vectors of one number; see `embed`."""

    def close(self) -> None:
        """Free context and model."""


type BackendFactory = Callable[[], Backend]
"""Loads the model; called in the engine thread. Raises ModelLoadError."""
