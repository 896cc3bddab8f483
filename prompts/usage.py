"""How an exported file is used, as code for a model card: complete, to be copied as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.open_clip import PREFIX, Source
from encoders.openai import TINY
from prompts.classifier import class_weights
from prompts.predictor import Predictor
from prompts.preparation import portable_name, preparation

# OpenAI's names → those of open_clip (with QuickGELU, as OpenAI's have it) and of transformers.
NAMES = {
    "RN50": ("RN50-quickgelu", ""),
    "RN101": ("RN101-quickgelu", ""),
    "RN50x4": ("RN50x4-quickgelu", ""),
    "RN50x16": ("RN50x16-quickgelu", ""),
    "RN50x64": ("RN50x64-quickgelu", ""),
    "ViT-B/32": ("ViT-B-32-quickgelu", "openai/clip-vit-base-patch32"),
    "ViT-B/16": ("ViT-B-16-quickgelu", "openai/clip-vit-base-patch16"),
    "ViT-L/14": ("ViT-L-14-quickgelu", "openai/clip-vit-large-patch14"),
    "ViT-L/14@336px": ("ViT-L-14-336-quickgelu", "openai/clip-vit-large-patch14-336"),
}
PROMPTS = """\
What was learned, and nothing of CLIP. In the project that made it, on the command line:

```bash
python -m prompts import {file} FOLDER
python predict.py FOLDER PICTURE
```
"""
PICTURES = """\
```python
import json

import torch
from PIL import Image
from torchvision import transforms as T

torch.set_grad_enabled(False)
prepare = T.Compose([{steps}])
paths = ["picture.jpg"]
images = torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])
```
"""
CLASSIFIER = """
Then this file (`pip install safetensors`):

```python
from safetensors import safe_open

with safe_open("{file}", "pt") as file:
    names = json.loads(file.metadata()["classnames"])
    {tensors} = (file.get_tensor(name) for name in {listed})
```

{encoder}
At last, from features to classes:

```python
{formula}
for path, row in zip(paths, logits.softmax(dim=1)):
    print(path, names[int(row.argmax())], f"{{float(row.max()):.1%}}")
```
"""
ONNX = """
Then this file, which needs no other (`pip install onnxruntime`):

```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
names = json.loads(session.get_modelmeta().custom_metadata_map["classnames"])
(logits,) = session.run(None, {{"image": images.numpy()}})
for path, row in zip(paths, torch.tensor(logits).softmax(dim=1)):
    print(path, names[int(row.argmax())], f"{{float(row.max()):.1%}}")
```
"""
OPENAI = (
    "OpenAI's package",
    "pip install clip-anytorch",
    """\
import clip

model, _ = clip.load("{name}", device="cpu")
features = model.float().encode_image(images)
""",
)
OPEN_CLIP = (
    "open_clip",
    "pip install open_clip_torch",
    """\
import open_clip

model = open_clip.create_model("{name}"{weights}).eval()
features = model.encode_image(images)
""",
)
TRANSFORMERS = (
    "transformers",
    "pip install transformers",
    """\
from transformers import CLIPModel

model = CLIPModel.from_pretrained("{name}").eval()
features = model.get_image_features(pixel_values=images)
features = getattr(features, "pooler_output", features)  # so from version 5 on
""",
)


def usage(predictor: Predictor, kind: str, file: str) -> str:
    """Returns Markdown on how a file is used.

    Args:
        predictor: what it was exported from.
        kind: "prompts", "classifier" or "onnx".
        file: its name.
    """
    if kind == "prompts":
        return PROMPTS.format(file=file)
    first = "First, pictures (`pip install torch torchvision`):\n\n"
    pictures = first + PICTURES.format(steps=_steps(preparation(predictor.run.cfg)))
    if kind == "onnx":
        return pictures + ONNX.format(file=file)
    found = class_weights(predictor)
    names = tuple(found.tensors)
    return pictures + CLASSIFIER.format(
        file=file,
        tensors=", ".join(names),
        listed=names,
        encoder=_encoder(predictor.run.cfg.MODEL.BACKBONE),
        formula=found.formula.replace("; ", "\n"),
    )


def _steps(prepared: Mapping[str, Any]) -> str:
    side, (height, width) = prepared["resize_shorter_side"], prepared["center_crop"]
    steps = [
        f"T.Resize({side}, T.InterpolationMode.{prepared['interpolation'].upper()})",
        f"T.CenterCrop(({height}, {width}))",
        "T.ToTensor()",
    ]
    if "mean" in prepared:
        steps.append(f"T.Normalize({prepared['mean']}, {prepared['std']})")
    lines = "".join(f"\n    {step}," for step in steps)
    if prepared.get("instance_norm"):  # as dassl.data.transforms has it
        lines += (
            "\n    lambda x: x - x.mean((1, 2), keepdim=True),"
            "\n    lambda x: x / (x.std((1, 2), keepdim=True) + 1e-8),"
        )
    return f"{lines}\n"


def _encoder(backbone: Mapping[str, Any]) -> str:
    """Returns the code of each library that holds a CLIP."""
    blocks = _libraries(backbone["NAME"], Path(backbone["PATH"]).name)
    if not blocks:
        return (
            "Then `features`, (pictures, width), of the image encoder of the CLIP above. No other "
            "library has that one; an export `--as onnx` needs none.\n"
        )
    text = "Then the features of that CLIP's image encoder, by any one of these libraries.\n"
    for (library, install, code), names in blocks:
        code = code.format(**names)
        text += f"\n{library} (`{install}`):\n\n```python\n{code}```\n"
    return text


def _libraries(name: str, file: str) -> list[tuple[tuple[str, str, str], dict[str, str]]]:
    if name.startswith(PREFIX):
        source = Source.parse(portable_name(name))
        weights = file or source.tag
        given = f', pretrained="{weights}"' if weights else ""
        return [(OPEN_CLIP, {"name": source.name, "weights": given})]
    if file:  # in OpenAI's layout
        return [(OPENAI, {"name": file})]
    if name == TINY or name not in NAMES:
        return []
    theirs, hub = NAMES[name]
    found = [
        (OPENAI, {"name": name}),
        (OPEN_CLIP, {"name": theirs, "weights": ', pretrained="openai"'}),
    ]
    return found + ([(TRANSFORMERS, {"name": hub})] if hub else [])
