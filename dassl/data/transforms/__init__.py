"""Image transforms: what turns a PIL image into the model's input tensor."""

from __future__ import annotations

from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from dassl.data.transforms.transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform

__all__ = [
    "AVAI_CHOICES",
    "INTERPOLATION_MODES",
    "CIFAR10Policy",
    "ImageNetPolicy",
    "RandAugment",
    "RandAugment2",
    "RandAugmentFixMatch",
    "SVHNPolicy",
    "build_transform",
]
