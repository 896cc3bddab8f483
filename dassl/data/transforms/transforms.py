"""From the `INPUT` section of the configuration to a torchvision pipeline.

The order of operations is fixed here; the order in which `INPUT.TRANSFORMS` lists them does not
matter. Images are PIL images up to `ToTensor`, then float tensors (3, H, W) in [0, 1].
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from dassl.utils.errors import ConfigError, not_one_of
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = (
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # what the test transform does anyway; no effect on the training transform
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
)


class Random2DTranslation:
    """Enlarges the image to 9/8 of (height, width) and crops a random window of that size.

    With probability 1 - `p` the image is only resized. Draws from Python's generator: one
    `random.uniform` that decides, then, if translating, one each for x and y.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        size = [self.height, self.width]
        if random.uniform(0, 1) > self.p:
            return T.functional.resize(img, size, self.interpolation)
        large = [round(side * 1.125) for side in size]
        img = T.functional.resize(img, large, self.interpolation)
        left = round(random.uniform(0, large[1] - self.width))
        top = round(random.uniform(0, large[0] - self.height))
        return T.functional.crop(img, top, left, *size)


class InstanceNormalization:
    """Gives each channel of one image zero mean and unit standard deviation (sample estimate)."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Normalizes a (C, H, W) tensor."""
        flat = img.flatten(1)  # (C, H * W)
        mean, std = flat.mean(1), flat.std(1)  # (C,)
        return (img - mean[:, None, None]) / (std[:, None, None] + self.eps)


