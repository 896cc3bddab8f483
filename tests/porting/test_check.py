"""`python -m trainers check FILE`: what a file needs, and whether it runs, on a page."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from dassl.utils import MissingFileError
from dassl.utils.cli import run_cli
from tests.porting.conftest import FILES
from trainers.__main__ import main, show_check

HEAD = (FILES / "mini_head.py").read_text("utf-8")


@pytest.fixture
def page(foreign, tmp_path: Path, capsys):
    """Returns a function: the text of a trainer's file, and those beside it → code, page."""
    foreign("nothing", nothing="")  # undoes imports in the end
    shutil.rmtree(tmp_path)

    def check(text: str, *opts: str, **beside: str) -> tuple[int, str]:
        repository = tmp_path / "repository"
        (repository / "trainers").mkdir(parents=True)
        for name, other in beside.items():
            (repository / f"{name}.py").write_text(other, encoding="utf-8")
        path = repository / "trainers/theirs.py"
        path.write_text(text, encoding="utf-8")
        code = show_check(path, list(opts))
        return code, capsys.readouterr().out

    return check


def test_one_that_runs(page):
    settings = "def extend_cfg(cfg):\n    cfg.OPTIM.NEW_LR = 1.0\n"
    text = HEAD.replace("cfg = self.cfg\n", "cfg = self.cfg\n        cfg.OPTIM.NEW_LR\n")
    code, shown = page(text, "OPTIM.LR", "0.1", train=settings)
    assert code == 0 and shown.endswith("It runs.\n") and "!" not in shown
    assert "trainers   MiniHead" in shown and "declared by" in shown and "train.py" in shown
    assert "two steps on Digits with the CLIP tiny: " in shown


def test_what_is_taken_for_granted(page):
    """A GPU, the widths of ViT-B/16; half precision in what cannot compute in it."""
    line = "cfg = self.cfg\n"
    text = HEAD.replace(line, f"{line}        nn.Linear(512, 1).cuda()\n        HALF\n")
    text = text.replace("HALF", "assert cfg.TRAINER.COOP.PREC == 'fp32', 'no half here'")
    code, shown = page(text)
    assert code == 0 and "asked for in line 15; this machine has none: it is the CPU" in shown
    assert (
        "widths     those of ViT-B/16 are fixed: in place of the CLIP tiny comes tiny-512" in shown
    )
    assert "with PREC fp32 (as set: AssertionError: no half here (" in shown


TROUBLE = {
    "library": (f"import no_such_library\n{HEAD}", "line 1: no_such_library is not here: pip"),
    "setting": (
        HEAD.replace("cfg = self.cfg\n", "cfg = self.cfg\n        cfg.TRAINER.NEW.DEPTH\n"),
        "line 15 reads TRAINER.NEW, which nobody declares: put a file theirs_cfg.py",
    ),
    "name": (HEAD.replace("MiniHead", "CoOp"), "'CoOp' is registered by two files"),
    "fault": (HEAD.replace("loss = F", "loss = 1 / 0  # F"), "! ZeroDivisionError: division by"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_one_that_does_not(page, what: str):
    text, expected = TROUBLE[what]
    code, shown = page(text)
    assert expected in shown
    assert code == 1 and shown.endswith("It does not run as it is: see the lines with '!'.\n")


def test_nothing_to_learn(page):
    start, end = HEAD.index("        self.optim"), HEAD.index("    def parse_batch_train")
    code, shown = page(HEAD[:start] + HEAD[end:])
    assert code == 0 and "two steps on Digits with the CLIP tiny: " in shown


def test_parts_of_others(page):
    code, shown = page("WIDTH = 3\n")
    assert code == 0 and "none registered here" in shown


def test_no_file(tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(MissingFileError, match="is no file; expected that of a trainer"):
        show_check(tmp_path / "none.py", [])
    monkeypatch.setattr(sys, "argv", ["trainers", "check", str(tmp_path / "none.py")])
    assert run_cli(main) == 2 and "none.py is no file" in capsys.readouterr().err
