"""The output folder of a run: whose it is, that nobody else works in it, what is ours in it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from yacs.config import CfgNode

from dassl.command import STARTED_BY, command
from dassl.config import get_cfg_default
from dassl.engine.base import TrainerBase
from dassl.engine.progress import BEFORE, NEWEST, TENSORBOARD, has_progress
from dassl.engine.signals import TrainingStopped
from dassl.engine.wandb_writer import ID as WANDB_ID
from dassl.evaluation import error_analysis
from dassl.utils.checkpoint import BEST_FILE, POINTER_FILE
from dassl.utils.errors import ConfigError, OutputFolderError
from dassl.utils.files import PathLike, write_json, write_text
from dassl.utils.locks import LockedError, file_lock
from dassl.utils.logger import Logger, get_logger, log_files, setup_logger

logger = get_logger(__name__)

LOCK = ".running"  # held by the process at work; a sweep holds another file, `lock`
RECORDS = "results.jsonl"
CONFIG = "config.yaml"
MODEL = "model.json"  # with config.yaml, all that is needed to use what a run has learned
# All that a run writes beside its logs, as patterns: no file of anybody else is called like this.
_IN_PLACES = (TENSORBOARD, "*/model.pth.tar-[0-9]*", f"*/{BEST_FILE}")
_PLAIN = (CONFIG, MODEL, RECORDS, WANDB_ID, "cmat.pt", NEWEST, BEFORE, *error_analysis.FILES)
_OWN = (*_PLAIN, *_IN_PLACES)


def new_folder(cfg: CfgNode) -> Path:
    """Creates and returns a folder for a run of which nobody said where it goes."""
    name = f"{cfg.TRAINER.NAME}-{cfg.DATASET.NAME}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in count(1):
        path = Path(cfg.OUTPUT_DIR, name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):  # another run began in this second
            path.mkdir(parents=True)
            return path
    raise AssertionError("there is always another number")


class RunFolder:
    """The output folder of one call of `train.main`: the one that is named; for a resumed run, its
    own; for any other run, a new one, from `claimed` on.

    Args:
        cfg: the configuration, whose OUTPUT_DIR is set.
        args: the command line: `output_dir`, `eval_only`, `overwrite` (delete what is there).

    Raises:
        OutputFolderError: it holds another run, or no folder can be there.
        ConfigError: the arguments contradict each other.
    """

    def __init__(self, cfg: CfgNode, args: Namespace) -> None:
        named = bool(args.output_dir) or cfg.OUTPUT_DIR != get_cfg_default().OUTPUT_DIR
        self.is_new = not named and not cfg.RESUME
        self.cfg = cfg
        cfg.defrost()
        cfg.RESUME = os.path.expanduser(cfg.RESUME)  # no shell does it behind "--resume="
        self._set_path(Path(cfg.OUTPUT_DIR if named or self.is_new else cfg.RESUME).expanduser())
        self.trains = not (args.eval_only or args.no_train)
        self.evaluates, self.overwrite = args.eval_only, args.overwrite
        self.resumes = bool(cfg.RESUME) and _same(cfg.RESUME, self.path)
        if args.eval_only:
            _check_evaluation(cfg, args)
        if self.overwrite and (self.resumes or self.evaluates):
            what = "--resume goes on with" if self.resumes else "--eval-only adds to"
            raise ConfigError(f"--overwrite deletes what {what} in {self.path}: leave one out.")
        _check_place(self.path)
        if cfg.DATASET.NAME == "Folder" and _same(cfg.DATASET.ROOT, self.path):
            raise OutputFolderError(
                f"{self.path} holds the images, a class a folder: a run's would be taken for more "
                "of them. Choose another --output-dir, such as one inside it."
            )
        if not self.is_new:
            self._check_use()

    def _set_path(self, path: Path) -> None:
        self.path = path
        self.cfg.defrost()
        self.cfg.OUTPUT_DIR = str(path)
        self.cfg.freeze()

    @contextmanager
    def claimed(self) -> Iterator[Logger]:
        """Creates a new run's folder, which goes again if nothing is written into it.

        Yields:
            What stands in for `sys.stdout`. Its file appears once the run is built: one that cannot
            start leaves nothing behind.
        """
        if self.is_new:
            self._set_path(new_folder(self.cfg))
        try:
            with setup_logger(self.cfg.OUTPUT_DIR, delay=True) as log:
                yield log
        finally:
            if self.is_new:
                with suppress(OSError):  # there is something in it
                    self.path.rmdir()

    def _check_use(self) -> None:
        for name in _PLAIN:
            path = self.path / name
            if os.path.lexists(path) and not path.is_file():
                raise OutputFolderError(
                    f"{path} is no file, and stands where a run writes one: move it away, or "
                    "choose another --output-dir"
                )
        found = _held(self.path)
        if not found or self.resumes or self.overwrite:
            return
        if not self.evaluates:
            raise OutputFolderError(
                f"{self.path} holds another run ({', '.join(found)}). Choose another --output-dir, "
                f"go on with that run (--resume {shlex.quote(str(self.path))}), or delete what it "
                "left (--overwrite; from Python: overwrite=True)."
            )
        if found != [RECORDS]:
            raise OutputFolderError(
                f"{self.path} holds a training ({', '.join(found)}), whose config.yaml an "
                "evaluation would replace. Choose another --output-dir."
            )

    @contextmanager
    def at_work(self, log: Logger, trainer: TrainerBase) -> Iterator[None]:
        """Holds the folder; opens the log and writes `config.yaml` and `model.json`.

        Before, the trainer goes back to where a run to be resumed stopped, so that one that
        cannot be resumed stays as it is, and what is to be overwritten is deleted.

        Raises:
            OutputFolderError: another process is at work in it.
            CheckpointError, MissingFileError: it cannot be resumed.
            TrainingStopped: a signal ended the run; the message says how to go on.
        """
        try:
            with _alone(self.path):
                self._check_use()  # another run may have ended in between
                _remove_parts(self.path)
                if self.overwrite and _held(self.path):
                    remove_own_files(self.path)
                if self.trains and self.cfg.RESUME:
                    trainer.resume()
                log.open()
                write_text(self.path / CONFIG, self.cfg.dump())
                if (made_by := trainer.made_by()) is not None:
                    known = {key: part for key, part in made_by.items() if key != "settings"}
                    write_json(known, self.path / MODEL)  # the settings are in CONFIG
                yield
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(self.path)  # a write tells no name
            raise
        except TrainingStopped as stop:
            command = f". To go on: {resume_command(stop.folder)}" if stop.folder else ""
            raise TrainingStopped(stop.signum, f"{stop}{command}", stop.folder) from None


def _held(folder: Path) -> list[str]:
    """Returns what results a folder holds, a name for each kind; [] if there are none."""
    found = [RECORDS] if _has_content(folder / RECORDS) else []
    models = sorted(folder.glob("*/model.pth.tar-*")) + sorted(folder.glob(f"*/{BEST_FILE}"))
    if models:
        found.append(models[0].relative_to(folder).as_posix())
    if has_progress(folder):
        found.append(NEWEST)
    return found


def remove_own_files(folder: PathLike) -> None:
    """Deletes what runs write into their output folder, and nothing else."""
    root = Path(folder)
    places = {path.parent for pattern in _IN_PLACES for path in root.glob(pattern)}
    for path in [*log_files(root), *(path for pattern in _OWN for path in root.glob(pattern))]:
        path.unlink(missing_ok=True)
    for place in places:
        (place / POINTER_FILE).unlink(missing_ok=True)
        with suppress(OSError):  # something of somebody else is in it
            place.rmdir()


def _remove_parts(folder: Path) -> None:
    """Deletes what `write_atomically` had begun when a run was killed; nobody is writing now."""
    for pattern in _OWN:
        place, _, name = pattern.rpartition("/")
        for path in folder.glob(f"{place or '.'}/.{name}.*.part"):
            path.unlink(missing_ok=True)
    for path in folder.glob(f"*/.{POINTER_FILE}.*.part"):
        path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a folder against other runs, which would mix their results with ours."""
    path = folder / LOCK
    try:
        while True:
            with file_lock(path):
                if not path.exists():  # its last holder has just deleted it
                    continue
                try:
                    yield
                    return
                finally:
                    path.unlink(missing_ok=True)
    except LockedError:
        raise OutputFolderError(
            f"another run is at work in {folder}: choose another --output-dir, or wait for its end"
        ) from None


