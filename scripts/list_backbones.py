"""Writes the tables of docs/backbones.md anew, from the open_clip that is installed.

python scripts/list_backbones.py
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dassl.utils.cli import run_cli
from encoders.open_clip import Cfg, Source, package, problems_of, refusal

PAGE = ROOT / "docs/backbones.md"
BEGIN, END = "<!-- tables: scripts/list_backbones.py -->\n", "<!-- end of tables -->\n"


def tower_of(config: Cfg) -> str:
    """Returns in words what runs the images of a description."""
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        return f"as it is: {vision['timm_model_name']}"
    kind = "ResNet" if isinstance(vision["layers"], list) else "ViT"
    return f"{kind}, {'QuickGELU' if config.get('quick_gelu') else 'GELU'}"


def tables() -> str:
    """Returns what can be used, what cannot and why, in Markdown."""
    names = package().list_models()
    configs = {name: package().get_model_config(name) for name in names}
    rows, bare, refused, weights = [], [], defaultdict(list), 0
    for name, config in configs.items():
        if reasons := refusal(config):
            why = "; ".join(reasons)
            if "hf_model_name" in config["text_cfg"]:
                why = "its text tower is one of Hugging Face's, with other layers"
            refused[why].append(name)
            continue
        tags = package().list_pretrained_tags_by_model(name)
        weights += len(tags)
        usable = [f"`{tag}`" for tag in tags if not problems_of(Source(name, tag))]
        if not usable:
            bare.append(f"`{name}`")
            continue
        size, text = config["vision_cfg"].get("image_size", 224), config["text_cfg"]
        tokens = text.get("context_length", 77)
        cells = (f"`{name}`", tower_of(config), str(size), str(tokens), ", ".join(usable))
        rows.append(f"| {' | '.join(cells)} |")
    every = len(package().list_pretrained())
    return "\n".join(
        [
            f"open_clip {package().__version__} lists {every} weights, and {weights} can be used.",
            "Some are listed twice, once under a name with the wrong activation: they are below "
            "under the right one alone.\n",
            "| name | image tower | pixels | tokens | weights |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            f"\nWithout weights of their own, for files of yours: {', '.join(bare)}.\n",
            "| refused, because | names |",
            "| --- | --- |",
            *(f"| {why} | {', '.join(f'`{n}`' for n in some)} |" for why, some in refused.items()),
            "",
        ]
    )


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n" + tables() + "\n" + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
