"""TorchScript archives are read exactly, and whatever they hold, nothing of it is run."""

from __future__ import annotations

import copy
import io
import os
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dassl.utils import CheckpointError
from encoders import jit_archive
from encoders.jit_archive import is_jit_archive, read_jit_archive
from encoders.openai import build, read_weights
from tests.encoders.test_loading import EXTRA, TOKENS, save_jit
from tests.golden_recipes import golden_clip, images, model_state_dict

WITHIN = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def save_script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch announces the end of TorchScript
        torch.jit.save(torch.jit.script(module), str(path))
    return path


def state_dict_by_torch(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(torch.jit.load(str(path)).state_dict())


class Shell(nn.Module):
    """Only names and tensors: OpenAI's own classes can be traced, but not scripted."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def shell_of(module: nn.Module) -> Shell:
    shell = Shell()
    for name, value in module.named_parameters(recurse=False):
        shell.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
    for name, value in module.named_buffers(recurse=False):
        shell.register_buffer(name, value)
    for name, child in module.named_children():
        shell.add_module(name, shell_of(child))
    return shell


def clip(arch: str, dtype: torch.dtype) -> nn.Module:
    model = copy.deepcopy(golden_clip(arch)).to(dtype)
    for name, value in EXTRA.items():
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    return model


def check_equal(path: Path) -> None:
    ours, theirs = read_jit_archive(path), state_dict_by_torch(path)
    assert list(ours) == list(theirs) and len(ours) > 0
    for key, value in theirs.items():
        assert torch.equal(ours[key], value)
        assert ours[key].dtype == value.dtype and ours[key].stride() == value.stride()


# --- equality -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("arch", ["vit_a", "rn_a"])
def test_scripted_clip(tmp_path, arch, dtype):
    """Residual networks bring the buffers of batch norms."""
    path = save_script(shell_of(clip(arch, dtype)), tmp_path / "clip.pt")
    check_equal(path)
    model = build(read_weights(path), path)
    expected = model_state_dict(arch)
    assert model.state_dict().keys() == expected.keys()


def test_traced_clip(tmp_path):
    check_equal(save_jit(tmp_path / "clip.pt"))


def test_traced_clip_in_half_precision(tmp_path):
    """As OpenAI's archives were made: half precision, and read where there is no GPU."""
    model = build(dict(model_state_dict("vit_a")), tmp_path)
    try:
        traced = torch.jit.trace(model, (images(2, 32, 0).half(), TOKENS))
    except RuntimeError:
        pytest.skip("this torch cannot run half precision on a CPU")
    torch.jit.save(traced, str(tmp_path / "clip.pt"))
    check_equal(tmp_path / "clip.pt")
    assert read_jit_archive(tmp_path / "clip.pt")["visual.proj"].dtype == torch.float16


class Everything(nn.Module):
    """Attributes of every kind, of which a state dict holds only some."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).view(3, 4))
        self.plain = torch.ones(2)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.ones(1), persistent=False)
        self.register_buffer("none", None)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 5))
        self.register_buffer("scalar", torch.tensor(7, dtype=torch.int8))
        self.maybe = torch.jit.Attribute(torch.ones(3), Optional[Tensor])  # noqa: UP045
        self.listed = [torch.ones(1)]
        self.named = {"a": torch.ones(1)}
        self.number, self.text, self.pair = 3, "text", (1, 2.5)
        self.turned = nn.Parameter(torch.arange(6.0).view(2, 3).t())
        self.slice = nn.Parameter(torch.arange(20.0).view(4, 5)[1:3, 2:])
        if tied:
            self.tied = self.weight
        self.one = nn.Linear(2, 2, bias=False)
        if tied:
            self.same = self.one
        self.layers = nn.ModuleList([nn.Linear(1, 1), nn.BatchNorm1d(2)])
        self.steps = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        self.by_name = nn.ModuleDict({"a": nn.Linear(1, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x) + self.plain.sum()


@pytest.mark.parametrize("trace", [False, True])
def test_other_modules(tmp_path, trace):
    path = tmp_path / "module.pt"
    if trace:
        torch.jit.save(torch.jit.trace(Everything(tied=False), torch.ones(1, 2)), str(path))
    else:
        save_script(Everything(), path)
    check_equal(path)


# --- code -----------------------------------------------------------------------------------------


class WritesFile(nn.Module):
    """Its script writes a file when it is loaded."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.weight = nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.target, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.target = state[0]
        self.weight = state[1]
        self.training = state[2]
        torch.save(state[1], state[0])

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_script_that_writes_a_file_is_not_run(tmp_path):
    """The whole CLIP is there, and a part more whose loading writes a file."""
    target, path = tmp_path / "written", tmp_path / "clip.pt"
    evil = shell_of(clip("vit_a", torch.float32))
    evil.add_module("adapter", WritesFile(str(target)))
    save_script(evil, path)
    torch.jit.load(str(path))
    assert target.exists(), "the attack does not work: this test shows nothing"
    target.unlink()
    weights = read_weights(path)
    assert not target.exists()
    assert torch.equal(weights["text_projection"], model_state_dict("vit_a")["text_projection"])


class Calls:
    def __init__(self, function: Callable, *args: Any) -> None:
        self.how = (function, args)

    def __reduce__(self) -> tuple:
        return self.how


def repacked(source: Path, target: Path, **members: bytes) -> Path:
    """Copies an archive with other contents; names are given without folder, `_` for `.` or `/`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            short = info.filename.partition("/")[2].replace(".", "_").replace("/", "_")
            new.writestr(info.filename, members.get(short, old.read(info)))
    return target


def test_calls_in_a_pickle_are_not_run(tmp_path):
    target = tmp_path / "executed"
    good = save_script(Shell(), tmp_path / "good.pt")
    for protocol in range(5):
        for call in (
            Calls(os.system, f"touch {target}"),
            Calls(os.mkdir, str(target)),
            Calls(eval, f"open({str(target)!r}, 'w')"),
            Calls(exec, f"open({str(target)!r}, 'w')"),
            Calls(io.open, str(target), "w"),
        ):
            evil = pickle.dumps(call, protocol=protocol)
            path = repacked(good, tmp_path / "evil.pt", data_pkl=evil, constants_pkl=evil)
            with pytest.raises(CheckpointError, match=r"evil\.pt"):
                read_weights(path)
    assert not target.exists()


# --- damage, and what would fill memory -----------------------------------------------------------


def bombs(good: Path, folder: Path) -> dict[str, Path]:
    with zipfile.ZipFile(good) as file:
        data = file.read("good/data.pkl")
    deep = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."  # a key: a tuple in a tuple in ...
    references = b"".join(b"h%c" % i + b"h%c" % i + b"\x86q%c" % (i + 1) for i in range(200))
    huge = b"x" * (jit_archive.MAX_PICKLE + 1)
    made = {
        "deep key": {"data_pkl": deep},
        "doubling": {"data_pkl": b"\x80\x02)q\0" + references + b"."},
        "large memo": {"data_pkl": b"\x80\x02Nr\xff\xff\xff\x7f."},
        "long text": {"data_pkl": b"\x80\x02X\xff\xff\xff\x7fabc."},
        "long number": {"data_pkl": b"\x80\x02I" + b"9" * 5000 + b"\n."},
        "no end": {"data_pkl": data[:-1]},
        "empty": {"data_pkl": b""},
        "huge pickle": {"data_pkl": huge},
        "no class": {"code___torch___tests_encoders_test_jit_archive_py": b"class X:\n"},
        "binary code": {"code___torch___tests_encoders_test_jit_archive_py": b"\xff\xfe"},
        "byte order": {"byteorder": b"big"},
    }
    return {
        name: repacked(good, folder / f"{name.replace(' ', '-')}.pt", **members)
        for name, members in made.items()
    }


@pytest.mark.slow
def test_bombs(tmp_path):
    good = save_script(Shell(), tmp_path / "good.pt")
    for name, path in bombs(good, tmp_path).items():
        start = time.monotonic()
        with pytest.raises(CheckpointError, match=path.name):
            read_weights(path)
        assert time.monotonic() - start < 20, name


def module_pickle(*layers: int) -> bytes:
    """Builds a module whose submodules are used again and again: a few bytes, 2**n modules."""
    shell = b"c__torch__\nShell\n)\x81}"
    out = b"\x80\x02" + shell + b"bq\0"
    for i in range(*layers):
        out += shell + b"(X\1\0\0\0ah%cX\1\0\0\0bh%cub" % (i, i) + b"q%c" % (i + 1)
    return out + b"."


@pytest.mark.parametrize("depth", [25, 100])
def test_modules_used_again_and_again(tmp_path, depth):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", module_pickle(depth))
        file.writestr("a/constants.pkl", b"")
        code = "class Shell(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        file.writestr("a/code/__torch__.py", code)
    with pytest.raises(CheckpointError, match="more modules than any CLIP"):
        read_weights(path)


def test_tensors_larger_than_their_storage(tmp_path):
    """A stride of 0 lets four bytes pass for any number of them."""
    module = nn.Linear(3, 2, bias=False)
    good = save_script(module, tmp_path / "good.pt")
    with zipfile.ZipFile(good) as file:
        data = file.read("good/data.pkl")
    size = b"K\x02K\x03"
    assert data.count(size) == 1
    for other in (b"J\xff\xff\xff\x7fK\x03", b"K\x03K\x03", b"J\xff\xff\xff\xffK\x03"):
        path = repacked(good, tmp_path / "bad.pt", data_pkl=data.replace(size, other))
        with pytest.raises(CheckpointError, match=r"bad\.pt is a damaged JIT archive"):
            read_jit_archive(path)


def test_compressed_members_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(jit_archive, "MAX_CODE", 1 << 20)
    good, path = save_script(Shell(), tmp_path / "good.pt"), tmp_path / "bomb.pt"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
        new.writestr("good/data/0", bytes(10 << 20))
    with pytest.raises(CheckpointError, match="would unpack to more"):
        read_weights(path)


def test_two_members_of_one_name(tmp_path):
    path = repacked(save_script(Shell(), tmp_path / "good.pt"), tmp_path / "twice.pt")
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("good/data.pkl", b"N.")
    with pytest.raises(CheckpointError, match="two members have one name"):
        read_weights(path)


def test_every_flipped_byte_of_a_tensor_is_noticed(tmp_path):
    path = save_jit(tmp_path / "clip.pt")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        info = max(file.infolist(), key=lambda info: info.file_size)
    for k in range(7):
        damaged = bytearray(content)
        damaged[info.header_offset + 300 + k * (info.file_size // 8)] ^= 1 << k
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="CRC"):
            read_weights(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    return save_script(Everything(), tmp_path_factory.mktemp("jit") / "good.pt").read_bytes()


def read_or_our_error(path: Path) -> None:
    try:
        if is_jit_archive(path):
            read_jit_archive(path)
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1


@WITHIN
@given(data=st.data())
def test_mutated_archives(tmp_path, archive, data):
    content = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.pt"
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    read_or_our_error(path)


@WITHIN
@given(data=st.data())
def test_mutated_pickles(tmp_path, archive, data):
    """Behind the checksum: what somebody made on purpose."""
    good = tmp_path / "good.pt"
    good.write_bytes(archive)
    with zipfile.ZipFile(good) as file:
        content = bytearray(file.read("good/data.pkl"))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_or_our_error(repacked(good, tmp_path / "fuzz.pt", data_pkl=bytes(content)))


@WITHIN
@given(st.binary(max_size=200))
def test_arbitrary_pickles(tmp_path, archive, content):
    good = tmp_path / "good.pt"
    good.write_bytes(archive)
    read_or_our_error(repacked(good, tmp_path / "fuzz.pt", data_pkl=b"\x80\x02" + content))
