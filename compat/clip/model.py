"""`build_model(state_dict, design_details)`: CLIP with places for prompts in its layers.

Written from what the papers say and from what public trainers call; plain modules with autograd,
as those trainers expect. Designs, by "trainer":

- plain (CoOp, CoCoOp, ...; all depths 0): OpenAI's CLIP.
- IVLP, VPT (arXiv 2203.12119; section 3 of 2210.03117): a tower learns vectors of its own.
  `visual.VPT` stands behind the patches; up to a depth, `resblocks.i.VPT_shallow` takes the place
  of what the block before made of its vectors. In the text tower vectors stand behind the start
  token; those of the first block are the prompt learner's.
- MaPLe (2210.03117, eq. 4 to 9), or any with a "maple_length": the trainer brings all vectors.
  Blocks take and return a list, [tokens, deep prompts, how many of these were used]; the image
  tower is called as `visual(image, first prompts, deep prompts)`.

All other names are OpenAI's. Shapes: B prompts or images, L tokens, N prompts, D width.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger
from encoders.families import check_family
from encoders.openai import PACKAGE, build

logger = get_logger("clip.model")
_theirs = importlib.import_module(f"{PACKAGE}.model")

LEARNING = ("IVLP", "VPT")  # designs whose towers have vectors of their own
DESIGNS = ("CoOp", "CoCoOp", *LEARNING, "MaPLe")
STD = 0.02  # of new vectors
Put = Callable[[Tensor, Tensor], Tensor]


def __getattr__(name: str) -> object:
    return getattr(_theirs, name)


def build_model(
    state_dict: dict[str, Tensor], design_details: Mapping[str, Any] | None = None
) -> nn.Module:
    """Builds a CLIP in evaluation mode; convolutions, products and projections in half precision.

    Args:
        state_dict: in OpenAI's layout.
        design_details: "trainer", the design; for IVLP and VPT "vision_depth", "vision_ctx",
            "language_depth", "language_ctx": blocks with vectors, and how many. None: plain.

    Raises:
        ConfigError: an unknown design, or one that the weights have no place for.
        CheckpointError: the weights are no CLIP.
    """
    given = Path("the given state dict")
    model = build(state_dict, given)
    check_family(state_dict, given)
    design = dict(design_details or {})
    name = design.get("trainer", "CoOp")
    text, image = (
        (int(design.get(f"{tower}_depth", 0)), int(design.get(f"{tower}_ctx", 0)))
        for tower in ("language", "vision")
    )
    coupled = name == "MaPLe" or "maple_length" in design
    learns = text[0] > 0 or image[0] > 0
    if name not in DESIGNS and learns:
        raise ConfigError(not_one_of('"trainer" of design_details', name, DESIGNS))
    if (coupled or image[0]) and not hasattr(model.visual, "class_embedding"):
        raise ConfigError(
            f"the design {name!r} puts prompts behind the patches of an image, which a ResNet has "
            "not; expected a vision transformer, such as ViT-B/16."
        )
    if coupled:
        _replace_blocks(model.transformer, CoupledBlock, _behind_start)
        _replace_blocks(model.visual.transformer, CoupledBlock, _behind_patches)
        model.visual = PromptedVision(model.visual)
    elif learns:
        _let_learn(model.transformer, _behind_start, "language", *text)
        if image[0]:
            _let_learn(model.visual.transformer, _behind_patches, "vision", *image)
            model.visual = PromptedVision(model.visual, length=image[1])
    return model.eval()


def _let_learn(transformer: nn.Module, put: Put, tower: str, depth: int, length: int) -> None:
    """Gives blocks 2 to `depth` vectors of their own."""
    if depth > transformer.layers:
        logger.warning(
            f"Note: {tower}_depth is {depth}, and the tower has {transformer.layers} blocks: all "
            "have prompts"
        )
    lengths = [length if 0 < i < depth else None for i in range(transformer.layers)]
    _replace_blocks(transformer, DeepBlock, put, lengths)


def _replace_blocks(
    transformer: nn.Module, kind: type, put: Put, more: Sequence[Any] | None = None
) -> None:
    more = range(transformer.layers) if more is None else more
    blocks = (kind(block, put, what) for block, what in zip(transformer.resblocks, more))
    transformer.resblocks = nn.Sequential(*blocks)


def _take_over(new: nn.Module, old: nn.Module) -> None:
    """Makes `new` a module with the parts of `old`, under the same names."""
    nn.Module.__init__(new)
    for name, value in vars(old).items():
        if name in ("_modules", "_parameters", "_buffers"):
            vars(new)[name] = dict(value)
        elif not name.startswith("_"):
            vars(new)[name] = value


# --- blocks: (L, B, D) → (L, B, D) ----------------------------------------------------------------


class Block(_theirs.ResidualAttentionBlock):
    """OpenAI's block, with attention that has second derivatives: ProMetaR's trainer takes them."""

    def attention(self, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext():
            return super().attention(x)


class DeepBlock(Block):
    """A block with N vectors of its own, which it puts in place of N tokens; without, OpenAI's."""

    def __init__(self, block: nn.Module, put: Put, length: int | None) -> None:
        _take_over(self, block)
        self.put = put
        width = block.ln_1.normalized_shape[0]
        self.VPT_shallow = None if length is None else _new_vectors(length, width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.VPT_shallow is None else self.put(x, self.VPT_shallow))


