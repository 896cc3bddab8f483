"""Every command of README, CONTRIBUTING and docs/ is run, checked by its own parser, or marked."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from tests.docs import commands
from tests.docs.pages import (
    REASONS,
    Block,
    blocks,
    inline,
    inline_commands,
    name_of,
    pages,
    prose,
)
from tests.docs.pages import commands as commands_of
from tests.runs import ROOT, ours

PAGES = {name_of(path): path.read_text(encoding="utf-8") for path in pages()}
BLOCKS = [block for name, text in PAGES.items() for block in blocks(text, name)]
RUN_ELSEWHERE = ("docs/adding.md",)  # tests/docs/test_adding.py
SHELL = [b for b in BLOCKS if b.language == "bash" and b.page not in RUN_ELSEWHERE]
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.title]
OF_OTHERS = ("OPTIM.ADAM_EPS",)  # a setting that somebody else's engine has
LOOKING = (  # commands that leave nothing behind
    ("-m", "datasets", "list"),
    ("-m", "datasets", "status"),
    ("-m", "features", "status"),
    ("-m", "sweep", "status"),
)
# What makes the runs of docs/quickstart.md short: one epoch, of one image a class.
FEW = ("OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1")
SHORTER = (("epoch=20", "epoch=1"), ('"output/cocoop", 20', '"output/cocoop", 1'))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HOME", str(desk / "home"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts/installed"))


def test_there_are_blocks():
    assert len(SHELL) > 20 and len(PYTHON) > 5


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_marks_say_why(block: Block):
    assert set(block.needs) <= set(REASONS), f"a block may need {', '.join(REASONS)}"
    known = ("bash", "python", "yaml", "console", "")
    assert block.language in known, f"{block.language!r} is none of {known}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_of_blocks(block: Block):
    for words in commands_of(block.text):
        commands.check(words, marked=bool(block.needs))


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_the_text(page: str):
    """Where one is only named, as `python -m sweep` is, it must be there."""
    for text in inline_commands(PAGES[page]):
        for words in commands_of(text.replace("[", "").replace("]", "")):
            only_named = len(words) <= (4 if "-m" in words else 2)
            commands.check([*words, "--help"] if only_named else words)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides(page: str):
    """Commands in other blocks, and in indented ones, would be looked at by nobody."""
    hidden = [b.text for b in blocks(PAGES[page]) if b.language in ("", "yaml")]
    lines = [*"".join(hidden).splitlines(), *prose(PAGES[page]).splitlines()]
    starts = ("python ", "bash ", "pip ", "promptlearn ", "$ ")
    assert not [line for line in lines if line.strip().startswith(starts)], "put them into ```bash"


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page: str):
    cfg = commands.all_settings()
    for text in inline(PAGES[page]):
        key = text.split(" ")[0].removesuffix(".*")
        top, *names = key.split(".")
        if top not in cfg or key in OF_OTHERS or not re.fullmatch(r"[A-Z_\d.]+", key):
            continue
        node = cfg[top]
        for name in names:
            assert name in node, f"{text} is no setting"
            node = node[name]


def test_commands_in_headers_of_configs():
    headers = 0
    for path in ours((ROOT / "configs").rglob("*.yaml")):
        lines = [x[1:] for x in path.read_text(encoding="utf-8").splitlines() if x.startswith("#")]
        text = "\n".join(line.strip() for line in lines).replace("\\\n", " ")
        for line in text.splitlines():
            if line.startswith(("python ", "bash ", "scripts/")):
                headers += 1
                for words in commands_of(line):
                    commands.check(words)
    assert headers


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_names_what_exists(block: Block):
    """Also of blocks that cannot be run here."""
    for node in ast.walk(ast.parse(block.text)):
        if not isinstance(node, ast.ImportFrom) or not (ROOT / node.module.split(".")[0]).exists():
            continue
        module = importlib.import_module(node.module)
        for name in node.names:
            found = hasattr(module, name.name) or name.name in _submodules(module)
            assert found, f"{node.module} has no {name.name}"


def _submodules(module: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]


@pytest.mark.slow
def test_quickstart(desk: Path, capfd: pytest.CaptureFixture):
    """Its commands up to the sweep, in order; then all other pages' Python, which uses its runs."""
    done = [b for b in SHELL if b.page == "docs/quickstart.md" and not b.needs]
    ran = 0
    for block in done:
        for words in commands_of(block.text):
            if words[2] == "sweep":  # tests/e2e/test_demo.py and tests/sweep run these
                continue
            more = FEW if words[1] == "train.py" and "--eval-only" not in words else ()
            assert commands.start([*words, *more]) == 0, f"{words}\n{capfd.readouterr().err}"
            ran += 1
    assert ran == 6
    assert (desk / "output/coop/explore.html").is_file() and (desk / "guesses.csv").is_file()
    for name in ("a.png", "b.png"):
        (desk / name).write_bytes((desk / "data/digits/images/3_three/0003.png").read_bytes())
    with mock.patch.dict(os.environ):  # `import promptlearn` says there who started us
        for block in PYTHON:
            if not block.needs:
                exec(compile(_shortened(block.text), str(block), "exec"), {})


