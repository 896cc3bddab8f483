"""Weights files of which each tensor fits, and that are still none of OpenAI's kind."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError
from encoders.openai import CLIP
from tests.golden_recipes import make_cfg, model_state_dict
from trainers.clip_trainer import load_clip


def load(path: Path) -> CLIP:
    return load_clip(make_cfg("vit_a", {"MODEL.BACKBONE.PATH": str(path)}), "fp32")


W = model_state_dict("vit_a")
PROJ = W["visual.proj"]
UNLIKE = {
    "whole numbers": ({k: v.int() for k, v in W.items()}, "as int32; weights are floating-point"),
    "a whole tensor": (W | {"visual.proj": (PROJ * 99).long()}, "visual.proj as int64"),
    "truth": (W | {"visual.proj": PROJ > 0}, "visual.proj as bool"),
    "complex": (W | {"visual.proj": PROJ.to(torch.complex64)}, "visual.proj as complex64"),
    "infinity": (W | {"visual.proj": PROJ / 0}, "infinite numbers in visual.proj"),
    "beyond float32": (W | {"ln_final.bias": W["ln_final.bias"].double() + 1e300}, "infinite numb"),
    "another tokenizer": (
        W | {"token_embedding.weight": W["token_embedding.weight"][:1000]},
        "for 1,000 tokens, and OpenAI's tokenizer has 49,408",
    ),
    "a token more": (
        W | {"token_embedding.weight": torch.zeros(49409, 64)},
        "for 49,409 tokens",
    ),
    "a scale, not its logarithm": (
        W | {"logit_scale": torch.tensor(100.0)},
        "logit_scale 100; exp",
    ),
    "a temperature": (
        W | {"logit_scale": torch.tensor(-4.6)},
        "logit_scale -4.6; expected the log",
    ),
    "many scales": (W | {"logit_scale": torch.ones(3)}, "logit_scale 3 numbers"),
    "a number": (W | {"logit_scale": 4.6}, "its logit_scale is of type float"),
    "text": (W | {"name": "CLIP"}, "its name is of type str"),
    "no scale": ({k: v for k, v in W.items() if k != "logit_scale"}, "lacks logit_scale. It holds"),
    "both names": (
        W | {f"module.{k}": v * 2 for k, v in W.items()},
        "both with and without 'modul",
    ),
    "wrapped": ({"model": W}, r"lacks visual.conv1.weight. It holds model\."),
    "prefix": ({f"clip.{k}": v for k, v in W.items()}, r"It holds clip\..* more"),
    "nested": (W | {"visual.proj": torch.nested.nested_tensor([PROJ[0]])}, "claims more numbers"),
    "quantized": (
        W | {"visual.proj": torch.quantize_per_tensor(PROJ, 0.1, 0, torch.qint8)},
        "claims more numbers",
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_tensors_that_would_mean_something_else(tmp_path, name):
    content, message = UNLIKE[name]
    torch.save(content, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "clip.pt")
    assert len(str(caught.value)) < 500


OTHERS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n": "a pointer of Git LFS",
    b"\n<!DOCTYPE html><html>404</html>": "a web page, so its download failed",
    b"\x10\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}': "a safetensors file",
    b"hello, I am a text": "another kind of file",
    b"": "it is empty",
}


@pytest.mark.parametrize("content", OTHERS)
def test_files_of_other_kinds_are_named(tmp_path, content):
    (tmp_path / "clip.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"damaged or no checkpoint: .*{OTHERS[content]}"):
        load(tmp_path / "clip.pt")


@pytest.mark.parametrize("packed", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("kind", ["script", "checkpoint", "sealed checkpoint"])
def test_a_member_that_is_larger_than_it_says(tmp_path, packed, kind):
    """Some hundred bytes whose table of contents says 100, and which unpack to much more."""
    size, path = 64 << 20, tmp_path / "clip.pt"
    names = ["a/data.pkl", *(["a/constants.pkl", "a/byteorder"] if kind == "script" else [])]
    with zipfile.ZipFile(path, "w", packed) as file:
        for name in names:
            file.writestr(name, bytes(size if name == names[-1] else 0))
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2")
    content[start + 24 : start + 28] = struct.pack("<I", 100)
    if kind == "sealed checkpoint":
        content[-2:] = struct.pack("<H", 71)
        content += b"sha256:" + hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"packed|CRC"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4


def test_zip_files_that_the_reader_does_not_know(tmp_path):
    """Encrypted members, or a table of contents of several disks: `zipfile` raises other errors."""
    path = tmp_path / "clip.pt"
    torch.save({"epoch": 3}, path)
    content = path.read_bytes()
    encrypted, disks = bytearray(content), bytearray(content)
    for start in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        encrypted[start] |= 1
    end = content.rindex(b"PK\5\6")
    locator = struct.pack("<4sLQL", b"PK\6\7", 1, 0, 2)
    disks[end:end] = locator
    for spoilt in (encrypted, disks):
        path.write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=r"clip\.pt is damaged"):
            load(path)
