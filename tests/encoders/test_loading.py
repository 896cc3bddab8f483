"""Weights files of every kind, good and bad, and the download by name from a local server."""

from __future__ import annotations

import copy
import hashlib
import http.server
import io
import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import dassl.utils.download
from dassl.utils import CheckpointError, ConfigError
from dassl.utils.download import DownloadError
from encoders import openai
from encoders.openai import CLIP
from encoders.tokens import tokenize
from tests.golden_recipes import CreatesFile, golden_clip, images, make_cfg, model_state_dict
from trainers.clip_trainer import load_clip, load_clip_to_cpu

TOKENS = tokenize(["a photo of a cat.", "a photo of a snow leopard."])
EXTRA = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}  # in OpenAI's archives
NAME = "ViT-B/32"  # what the local server pretends to offer


def load(path: Path, precision: str = "fp32") -> CLIP:
    return load_clip(make_cfg("vit_a", {"MODEL.BACKBONE.PATH": str(path)}), precision)


def check_same_features(model: CLIP, other: CLIP) -> None:
    with torch.no_grad():
        batch = images(2, 32, 1)
        assert torch.equal(model.encode_image(batch), other.encode_image(batch))
        assert torch.equal(model.encode_text(TOKENS), other.encode_text(TOKENS))


@cache
def finer_weights() -> dict[str, Tensor]:
    """Golden weights, moved by less than float16 can tell."""
    return {key: value * 1.0001 for key, value in model_state_dict("vit_a").items()}


@cache
def finer_clip() -> CLIP:
    """The model of these weights, made without our loading code."""
    model = copy.deepcopy(golden_clip("vit_a"))
    model.load_state_dict(finer_weights())
    return model


def save_jit(path: Path) -> Path:
    """Writes an archive like OpenAI's: a traced CLIP with three extra numbers in its state dict."""
    model = copy.deepcopy(finer_clip())
    for name, value in EXTRA.items():
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch announces the end of TorchScript
        torch.jit.save(torch.jit.trace(model, (images(2, 32, 0), TOKENS)), str(path))
    return path


# --- good files -----------------------------------------------------------------------------------

WRAPPINGS: dict[str, Callable[[dict], Any]] = {
    "bare": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "module": lambda weights: {f"module.{key}": value for key, value in weights.items()},
    "both": lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
    "extra numbers": lambda weights: weights | {k: torch.tensor(v) for k, v in EXTRA.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_state_dict_file(tmp_path, wrapping):
    path = tmp_path / "clip.pt"
    torch.save(WRAPPINGS[wrapping](finer_weights()), path)
    check_same_features(load(path), finer_clip())


def test_jit_archive(tmp_path):
    check_same_features(load(save_jit(tmp_path / "ViT.pt")), finer_clip())


def test_float32_keeps_what_float16_cannot_hold(tmp_path):
    weights = finer_weights()
    key = "visual.conv1.weight"
    assert not torch.equal(weights[key], weights[key].half().float())
    model = load(save_jit(tmp_path / "ViT.pt"))
    loaded = model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in weights.items())
    assert not model.training


def test_half_precision_as_in_the_public_implementation(tmp_path):
    """Norms, embeddings and the logit scale stay float32."""
    path = tmp_path / "clip.pt"
    torch.save(finer_weights(), path)
    cfg = make_cfg("vit_a", {"MODEL.BACKBONE.PATH": str(path)})
    for model in (load_clip(cfg, "fp16"), load_clip_to_cpu(cfg)):
        dtypes = {key: value.dtype for key, value in model.state_dict().items()}
        halves = ("visual.conv1.weight", "visual.proj", "text_projection")
        floats = ("token_embedding.weight", "positional_embedding", "ln_final.weight")
        assert {dtypes[key] for key in halves} == {torch.float16}
        assert {dtypes[key] for key in (*floats, "logit_scale")} == {torch.float32}


# --- bad files ------------------------------------------------------------------------------------


def without(key: str) -> dict[str, Tensor]:
    return {k: v for k, v in finer_weights().items() if k != key}


WRONG_CONTENT: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2],
    "tensor": lambda: torch.ones(3),
    "other weights": lambda: {"conv1.weight": torch.ones(3)},
    "wrapped list": lambda: {"state_dict": [1, 2]},
    "number for tensor": lambda: {**finer_weights(), "visual.conv1.weight": 3},
    "missing norm": lambda: without("ln_final.weight"),
    "missing layer": lambda: without("visual.transformer.resblocks.0.ln_1.weight"),
    "one more layer": lambda: {**finer_weights(), "adapter.weight": torch.ones(3)},
    "other width": lambda: {**finer_weights(), "ln_final.weight": torch.ones(32)},
    "other rank": lambda: {**finer_weights(), "text_projection": torch.ones(64)},
}