class CoupledBlock(Block):
    """A block that takes its vectors from a list that goes along, but for the first."""

    def __init__(self, block: nn.Module, put: Put, index: int) -> None:
        _take_over(self, block)
        self.put, self.first = put, index == 0

    def forward(self, inputs: Tensor | Sequence[Any]) -> Tensor | list[Any]:
        if isinstance(inputs, Tensor):  # nothing is put in
            return super().forward(inputs)
        x, deep, used = inputs
        if not self.first and used < len(deep):
            x, used = self.put(x, deep[used]), used + 1
        return [super().forward(x), deep, used]


def _behind_start(x: Tensor, prompts: Tensor) -> Tensor:
    return torch.cat([x[:1], _spread(prompts, x), x[1 + prompts.shape[-2] :]])


def _behind_patches(x: Tensor, prompts: Tensor) -> Tensor:
    return torch.cat([x[: len(x) - prompts.shape[-2]], _spread(prompts, x)])


def _spread(prompts: Tensor, x: Tensor) -> Tensor:
    """(N, D), or (B, N, D) → (N, B, D)"""
    return prompts.to(x.dtype).expand(x.shape[1], -1, -1).transpose(0, 1)


def _new_vectors(length: int, width: int) -> nn.Parameter:
    return nn.Parameter(STD * torch.randn(length, width))


# --- the image tower ------------------------------------------------------------------------------


class PromptedVision(_theirs.VisionTransformer):
    """OpenAI's vision transformer with N prompts behind the patches.

    Args:
        visual: gives the weights.
        length: N, of vectors that it learns itself; None: the caller brings them.
    """

    def __init__(self, visual: nn.Module, length: int | None = None) -> None:
        _take_over(self, visual)
        if length is not None:
            self.VPT = _new_vectors(length, len(visual.class_embedding))

    def forward(self, x: Tensor, prompts: Tensor | None = None, deep: Any = None) -> Tensor:
        """Images (B, 3, H, W), first prompts (N, D), deep prompts [(N, D), ...] → (B, E)."""
        x = self.conv1(x).flatten(2).transpose(1, 2)  # (B, patches, D)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype)  # (B, L, D)
        prompts = getattr(self, "VPT", None) if prompts is None else prompts
        if prompts is not None:
            x = torch.cat([x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1)  # (B, L + N, D)
        x = self.ln_pre(x).transpose(0, 1)  # (L + N, B, D)
        x = self.transformer(x) if deep is None else self.transformer([x, deep, 0])[0]
        return self.ln_post(x[0]) @ self.proj