def _shortened(text: str) -> str:
    for old, new in SHORTER:
        text = text.replace(old, new)
    return text


def test_what_only_looks_is_run():
    ran = set()
    for block in SHELL:
        for words in commands_of(block.text):
            if (call := tuple(words[1:4])) in LOOKING and call not in ran:
                assert commands.start(words) == 0, words
                ran.add(call)
    assert ran == set(LOOKING)


# --- the checks themselves ------------------------------------------------------------------------

TRAIN = "python train.py --trainer CoOp --dataset-config-file digits --config-file CoOp/tiny "


@pytest.mark.parametrize(
    "line",
    [
        TRAIN + "--sed 1x",
        TRAIN + "OPTIM.LRR 0.1",
        TRAIN + "OPTIM.LR fast",
        "python train.py --trainer CoOop --dataset-config-file digits --config-file CoOp/tiny",
        "python train.py --trainer CoOp --dataset-config-file digitz --config-file CoOp/tiny",
        "python train.py --trainer CoOp --dataset-config-file digits --config-file CoOp/tinny",
        "python train.py … TEST.ERROR_ANALYSES True",
        "python trian.py",
        "DATASET.CLASNAMES names.txt",
        "python -m sweep run base2nw",
        "python -m sweep run base2new --datasets eurosatt",
        "python -m sweep run base2new --opts OPTIM.LRR 1",
        "python -m sweep table cocoop-1 --fromat csv",
        "python -m sweep table cocoop-11",
        "python -m datasets download EuroSATT --root data",
        "python -m prompts exprot output/coop coop.onnx --as onnx",
        "python -m explore output/coop --mistake",
        "python -m features statuss",
        "python predict.py output/coop a.png --tpo 3",
        "python benchmarks/family.py --quickly",
        "promptlearn sweep run base2nw",
        "bash scripts/demmo.sh",
        "bash scripts/demo.sh --seed one",
        "scripts/cocoop/base2new_train.sh oxford_pts 1",
        "sbatch --array=0-15 scripts/slurm_array.sh cocoop-11",
        "pip install something",
    ],
)
def test_a_wrong_command_is_noticed(line: str):
    with pytest.raises((Exception, SystemExit)):
        for words in commands_of(line):
            commands.check(words)


def test_right_commands_pass():
    line = f"DATA=~/data {TRAIN} --seed 1 > log.txt && cd output | cd data  # as in 1 && 2"
    assert [words[0] for words in commands_of(line)] == ["python", "cd", "cd"]
    for words in commands_of(line):
        commands.check(words)
    commands.check(["pip", "install", "something"], marked=True)


def test_blocks_are_found_with_their_marks():
    text = "a\n\n<!-- needs: network, data -->\n```bash\ncd x\n```\n\n"
    text += '- b\n  ```python title="c.py"\n  1\n  ```\n'
    first, second = blocks(text)
    assert (first.needs, first.language, first.line) == (("network", "data"), "bash", 4)
    assert (second.title, second.language, second.text) == ("c.py", "python", "  1\n")
    assert prose(text) == "a\n\n\n\n- b\n\n"
