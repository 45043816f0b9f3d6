"""A trained router at work: a text's vector, the quality expected of each expert, the choice; numpy alone.

What is maximised is utility: expected quality (0 to 1) less cost weight times cost (0 to 1, 1 for the dearest
expert), the trade that RouteLLM (https://arxiv.org/abs/2406.18665) and LLMRouter
(https://github.com/ulab-uiuc/LLMRouter) make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from appliance.routing.decision import Decision
from appliance.routing.features import Matrix, NgramFeaturiser, Vector

type HeadKind = Literal["logistic", "neighbours", "factors"]


@dataclass(frozen=True, slots=True, eq=False)
class LogisticHead:
    """The chance of a good answer per expert: the logistic function of features @ coefficients + intercepts."""

    kind: ClassVar[HeadKind] = "logistic"
    coefficients: Matrix
    """Features x experts."""
    intercepts: Vector

    def qualities(self, features: Matrix) -> Matrix:
        """Return texts x experts."""
        return _sigmoid(product(features, self.coefficients) + self.intercepts)


@dataclass(frozen=True, slots=True, eq=False)
class NeighboursHead:
    """The mean quality on the `count` most similar known texts, weighted by a softmax of their similarity."""

    kind: ClassVar[HeadKind] = "neighbours"
    points: Matrix
    """Features x known texts."""
    known: Matrix
    """Known texts x experts: the quality that was seen."""
    count: int = 8
    sharpness: float = 12.0

    def qualities(self, features: Matrix) -> Matrix:
        """Return texts x experts."""
        likeness = product(features, self.points)
        count = min(self.count, self.points.shape[1])
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        closeness = np.take_along_axis(likeness, nearest, axis=1)
        weights = np.exp(self.sharpness * (closeness - closeness.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("tn,tne->te", weights, self.known[nearest]), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FactorsHead:
    """Matrix factorisation: a text's place among the latent factors, times what each expert makes of them."""

    kind: ClassVar[HeadKind] = "factors"
    loadings: Matrix
    """Features x factors."""
    offsets: Vector
    vectors: Matrix
    """Factors x experts."""
    means: Vector

    def qualities(self, features: Matrix) -> Matrix:
        """Return texts x experts."""
        places = product(features, self.loadings) + self.offsets
        return np.clip(places @ self.vectors + self.means, 0.0, 1.0)


type Head = LogisticHead | NeighboursHead | FactorsHead


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedRouter:
    """Ranks experts by expected quality less what their cost is worth."""

    name: str
    """Its version."""
    experts: tuple[str, ...]
    """Those it knows, in the order of the head's columns."""
    featuriser: NgramFeaturiser = field(default_factory=NgramFeaturiser)
    projection: Matrix | None
    """N-grams x features: the linear map onto another model's embeddings; None: the n-grams are the features."""
    head: Head
    costs: Vector
    """By expert, 0 to 1."""
    cost_weight: float

    def features(self, texts: Sequence[str]) -> Matrix:
        """Return texts x features, each row of length 1 or 0."""
        grams = self.featuriser.matrix(list(texts))
        return grams if self.projection is None else projected(grams, self.projection)

    def qualities(self, texts: Sequence[str]) -> Matrix:
        """Return the expected quality, texts x experts."""
        return self.head.qualities(self.features(texts))

    def choose(self, text: str, experts: Sequence[str]) -> Decision:
        """Rank the experts, all of which it must know (see `unknown`)."""
        qualities = self.qualities([text])[0]
        utilities = qualities - self.cost_weight * self.costs
        columns = {name: column for column, name in enumerate(self.experts)}
        able = [name for name in experts if name in columns]
        scores = {name: float(utilities[columns[name]]) for name in able}
        ranked = tuple(sorted(able, key=lambda name: (-scores[name], name)))
        return Decision(
            experts=ranked, router=self.name, reason=self._reason(ranked, qualities, columns), scores=scores
        )

    def unknown(self, experts: Sequence[str]) -> tuple[str, ...]:
        """Return the experts it was not trained on."""
        return tuple(name for name in experts if name not in self.experts)

    def _reason(self, ranked: tuple[str, ...], qualities: Vector, columns: dict[str, int]) -> str:
        if not ranked:
            return "no able expert"

        def told(name: str) -> str:
            column = columns[name]
            return f"{name} (expected quality {qualities[column]:.2f}, cost {self.costs[column]:.2f})"

        best = f"{self.name} expects most of {told(ranked[0])}"
        return f"{best}, then of {told(ranked[1])}" if len(ranked) > 1 else best


def projected(grams: Matrix, projection: Matrix) -> Matrix:
    """Return the projected rows, each made 1 long."""
    places = product(grams, projection)
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    return np.asarray(places / np.where(lengths > 0, lengths, 1.0), np.float32)


def product(features: Matrix, matrix: Matrix) -> Matrix:
    """Return features @ matrix; for one text over its few numbers that are not 0, and without BLAS.

    BLAS would divide such a product between threads, and wait for the last one: milliseconds on a busy machine.
    """
    if len(features) != 1:
        return np.asarray(features @ matrix)
    used = np.flatnonzero(features[0])
    return np.asarray(np.einsum("f,fn->n", features[0, used], matrix[used])[np.newaxis])


def _sigmoid(values: Matrix) -> Matrix:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)
