"""Forward passes on tensors that claim to be on a GPU: their shapes, types and devices alone.

torch's FakeTensorMode refuses what a GPU would refuse (operands on two devices), and what would
wait for it (a number, or a number of elements, that the host wants to know).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from clip.model import convert_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from encoders import text
from encoders.kernels import folding
from tests.fast_paths.test_captured_step import build, make_batches
from tests.fast_paths.test_no_waiting import STEPS
from tests.golden_recipes import golden_clip, image_size, make_cfg, method_options
from trainers import cocoop, coop, prompt_trainer

NAMES = ["cat", "golf ball", "golf course", "annual crop land"]
pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 asks the driver about fake tensors"
)
KINDS = [
    (coop, "end", False, "images"),
    (coop, "middle", False, "features"),
    (coop, "front", True, "features"),
    (cocoop, "end", False, "features"),
]


@contextmanager
def fake_gpu() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "free_bytes", lambda device: 2**34)
        patch.setattr(folding, "_state", lambda tensors: [])  # they have no address
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield patch


def model_of(module: ModuleType, position: str, csc: bool, precision: str) -> nn.Module:
    method = module.__name__.rpartition(".")[2].upper()
    case = {"N_CTX": 4, "CTX_INIT": "", "CSC": csc, "CLASS_TOKEN_POSITION": position}
    clip_model = copy.deepcopy(golden_clip("vit_a"))
    if precision == "fp16":
        convert_weights(clip_model)
    cfg = make_cfg("vit_a", method_options(method, case))
    return module.CustomCLIP(cfg, NAMES, clip_model)


def move_to_gpu(model: nn.Module) -> None:
    """`model.to("cuda")`, which fails for fake tensors that belong to a model twice."""
    moved: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if tensor not in moved:
                    there = tensor.detach().to("cuda")
                    learned = tensor.requires_grad
                    is_parameter = isinstance(tensor, nn.Parameter)
                    moved[tensor] = nn.Parameter(there, learned) if is_parameter else there
                own[name] = moved[tensor]


def noted_attention(patch: pytest.MonkeyPatch) -> list[tuple[bool, Tensor | None]]:
    """Returns a list that takes, of each attention, whether cuDNN may compute it, and its mask."""
    seen: list[tuple[bool, Tensor | None]] = []
    attention = F.scaled_dot_product_attention

    def noted(*args: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        seen.append((torch.backends.cuda.cudnn_sdp_enabled(), attn_mask))
        return attention(*args, attn_mask=attn_mask, **kwargs)

    patch.setattr(F, "scaled_dot_product_attention", noted)
    return seen


@pytest.mark.parametrize("precision", ["fp32", "fp16", "amp"])
@pytest.mark.parametrize(("module", "position", "csc", "given"), KINDS)
def test_forward_pass(module, position, csc, given, precision):
    model, size = model_of(module, position, csc, precision), image_size("vit_a")
    learned: set[torch.dtype] = set()
    if module is cocoop:
        model.prompt_learner.meta_net.register_forward_hook(
            lambda _, __, bias: learned.add(bias.dtype)
        )
    with fake_gpu() as patch:
        move_to_gpu(model)
        attention = noted_attention(patch)
        shape = (3, 64) if given == "features" else (3, 3, size, size)
        forward = model.from_features if given == "features" else model
        label = torch.empty(3, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", torch.float16, enabled=precision == "amp"):
            logits = forward(torch.empty(shape, device="cuda"))
            loss = F.cross_entropy(logits, label)
    assert logits.shape == (3, len(NAMES))
    assert {logits.device.type, loss.device.type} == {"cuda"}
    assert {logits.dtype, loss.dtype, *learned} == {torch.float32}
    half = torch.float32 if precision == "fp32" else torch.float16
    assert model.text_encoder.folded.value.dtype == half
    assert attention
    assert not any(by_cudnn for by_cudnn, _ in attention)
    masks = [mask for _, mask in attention if mask is not None]
    assert masks
    for mask in masks:
        assert mask.dtype == half
        assert all(stride % 8 == 0 for stride in mask.stride()[:-1]), "it would be copied"
        assert mask.stride(-1) == 1


@pytest.mark.parametrize("precision", ["fp16", "amp"])
@pytest.mark.parametrize(("trainer_class", "options"), STEPS[6:])
def test_other_methods(monkeypatch, trainer_class, options, precision):
    """All that a method adds to the towers is float32, as is what it returns."""
    monkeypatch.setattr(prompt_trainer, "resolve_precision", lambda prec, device, key: prec)
    key = f"TRAINER.{trainer_class.config_node or 'COOP'}.PREC"  # DePT's is its base's
    model = build(trainer_class, make_batches(3), **{key: precision, **options}).model
    made: set[torch.dtype] = set()
    for module in model.learned.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, out: made.add(out.dtype))
    size = image_size("vit_a")
    with fake_gpu():
        move_to_gpu(model)
        image = torch.empty(3, 3, size, size, device="cuda")
        label = torch.empty(3, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", torch.float16, enabled=precision == "amp"):
            outputs = model(image, label) if hasattr(model, "loss") else [model(image)]
    assert {out.dtype for out in outputs} | made == {torch.float32}
    assert {out.device.type for out in outputs} == {"cuda"}
