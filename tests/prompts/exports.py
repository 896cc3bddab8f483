"""What is done with exports: the command, there and back, other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T

from dassl.utils.cli import run_cli
from prompts import Predictor
from prompts.__main__ import main
from tests.prompts import other_libraries


def command(*arguments: object) -> int:
    return run_cli(lambda: main([str(argument) for argument in arguments]))


def prepared(path: str) -> Tensor:
    """A picture as its card says, by torchvision: (3, 32, 32)."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resize = T.Resize(32, T.InterpolationMode.BICUBIC)
    steps = T.Compose([resize, T.CenterCrop(32), T.ToTensor(), T.Normalize(mean, std)])
    with Image.open(path) as image:
        return steps(image.convert("RGB"))


def there_and_back(folder: Path, tmp_path: Path, paths: list[str]) -> None:
    pytest.importorskip("safetensors")
    file, again = tmp_path / "file.safetensors", tmp_path / "again"
    assert command("export", folder, file, "--as", "prompts") == 0
    assert command("import", file, again) == 0
    before, after = Predictor.load(folder), Predictor.load(again)
    assert torch.equal(before.logits(paths), after.logits(paths))
    assert before.classnames == after.classnames
    assert after.trainer.model_epoch == before.trainer.model_epoch
    assert str(tmp_path) not in file.read_bytes().decode("latin-1"), "no place of this machine"


def encode_by_openai(images: Tensor) -> Tensor:
    return other_libraries.in_openai().encode_image(images)


def encode_by_open_clip(images: Tensor) -> Tensor:
    pytest.importorskip("open_clip")
    return other_libraries.in_open_clip().encode_image(images)


def encode_by_transformers(images: Tensor) -> Tensor:
    pytest.importorskip("transformers")
    found = other_libraries.in_transformers().get_image_features(pixel_values=images)
    return found if isinstance(found, Tensor) else found.pooler_output  # from version 5 on


def by_onnxruntime(file: Path, images: Tensor) -> Tensor:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": images.numpy()})[0])
