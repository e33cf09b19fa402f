"""What reconciling found."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 20  # sentences of each kind


@dataclass
class Differences:
    """The differences between landing zone, registry and tables.

    Attributes:
        counts: how many there are of each kind: `missing` (landed, but not registered), `changed` (overwritten since it was
            registered), `extra` (registered, but no longer in the landing zone), `double` (registered in several versions),
            `stray` (in no minute folder, so in no slice), `stuck` (a slice that has had something to load for more than an hour),
            `unequal` (a slice with other rows in the table than the registry says) and `behind` (a slice of an asset that has
            been due for more than an hour).
        sentences: one for each of the first differences of each kind.
        healed: how many were written into the registry as work to do.
    """

    counts: dict[str, int] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    healed: int = 0

    def add(self, kind: str, sentence: str, count: int = 1) -> None:
        """Count differences of a kind, which one sentence describes; the sentence is kept if it is one of the first."""
        seen = self.counts[kind] = self.counts.get(kind, 0) + count
        if seen <= _SHOWN or seen == count:
            self.sentences.append(sentence)
