"""How a figure is got: round by round, everybody in turn, and then the median.

What a machine does beside a benchmark changes from second to second.  Figures
of one round were taken within a few seconds of each other, so it is their
ratio that is worth something: it is made for each round, and what is reported
is the median of the ratios, with the least and the greatest.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Comparison:
    """One line of the table: one of ours against the best of some others."""

    measure: str
    ours: str
    value: float
    baseline: str
    baseline_value: float
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """Give the median of the rounds' ratios, ours divided by the baseline."""
        return median(self.ratios)


@dataclass
class Measure:
    """What was measured, and all that came out.

    :ivar pairs: Who is compared with the best of whom.
    :ivar in_picture: Whether the ratio says who does the same thing better.
    """

    key: str
    title: str
    unit: str
    samples: Samples
    pairs: list[tuple[str, list[str]]]
    less_is_better: bool = False
    notes: list[str] = field(default_factory=list)
    in_picture: bool = True

    def comparisons(self) -> list[Comparison]:
        """Compare; a pair of which one side did not take part is left out."""
        return [
            self._compare(ours, present)
            for ours, others in self.pairs
            if ours in self.samples and (present := [n for n in others if n in self.samples])
        ]

    def _compare(self, ours: str, others: list[str]) -> Comparison:
        best = min if self.less_is_better else max
        medians = {name: median(values) for name, values in self.samples.items()}
        baseline = best(others, key=medians.__getitem__)
        rounds = zip(self.samples[ours], self.samples[baseline], strict=True)
        ratios = [mine / theirs if theirs else float("inf") for mine, theirs in rounds]
        return Comparison(self.key, ours, medians[ours], baseline, medians[baseline], ratios)


@dataclass
class Growth:
    """How something changes as something else grows."""

    key: str
    title: str
    parameter: str
    #: Octets of a message, for each value of the parameter.
    sizes: dict[int, int]
    #: Messages a second.
    points: dict[int, Samples]


def in_turn(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> Samples:
    """Let each contestant do it once in each round, after one that does not count.

    Every second round goes backwards, so that nobody always comes first.
    """
    samples: Samples = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            gc.collect()
            value = contestants[name]()
            if number:
                samples[name].append(value)
    return samples
