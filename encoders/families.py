"""Whether weights are those of a CLIP like OpenAI's, as far as their sizes tell.

OpenAI's towers have heads of 64 numbers and QuickGELU. Neither shows in a state dict: the same
tensors with other heads, or with plain GELU, give other features. So sizes that OpenAI published
are taken for OpenAI's; other full-sized ones are refused unless their owner says they are alike.
Sources: clip's `model.py` (heads: width // 64), open_clip's model configurations (the others').
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of

HEAD_WIDTH = 64
ACTIVATION = "quick_gelu"
OTHERS = "of open_clip's, name the architecture: MODEL.BACKBONE.NAME open_clip:NAME"
SMALLEST, SMALLEST_RESNET = 384, 64  # narrowest towers that were published; others are for tests
Vision = tuple[int, ...]  # width, layers, patch of a ViT; width and layers of a ResNet's stages
OPENAI: dict[tuple[Vision, int], str] = {  # (vision, text width) → name
    ((768, 12, 32), 512): "ViT-B/32",
    ((768, 12, 16), 512): "ViT-B/16",
    ((1024, 24, 14), 768): "ViT-L/14",
    ((64, 3, 4, 6, 3), 512): "RN50",
    ((64, 3, 4, 23, 3), 512): "RN101",
    ((80, 4, 6, 10, 6), 640): "RN50x4",
    ((96, 6, 8, 18, 8), 768): "RN50x16",
    ((128, 3, 15, 36, 10), 1024): "RN50x64",
}
EMBEDDED_WIDE = ((768, 3, 8), 512)  # `tiny.widened`, of our own
OTHER_HEADS = {  # vision width → whose it is, as open_clip has it
    896: "ViT-B/16-plus, with heads of 56",
    1280: "ViT-H/14, with heads of 80",
    1408: "ViT-g/14, with heads of 88",
    1664: "ViT-bigG/14, with heads of 104",
}


def family_of(state_dict: dict[str, Tensor]) -> str:
    """Returns OpenAI's name for weights of these sizes; "" if they have other sizes."""
    return OPENAI.get(_sizes(state_dict), "")


def check_family(
    state_dict: dict[str, Tensor], path: Path, activation: str = "", head_width: int = 0
) -> None:
    """Raises ConfigError unless weights may be read as OpenAI's.

    Args:
        state_dict: in OpenAI's layout.
        path: the file, for the message.
        activation: what its owner says; "": nothing.
        head_width: what its owner says, numbers in a head; 0: nothing.
    """
    if activation not in ("", ACTIVATION):
        raise ConfigError(
            not_one_of("MODEL.BACKBONE.ACTIVATION", activation, (ACTIVATION,))
            + f" If the file is {OTHERS}."
        )
    if head_width not in (0, HEAD_WIDTH):
        raise ConfigError(
            f"MODEL.BACKBONE.HEAD_WIDTH is {head_width}; expected {HEAD_WIDTH}. If the file is "
            f"{OTHERS}."
        )
    if family_of(state_dict) or _sizes(state_dict) == EMBEDDED_WIDE:
        return
    widths = {"text tower": _text_width(state_dict), "image tower": _attention_width(state_dict)}
    for tower, width in widths.items():
        if width % HEAD_WIDTH:
            raise ConfigError(
                f"the {tower} of {path} is {width} wide, which heads of {HEAD_WIDTH}, as OpenAI's "
                f"CLIP has them, cannot share: it is not of OpenAI's kind. If it is {OTHERS}."
            )
    stated = activation == ACTIVATION and head_width == HEAD_WIDTH
    width, *stages = _vision(state_dict)
    narrow = width < (SMALLEST_RESNET if len(stages) == 4 else SMALLEST)
    if not (stated or (narrow and widths["text tower"] < SMALLEST)):
        known = OTHER_HEADS.get(widths["image tower"], "")
        looks = f"; the sizes are those of {known}" if known else ""
        raise ConfigError(
            f"{path} has sizes that no CLIP of OpenAI's has{looks}. Heads and activation do not "
            f"show in a weights file: if these are heads of {HEAD_WIDTH} and QuickGELU, add "
            f"MODEL.BACKBONE.HEAD_WIDTH {HEAD_WIDTH} MODEL.BACKBONE.ACTIVATION {ACTIVATION}. If it "
            f"is {OTHERS}."
        )


def _sizes(state_dict: dict[str, Tensor]) -> tuple[Vision, int]:
    return _vision(state_dict), _text_width(state_dict)


def _vision(state_dict: dict[str, Tensor]) -> Vision:
    if "visual.proj" in state_dict:
        width, _, patch, _ = state_dict["visual.conv1.weight"].shape
        return width, _count(state_dict, "visual.transformer.resblocks."), patch
    stages = (_count(state_dict, f"visual.layer{i}.") for i in (1, 2, 3, 4))
    return state_dict["visual.layer1.0.conv1.weight"].shape[0], *stages


def _attention_width(state_dict: dict[str, Tensor]) -> int:
    """Width of the image tower where it attends: of a ResNet, in its pooling."""
    pool = state_dict.get("visual.attnpool.q_proj.weight")
    return (state_dict["visual.conv1.weight"] if pool is None else pool).shape[0]


def _text_width(state_dict: dict[str, Tensor]) -> int:
    return state_dict["ln_final.weight"].shape[0]


def _count(state_dict: dict[str, Tensor], prefix: str) -> int:
    return len({key.split(prefix)[1].split(".")[0] for key in state_dict if key.startswith(prefix)})
