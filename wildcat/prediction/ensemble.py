"""The combinations of models that were trained at several scales (Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wildcat.masks import Background
from wildcat.multiscale import BatchOutput, ObjectBank, ensemble
from wildcat.runs.scales import MEAN, OBJECT_BANK


@dataclass(frozen=True, eq=False)
class Ensemble:
    """How the parts of a predictor are combined: by the mean of probabilities, and by an Object Bank if there is one.

    Attributes:
        bank: the Object Bank fitted on the parts' probabilities, in their order.
        fitted_on: dataset and split of the held-out images on which the bank was fitted.
        chosen: the combination that predicts, "mean" or "object_bank".
        background: how masks of the combinations find their background.
    """

    bank: ObjectBank | None = None
    fitted_on: tuple[str, str] | None = None
    chosen: str = MEAN
    background: Background = Background()  # noqa: RUF009 - it is frozen

    @property
    def names(self) -> tuple[str, ...]:
        """The combinations: "mean", and "object_bank" if there is a bank."""
        return (MEAN,) if self.bank is None else (MEAN, OBJECT_BANK)

    def __call__(self, outputs: Sequence[BatchOutput], *, multi_label: bool) -> dict[str, BatchOutput]:
        """Each combination of the parts' outputs for the same images, by its name."""
        combined = {MEAN: ensemble(outputs, multi_label=multi_label)}
        if self.bank is not None:
            combined[OBJECT_BANK] = ensemble(outputs, multi_label=multi_label, bank=self.bank)
        return combined
