"""Cropping and resizing by torch instead of Pillow, on a GPU decoding as well: INPUT.BACKEND.

With "tensor", the steps draw the numbers that they draw with "pil", in the same order, so crops and
flips are the same. Pixels are close, not equal: torch rounds differently (by two levels of 255 at
most), and nvJPEG decodes differently (by a few more). Without a GPU, workers decode with Pillow and
resize tensors. With one, they only read files and draw (`FileView`), and the main process turns
whole batches into images there.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data._utils.collate import collate, default_collate_fn_map
from torchvision import transforms as T
from torchvision.transforms import functional as F
from yacs.config import CfgNode

from dassl.utils.files import image_errors, read_image

BACKENDS = ("pil", "tensor")
TENSOR_CHOICES = ("random_resized_crop", "random_flip", "center_crop", "normalize")
JPEG = b"\xff\xd8"  # how such files begin


@dataclass(frozen=True)
class FileView:
    """A view of an image file, drawn but not yet computed."""

    path: str
    content: bytes
    crop: tuple[int, int, int, int] | None  # top, left, height, width
    flip: bool


class TensorTransform(T.Compose):
    """Image → tensor (3, H, W), float32.

    Args:
        transforms: the steps of the Pillow backend for TENSOR_CHOICES.
        device: where `finish` decodes and computes; None: everything happens at once, on the CPU.
    """

    def __init__(self, transforms: list[Any], device: torch.device | None) -> None:
        super().__init__(transforms)
        self.device = device

    def __call__(self, img: Image.Image) -> Tensor:
        return self._apply(F.pil_to_tensor(img), *self._draw(img))

    def __repr__(self) -> str:  # kept features are filed under it
        return f"{super().__repr__()} on {self.device}"

    def read(self, path: str) -> FileView:
        """Reads a file, and draws what its view needs; decodes nothing.

        Raises:
            MissingFileError, DataError: see `read_image`.
        """
        with image_errors(path):
            content = Path(path).read_bytes()
            header = Image.open(io.BytesIO(content))
        return FileView(path, content, *self._draw(header))

    def finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Puts images (B, 3, H, W), on the device, in place of a batch's views of files, if any."""
        views = batch["img"]
        if not (isinstance(views, list) and isinstance(views[0], FileView)):
            return batch  # of a dataset that reads images itself
        images = [
            self._apply(image, view.crop, view.flip)
            for image, view in zip(decode(views, self.device), views)
        ]
        return {**batch, "img": torch.stack(images)}

    def _draw(self, img: Image.Image) -> tuple[tuple[int, int, int, int] | None, bool]:
        """Draws crop and flip as torchvision's steps do; the size alone is looked at."""
        crop, flip = None, False
        for step in self.transforms:
            if isinstance(step, T.RandomResizedCrop):
                crop = step.get_params(img, step.scale, step.ratio)
            elif isinstance(step, T.RandomHorizontalFlip):
                flip = bool(torch.rand(1) < step.p)
        return crop, flip

    def _apply(self, img: Tensor, crop: tuple[int, int, int, int] | None, flip: bool) -> Tensor:
        """(3, H, W), uint8 → (3, H', W'), float32"""
        for step in self.transforms:
            if isinstance(step, T.RandomResizedCrop):
                img = F.resized_crop(img, *crop, step.size, step.interpolation, antialias=True)
            elif isinstance(step, T.RandomHorizontalFlip):
                img = F.hflip(img) if flip else img
            elif isinstance(step, T.ToTensor):
                img = F.convert_image_dtype(img)
            else:  # resizing to a size, cropping the centre, normalization: not random
                img = step(img)
        return img


def build_tensor_transform(cfg: CfgNode, transforms: list[Any]) -> TensorTransform:
    """Returns the transform that computes on the GPU, if there is one that decodes."""
    on_gpu = cfg.USE_CUDA and torch.cuda.is_available() and _decodes_on_gpu()
    return TensorTransform(transforms, torch.device("cuda") if on_gpu else None)


def collate_views(items: list[Any]) -> Any:
    """torch's own collation, but views of files stay a list."""
    as_list = {FileView: lambda views, *, collate_fn_map: views}
    return collate(items, collate_fn_map={**as_list, **default_collate_fn_map})


# --- decoding -------------------------------------------------------------------------------------


def decode(views: list[FileView], device: torch.device) -> list[Tensor]:
    """Returns (3, H, W) of each file, uint8, on the device: JPEGs by nvJPEG, others by Pillow."""
    on_gpu = device.type == "cuda"
    jpegs = [i for i, view in enumerate(views) if on_gpu and view.content.startswith(JPEG)]
    images = dict(zip(jpegs, _nvjpeg([views[i].content for i in jpegs])))
    for i, view in enumerate(views):
        if images.get(i) is None:
            images[i] = F.pil_to_tensor(read_image(view.path)).to(device)
    return [images[i] for i in range(len(views))]


def _nvjpeg(files: list[bytes]) -> list[Tensor | None]:
    """Decodes files together; None for those that it cannot read."""
    if not files:
        return []
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision 0.29 announces that this will move
            mode = torchvision.io.ImageReadMode.RGB
            return torchvision.io.decode_jpeg(tensors, mode=mode, device="cuda")
    except RuntimeError:  # which of them it was, it does not say
        return [None] if len(files) == 1 else [_nvjpeg([file])[0] for file in files]


@cache
def _decodes_on_gpu() -> bool:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        if _nvjpeg([file.getvalue()])[0] is not None:
            return True
    except AttributeError:  # another torchvision
        pass
    print("Note: torchvision has no nvJPEG here; images are decoded and resized on the CPU")
    return False