class Cutout:
    """Sets square holes to zero (DeVries and Taylor, arXiv:1708.04552).

    Hole centres lie anywhere in the image, so holes at the border are smaller. Draws from NumPy's
    global generator: for each hole one `randint` for y, then one for x.

    Args:
        n_holes: holes per image.
        length: side of a hole in pixels.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Returns a copy of the (C, H, W) tensor with the holes cut out."""
        img = img.clone()
        half = self.length // 2
        for _ in range(self.n_holes):
            y, x = (np.random.randint(size) for size in img.shape[1:])
            img[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return img


class GaussianNoise:
    """Adds Gaussian noise to a tensor with probability `p`.

    Draws one `random.uniform` from Python's generator that decides and, if adding noise, one
    normal number per element from PyTorch's.
    """

    def __init__(self, mean: float = 0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


# A step is the line to print and the transform; a builder makes one from the INPUT node.
Step = tuple[str, Callable]
StepBuilder = Callable[[CfgNode], Step]


def _size(node: CfgNode) -> tuple[int, int]:
    """Returns (height, width)."""
    if len(node.SIZE) != 2:
        raise ConfigError(f"INPUT.SIZE is {node.SIZE}; expected (height, width) as in (224, 224).")
    return tuple(node.SIZE)


def _interpolation(node: CfgNode) -> InterpolationMode:
    if node.INTERPOLATION not in INTERPOLATION_MODES:
        raise ConfigError(
            not_one_of("INPUT.INTERPOLATION", node.INTERPOLATION, INTERPOLATION_MODES)
        )
    return INTERPOLATION_MODES[node.INTERPOLATION]


def _resize(node: CfgNode) -> Step:
    """To exactly the given size: the aspect ratio is not kept."""
    height, width = _size(node)
    return f"resize to {height}x{width}", T.Resize((height, width), _interpolation(node))


def _resize_smaller_edge(node: CfgNode) -> Step:
    edge = max(_size(node))
    return f"resize the smaller edge to {edge}", T.Resize(edge, _interpolation(node))


def _center_crop(node: CfgNode) -> Step:
    height, width = _size(node)
    return f"{height}x{width} center crop", T.CenterCrop((height, width))


def _random_crop(node: CfgNode) -> Step:
    padding = node.CROP_PADDING
    return f"random crop (padding = {padding})", T.RandomCrop(_size(node), padding=padding)


def _random_resized_crop(node: CfgNode) -> Step:
    crop = T.RandomResizedCrop(_size(node), node.RRCROP_SCALE, interpolation=_interpolation(node))
    return f"random resized crop (size={node.SIZE}, scale={node.RRCROP_SCALE})", crop


def _randaugment(node: CfgNode) -> Step:
    n, m = node.RANDAUGMENT_N, node.RANDAUGMENT_M
    return f"randaugment (n={n}, m={m})", RandAugment(n, m)


def _randaugment_fixmatch(node: CfgNode) -> Step:
    n = node.RANDAUGMENT_N
    return f"randaugment_fixmatch (n={n})", RandAugmentFixMatch(n)


def _randaugment2(node: CfgNode) -> Step:
    n = node.RANDAUGMENT_N
    return f"randaugment2 (n={n})", RandAugment2(n)


def _colorjitter(node: CfgNode) -> Step:
    jitter = {
        "brightness": node.COLORJITTER_B,
        "contrast": node.COLORJITTER_C,
        "saturation": node.COLORJITTER_S,
        "hue": node.COLORJITTER_H,
    }
    listed = ", ".join(f"{name}={strength}" for name, strength in jitter.items())
    return f"color jitter ({listed})", T.ColorJitter(**jitter)


def _gaussian_blur(node: CfgNode) -> Step:
    blur = T.RandomApply([T.GaussianBlur(node.GB_K)], p=node.GB_P)
    return f"gaussian blur (kernel={node.GB_K})", blur


def _cutout(node: CfgNode) -> Step:
    n_holes, length = node.CUTOUT_N, node.CUTOUT_LEN
    return f"cutout (n_holes={n_holes}, length={length})", Cutout(n_holes, length)


def _normalize(node: CfgNode) -> Step:
    mean, std = node.PIXEL_MEAN, node.PIXEL_STD
    return f"normalization (mean={mean}, std={std})", T.Normalize(mean, std)


def _gaussian_noise(node: CfgNode) -> Step:
    mean, std = node.GN_MEAN, node.GN_STD
    return f"gaussian noise (mean={mean}, std={std})", GaussianNoise(mean, std)


# In the order in which they are applied.
IMAGE_STEPS: dict[str, StepBuilder] = {
    "random_translation": lambda node: ("random translation", Random2DTranslation(*_size(node))),
    "random_crop": _random_crop,
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda node: ("random flip", T.RandomHorizontalFlip()),
    "imagenet_policy": lambda node: ("imagenet policy", ImageNetPolicy()),
    "cifar10_policy": lambda node: ("cifar10 policy", CIFAR10Policy()),
    "svhn_policy": lambda node: ("svhn policy", SVHNPolicy()),
    "randaugment": _randaugment,
    "randaugment_fixmatch": _randaugment_fixmatch,
    "randaugment2": _randaugment2,
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda node: ("random gray scale", T.RandomGrayscale(p=node.RGS_P)),
    "gaussian_blur": _gaussian_blur,
}
TENSOR_STEPS: dict[str, StepBuilder] = {
    "cutout": _cutout,  # before normalization: holes are black, not of the mean colour
    "normalize": _normalize,
    "gaussian_noise": _gaussian_noise,
    "instance_norm": lambda node: ("instance normalization", InstanceNormalization()),
}
TEST_TENSOR_STEPS = ("normalize", "instance_norm")  # nothing random


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> T.Compose | None:
    """Builds the training or test transform and prints its steps.

    Building draws no random number. Applying the training transform draws from PyTorch's generator
    where torchvision has the operation, else as the operation's class says.

    Args:
        cfg: the whole configuration, of which `cfg.INPUT` is read.
        is_train: the training transform; else resize, centre crop and normalization.
        choices: names from `AVAI_CHOICES`, instead of `INPUT.TRANSFORMS`.

    Returns:
        PIL image → tensor (3, H, W), or None with `INPUT.NO_TRANSFORM`.

    Raises:
        ConfigError: (a ValueError) an unknown choice or interpolation, or a size that is not two
            numbers.
    """
    node = cfg.INPUT
    if node.NO_TRANSFORM:
        logger.warning("Note: no transform is applied!")
        return None
    what = "INPUT.TRANSFORMS entry" if choices is None else "transform"
    choices = tuple(node.TRANSFORMS if choices is None else choices)
    unknown = [choice for choice in choices if choice not in AVAI_CHOICES]
    if unknown:
        raise ConfigError([not_one_of(what, choice, AVAI_CHOICES) for choice in unknown])

    logger.info(f"Building transform_{'train' if is_train else 'test'}")
    steps = _train_steps(node, choices) if is_train else _test_steps(node, choices)
    for line, _ in steps:
        logger.info(f"+ {line}")
    return T.Compose([transform for _, transform in steps])


def _train_steps(node: CfgNode, choices: Sequence[str]) -> list[Step]:
    if "center_crop" in choices:
        logger.warning("center_crop has no effect on the training transform; it is always in test")
    image_steps = [build(node) for name, build in IMAGE_STEPS.items() if name in choices]
    if not {"random_crop", "random_resized_crop"} & set(choices):
        image_steps.insert(0, _resize(node))
    tensor_steps = [build(node) for name, build in TENSOR_STEPS.items() if name in choices]
    return [*image_steps, _to_tensor(), *tensor_steps]


def _test_steps(node: CfgNode, choices: Sequence[str]) -> list[Step]:
    tensor_steps = [TENSOR_STEPS[name](node) for name in TEST_TENSOR_STEPS if name in choices]
    return [_resize_smaller_edge(node), _center_crop(node), _to_tensor(), *tensor_steps]


def _to_tensor() -> Step:
    return "to torch tensor of range [0, 1]", T.ToTensor()
