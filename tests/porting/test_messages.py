"""What somebody else's file lacks is supplied, or said in a line; what precision a record has."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dassl.engine.others import complete_templates
from dassl.utils import ConfigError
from dassl.utils.plugins import lines_for_a_gpu
from dassl.utils.without_gpu import keep_on_the_cpu
from tests.porting.conftest import FEW, FILES, record
from tests.runs import run

HEAD = (FILES / "mini_head.py").read_text("utf-8")
LINE = "        cfg = self.cfg\n"


def changed(line: str) -> str:
    assert LINE in HEAD
    return HEAD.replace(LINE, f"{LINE}        {line}\n")


def trained(
    foreign, digits: Path, out: Path, text: str, *opts: str, name: str = "MiniHead"
) -> None:
    foreign("changed", changed=text)
    common = {"trainer": name, "dataset": "digits", "recipe": "tiny"}
    run(digits, out, *FEW, *opts, epoch=1, **common)


MISSING = {
    "a = {'ImageNet': 1}[cfg.DATASET.NAME]": (
        r"changed.py, line 15, `a = .*`: nothing is there for the data set 'Digits'"
    ),
    "b = cfg.OPTIM.NEW_LR": r"changed.py, line 15, `b = cfg.OPTIM.NEW_LR`: .*no setting NEW_LR",
    "c = cfg.TRAINER.UNHEARD.OF": r"`c = cfg.TRAINER.UNHEARD.OF`: there is no setting UNHEARD;",
    "cfg.OPTIM.LR = 1.0": r"line 15, `cfg.OPTIM.LR = 1.0`: settings are frozen .*cfg.defrost\(\)",
    "d = open('texts/digits.json')": (
        r"changed.py, line 15, `d = open.*`: texts/digits.json is not there: bring it along"
    ),
}


@pytest.mark.parametrize("line", MISSING)
def test_missing_name(foreign, digits: Path, tmp_path: Path, line: str):
    with pytest.raises(ConfigError, match=MISSING[line]):
        trained(foreign, digits, tmp_path / "out", changed(line))


@pytest.mark.parametrize("line", ["{}['another']", "self.not_there"])
def test_other_faults_are_left_as_they_are(foreign, digits: Path, tmp_path: Path, line: str):
    with pytest.raises((KeyError, AttributeError), match=r"another|not_there"):
        trained(foreign, digits, tmp_path / "out", changed(line))


def test_a_gpu_that_is_not_there(foreign, digits: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = f"import torch\nfrom beside import moved\n{changed('moved(torch.zeros(1).cuda())')}"
    (tmp_path / "beside.py").write_text("def moved(x):\n    return x.cuda()\n")
    trained(foreign, digits, tmp_path / "out", text)
    said = capsys.readouterr().out
    assert "changed.py asks for a GPU in line 17, and this run has none: what it puts there" in said
    assert "beside.py asks for a GPU in line 2," in said
    with torch.device("meta"):
        assert torch.zeros(1).is_meta, "other modes go on"


@pytest.mark.parametrize("cuda", ["cuda", "cuda:1", torch.device("cuda:0")])
def test_what_is_put_on_a_gpu_that_is_not_there(cuda: str | torch.device):
    layer = nn.Linear(2, 2)
    keep_on_the_cpu(True)
    try:
        placed = [
            *(torch.zeros(1).cuda(), torch.zeros(1).to(cuda), torch.zeros(1).to(device=cuda)),
            *(torch.zeros(1, device=cuda), torch.tensor([1.0], device=cuda)),
            *(torch.zeros(1).to(cuda, torch.float16), torch.zeros(1).new_ones(1, device=cuda)),
            *(layer.cuda().weight, layer.to(cuda).weight, layer.to(device=cuda).bias),
        ]
    finally:
        keep_on_the_cpu(False)
    assert {tensor.device.type for tensor in placed} == {"cpu"}
    assert placed[5].dtype == torch.float16
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(1).cuda()


def test_what_a_gpu_that_is_not_there_is_asked_for(tmp_path: Path):
    path, load, synchronize = tmp_path / "x.pt", torch.load, torch.cuda.synchronize
    torch.save(torch.ones(2), path)
    keep_on_the_cpu(True)
    try:
        torch.cuda.set_device(0)
        with torch.cuda.device(torch.cuda.current_device()):
            loaded = torch.load(path, map_location="cuda")
            assert torch.equal(torch.load(path, "cuda:0"), torch.load(path))
            torch.cuda.synchronize()
        assert torch.cuda.get_device_name(0) == "the CPU"
        placed = loaded.to(0), loaded.to(loaded.get_device()), loaded.to(torch.float64)
        assert all(x.device.type == "cpu" for x in placed) and placed[2].dtype == torch.float64
    finally:
        keep_on_the_cpu(False)
    assert torch.load is load and torch.cuda.synchronize is synchronize


def test_a_module_that_was_to_be_spread_over_gpus():
    """As nn.DataParallel makes it beside a GPU that the run does not use."""
    spread = torch.nn.DataParallel(torch.nn.Linear(3, 2))
    keep_on_the_cpu(True)
    try:
        for _ in range(2):
            spread.device_ids, spread.src_device_obj = [0], torch.device("cuda:0")
            assert torch.equal(spread(torch.ones(1, 3)), spread.module(torch.ones(1, 3)))
    finally:
        keep_on_the_cpu(False)
    spread.device_ids = [0]
    with pytest.raises(RuntimeError, match="on device"):
        spread(torch.ones(1, 3))


def test_half_precision_on_a_cpu():
    """Products are summed in float32; what does not fit together still does not."""
    x, weight = (torch.randn(3, 8, generator=torch.manual_seed(i)).half() for i in (0, 1))
    attention, tokens = nn.MultiheadAttention(8, 2).half().eval(), torch.randn(4, 2, 8).half()
    with torch.no_grad():
        exact = x.float() @ weight.float().T
        before = attention(tokens, tokens, tokens)
        keep_on_the_cpu(True)
        try:
            after = attention(tokens, tokens, tokens)
            found = F.linear(x, weight), x @ weight.T, torch.matmul(x, weight.mT), x.mm(weight.T)
            with pytest.raises(RuntimeError, match="dtype"):
                x @ weight.T.float()
        finally:
            keep_on_the_cpu(False)
    assert all(torch.equal(product, exact.half()) for product in found)
    for one, other in zip(before, after):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


TABLES = """
WORDS = {'ImageNet': 'a {}', 'EuroSAT': 'the {}'}
FOLDERS, ANIMALS, NONE = {'ImageNet': 'imagenet'}, {'cat': 'a {}'}, {}
"""


def test_templates_without_the_data_set(foreign, digits: Path, tmp_path: Path, capsys):
    line = "assert WORDS[cfg.DATASET.NAME] == 'a photo of a {}.'"
    trained(foreign, digits, tmp_path / "out", changed(line) + TABLES)
    said = capsys.readouterr().out
    assert "WORDS of " in said and "'Digits'; its own template is taken, 'a photo of a {}.'" in said
    theirs = sys.modules["trainers.changed"]
    assert not any("Digits" in table for table in (theirs.FOLDERS, theirs.ANIMALS, theirs.NONE))
    for name, template in (("Digits", "a {} of mine"), ("EuroSAT", "not this {}")):
        other = theirs.MiniHead.__new__(theirs.MiniHead)
        other.dm = SimpleNamespace(dataset=SimpleNamespace(template=template))
        complete_templates(other, name)
    assert theirs.WORDS == {"ImageNet": "a {}", "EuroSAT": "the {}", "Digits": "a {} of mine"}


def test_lines_that_ask_for_a_gpu(tmp_path: Path):
    path = tmp_path / "x.py"
    lines = [
        "a.cuda()",
        "b.to('cuda:0')",
        "c(device='cuda')",
        "d.to(device)",
        "g = torch.device('cuda:0')",
        "e = 'cuda'",
        "f.cpu()",
        "torch.cuda.is_available(), 'cuda'",
        "torch.cuda.synchronize()",
        "torch.load(f, map_location='cuda')",
    ]
    path.write_text("\n".join(lines))
    assert lines_for_a_gpu(path) == [1, 2, 3, 5, 9, 10]


@pytest.mark.parametrize("precision", ["fp16", "fp32", "amp"])
def test_recorded_precision_is_what_ran(
    foreign, digits: Path, tmp_path: Path, capsys, precision: str
):
    foreign("mini_coop")
    common = {"trainer": "MiniCoOp", "dataset": "digits", "recipe": "tiny"}
    run(
        digits,
        tmp_path,
        *FEW,
        "TRAINER.MINI.PREC",
        precision,
        "USE_CUDA",
        "False",
        epoch=1,
        **common,
    )
    said = capsys.readouterr().out
    assert ("MiniCoOp is in half precision, on a CPU: " in said) == (precision == "fp16")
    ran = "fp32" if precision == "amp" and not torch.cuda.is_available() else precision
    assert record(tmp_path)["precision"] == ran


def test_a_weights_file_that_it_would_not_read(foreign, digits: Path, tmp_path: Path):
    foreign("mini_coop")
    with pytest.raises(ConfigError, match=r"which MiniCoOp does not read; .*--backbone\)"):
        run(digits, tmp_path, *FEW, backbone_path=str(FILES / "train.py"), trainer="MiniCoOp",
            dataset="digits", recipe="tiny")  # fmt: skip