@pytest.mark.parametrize("content", WRONG_CONTENT)
def test_wrong_content(tmp_path, content):
    path = tmp_path / "clip.pt"
    torch.save(WRONG_CONTENT[content](), path)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["cut", "start", "directory"])
@pytest.mark.parametrize("kind", ["jit", "state dict"])
def test_damaged_file(tmp_path, kind, where):
    path = tmp_path / "clip.pt"
    if kind == "jit":
        save_jit(path)
    else:
        torch.save(finer_weights(), path)
    content = bytearray(path.read_bytes())
    if where == "cut":
        del content[len(content) // 2 :]
    elif where == "start":
        content[:5000] = bytes(5000)
    else:  # the last entry of the table at the end of the archive
        entry = content.rfind(b"PK\x01\x02")
        content[entry : entry + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


def test_code_in_a_pickle_is_not_run(tmp_path):
    path, trace = tmp_path / "clip.pt", tmp_path / "executed"
    path.write_bytes(pickle.dumps(CreatesFile(trace), protocol=2))
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)
    torch.save({"state_dict": CreatesFile(trace)}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        load(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", ["", "<html>404: not found</html>\n" * 40])
def test_text_file(tmp_path, content):
    path = tmp_path / "clip.pt"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


# --- wrong settings -------------------------------------------------------------------------------


def test_unknown_name():
    cfg = make_cfg("vit_a", {"MODEL.BACKBONE.PATH": "", "MODEL.BACKBONE.NAME": "ViTB/16"})
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE.NAME is 'ViTB/16'.*mean 'ViT-B/16'\?"):
        load_clip(cfg, "fp32")


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE.PATH.*none\.pt"):
        load(tmp_path / "none.pt")


@pytest.mark.parametrize("size", [(224, 224), (32, 224)])
def test_image_size_that_does_not_fit(size):
    with pytest.raises(ConfigError, match=r'INPUT.SIZE is .*224.*add INPUT.SIZE "\(32, 32\)"'):
        load_clip(make_cfg("vit_a", {"INPUT.SIZE": size}), "fp32")


# --- download by name -----------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`, or the part of it that is asked for."""

    def do_GET(self) -> None:
        content, wanted = self.server.content, self.headers.get("Range")
        self.server.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[http.server.HTTPServer]:
    """Offers a CLIP archive in place of OpenAI's; `requests` are the Range headers it got."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.content = save_jit(tmp_path / "offered.pt").read_bytes()
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dassl.utils.download, "PAUSE", 0.0, raising=False)
    set_address(monkeypatch, server.server_port, hashlib.sha256(server.content).hexdigest())
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def set_address(monkeypatch: pytest.MonkeyPatch, port: int, sha256: str) -> None:
    url = f"http://127.0.0.1:{port}/{sha256}/ViT-B-32.pt"
    monkeypatch.setitem(openai.MODEL_URLS, NAME, url)


def load_by_name() -> CLIP:
    cfg = make_cfg("vit_a", {"MODEL.BACKBONE.PATH": "", "MODEL.BACKBONE.NAME": NAME})
    return load_clip(cfg, "fp32")


@pytest.mark.slow
def test_fetched_once(server, tmp_path):
    for _ in range(2):
        check_same_features(load_by_name(), finer_clip())
    assert server.requests == [None]
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["ViT-B-32.pt"]


@pytest.mark.slow
def test_interrupted_download_goes_on(server, tmp_path):
    part = tmp_path / "cache" / "ViT-B-32.pt.part"
    part.parent.mkdir()
    part.write_bytes(server.content[:70_000])
    check_same_features(load_by_name(), finer_clip())
    assert server.requests == ["bytes=70000-"]
    assert not part.exists()


@pytest.mark.slow
def test_spoilt_part_is_fetched_anew(server, tmp_path):
    part = tmp_path / "cache" / "ViT-B-32.pt.part"
    part.parent.mkdir()
    part.write_bytes(bytes(1000))
    check_same_features(load_by_name(), finer_clip())
    assert server.requests == ["bytes=1000-", None]


def test_wrong_checksum(server, tmp_path, monkeypatch):
    set_address(monkeypatch, server.server_port, "0" * 64)
    with pytest.raises(DownloadError, match=r"SHA-?256(.|\n)*--backbone-path"):
        load_by_name()
    assert not (tmp_path / "cache" / "ViT-B-32.pt").exists()


@pytest.mark.slow
def test_damaged_file_in_the_cache_is_fetched_anew(server, tmp_path):
    path = tmp_path / "cache" / "ViT-B-32.pt"
    path.parent.mkdir()
    path.write_bytes(server.content[:-100])
    check_same_features(load_by_name(), finer_clip())
    assert path.read_bytes() == server.content


def test_unreachable_address(server, tmp_path, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    set_address(monkeypatch, port, "0" * 64)
    with pytest.raises(DownloadError, match=r"cannot be fetched(.|\n)*--backbone-path"):
        load_by_name()
    assert not (tmp_path / "cache" / "ViT-B-32.pt").exists()


# --- sizes that nobody stored ---------------------------------------------------------------------


def shaped(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Golden weights with other shapes; `__` stands for a dot."""
    changed = {key.replace("__", "."): torch.zeros(shape) for key, shape in shapes.items()}
    return {**finer_weights(), **changed}


HUGE: dict[str, Callable[[], Any]] = {
    "expanded": lambda: {
        **finer_weights(),
        "token_embedding.weight": torch.zeros(1).expand(10**12, 64),
    },
    "sparse": lambda: {
        **finer_weights(),
        "text_projection": torch.sparse_coo_tensor(torch.zeros(2, 0), [], (10**6, 10**6)),
    },
    "width of the text tower": lambda: shaped(ln_final__weight=(50_000,)),
    "width of the image tower": lambda: shaped(visual__conv1__weight=(50_000, 1, 1, 1)),
    "length of the context": lambda: shaped(positional_embedding=(300_000, 1)),
    "words": lambda: shaped(token_embedding__weight=(10_000_000, 1)),
    "size of the embedding": lambda: shaped(text_projection=(1, 10_000_000)),
    "patches": lambda: shaped(visual__positional_embedding=(10_000_000, 1)),
    "no width": lambda: shaped(ln_final__weight=(0,)),
    "no patches": lambda: shaped(visual__positional_embedding=(0, 64)),
    "no axes": lambda: shaped(visual__conv1__weight=()),
    "many layers": lambda: {
        **finer_weights(),
        **{f"transformer.resblocks.{i}.x": torch.zeros(0) for i in range(1000)},
    },
    "layer without a number": lambda: {**finer_weights(), "transformer.resblocks": torch.ones(1)},
    "number for a name": lambda: {**finer_weights(), 3: torch.ones(1)},
    "nested": lambda: {**finer_weights(), "visual.proj": {"a": torch.ones(1)}},
}


@pytest.mark.parametrize("content", HUGE)
def test_sizes_that_nobody_stored(tmp_path, content):
    """Small files whose shapes would ask for up to terabytes."""
    path = tmp_path / "clip.pt"
    torch.save(HUGE[content](), path)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


@pytest.mark.slow
def test_a_state_dict_in_a_compressed_zip_file(tmp_path):
    """A megabyte that would become a gigabyte: torch unpacks what it never packs."""
    plain, path = tmp_path / "plain.pt", tmp_path / "clip.pt"
    torch.save({"visual.conv1.weight": torch.zeros(1 << 26)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(CheckpointError, match=r"would become many more|members are packed"):
        load(path)


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_weights_file(tmp_path, data):
    path = tmp_path / "clip.pt"
    content = bytearray(_small_file(data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


@cache
def _small_file(zipped: bool) -> bytes:
    out = io.BytesIO()
    weights = {"ctx": torch.ones(3), "b": torch.ones(2, 2).half()}
    torch.save({"state_dict": weights}, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()
