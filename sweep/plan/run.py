"""What one run is: its arguments, its identity and its folder.

A run trains (and evaluates what it trained), or evaluates what another run trained. Its identity is
a digest of all settings that determine its numbers; the folder's name carries it, so a changed
setting is another run, in another folder, and old results are never mixed with new ones.

    <output>/<part>/<dataset>/<shots>/<trainer>/<recipe>-<digest>/seed<k>/

`part` is "train_<classes>" or "test_<classes>", with "_from_<dataset>" if the training was on
another one. The digest leaves out the seed: all seeds of one cell of a table lie side by side. It
holds what differs from the defaults, so a setting that the program learns later changes no digest;
`RunFolder.settings_changed` tells if a default itself has changed since a run.
"""

from __future__ import annotations

import hashlib
import json
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import train
import trainers
from dassl.config import Config, get_cfg_default, not_determining, noted_methods
from dassl.engine.identity import flat
from dassl.utils.results import own_settings
from dassl.utils.text import counted
from sweep.plan.own import config_of, own_name, place_below

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ROOT / "configs" / "datasets"
DIGITS = 8  # of the digest, in folder names


@dataclass(frozen=True)
class Run:
    """One call of `train.main`.

    Attributes:
        trainer: registered name.
        dataset: file in configs/datasets, without suffix; or one of one's own, "folder/birds".
        recipe: file in configs/trainers, without suffix, such as "CoOp/vit_b16_ctxv1".
        shots: training images per class; 0: none are drawn (methods that learn nothing).
        classes: "all", "base" or "new".
        seed: of everything.
        opts: KEY VALUE pairs on top of the recipe.
        source: the run that trained what this one evaluates; None: this one trains itself.
        epoch: which epoch's weights of `source` are evaluated; 0: the best on validation.
    """

    trainer: str
    dataset: str
    recipe: str
    shots: int = 0
    classes: str = "all"
    seed: int = 1
    opts: tuple[str, ...] = ()
    source: Run | None = None
    epoch: int = 0

    @property
    def part(self) -> str:
        if self.source is None:
            return f"train_{self.classes}"
        origin = self.source.dataset
        other = f"_from_{own_name(origin)}" if origin != self.dataset else ""
        return f"test_{self.classes}{other}"

    @property
    def trains(self) -> bool:
        """Whether it trains and then tests; the others only test."""
        return self.source is None and self.shots > 0

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers, but for the seed."""
        return _settings(self.without_seed())

    @property
    def epochs(self) -> int:
        """Epochs that the recipe trains."""
        return self.settings["OPTIM"]["MAX_EPOCH"]

    @property
    def epoch_tested(self) -> int | None:
        """The epoch that the run's record must name; None: whichever it was."""
        if self.source is not None:
            return self.epoch or None
        last = self.settings["TEST"]["FINAL_MODEL"] == "last_step"
        return self.epochs if self.shots and last else None

    @property
    def digest(self) -> str:
        """Identity but for the seed, 64 hexadecimal digits."""
        return _digest(self.without_seed())

    @property
    def title(self) -> str:
        """The run in a few words, for progress lines."""
        shots = counted(self.shots, "shot") if self.shots else "zero-shot"
        what = f"{self.classes} classes" if self.classes != "all" else "all classes"
        where = f"{self.trainer} {own_name(self.dataset)}"
        if self.source is None:
            return f"{where}, {what}, {shots}, seed {self.seed}"
        other, last = self.source.dataset != self.dataset, self.epoch not in (0, self.source.epochs)
        origin = f" (from {own_name(self.source.dataset)})" if other else ""
        epoch = f" epoch {self.epoch}" if last else ""
        return f"{where}{origin}, test {what}{epoch}, seed {self.seed}"

    def without_seed(self) -> Run:
        return replace(self, seed=0, source=self.source and self.source.without_seed())

    def folder(self, output: Path) -> Path:
        name = "_".join([Path(self.recipe).name, *_tags(self.opts)])[:60]
        shots = f"{self.shots}shots" if self.shots else "zeroshot"
        cell = f"{name}-{self.digest[:DIGITS]}"
        return output / self.part / self.dataset / shots / self.trainer / cell / f"seed{self.seed}"

    def arguments(self, output: Path, root: str) -> Namespace:
        """Returns what `train.main` takes.

        Args:
            output: the sweep's output folder.
            root: folder that holds the datasets.
        """
        opts = list(self.opts)
        if self.shots:
            opts = ["DATASET.NUM_SHOTS", str(self.shots), *opts]
        args = Namespace(
            root=place_below(self.dataset, root),
            seed=self.seed,
            trainer=self.trainer,
            dataset_config_file=str(DATASETS / f"{config_of(self.dataset)}.yaml"),
            config_file=str(ROOT / "configs" / "trainers" / f"{self.recipe}.yaml"),
            output_dir=str(self.folder(output)) if output.parts else "",
            subsample_classes=self.classes,
            opts=opts,
        )
        if self.source is not None:
            args.eval_only, args.load_epoch = True, self.epoch or None
            args.model_dir = str(self.source.folder(output)) if output.parts else ""
        return args

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Run:
        source = content["source"] and cls.from_dict(content["source"])
        return cls(**{**content, "opts": tuple(content["opts"]), "source": source})


def evaluation_of(trained: Run, **changes: Any) -> Run:
    """Returns the run that evaluates what `trained` tested itself with: its last or best epoch.

    Args:
        changes: fields that differ from the training's: `dataset`, `classes`, `epoch`.
    """
    return replace(trained, **{"source": trained, "epoch": trained.epoch_tested or 0, **changes})


def settings_but_seed(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's own settings, the seed left out.

    Args:
        cfg: a configuration, or what was read from a run's `config.yaml`.
    """
    known = _full_defaults()
    tree = own_settings(cfg, not_determining(known), noted_methods(known))
    tree.pop("SEED", None)
    return tree


@cache
def _settings(run: Run) -> dict[str, Any]:
    return settings_but_seed(train.setup_cfg(run.arguments(Path(), "")))


@cache
def _defaults(trainer: str) -> dict[str, Any]:
    cfg = _full_defaults().clone()
    cfg.TRAINER.NAME = trainer
    return flat(settings_but_seed(cfg))


@cache
def _full_defaults() -> Config:
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    trainers.extend_cfg(cfg)
    return cfg


@cache
def _digest(run: Run) -> str:
    settings, defaults = flat(_settings(run)), _defaults(run.trainer)
    changed = {k: v for k, v in settings.items() if k not in defaults or defaults[k] != v}
    identity = {"trainer": run.trainer, "settings": changed, "epoch": run.epoch}
    if run.source is not None:
        identity["source"] = _digest(run.source)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _tags(opts: tuple[str, ...]) -> list[str]:
    """Names for folders: ("TRAINER.COOP.N_CTX", "4") → "n_ctx4"; empty values are left out."""
    return [
        re.sub(r"[^\w.+-]", "", f"{key.rpartition('.')[2].lower()}{value}")
        for key, value in zip(opts[::2], opts[1::2])
        if value
    ]
