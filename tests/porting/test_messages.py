"""What somebody else's file lacks is said in a line; the record says in what a run computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dassl.utils import ConfigError
from dassl.utils.plugins import lines_for_a_gpu
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
    text = f"import torch\nfrom beside import moved\n{changed('torch.zeros(1).cuda()')}"
    (tmp_path / "beside.py").write_text("def moved(x):\n    return x.cuda()\n")
    with pytest.raises((AssertionError, RuntimeError)):
        trained(foreign, digits, tmp_path / "out", text)
    said = capsys.readouterr().out
    assert "changed.py asks for a GPU in line 17, and this run has none: it will fail there" in said
    assert "beside.py asks for a GPU in line 2," in said


def test_lines_that_ask_for_a_gpu(tmp_path: Path):
    path = tmp_path / "x.py"
    lines = [
        "a.cuda()",
        "b.to('cuda:0')",
        "c(device='cuda')",
        "d.to(device)",
        "e = 'cuda'",
        "f.cpu()",
    ]
    path.write_text("\n".join(lines))
    assert lines_for_a_gpu(path) == [1, 2, 3]


@pytest.mark.parametrize("precision", ["fp16", "fp32", "amp"])
def test_recorded_precision_is_what_ran(foreign, digits: Path, tmp_path: Path, precision: str):
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
    ran = "fp32" if precision == "amp" and not torch.cuda.is_available() else precision
    assert record(tmp_path)["precision"] == ran


def test_a_weights_file_that_it_would_not_read(foreign, digits: Path, tmp_path: Path):
    foreign("mini_coop")
    with pytest.raises(ConfigError, match=r"which MiniCoOp does not read; .*--backbone\)"):
        run(digits, tmp_path, *FEW, backbone_path=str(FILES / "train.py"), trainer="MiniCoOp",
            dataset="digits", recipe="tiny")  # fmt: skip
