"""Image transforms: what turns a PIL image into the model's input tensor."""

from __future__ import annotations

from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from dassl.data.transforms.tensor_backend import BACKENDS, TENSOR_CHOICES, TensorTransform
from dassl.data.transforms.transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform

__all__ = [
    "AVAI_CHOICES",
    "BACKENDS",
    "INTERPOLATION_MODES",
    "TENSOR_CHOICES",
    "CIFAR10Policy",
    "ImageNetPolicy",
    "RandAugment",
    "RandAugment2",
    "RandAugmentFixMatch",
    "SVHNPolicy",
    "TensorTransform",
    "build_transform",
]
