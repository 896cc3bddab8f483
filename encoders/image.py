"""Images → features by CLIP's frozen image encoder, whose weights are never learned.

CLIP's numbers exactly, but for rounding. Vision transformers here, by the frozen layers of
`kernels`: norms, scales and activations folded. In the last block only the class token has a query,
an attention output and an MLP (`kernels.pooled_attention`). ResNets: `resnet`. On a CPU a batch
goes through in groups that fit the cache.

Visual prompts (VPT, arXiv 2203.12119) are vectors behind the patches, with no position of their
own; deep ones take the place of what the block before made of them.

Shapes: B images, L tokens (class token and patches), N visual prompts, D width, E embedding size,
H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dassl.utils.errors import ConfigError
from encoders.kernels import second_order
from encoders.kernels.folding import Folded, fold_norm
from encoders.kernels.frozen_linear import FrozenLinear, FrozenMLP, norm
from encoders.kernels.pooled_attention import PooledAttention
from encoders.resnet import FrozenResNet
from encoders.tower import FrozenTower, without_autocast

# Images in a group on a CPU. Transformers: the memory of more than 5 is returned each time,
# and page faults follow. ResNets: 16 were fastest.
CPU_IMAGES, CPU_IMAGES_RESNET = 5, 16
# Attention's kernels, the first that can be used. Not cuDNN's: it makes a plan for each shape.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class ImageEncoder:
    """CLIP's frozen image encoder. Not a module: the weights stay where they are.

    Attributes:
        images: how many were encoded so far.

    Args:
        visual: clip's VisionTransformer or ModifiedResNet; anything else runs as it is.
        backend: who multiplies, a key of `gemm.BACKENDS`; None: the default.
        products: their precision, where it is not the weights'.

    Raises:
        ConfigError: products of a tower that runs as it is cannot have a precision of their own.
    """

    def __init__(
        self, visual: Any, backend: str | None = None, products: torch.dtype | None = None
    ) -> None:
        if products is not None and not (hasattr(visual, "class_embedding") or _is_resnet(visual)):
            raise ConfigError(
                f"{_kind_of(visual)} runs as it is, so its products "
                "have no precision of their own: leave MODEL.IMAGE_PRECISION empty"
            )
        self.visual = visual
        self.products = products
        self.images = 0
        self.folded = Folded.shared_by(visual, backend)

    def __call__(
        self, image: Tensor, prompts: Tensor | None = None, deep: Tensor | None = None
    ) -> Tensor:
        """Encodes images.

        Args:
            image: (B, 3, H, W), of any floating type.
            prompts: (N, D) vectors that stand behind the patches in the first block.
            deep: (J, N, D), those of blocks 2 to J + 1.

        Returns:
            (B, E) features, not normalized. Gradients reach `prompts` and `deep`, nothing else.

        Raises:
            ConfigError: the encoder has no patches, or not so many blocks.
        """
        if prompts is not None:
            require_patches(self.visual)
            return self._encode("run", image, prompts, deep)
        with torch.no_grad():
            return self._encode("run", image)

    @torch.no_grad()
    def local(self, image: Tensor) -> Tensor:
        """Encodes images place by place.

        A vision transformer's places are its patches, and their features are what the last norm and
        projection, made for the class token, make of them. A ResNet's are those of its last map;
        each attends to all as the mean does in the attention pooling.

        Args:
            image: (B, 3, H, W), of any floating type.

        Returns:
            (B, L - 1, E) features, not normalized, from the upper left row by row; no gradients.

        Raises:
            ConfigError: the encoder is of another kind.
        """
        if not _is_frozen_kind(self.visual):
            raise ConfigError(f"{_kind_of(self.visual)} has no local features that we know of")
        return self._encode("local", image)

    def _encode(self, what: str, image: Tensor, *prompts: Tensor | None) -> Tensor:
        self.images += len(image)
        if hasattr(self.visual, "conv1"):
            image = image.to(self.visual.conv1.weight.dtype)
        if not _is_frozen_kind(self.visual):
            return self.visual(image)
        weights = [*self.visual.parameters(), *self.visual.buffers()]
        dtype = self.products or self.visual.conv1.weight.dtype
        tower = self.folded.get(weights, dtype, self._fold)
        groups = image.split(tower.cpu_images) if image.device.type == "cpu" else (image,)
        with without_autocast(image), sdpa_kernel(KERNELS):
            return torch.cat([getattr(tower, what)(group, *prompts) for group in groups])

    def _fold(self, dtype: torch.dtype, backend: str) -> _VisionTransformer | _ResNet:
        kind = _VisionTransformer if hasattr(self.visual, "class_embedding") else _ResNet
        return kind(self.visual, dtype, backend)


def require_patches(visual: Any) -> None:
    """Raises ConfigError if an image tower has no patches for prompts to stand behind."""
    if not hasattr(visual, "class_embedding"):
        raise ConfigError(
            "visual prompts stand behind the patches of a plain vision transformer, and "
            f"{_kind_of(visual)} is none: choose a ViT for "
            "MODEL.BACKBONE.NAME"
        )


def _kind_of(visual: Any) -> str:
    """Returns what to call an image tower in messages."""
    return getattr(visual, "kind", type(visual).__name__)


def _is_frozen_kind(visual: Any) -> bool:
    if hasattr(visual, "class_embedding"):
        return True
    norms = [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]
    return _is_resnet(visual) and not any(norm.training for norm in norms)


def _is_resnet(visual: Any) -> bool:
    return hasattr(visual, "attnpool")


class _ResNet(FrozenResNet):
    cpu_images = CPU_IMAGES_RESNET

    def __init__(self, visual: Any, dtype: torch.dtype, backend: str) -> None:
        super().__init__(visual, dtype)  # its products are convolutions


class _VisionTransformer(FrozenTower):
    cpu_images = CPU_IMAGES

    def __init__(self, visual: Any, dtype: torch.dtype, backend: str) -> None:
        weights = visual.conv1.weight.dtype
        super().__init__(visual.transformer, visual.ln_post, visual.proj, weights, dtype, backend)
        self.patch = visual.conv1.kernel_size[0]
        self.first = visual.class_embedding.detach().to(self.stream)  # (D,)
        self.positions = visual.positional_embedding.detach().to(self.stream)  # (L, D)
        self.first_norm = [p.detach().to(self.stream) for p in visual.ln_pre.parameters()]
        self.first_eps = visual.ln_pre.eps
        # A convolution whose kernel is as large as its stride is a product.
        self.embed = FrozenLinear(visual.conv1.weight.flatten(1), None, dtype, backend)
        last = visual.transformer.resblocks[-1]
        self.last_norm, self.last_mlp = last.ln_1.eps, FrozenMLP.of(last, dtype, backend)
        attn = last.attn
        weight, bias = fold_norm(last.ln_1, attn.in_proj_weight, attn.in_proj_bias)
        projections = list(zip(weight.chunk(3), bias.chunk(3)))  # of queries, keys and values
        out = (attn.out_proj.weight, attn.out_proj.bias)
        self.last_attention = PooledAttention(projections, out, self.heads, dtype)

    def run(
        self, image: Tensor, prompts: Tensor | None = None, deep: Tensor | None = None
    ) -> Tensor:
        """(B, 3, H, W), (N, D) and (J, N, D) → (B, E)"""
        x = self._before_last(image, prompts, deep)
        normed = norm(x, self.last_norm)
        x = x[:, 0] + self.last_attention(normed[:, 0], normed)  # (B, D), the class token's
        return self.project(self.last_mlp(x))  # (B, E)

    def local(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, L - 1, E), the patches'"""
        x = self._before_last(image)
        a = self.last_attention.every(norm(x, self.last_norm))
        return self.project(self.last_mlp(x[:, 1:] + a[:, 1:]))

    def _before_last(
        self, image: Tensor, prompts: Tensor | None = None, deep: Tensor | None = None
    ) -> Tensor:
        """Returns what enters the last block, (B, L + N, D)."""
        x = self._tokens(image)  # (B, L, D)
        length = x.shape[1]
        prompts = self.first.new_empty(0, x.shape[2]) if prompts is None else prompts
        deeper = self.deep_vectors(deep, len(prompts))
        x = _join(x, self._first_norm(prompts.to(self.stream)))  # (B, L + N, D)
        for i, block in enumerate(self.blocks):
            replaced = i < len(deeper)
            kept = length if replaced else x.shape[1]  # nobody sees what becomes of replaced ones
            a = self._attend(block.qkv(block.norm(x)))[:, :kept]
            x = block.mlp(x[:, :kept] + block.out(a))
            x = _join(x, deeper[i]) if replaced else x
        return x

    def _tokens(self, image: Tensor) -> Tensor:
        batch, channels, height, width = image.shape
        p = self.patch
        patches = image.view(batch, channels, height // p, p, width // p, p)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * p * p)
        patches = self.embed(patches).to(self.stream)  # (B, L - 1, D)
        x = torch.cat([self.first.expand(batch, 1, -1), patches], dim=1) + self.positions
        return self._first_norm(x)

    def _first_norm(self, x: Tensor) -> Tensor:
        weight, bias = self.first_norm
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.first_eps)

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, L, 3 D) → (B, L, D)"""
        batch, length, _ = qkv.shape
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if second_order.is_wanted():
            out = second_order.attend(q, k, v)
            return out.transpose(1, 2).flatten(2)
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # scaled by the folded weights
        return out.transpose(1, 2).flatten(2)


def _join(x: Tensor, prompts: Tensor) -> Tensor:
    """(B, L, D) tokens and (N, D) prompts → (B, L + N, D)"""
    if not len(prompts):
        return x
    return torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)
