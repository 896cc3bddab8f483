"""The commands of `python -m datasets`; each prints, and returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from dassl.utils import UserError
from dassl.utils.text import visible
from datasets.manage.catalog import Entry
from datasets.manage.fetch import Options, fetch, ways
from datasets.manage.overview import list_table, place_of, status_table
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
    root, options = args.root, Options(args.unchecked, args.keep_archives)
    return max(_download(entry, args.source, root, options) for entry in chosen)


def _download(entry: Entry, source_name: str, root: Path, options: Options) -> int:
    if entry.by_hand:
        if root.is_dir() and place_of(entry, root)[1].is_dir():
            print(f"{entry.name}: there already")
            return OK
        print("\n".join(entry.by_hand).replace("{root}", str(root)))
        return ABSENT
    if not entry.sources:  # the class writes its files itself
        root.mkdir(parents=True, exist_ok=True)
        dataset = read(entry, root)
        print(f"{entry.name}: ready in {dataset.dataset_dir}")
        return OK
    source = entry.source(source_name)
    try:
        problems = fetch(entry, source, root, options)
    except UserError as error:
        problems = str(error).splitlines()
    if problems:
        for problem in problems:
            print(f"error: {visible(problem)}", file=sys.stderr)
        print(f"{entry.name} is not complete. Other ways:")
        for way in ways(entry, root, source):
            print(f"  {way}")
        return WRONG
    print(f"{entry.name}: done. To check it: {entry.command('verify', root)}")
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