def _check_evaluation(cfg: CfgNode, args: Namespace) -> None:
    """Raises ConfigError if it is not clear which weights are to be evaluated."""
    if cfg.RESUME:
        raise ConfigError(
            "--resume goes on with a training, and --eval-only evaluates one: name its folder with "
            f"--model-dir {cfg.RESUME}"
        )
    if args.load_epoch is not None and not args.model_dir:
        raise ConfigError(
            f"--load-epoch {args.load_epoch} needs --model-dir, the folder of the training"
        )


def _check_place(folder: Path) -> None:
    """Raises OutputFolderError if no folder can be where one is wanted."""
    try:
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise OutputFolderError(f"the output folder cannot be {folder}: {there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputFolderError(
                f"the output folder cannot be {folder}: {there} may not be written to"
            )
        with TemporaryDirectory(prefix=".", dir=there):  # of /proc, say, access is no proof
            pass
    except OSError as error:
        raise OutputFolderError(
            f"the output folder cannot be {folder}: {error.strerror or error}"
        ) from None


def resume_command(folder: str) -> str:
    """Returns what to type to go on with a run that was stopped."""
    program, *words = sys.argv
    if Path(program).name != "train.py":
        return f"--resume {shlex.quote(folder)} (from Python: resume={folder!r})"
    typed = f"python {shlex.quote(program)}"  # by its path, where that was another folder
    started = command("train") if STARTED_BY in os.environ else typed
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word == "--overwrite" or word.startswith("--resume="):
            skip = False
        elif word == "--resume":
            skip = True
        else:
            kept.append(word)
    return f"{started} {shlex.join(['--resume', folder, *kept])}"


def _same(one: PathLike, other: PathLike) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
