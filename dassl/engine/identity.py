"""What made a checkpoint: kept in it, so that it is not taken for something else.

It is one more entry of the dictionary that a checkpoint is, "made_by", plain data, which readers in
the public format pass over. Checkpoints of other programs have none, and nothing is asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch

from dassl.utils import CheckpointError, UserError
from dassl.utils.files import PathLike, listed
from dassl.utils.logger import get_logger
from dassl.utils.results import determining_settings

logger = get_logger(__name__)

KEY = "made_by"
# Where test images are prepared in another way than in training, the accuracy is another one.
_OF_TEST_IMAGES = ("INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD")
_ONLY_FOR_TRAINING = ("N_CTX", "CTX_INIT")  # the shape of a context is compared by itself
_ONLY_ROUNDING = ("PREC",)
# Beginnings of what only a training reads, or what made its parameters what they are.
_OF_TRAINING = ("OPTIM", "TRAIN.", "TRAINER.", "DATALOADER.TRAIN")

Identity = Mapping[str, Any]


def identity_of(trainer: Any) -> dict[str, Any]:
    """Returns what makes the numbers of a trainer: plain data."""
    cfg = trainer.cfg
    dataset = getattr(getattr(trainer, "dm", None), "dataset", None)
    names = getattr(trainer, "lab2cname", None) or {}
    template = getattr(dataset, "template", None)  # of a hand-written prompt
    return {
        "trainer": cfg.TRAINER.NAME,
        "classnames": [str(names[label]) for label in sorted(names)],
        "template": template if isinstance(template, str) else None,
        "weights": trainer.weights_used(),
        "data": dict(getattr(dataset, "provenance", {})),
        "settings": flat(determining_settings(cfg)),
        "torch": str(torch.__version__),  # plain text, which `weights_only` reads
        "device": torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu",
    }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"OPTIM": {"LR": 1}} as {"OPTIM.LR": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves


def _in_known_form(check: Callable[..., None]) -> Callable[..., None]:
    """Lets a check refuse what a file says in no form that we write."""

    @wraps(check)
    def checked(then: Identity | None, now: Identity, fpath: PathLike) -> None:
        try:
            check(then, now, fpath)
        except UserError:
            raise
        except (TypeError, KeyError, AttributeError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{fpath} is damaged: what made it is said in no known form ({error!r:.100})"
            ) from None

    return checked


@_in_known_form
def check_same_run(then: Identity | None, now: Identity, fpath: PathLike) -> None:
    """Checks that a training may go on from a checkpoint.

    Everything that determines a number must be what it was, but for a larger OPTIM.MAX_EPOCH: the
    schedule then goes on from its rate along the longer curve (`dassl.optim.lr_scheduler`).

    Args:
        then: of the checkpoint; None: another program wrote it.
        now: of the run.
        fpath: the checkpoint, for the message.

    Raises:
        CheckpointError: something differs; the message has both values of each.
    """
    if not then:
        return
    problems = other_weights(then, now)
    settings = _changed(then, now)
    if not problems and _digest(then) is not None and _digest(now) is not None:
        for key in ("MODEL.BACKBONE.NAME", "MODEL.BACKBONE.PATH"):  # two names of one file
            settings.pop(key, None)
    longer = settings.get("OPTIM.MAX_EPOCH")
    if longer is not None and longer[1] > longer[0]:
        del settings["OPTIM.MAX_EPOCH"]
    problems += [f"{key} was {old!r} and is {new!r}" for key, (old, new) in settings.items()]
    if then.get("classnames") != now["classnames"]:
        problems.append(f"the classes were {_names(then)} and are {_names(now)}")
    for key, old in flat(then.get("data", {})).items():
        new = flat(now["data"]).get(key, old)
        if new != old:
            problems.append(f"{key} of the data was {_short(old)} and is {_short(new)}")
    if problems:
        raise CheckpointError(
            f"{fpath} is of another run, which this one cannot continue: {'; '.join(problems)}. "
            "Give what the run was started with, or start a run of its own: without --resume, in "
            "another output folder."
        )


def training_of(then: Identity | None) -> dict[str, Any]:
    """Returns the settings of a training that an evaluation of its weights cannot have other values
    of, full key → value, and "SEED"; {}: not known."""
    settings = (then or {}).get("settings")
    found = settings if isinstance(settings, dict) else {}
    numbers = {k: found[k] for k in ("SEED", "DATASET.NUM_SHOTS") if type(found.get(k)) is int}
    plain = {k: v for k, v in found.items() if isinstance(v, (int, float, str, list, tuple))}
    return {**{k: v for k, v in plain.items() if k.startswith(_OF_TRAINING)}, **numbers}


def note_other_arithmetic(then: Identity | None, now: Identity) -> None:
    """Says if a training goes on where numbers are rounded in another way."""
    for key in ("torch", "device"):
        old, new = (then or {}).get(key), now[key]
        if old is not None and old != new:
            logger.warning(
                f"Note: the run was begun with {key} {old} and goes on with {new}: the last digits "
                "may differ from those of a run without a break"
            )


@_in_known_form
def check_usable(then: Identity | None, now: Identity, fpath: PathLike) -> None:
    """Checks that what was learned may be evaluated here: on other classes and data, as a rule.

    Raises:
        CheckpointError: another method, CLIP or form of the prompt; the message has both values.
    """
    if not then:
        return
    if then["trainer"] != now["trainer"]:
        raise CheckpointError(
            f"{fpath}: another method wrote it: it is of {then['trainer']}, and this run is of "
            f"{now['trainer']}. Set --trainer {then['trainer']}."
        )
    problems = other_weights(then, now)
    own = f"TRAINER.{str(now['trainer']).upper()}."
    for key, (old, new) in _changed(then, now).items():
        said = f"{key} was {old!r} in training and is {new!r}"
        leaf = key.removeprefix(own)
        if key in _OF_TEST_IMAGES or (key.startswith(own) and leaf in _ONLY_ROUNDING):
            logger.warning(f"Note: {said}")
        elif key.startswith(own) and leaf not in _ONLY_FOR_TRAINING:
            problems.append(said)
    if problems:
        raise CheckpointError(f"{fpath} does not fit this run: {'; '.join(problems)}.")


def other_weights(then: Identity, now: Identity) -> list[str]:
    """Returns a sentence if the pretrained weights differ, as far as both are known; else []."""
    old, new = _digest(then), _digest(now)
    if old is None or new is None or old == new:
        return []
    shown = [f"{i['weights'].get('name')} (SHA-256 {_short(_digest(i))})" for i in (then, now)]
    return [f"the CLIP was {shown[0]} and is {shown[1]}"]


def _digest(identity: Identity) -> str | None:
    """Returns the weights file's digest, and how it was read where it does not tell itself."""
    weights = identity.get("weights")
    if not isinstance(weights, dict) or weights.get("sha256") is None:
        return None
    return " ".join(filter(None, (weights["sha256"], weights.get("read_as"))))


def _changed(then: Identity, now: Identity) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that both know and that differ: {key: (old, new)}."""
    old, new = then.get("settings", {}), now["settings"]
    return {key: (old[key], new[key]) for key in old if key in new and old[key] != new[key]}


def _names(identity: Identity) -> str:
    names = identity.get("classnames", [])
    return f"{len(names)} ({listed(names)})"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
