"""Command lines that would be read otherwise than they are meant."""

from __future__ import annotations

import re
from argparse import Namespace

from dassl.utils.errors import ConfigError

_FLAG = re.compile(r"--[a-z-]+(=.*)?", re.DOTALL)
_KEY = re.compile(r"[A-Z]\w*(\.\w+)+")
_LISTS = ("source_domains", "target_domains", "transforms")  # flags that take several words


def checked(args: Namespace) -> Namespace:
    """Returns the arguments.

    Raises:
        ConfigError: a flag stands where no flag is read, has taken KEY VALUE pairs for its own
            words, or means nothing without --eval-only.
    """
    problems = [
        f"{word} stands behind KEY VALUE pairs, where flags are not read: put it in front of them."
        for word in args.opts or []
        if isinstance(word, str) and _FLAG.fullmatch(word)
    ]
    for name in _LISTS:
        words = getattr(args, name) or []
        key = next((w for w in words if isinstance(w, str) and _KEY.fullmatch(w)), None)
        if key:
            problems.append(
                f"--{name.replace('_', '-')} took {key} for one of its words: put another flag "
                "between them."
            )
    ignored = [
        flag
        for flag, given in (("--model-dir", args.model_dir), ("--load-epoch", args.load_epoch))
        if given not in (None, "") and not args.eval_only
    ]
    if ignored:
        problems.append(
            f"{' and '.join(ignored)} would be ignored without --eval-only. --resume goes on with "
            "a training; MODEL.INIT_WEIGHTS starts one from learned prompts."
        )
    if problems:
        raise ConfigError(problems)
    return args
