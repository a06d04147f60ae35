"""Learning rates: two groups of parameters, and the factor of each step."""

import math
from typing import Any

from torch.optim import Optimizer

from wildcat.config import TrainConfig
from wildcat.model import Wildcat


def parameter_groups(model: Wildcat, config: TrainConfig) -> list[dict[str, Any]]:
    """Backbone and head (transfer layer, and pooling if it has parameters) with their base learning rates.

    Frozen parameters are left out.
    """
    backbone = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    groups = [
        {"params": backbone, "base_lr": config.lr * config.backbone_lr_factor},
        {"params": [*model.transfer.parameters(), *model.pooling.parameters()], "base_lr": config.lr},
    ]
    return [{**group, "lr": group["base_lr"]} for group in groups if group["params"]]


def learning_rate_factor(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """What the base learning rates are multiplied by at a step of the run, counted from 0.

    The warm-up rises linearly over ``warmup_epochs``. After it the factor is constant, divided by 10 every
    ``step_epochs`` epochs of the run, or half a cosine down to 0 at the end of the run.
    """
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "step":
        return float(0.1 ** (step // (config.step_epochs * steps_per_epoch)))
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return 1.0


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each parameter group to its base learning rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
