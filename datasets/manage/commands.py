"""The commands of `python -m datasets`; each prints, and returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from dassl.utils import ConfigError, UserError
from dassl.utils.text import visible
from datasets.manage.catalog import Entry, Source
from datasets.manage.convert import convert as convert_parquet
from datasets.manage.fetch import Options, fetch, ways
from datasets.manage.overview import list_table, place_of, status_table
from datasets.manage.sources import sources_to_try
from datasets.manage.verify import Absent, Fault, Finding, read, verify_steps
from datasets.manage.verify_own import verify_own_steps

OK, WRONG, ABSENT = 0, 1, 2


def show_list(args: argparse.Namespace, chosen: list[Entry]) -> int:
    """Prints the table of all datasets."""
    print(list_table(chosen))
    print("\nTerms are summaries; the datasets' pages, in docs/datasets.md, are what counts.")
    return OK


def show_status(args: argparse.Namespace, chosen: list[Entry]) -> int:
    """Prints what lies below --root."""
    print(status_table(chosen, args.root))
    print("\nThis only counts files; `verify` reads them.")
    return OK


# --- download -------------------------------------------------------------------------------------


def download(args: argparse.Namespace, chosen: list[Entry]) -> int:
    """Fetches datasets; one that fails does not stop the others."""
    return max(_download(entry, args) for entry in chosen)


def _download(entry: Entry, args: argparse.Namespace) -> int:
    root = args.root
    if entry.by_hand:
        if root.is_dir() and place_of(entry, root)[1].is_dir():
            print(f"{entry.name}: there already")
            return OK
        print("\n".join(entry.by_hand).replace("{root}", str(root)))
        return ABSENT
    if not entry.sources:  # the class writes its files itself
        dataset = read(entry, root)
        print(f"{entry.name}: ready in {dataset.dataset_dir}")
        return OK
    options = Options(args.unchecked, args.keep_archives)
    sources = sources_to_try(entry, args.source, args.mirror, root)
    problems: list[str] = []
    for source in sources:
        if problems:
            print(f"  trying the next source: {source.name}")
        came = _problems(entry, source, root, options)
        if not came:
            print(f"{entry.name}: done. To check it: {entry.command('verify', root)}")
            return OK
        problems += came
    for problem in dict.fromkeys(problems):
        print(f"error: {visible(problem)}", file=sys.stderr)
    print(f"{entry.name} is not complete. Other ways:")
    for way in ways(entry, root, sources):
        print(f"  {way}")
    return WRONG


def _problems(entry: Entry, source: Source, root: Path, options: Options) -> list[str]:
    try:
        return fetch(entry, source, root, options)
    except UserError as error:
        return str(error).splitlines()


def convert(args: argparse.Namespace, chosen: list[Entry]) -> int:
    """Writes the images of parquet files into the folders that a dataset is read from."""
    if len(chosen) > 1:
        raise ConfigError("convert takes one dataset by its name, not all")
    (entry,) = chosen
    convert_parquet(entry, args.parquet, args.root, args.contents)
    print(f"{entry.name}: done. To check it: {entry.command('verify', args.root)}")
    return OK


# --- verify ---------------------------------------------------------------------------------------


def verify(args: argparse.Namespace, chosen: list[Entry]) -> int:
    """Checks datasets and prints OK, or the first thing that is wrong with each."""
    results = [_verify(entry, args, alone=len(chosen) == 1) for entry in chosen]
    if len(chosen) > 1:
        counts = {code: results.count(code) for code in (OK, WRONG, ABSENT)}
        print(f"{counts[OK]} OK, {counts[WRONG]} wrong, {counts[ABSENT]} not there")
    return WRONG if WRONG in results else max(results)


def verify_own(args: argparse.Namespace) -> int:
    """Checks images of one's own: everything that a run would refuse, and what it cannot see."""
    return _report("Folder", verify_own_steps(args.root, args.set), alone=True)


def _verify(entry: Entry, args: argparse.Namespace, alone: bool) -> int:
    return _report(entry.name, verify_steps(entry, args.root, args.full, args.seeds), alone)


def _report(name: str, steps: Iterator[Finding], alone: bool) -> int:
    print(name, flush=True)
    try:
        for what, finding in steps:
            print(f"  {what:<9} {visible(finding)}", flush=True)
    except Absent as error:
        print("  not there" + (f": {error}" if alone else ""))
        return ABSENT
    except Fault as error:
        print(visible(f"{name}: WRONG: {error}"))
        return WRONG
    print(f"{name}: OK")
    return OK
