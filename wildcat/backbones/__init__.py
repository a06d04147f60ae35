"""Backbones (Section 3.1): fully convolutional networks from images to features.

ResNets of torchvision, models of timm, and EfficientNet-Lite with embedded ImageNet weights.
"""

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.custom import wrap_backbone
from wildcat.backbones.efficientnet_lite import EMBEDDED, embedded_classifier
from wildcat.backbones.factory import BackboneFactory, check_backbone_name, create_backbone, register_backbone
from wildcat.backbones.resnet import IMAGENET_MEAN, IMAGENET_STD, RESNETS

__all__ = [
    "EMBEDDED",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RESNETS",
    "Backbone",
    "BackboneFactory",
    "check_backbone_name",
    "create_backbone",
    "embedded_classifier",
    "register_backbone",
    "wrap_backbone",
]
