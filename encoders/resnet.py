"""CLIP's frozen ResNets (Radford et al., arXiv 2103.00020, section 2.4), made for inference.

CLIP's numbers exactly, but for rounding:

- A batch norm that is not trained is a scale and a shift: both fold into the convolution before it,
  in float64. Not in float16: the weights of OpenAI's files are that, and would be rounded anew.
- Images lie in memory channels last, as the libraries behind convolutions like them best.
- The attention pooling has one query: see `kernels.pooled_attention`.

Shapes: B images, C channels, H x W positions, N = HW + 1 positions with the mean, D width of the
last layer, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.kernels.pooled_attention import PooledAttention


class FrozenConv:
    """Convolution and batch norm, as one convolution but in float16.

    Args:
        conv: without a bias.
        norm: the BatchNorm2d behind it, in evaluation mode.
        dtype: of the convolution.
    """

    def __init__(self, conv: nn.Conv2d, norm: Any, dtype: torch.dtype) -> None:
        weight, self.bias = conv.weight, None
        self.norm = norm if dtype == torch.float16 else None
        if self.norm is None:
            scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            weight = weight.double() * scale[:, None, None, None]
            self.bias = (norm.bias.double() - norm.running_mean.double() * scale).to(dtype)
        self.weight = weight.to(dtype, memory_format=torch.channels_last)
        self.stride, self.padding = conv.stride, conv.padding

    def __call__(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return out if self.norm is None else self.norm(out)


class FrozenResNet:
    """A ModifiedResNet with folded weights.

    Args:
        visual: clip's ModifiedResNet.
        dtype: of the products.
    """

    def __init__(self, visual: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.stem = [
            FrozenConv(getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}"), dtype)
            for i in (1, 2, 3)
        ]
        layers = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self.blocks = [_Block(block, dtype) for layer in layers for block in layer]
        self.pool = _AttentionPool(visual.attnpool, dtype)

    def run(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, E)"""
        return self.pool(self._map(image))

    def local(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, N - 1, E), what the pooling makes of each position."""
        return self.pool.every(self._map(image))

    def _map(self, image: Tensor) -> Tensor:
        x = image.to(self.dtype, memory_format=torch.channels_last)
        for conv in self.stem:
            x = F.relu_(conv(x))
        x = F.avg_pool2d(x, 2)
        for block in self.blocks:
            x = block(x)
        return x


class _Block:
    """A bottleneck: 1x1, 3x3, (mean of stride x stride positions,) 1x1, and a way around."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self.stride = block.stride
        self.conv1 = FrozenConv(block.conv1, block.bn1, dtype)
        self.conv2 = FrozenConv(block.conv2, block.bn2, dtype)
        self.conv3 = FrozenConv(block.conv3, block.bn3, dtype)
        self.around: Callable[[Tensor], Tensor] | None = None
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self.around = FrozenConv(conv, norm, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)"""
        out = F.relu_(self.conv2(F.relu_(self.conv1(x))))
        if self.stride > 1:
            out, x = F.avg_pool2d(out, self.stride), F.avg_pool2d(x, self.stride)
        if self.around is not None:
            x = self.around(x)
        return F.relu_(self.conv3(out).add_(x))


class _AttentionPool:
    """The mean position's attention to all positions."""

    def __init__(self, pool: Any, dtype: torch.dtype) -> None:
        self.positions = pool.positional_embedding.detach().to(dtype)  # (N, D)
        parts = (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj)
        *projections, out = [(part.weight, part.bias) for part in parts]
        self.attention = PooledAttention(projections, out, pool.num_heads, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, D, H, W) → (B, E)"""
        x = self._rows(x)
        return self.attention(x[:, 0], x)

    def every(self, x: Tensor) -> Tensor:
        """(B, D, H, W) → (B, HW, E): as if each position were the one that attends."""
        return self.attention.every(self._rows(x))[:, 1:]

    def _rows(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # (B, HW, D)
        return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positions  # (B, N, D)
