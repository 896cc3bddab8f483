"""Names that mean harm to a terminal or a spreadsheet, and consoles that cannot print a name."""

from __future__ import annotations

import csv
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.utils import DataError, Logger
from dassl.utils.cli import run_cli
from dassl.utils.logger import get_logger
from dassl.utils.text import csv_cell, on_one_line, printable, spelled, unseen, visible

ROOT = Path(__file__).parents[2]
ATTACKS = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\text": "\\x1b]8;;http://evil\\x1b\\text",
    "\x9b2J": r"\x9b2J",  # the same as ESC [ in one character
    "over\rwritten": r"over\rwritten",
    "back\b\b\bspace": r"back\x08\x08\x08space",
    "bell\a null\0 delete\x7f": r"bell\x07 null\x00 delete\x7f",
    "page\f tab\v": r"page\x0c tab\x0b",
    "gpj.\u202etxt": r"gpj.\u202etxt",
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c": r"\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "line\u2028 paragraph\u2029": r"line\u2028 paragraph\u2029",
    "next\x85 mark\ufeff": r"next\x85 mark\ufeff",
    "undecodable \udce4": r"undecodable \udce4",
}
LETTERS = "naïve 犬 кот ελλ العربية עברית 👩‍🔬 ß × – \t\n"


@pytest.mark.parametrize("attack", ATTACKS)
def test_control_characters_are_shown(attack):
    assert visible(attack) == ATTACKS[attack]


def test_letters_stay():
    assert visible(LETTERS) == LETTERS


@given(st.text(st.characters(codec=None, categories=None)))
def test_what_is_visible_can_be_written_and_stays(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in shown)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "gbk", "utf-8", "utf-16"])
def test_what_a_console_cannot_show(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    for text in (LETTERS, *ATTACKS):
        stream.write(printable(text, stream))
    stream.flush()


# --- logging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_log_lines(tmp_path, capsys, attack, monkeypatch):
    # pytest's own copy of the line cannot be sent from a process of xdist to the other.
    monkeypatch.setattr(logging.getLogger("dassl"), "propagate", False)
    with Logger(str(tmp_path / "log.txt")) as log:
        sys.stdout = log
        get_logger("dassl.test").info(f"class {attack}, {LETTERS}")
        print(f"print {attack}")
    shown, text = capsys.readouterr().out, (tmp_path / "log.txt").read_bytes().decode()
    assert shown == text
    assert text.startswith(f"class {ATTACKS[attack]}, {LETTERS}\nprint ")
    assert "\x1b" not in text and "\x9b" not in text


def test_warnings_and_errors_in_the_log(tmp_path, capsys):
    with pytest.raises(DataError), Logger(str(tmp_path / "log.txt")) as log:
        sys.stdout = log
        get_logger("dassl.test").warning("a %s", "\x1b[2J")
        raise DataError("file \x1b[31m and \udcff")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert text == "a \\x1b[2J\nerror: file \\x1b[31m and \\udcff\n"


def test_errors_on_the_command_line(capsys):
    def fail() -> None:
        raise DataError("a \x1b[31m b\x85c\u2028d\udcff\nsecond line")

    assert run_cli(fail) == 2
    assert capsys.readouterr().err == (
        "error: a \\x1b[31m b\\x85c\\u2028d\\udcff\nerror: second line\n"
    )


def test_progress_bars_of_others_go_back_to_the_start_of_a_line(tmp_path, capsys):
    with Logger(str(tmp_path / "log.txt")) as log:
        sys.stdout = log
        print("50%", end="\r")
        print("100%")
    assert capsys.readouterr().out == "50%\r100%\n"


SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from dassl.utils import DataError, setup_logger
from dassl.utils.cli import run_cli
from dassl.utils.logger import get_logger

def main():
    get_logger("dassl.test").info("before: Σ 猫 \\udce4")
    print("answer: é Σ 猫 \\udce4")
    with setup_logger(sys.argv[1]):
        get_logger("dassl.test").info("class: é Σ 猫")
        print("also: é Σ 猫")
        raise DataError("no such class: é Σ 猫")

sys.exit(run_cli(main))
"""
CONSOLES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "Windows in the west": {"PYTHONIOENCODING": "cp1252"},
    "Windows in China": {"PYTHONIOENCODING": "gbk"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}


@pytest.mark.slow
@pytest.mark.parametrize("console", CONSOLES)
def test_a_console_that_cannot_print_a_name(tmp_path, console):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, **CONSOLES[console]},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 2 and b"Traceback" not in run.stderr
    encoding = CONSOLES[console].get("PYTHONIOENCODING", "ascii")
    shown = "é Σ 猫".encode(encoding, "backslashreplace")
    for line in (b"answer: " + shown + b" \\udce4", b"class: " + shown, b"also: " + shown):
        assert line in run.stdout.splitlines()
    assert run.stderr.startswith(b"error: no such class: ")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert log == "class: é Σ 猫\nalso: é Σ 猫\nerror: no such class: é Σ 猫\n"


def test_records_of_other_loggers_are_left_alone():
    assert logging.getLogger("somebody.else").handlers == []


# --- spreadsheets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "  =1",
        "\n@x",
        "＝1+1",
        "-",
        "--",
        "-2+3+cmd|' /C calc'!A0",
        '=HYPERLINK("http://evil","x")',
        "+12 ± 3",
        "-abc",
    ],
)
def test_formulas_are_quoted(cell):
    assert csv_cell(cell) == (cell if cell == "-" else f"'{cell}")


@pytest.mark.parametrize(
    "cell", ["", "cat", "a-b", "x=1", "a@b", "-0.5", "+3", "-1e-5", "-inf", "1", -1, -0.5, None]
)
def test_numbers_and_other_texts_stay(cell):
    assert csv_cell(cell) is cell


@given(st.text())
def test_no_cell_begins_like_a_formula(text):
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell(text), 1])
    cell = csv_cell(text).lstrip()
    if len(cell) > 1 and cell[0] in "=+-@":
        float(cell)


def test_names_stay_on_their_line():
    name = "crow\nerror: a\r\n\tb\u2028c"
    assert on_one_line(name) == "crow error: a b c" and on_one_line("a  b") == "a  b"
    assert spelled(name) == r"crow\nerror: a\r\n\tb\u2028c"
    assert spelled("a\xa0b\u200b") == r"a\xa0b\u200b" and spelled("Zaunkönig 鸟") == "Zaunkönig 鸟"


def test_unseen():
    assert unseen("a photo\tof\na caf\u00e9 \u732b \u3000") == []
    assert unseen("a\u200bb\u200b\u00ad\x1b\ud800") == [
        *("ZERO WIDTH SPACE", "SOFT HYPHEN", "U+001B", "U+D800"),
    ]
