"""Reading the annotation files that come with datasets."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dassl.utils import DataError

# SciPy raises all kinds for damaged files, and some end the process that reads them.
_READ_MAT = """
import pickle, sys
from scipy.io import loadmat
sys.stdout.buffer.write(pickle.dumps(loadmat(sys.argv[1], squeeze_me=True)[sys.argv[2]]))
"""


def read_rows(path: Path, fields: int) -> list[list[str]]:
    """Reads lines of values with blanks between them; the last value may hold blanks itself.

    Args:
        path: a text file; empty lines and those that start with # are passed over.
        fields: how many values a line has.

    Raises:
        DataError: a line has fewer, or the file is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file ({error}); unpack it anew") from None
    rows = [line.split(maxsplit=fields - 1) for line in lines if line.strip() and line[0] != "#"]
    for row in rows:
        if len(row) < fields:
            raise DataError(
                f"{path} has the line '{' '.join(row)}'; expected {fields} values with blanks "
                "between them. Unpack the annotations anew."
            )
    return [[value.strip() for value in row] for row in rows]


def class_number(source: object, number: Any, n_classes: int | None = None) -> int:
    """Returns the label, counted from 0, for a class that a file counts from 1.

    Raises:
        DataError: it is no such number.
    """
    try:
        value = int(str(number))
    except ValueError:
        value = 0
    if not 1 <= value <= (n_classes or value):
        upto = f" to {n_classes}" if n_classes else ""
        raise DataError(
            f"{source} has {number!r:.50} where the number of a class is meant, from 1{upto}; "
            "unpack the annotations anew"
        )
    return value - 1


def read_mat(path: Path, key: str, *fields: str) -> Any:
    """Reads one variable of a MATLAB file, with the dimensions of size 1 left out.

    Args:
        path: of the file.
        key: name of the variable.
        fields: that its structures must have.

    Raises:
        DataError: the file is damaged or does not have the variable.
    """
    child = subprocess.run(
        [sys.executable, "-c", _READ_MAT, str(path), key], capture_output=True, check=False
    )
    if child.returncode:
        lines = child.stderr.decode(errors="replace").split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), "its reader crashed")
        raise _no_mat(path, key, reason)
    found = np.atleast_1d(pickle.loads(child.stdout))  # of our own process
    if set(fields) - set(found.dtype.names or ()):
        raise _no_mat(path, key, f"it lacks {', '.join(fields)}")
    return found


def _no_mat(path: Path, key: str, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read as a MATLAB file with '{key}' ({reason:.200}); unpack it anew"
    )
