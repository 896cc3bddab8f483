"""Trains or evaluates: arguments → configuration → trainer → train() or test().

`python train.py` alone shows an example.
"""

from __future__ import annotations

import argparse

import dassl.start  # noqa: F401 - first: it checks Python and its packages
import datasets
import trainers
from dassl.config import Config, checked, collect_problems, find_config, get_cfg_default
from dassl.config.command_line import FLAGS, build_parser, example
from dassl.engine import build_trainer
from dassl.engine.check import check_cfg
from dassl.engine.others import check_images, load_trained
from dassl.engine.run_folder import RunFolder
from dassl.utils import ConfigError, UserError, collect_env_info, set_random_seed
from dassl.utils.cli import run_cli
from dassl.utils.device import prepare_device
from dassl.utils.logger import get_logger, talking
from dassl.utils.system_errors import GO_ON, system_errors_explained

logger = get_logger("train")  # not __name__, which is __main__ for a command


def completed(args: argparse.Namespace) -> argparse.Namespace:
    """Returns arguments in which fields that are missing have the command line's defaults."""
    return argparse.Namespace(**{**vars(build_parser().parse_args([])), **vars(args)})


def setup_cfg(args: argparse.Namespace) -> Config:
    """Defaults → settings of datasets and trainers → files → flags → KEY VALUE pairs.

    Args:
        args: fields that are missing take the defaults of the command line.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    args = checked(completed(args))
    if not (args.trainer or args.config_file or args.dataset_config_file or args.opts):
        raise ConfigError(f"nothing says what to train, and on what. Examples:\n{example()}")
    cfg, error = _merged(args)
    if trainers.has_own_settings(cfg.TRAINER.NAME):  # which trainer it is was not known before
        cfg, error = _merged(args, cfg.TRAINER.NAME)
    if error:
        raise error
    trainers.fit_backbone(cfg)
    cfg.freeze()
    return cfg


def _merged(args: argparse.Namespace, trainer: str = "") -> tuple[Config, UserError | None]:
    cfg = get_cfg_default()
    datasets.extend_cfg(cfg)
    trainers.extend_cfg(cfg, trainer)
    try:
        with collect_problems() as attempt:
            given = [path for path in (args.dataset_config_file, args.config_file) if path]
            paths = [path for path in map(attempt, [find_config] * len(given), given) if path]
            for path in paths:
                logger.debug(f"Settings from {path}")
                attempt(cfg.merge_from_file, path)
            for flag, key in FLAGS.items():
                if getattr(args, flag) not in (None, ""):
                    attempt(cfg.merge_from_list, [key, getattr(args, flag)])
            attempt(cfg.merge_from_list, list(args.opts or []))
            plugins = {"TRAINER.NAME": trainers, "DATASET.NAME": datasets}
            attempt(check_cfg, cfg, plugins, len(paths) == len(given))
    except UserError as error:
        return cfg, error
    return cfg, None


def main(args: argparse.Namespace) -> float | None:
    """Runs what the arguments say; fields that are missing take the defaults of the command line.

    Returns:
        The accuracy in per cent; None with --no-train, or with TEST.NO_TEST.
    """
    args = completed(args)
    with talking(args.quiet, args.verbose):
        return _run(args)


def _run(args: argparse.Namespace) -> float | None:
    cfg = setup_cfg(args)
    folder = RunFolder(cfg, args)
    prepare_device(cfg)
    if cfg.SEED >= 0:
        logger.info(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    with system_errors_explained(GO_ON), folder.claimed() as log:
        given = "\n".join(f"{name}: {value}" for name, value in sorted(vars(args).items()))
        logger.info(f"***************\n** Arguments **\n***************\n{given}")
        logger.info(f"************\n** Config **\n************\n{cfg}")
        logger.info("Collecting env info ...")
        logger.info(f"** System info **\n{collect_env_info(cfg.USE_CUDA)}\n")
        trainer = build_trainer(cfg)
        if args.eval_only:
            load_trained(trainer, args.model_dir, args.load_epoch)
        check_images(trainer, training=not args.eval_only)
        with folder.at_work(log, trainer):
            if args.eval_only:
                return trainer.test()
            return None if args.no_train else trainer.train()


def command() -> None:
    args = build_parser().parse_args()
    accuracy = main(args)
    if args.quiet and accuracy is not None:
        print(f"accuracy: {accuracy:.1f}%")


if __name__ == "__main__":
    raise SystemExit(run_cli(command))
