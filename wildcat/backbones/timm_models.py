"""Any convolutional network or vision transformer of timm."""

from typing import Any

import torch
from torch import Tensor

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.custom import measure, stop_unused_parameters
from wildcat.backbones.weights import no_hub
from wildcat.errors import WildcatError, guess

TIMM_PREFIX = "timm:"


def of_timm(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    """Build a model of timm as a backbone, by its name there after the prefix.

    Raises:
        WildcatError: if timm has no such model, it has no feature map or another stride, or the weights cannot be
            downloaded.
    """
    import timm

    timm_name = name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(timm_name):
        raise WildcatError(f"timm has no model {timm_name!r}{guess(timm_name, timm.list_models(), TIMM_PREFIX)}")
    # Transformers fit their position embedding and their grid of patches to the input at hand only when asked; the
    # other families reject these options.
    any_size = {"dynamic_img_size": True}
    candidates: list[dict[str, Any]] = [{**any_size, "dynamic_img_pad": True}, any_size, {}]
    if output_stride is not None:
        candidates = [{"output_stride": output_stride}]
    net: Any = None
    for options in candidates:
        try:
            net = timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **options)
            break
        except (TypeError, NotImplementedError, AssertionError) as error:
            rejected = error
        except Exception as error:  # timm raises whatever its hub client does
            raise no_hub(name, error) if pretrained else _not_built(name, error) from error
    if net is None:
        raise _not_built(name, rejected, output_stride) from rejected
    config = net.pretrained_cfg
    backbone = Backbone(
        name,
        net,
        _features,
        channels=net.num_features,
        stride=1,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        native_size=config["input_size"][-1],
        stages=_stages(net),
    )
    with torch.enable_grad():
        backbone.stride, features = measure(backbone)
        if features.shape[1] != backbone.channels:
            raise WildcatError(f"{name} gives features of shape {tuple(features.shape)}, not (N, D, h, w)")
        stop_unused_parameters(backbone, features)
    if output_stride is not None and backbone.stride != output_stride:
        raise WildcatError(f"{name} does not allow output stride {output_stride}: it gives {backbone.stride}")
    return backbone


def _not_built(name: str, error: Exception, output_stride: int | None = None) -> WildcatError:
    message = "" if output_stride is None else f" with output stride {output_stride}"
    return WildcatError(f"{name} cannot be built{message}: {error}")


def _features(net: Any, images: Tensor) -> Tensor:
    """Features of a timm model as (N, D, h, w), whatever layout the family uses."""
    x: Any = net.forward_features(images)
    if isinstance(x, Tensor) and x.ndim == 4:
        if x.shape[1] != net.num_features and x.shape[3] == net.num_features:  # (N, h, w, D), for example Swin
            return x.permute(0, 3, 1, 2)
        return x
    if isinstance(x, Tensor) and x.ndim == 3 and hasattr(getattr(net, "patch_embed", None), "dynamic_feat_size"):
        x = x[:, getattr(net, "num_prefix_tokens", 0) :]  # patch tokens only, (N, h * w, D)
        height, width = net.patch_embed.dynamic_feat_size(images.shape[-2:])
        if x.shape[1] == height * width:
            features: Tensor = x.transpose(1, 2).unflatten(2, (height, width))
            return features
    raise WildcatError(f"the features of timm's {type(net).__name__} are neither a map nor a grid of patch tokens")


def _stages(net: Any) -> list[list[str]]:
    from timm.models import group_modules, group_parameters

    if not hasattr(net, "group_matcher"):  # a few families: one stage, all or nothing
        return [[name for name, _ in (*net.named_children(), *net.named_parameters(recurse=False))]]
    matcher = net.group_matcher(coarse=True)
    modules = group_modules(net, matcher)
    parameters = group_parameters(net, matcher)
    stages = []
    for key in sorted({*modules, *parameters}):
        names = modules.get(key, [])
        # Parameters that belong to no grouped module: position embeddings, class tokens, layer scales.
        bare = [p for p in parameters.get(key, []) if p.rpartition(".")[0] not in names]
        stages.append([*names, *bare])
    return stages
