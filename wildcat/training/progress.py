"""One progress bar for a whole training, with the time that is left: features, epochs, validation, scoring."""

from time import time
from typing import Any, NamedTuple

from tqdm import tqdm


class Work(NamedTuple):
    """The work on an image, in units of a forward pass through the whole network.

    Attributes:
        gradient: of a training step.
        forward: of scoring it in a validation.
    """

    gradient: float
    forward: float


IMAGES = Work(2.5, 1.0)
FEATURES = Work(0.05, 0.02)  # of the head alone, on features that were computed before


def planned_work(
    epoch_images: int, epochs: int, *, once: float, validation: int, done: float, work: Work = IMAGES
) -> tuple[float, float]:
    """The work of a run, and the part of it that is done.

    Args:
        epoch_images: images that an epoch trains on.
        epochs: number of epochs.
        once: work before and after the epochs.
        validation: images that are scored after each epoch.
        done: epochs that an earlier process has done, such as 2.5.
        work: of an image in an epoch.

    >>> planned_work(100, 4, once=120, validation=20, done=1)
    (1200.0, 270.0)
    """
    epoch = work.gradient * epoch_images + work.forward * validation
    return once + epochs * epoch, done * epoch


class RunProgress:
    """A bar over the work that is left of a run; a context manager. The unit is one image without gradient.

    It is shown on terminals only.

    Args:
        total: work of the whole run.
        done: work that an earlier process has done.
        shown: whether this process shows it.
    """

    def __init__(self, total: float, done: float = 0, *, shown: bool = True) -> None:
        self._bar: tqdm[Any] = tqdm(
            total=max(total, done),
            initial=done,
            bar_format="{desc}{percentage:3.0f} % |{bar}| {elapsed} passed, {remaining} left{postfix}",
            desc="starting: ",
            disable=None if shown else True,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "RunProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def stage(self, name: str) -> None:
        """Name what is done now, at once: it may take a while until some work is done.

        What passed without work since the last :meth:`add`, such as the start or the fit of a head, does not count for
        the speed from which the time left is estimated.
        """
        self._bar.set_postfix_str("", refresh=False)  # the loss of the stage before
        self._bar.set_description(name)
        self._bar.last_print_t = time()

    def add(self, work: float) -> None:
        """Count work that was done; more than was planned is not counted."""
        total = self._bar.total
        assert total is not None
        self._bar.update(min(work, total - self._bar.n))

    def show_loss(self, loss: float) -> None:
        """Show the mean loss of the epoch so far."""
        self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
