"""The frozen image encoders beside the clip package's own, in one process, by turns.

    python benchmarks/image_encoding.py --json benchmarks/results/image_encoding_cpu.json --check

Weights are random, of OpenAI's sizes. Before anything is timed, both encoders' features are
compared. Throughput is in images a second; a ratio is the median over neighbouring rounds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clip.model import convert_weights

from benchmarks.bars import Bar, failures
from benchmarks.machine import add_result, describe_run
from benchmarks.measure import Work, added_memory, by_turns, largest_difference, ratio_of
from dassl.utils.device import multiply_in_full
from encoders.image import ImageEncoder
from encoders.kernels.gemm import default_backend, multiplies_in_bf16
from encoders.load import freeze
from encoders.openai import CLIP

# Embedding size, pixels, layers, width, patch; as in OpenAI's weights
BACKBONES = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None),
    "ViT-B/32": (512, 224, 12, 768, 32),
    "ViT-B/16": (512, 224, 12, 768, 16),
    "ViT-L/14": (768, 224, 24, 1024, 14),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14),
}
NO_TEXT = (1, 1, 64, 1, 1)  # the text tower, which is not used, as small as can be
ALLOWED = {"fp32": 1e-4, "fp16": 2e-2}  # difference of the paths, of the largest feature

KEY = "ViT-B/16 b32"
BARS = (  # on 2 CPU cores in float32
    Bar(f"{KEY}: times clip's throughput", (KEY,), lambda r: r[KEY]["ratio"], least=2.0),
    Bar(f"{KEY}: times ours, by bf16", (KEY,), lambda r: r[KEY]["bf16_ratio"], least=1.6),
)


def build_clip(backbone: str, device: torch.device, precision: str) -> CLIP:
    """Returns a CLIP with a random image encoder, whose norms are not the identity."""
    torch.manual_seed(0)
    model = CLIP(*BACKBONES[backbone], *NO_TEXT)
    with torch.no_grad():
        for module in model.visual.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.0)
                module.bias.normal_(std=0.1)
    freeze(model)
    if precision == "fp16":
        convert_weights(model)  # all but norms
    return model.to(device).eval()


def works_of(clip_model: CLIP, batch: int, device: torch.device) -> dict[str, Work]:
    """Returns a batch's encoding by the clip package and by ours; each returns [(B, E)].

    With MODEL.IMAGE_PRECISION bf16, too, where a CPU has such products.
    """
    pixels = clip_model.visual.input_resolution
    image = torch.randn(batch, 3, pixels, pixels, device=device).to(clip_model.dtype)
    encoder = ImageEncoder(clip_model.visual)

    @torch.no_grad()
    def plain() -> list[torch.Tensor]:
        return [clip_model.encode_image(image)]

    works = {"plain": plain, "ours": lambda: [encoder(image)]}
    if device.type == "cpu" and multiplies_in_bf16():
        visual = copy.deepcopy(clip_model.visual)  # each keeps what is folded of its weights
        in_bf16 = ImageEncoder(visual, products=torch.bfloat16)
        works["bf16"] = lambda: [in_bf16(image)]
    return works


def measure(
    backbone: str, batch: int, clip_model: CLIP, args: argparse.Namespace
) -> dict[str, Any]:
    device = torch.device(args.device)
    works = works_of(clip_model, batch, device)
    difference = largest_difference(works)
    if difference > ALLOWED[args.precision]:
        raise AssertionError(f"{backbone}, batch {batch}: the paths differ by {difference:.1e}")
    times = by_turns(works, device, args.seconds)
    result = {"key": f"{backbone} b{batch}", "backbone": backbone, "batch": batch}
    result |= {"difference": difference, "ratio": ratio_of(times), "all_seconds": times}
    for name, seconds in times.items():
        result[f"{name}_images_per_s"] = batch / statistics.median(seconds)
        result[f"{name}_bytes"] = added_memory(works[name], device)
    if "bf16" in works:
        exact, found = (F.normalize(works[name]()[0], dim=-1) for name in ("ours", "bf16"))
        result["bf16_difference"] = (found - exact).norm(dim=-1).max().item()  # length 1
        result["bf16_ratio"] = ratio_of({"plain": times["ours"], "ours": times["bf16"]})
    return result


def _line(result: dict[str, Any]) -> str:
    memory = [(result[f"{name}_bytes"] or 0) / 2**20 for name in ("plain", "ours")]
    return (
        "{key:20} clip {plain_images_per_s:8.1f} images/s, ours {ours_images_per_s:8.1f}, "
        "{ratio:.2f}x, difference {difference:.1e}, ".format(**result)
        + "added memory {:.0f} -> {:.0f} MiB".format(*memory)
        + (", bf16 {bf16_ratio:.2f}x".format(**result) if "bf16_ratio" in result else "")
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ("ViT-B/16", "ViT-B/32", "RN50")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=default)
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 4, 32))
    parser.add_argument("--seconds", type=float, default=20, help="for each case, about")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--json", help="file for the results; those of others stay in it")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the bar is missed")
    args = parser.parse_args()
    if args.check and (args.device, args.precision) != ("cpu", "fp32"):
        parser.error("the bar is for float32 on a CPU: leave out --check, or --device, --precision")
    return args


def main() -> int:
    args = parse()
    device = torch.device(args.device)
    multiply_in_full()  # as `train.py` does
    dtype = torch.float16 if args.precision == "fp16" else torch.float32
    report = {
        **describe_run(device=args.device),
        "threads": torch.get_num_threads(),
        "precision": args.precision,
    }
    report |= {"device": args.device, "backend": default_backend(device, dtype), "results": []}
    for backbone in args.backbones:
        clip_model = build_clip(backbone, device, args.precision)
        for batch in args.batches:
            result = measure(backbone, batch, clip_model, args)
            add_result(report, result, args.json)
            print(_line(result), flush=True)
    bars = BARS if multiplies_in_bf16() else BARS[:1]
    return min(1, failures(report["results"], bars)) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
