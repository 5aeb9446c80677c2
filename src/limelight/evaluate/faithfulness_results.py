"""What taking tokens away has shown: measures of rankings beside random ones, with curves, in words and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.evaluate.estimates import Estimate, plain
from limelight.evaluate.metrics import Metric
from limelight.evaluate.sentences import probability

MEASURES: Mapping[str, Metric] = {
    "comprehensiveness": Metric("comprehensiveness"),
    "sufficiency": Metric("sufficiency", higher_is_better=False),
    "log_odds": Metric("log-odds", higher_is_better=False),
    "deletion_auc": Metric("area under deletion", higher_is_better=False),
    "insertion_auc": Metric("area under insertion"),
}

RANDOM = "random"


@dataclass(frozen=True)
class Curve:
    """The predicted class's probability while tokens leave (or enter), mean over examples with its interval.

    Args:
        shares: Shares of the tokens that have left (or entered).
        mean: Mean probability at each share.
        low: Lower ends of the intervals.
        high: Upper ends of the intervals.
    """

    shares: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists that are ready for JSON."""
        return {name: getattr(self, name).tolist() for name in ("shares", "mean", "low", "high")}


@dataclass(frozen=True)
class AgainstRandom:
    """How far a ranking is from random ones on one measure.

    Args:
        difference: Ranking - random, mean over examples with its interval.
        p_value: Of a paired permutation test, corrected by Holm for all rankings and measures.
        better: Whether the ranking could be shown to be better than random ones.
    """

    difference: Estimate
    p_value: float
    better: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that are ready for JSON."""
        return {"difference": self.difference.to_dict(), "p_value": plain(self.p_value), "better": self.better}


@dataclass(frozen=True)
class Faithfulness:
    """What `faithfulness` found.

    Args:
        n: Number of examples.
        removal: How tokens were taken away.
        measures: Ranking name (and "random") to measure name to its `Estimate`.
        against_random: Ranking name to measure name to its `AgainstRandom`.
        deletion: Ranking name (and "random") to the probability while its first tokens leave.
        insertion: The same while they enter.
    """

    n: int
    removal: str
    measures: Mapping[str, Mapping[str, Estimate]]
    against_random: Mapping[str, Mapping[str, AgainstRandom]]
    deletion: Mapping[str, Curve]
    insertion: Mapping[str, Curve]

    def sentence(self, ranking: str = "attention", share: float = 0.2) -> str:
        """Say in words what removing a ranking's first tokens does, beside random ones, and what that shows.

        Args:
            ranking: Name of the ranking.
            share: The share of tokens removed; the nearest one that was measured is taken.
        """
        curve, other = self.deletion[ranking], self.deletion[RANDOM]
        place = int(np.abs(curve.shares - share).argmin())
        moved, usual = (signed(float(each.mean[place] - each.mean[0])) for each in (curve, other))
        found = self.against_random[ranking]["comprehensiveness"]
        claim = (
            "beats that of random rankings" if found.better else "could not be shown to beat that of random rankings"
        )
        facts = f"difference {signed(found.difference.value)}"
        if found.difference.low is not None and found.difference.high is not None:
            ends = f"{signed(found.difference.low)} to {signed(found.difference.high)}"
            facts += f", {100 * found.difference.confidence:g} % CI {ends}"
        return (
            f"Removing the top {100 * curve.shares[place]:.0f} % of tokens by {ranking} changes the predicted probability by "
            f"{moved}, random tokens by {usual}. The comprehensiveness of {ranking} {claim} "
            f"({facts}, {probability(found.p_value)}, {self.n:,} examples, tokens {self.removal})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that are ready for JSON."""
        return {
            "n": self.n,
            "removal": self.removal,
            "measures": _plain(self.measures),
            "against_random": _plain(self.against_random),
            "deletion": {name: curve.to_dict() for name, curve in self.deletion.items()},
            "insertion": {name: curve.to_dict() for name, curve in self.insertion.items()},
        }


def signed(value: float) -> str:
    """Return a change of a probability as it is written in prose.

    Example:
        >>> signed(-0.306), signed(0.0)
        ('−0.31', '+0.00')
    """
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _plain(nested: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: value.to_dict() for key, value in each.items()} for name, each in nested.items()}
