"""Models trained at several scales, that read as one."""

from collections.abc import Mapping

from torch import Tensor

from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.model import Wildcat
from wildcat.multiscale import BatchOutput, ObjectBank, ensemble
from wildcat.prediction.predictor import Predictor, Reader
from wildcat.runs.scales import MEAN, OBJECT_BANK
from wildcat.runs.settings import InferenceSettings


class CombinedPredictor(Predictor):
    """Models trained at several scales, that read as one.

    Args:
        members: name of each scale -> its own predictor, of the same classes and on the same device.
        background: where the combination's masks have their background.
        bank: the Object Bank fitted on the members' probabilities, in their order.
        fitted_on: dataset and split of the held-out images behind the bank.

    Attributes:
        chosen: "mean" unless given.
    """

    def __init__(
        self,
        members: Mapping[str, Predictor],
        *,
        background: Background = Background(),  # noqa: B008 - it is frozen
        bank: ObjectBank | None = None,
        fitted_on: tuple[str, str] | None = None,
        chosen: str = MEAN,
    ) -> None:
        self.members, self.bank, self.fitted_on, self.chosen = dict(members), bank, fitted_on, chosen
        each = [member.settings for member in self.members.values()]
        first = next(iter(self.members.values()))
        self.device, self.precision = first.device, first.precision
        self.settings = InferenceSettings(
            each[0].classes,
            each[0].multi_label,
            tuple(sorted({size for settings in each for size in settings.score_sizes})),
            tuple(sorted({size for settings in each for size in settings.map_sizes})),
            any(settings.mirror for settings in each),
            background,
            each[0].background_class,
        )

    @property
    def parts(self) -> dict[str, InferenceSettings]:
        """Each scale, then "mean", then "object_bank" where there is one."""
        combinations = [MEAN] if self.bank is None else [MEAN, OBJECT_BANK]
        return {name: member.settings for name, member in self.members.items()} | dict.fromkeys(
            combinations, self.settings
        )

    @property
    def model(self) -> Wildcat:
        """There is no single network.

        Raises:
            WildcatError: always; take one of :attr:`members`.
        """
        raise self._several()

    def _with(self, settings: InferenceSettings) -> Predictor:
        raise self._several()

    def _several(self) -> WildcatError:
        return WildcatError(
            f"this run holds models of several scales; give the folder of one of them: {', '.join(self.members)}"
        )

    def reader(self, multi_maps: bool = True, maps: bool = True) -> Reader:
        """As of a single model; each member reads the sizes that it was trained for."""
        readers = {name: member.reader(multi_maps, maps) for name, member in self.members.items()}

        def read_pixels(pixels: Mapping[int, Tensor]) -> dict[str, BatchOutput]:
            outputs = {name: reader(pixels)[Predictor.chosen] for name, reader in readers.items()}
            alone, multi_label = list(outputs.values()), self.settings.multi_label
            outputs[MEAN] = ensemble(alone, multi_label=multi_label)
            if self.bank is not None:
                outputs[OBJECT_BANK] = ensemble(alone, multi_label=multi_label, bank=self.bank)
            return outputs

        return read_pixels
