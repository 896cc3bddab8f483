"""The recipes of tests/parity/golden/README.md as code, and models built from them.

Golden arrays come from the public implementations of CoOp and CoCoOp; a test regenerates their
inputs with the functions here, runs this project's code and compares.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import datasets
import trainers
from dassl.config import Config, get_cfg_default
from encoders.load import freeze
from encoders.openai import CLIP
from trainers.clip_trainer import load_clip

GOLDEN = Path(__file__).parent / "parity" / "golden"

# Suggested tolerances of max|a-b| / max|b|
FORWARD = 2e-5  # features, logits, loss, bias
GRADIENT = 5e-5
TRAINING = 2e-4  # loss of each step, final parameters
FINAL = 5e-4  # momentum and logits after training
EXACT = 1e-9  # learning rates

torch.set_num_threads(1)  # as in the golden runs; for models this small, threads cost time

META_NET_STD = {  # in the order in which they are drawn
    "linear1.weight": 1.0,
    "linear1.bias": 0.1,
    "linear2.weight": 0.02,
    "linear2.bias": 0.005,
}


@functools.cache
def load_npz(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a golden file and its description."""
    with np.load(GOLDEN / name) as npz:
        arrays = {key: npz[key] for key in npz.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def load_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def assert_close(actual: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Compares max|a-b| / max|b| with a tolerance; the shapes must agree."""
    actual, expected = (
        np.asarray(x.detach() if isinstance(x, Tensor) else x, np.float64)
        for x in (actual, expected)
    )
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}"


# --- inputs ---------------------------------------------------------------------------------------


def images(n: int, size: int, seed: int) -> Tensor:
    """Returns (n, 3, size, size) float32: coarse blocks and a little noise."""
    rng = np.random.RandomState(seed)
    low = rng.standard_normal((n, 3, 4, 4))
    fine = rng.standard_normal((n, 3, size, size))
    return torch.from_numpy(_enlarge(low, size) + 0.25 * fine).float()


def training_batches(n_cls: int, size: int, batch: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yields batches for ever: each class has its own blocks, each image its own noise."""
    rng = np.random.RandomState(seed)
    protos = _enlarge(rng.standard_normal((n_cls, 3, 4, 4)), size)
    step = 0
    while True:
        labels = [(7 * step + 3 * j + step // n_cls) % n_cls for j in range(batch)]
        img = protos[labels] + 0.5 * rng.standard_normal((batch, 3, size, size))
        yield {"img": torch.from_numpy(img).float(), "label": torch.tensor(labels)}
        step += 1


def context(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(0.02 * np.random.RandomState(seed).standard_normal(shape)).float()


def set_learned_values(
    learner: nn.Module, ctx_seed: int | None = None, meta_seed: int | None = None
) -> None:
    """Replaces the random start of a prompt learner by the recipe's numbers."""
    with torch.no_grad():
        if ctx_seed is not None:
            learner.ctx.copy_(context(tuple(learner.ctx.shape), ctx_seed))
        if meta_seed is not None:
            rng = np.random.RandomState(meta_seed)
            for name, std in META_NET_STD.items():
                parameter = learner.meta_net.get_parameter(name)
                parameter.copy_(torch.from_numpy(std * rng.standard_normal(parameter.shape)))


def sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _enlarge(blocks: np.ndarray, size: int) -> np.ndarray:
    factor = size // blocks.shape[-1]
    return blocks.repeat(factor, axis=2).repeat(factor, axis=3)


# --- models ---------------------------------------------------------------------------------------


@functools.cache
def model_state_dict(name: str) -> dict[str, Tensor]:
    """Returns the weights of vit_a, vit_b or rn_a in OpenAI's layout; shared, so do not write."""
    spec = load_json("models.json")[name]
    rng = np.random.RandomState(spec["seed"])
    state_dict = {key: _draw(rng, tuple(shape), rule) for key, shape, rule in spec["tensors"]}
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        digest.update(key.encode() + state_dict[key].numpy().tobytes())
    assert digest.hexdigest() == spec["sha256"], f"the recipe of {name} gives other numbers"
    return state_dict


def _draw(rng: np.random.RandomState, shape: tuple[int, ...], rule: list) -> Tensor:
    kind, *args = rule
    if kind == "zero_int64":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "const":
        return torch.full(shape, args[0], dtype=torch.float32)
    z = rng.standard_normal(shape)
    value = {
        "normal": lambda s: s * z,
        "one_plus": lambda s: 1.0 + s * z,
        "one_plus_abs": lambda s: 1.0 + s * np.abs(z),
    }[kind](*args)
    return torch.from_numpy(np.asarray(value).astype(np.float16).astype(np.float32))


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="golden-clip-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def weights_file(name: str) -> Path:
    """Returns a file with the weights of a golden model; it lives as long as the process."""
    path = _folder() / f"{name}.pt"
    torch.save(model_state_dict(name), path)
    return path


def image_size(name: str) -> int:
    return load_json("models.json")[name]["res"]


def make_cfg(name: str, options: dict[str, Any] | None = None) -> Config:
    """Returns a configuration for a golden model in float32 on the CPU; `options` by full key."""
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    trainers.extend_cfg(cfg)
    defaults = {
        "MODEL.BACKBONE.NAME": "ViT-B/16",  # what the golden runs printed
        "MODEL.BACKBONE.PATH": str(weights_file(name)),
        "INPUT.SIZE": (image_size(name), image_size(name)),
        "USE_CUDA": False,
        "TRAINER.COOP.PREC": "fp32",
        "TRAINER.COCOOP.PREC": "fp32",
    }
    for key, value in {**defaults, **(options or {})}.items():
        cfg.merge_from_list([key, value])
    return cfg


def method_options(method: str, case: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings TRAINER.<method>.* that a golden case describes."""
    keys = ["N_CTX", "CTX_INIT"] + (["CSC", "CLASS_TOKEN_POSITION"] if method == "COOP" else [])
    return {f"TRAINER.{method}.{key}": case[key] for key in keys}


@functools.cache
def golden_clip(name: str) -> CLIP:
    """Returns a golden model, frozen, in float32, as the trainers load it; do not write to it."""
    clip_model = load_clip(make_cfg(name), "fp32")
    freeze(clip_model)
    return clip_model


def custom_clip(module: Any, case: dict[str, Any], classnames: list[str]) -> nn.Module:
    """Builds the CustomCLIP of `trainers.coop` or `trainers.cocoop` that a case describes."""
    options = method_options(module.__name__.split(".")[-1].upper(), case)
    cfg = make_cfg(case["model"], options)
    model = module.CustomCLIP(cfg, classnames, golden_clip(case["model"]))
    set_learned_values(model.prompt_learner, case.get("ctx_seed"), case.get("meta_seed"))
    return model


def fed_by(
    trainer_class: type, classnames: list[str], batches: Any = (), **attributes: Any
) -> type:
    """Returns the trainer class with `batches` in place of a data set's loaders.

    Args:
        trainer_class: a trainer.
        classnames: class names of the stub data set.
        batches: becomes `train_loader_x`.
        attributes: further attributes of the stub data set.
    """

    class Fed(trainer_class):
        def build_data_loader(self) -> None:
            dataset = SimpleNamespace(classnames=classnames, **attributes)
            self.dm = SimpleNamespace(dataset=dataset)
            self.train_loader_x = batches
            self.val_loader = self.test_loader = None
            self.num_classes = len(classnames)
            self.lab2cname = dict(enumerate(classnames))

    return Fed


def comparable(printed: str) -> list[str]:
    """Returns printed lines without what differs from upstream on purpose.

    Ours notes that CTX_INIT overrides N_CTX, and names the weights file where one was given.
    """
    lines = [line for line in printed.splitlines() if not line.startswith("Note: CTX_INIT")]
    return [re.sub(r"\(backbone: /.*\)", "(backbone: ViT-B/16)", line) for line in lines]


class CreatesFile:
    """Unpickling it creates a file, by a shell command: no loader of ours may let that happen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)
