"""Pictures → names of classes with probabilities, by what a run has learned.

Shapes: N pictures, B of them at a time, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from dassl.engine import TrainerBase
from dassl.utils import ConfigError
from dassl.utils.bars import bar
from dassl.utils.errors import NonFiniteScoresError
from dassl.utils.files import PathLike
from prompts.pictures import Picture, PictureBatches
from prompts.run import Run, build, quietly, read_run

Guesses = list[tuple[str, float]]  # class names and probabilities, the surest first


class Predictor:
    """Classifies pictures; of any trainer that is registered.

    Attributes:
        classnames: C names.
        run: what the run's folder says.
        trainer: the run's trainer, with what it learned.
    """

    def __init__(self, run: Run, trainer: TrainerBase) -> None:
        self.run, self.trainer = run, trainer
        self.classnames: list[str] = list(trainer.dm.dataset.classnames)
        with quietly():
            self._batches = PictureBatches(run.cfg)

    @classmethod
    def load(
        cls,
        run: PathLike,
        classes: Sequence[str] | None = None,
        *,
        epoch: int | None = None,
        template: str = "",
        backbone_path: str = "",
        device: str = "",
    ) -> Predictor:
        """Loads what a run has learned. No dataset has to be there.

        Args:
            run: output folder of a training, or of an evaluation that learns nothing.
            classes: other classes, which the learned context then stands with.
            epoch: of which the weights are; None: those that the run tested.
            template: another hand-written prompt, for methods that have one.
            backbone_path: where CLIP's weights are now, if they were a file that has moved.
            device: "cpu" or "cuda"; "": a GPU if the run's configuration allows it.

        Raises:
            UserError: see `read_run` and `build`.
        """
        found = read_run(run, backbone_path=backbone_path, device=device)
        names = None if classes is None else list(classes)
        return cls(found, build(found, names, template, epoch))

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        top: int = 5,
        batch_size: int = 0,
        progress: bool = False,
        broken: dict[int, str] | None = None,
    ) -> list[Guesses]:
        """Returns the `top` likeliest classes of each picture.

        Args:
            images: paths or PIL images, or one of them.
            top: at most C.
            batch_size, progress, broken: see `scores`.

        Raises:
            ConfigError: no class is asked for.
            UserError: see `scores`.
        """
        if top < 1:
            raise ConfigError(f"the number of classes to show is {top}; expected 1 or more")
        k, found = min(top, len(self.classnames)), []
        for some in self.scores(images, batch_size, progress, broken):
            values, places = some.softmax(dim=1).topk(k)
            for row, chances in zip(places.tolist(), values.tolist()):
                found.append([(self.classnames[c], p) for c, p in zip(row, chances)])
        return found

    def probabilities(
        self, images: Picture | Iterable[Picture], batch_size: int = 0, progress: bool = False
    ) -> Tensor:
        """Returns softmax of `logits`, (N, C)."""
        return self.logits(images, batch_size, progress).softmax(dim=1)

    def logits(
        self, images: Picture | Iterable[Picture], batch_size: int = 0, progress: bool = False
    ) -> Tensor:
        """Returns the method's scores, (N, C), float32 on the CPU; see `scores`."""
        found = list(self.scores(images, batch_size, progress))
        return torch.cat(found) if found else torch.empty(0, len(self.classnames))

    def scores(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int = 0,
        progress: bool = False,
        broken: dict[int, str] | None = None,
    ) -> Iterator[Tensor]:
        """Yields the method's scores, (B, C), float32 on the CPU.

        Args:
            images: paths or PIL images, or one of them.
            batch_size: B; 0: the run's DATALOADER.TEST.BATCH_SIZE.
            progress: shows how far it is (`dassl.utils.bars`).
            broken: takes places and reasons of pictures that cannot be read, which are left out;
                None: the first is an error.

        Raises:
            DataError, MissingFileError: a picture cannot be read.
            NonFiniteScoresError: a score is infinite or NaN.
        """
        alone = isinstance(images, (str, os.PathLike, Image.Image))
        pictures, done = [images] if alone else list(images), 0
        with bar("predicting", total=len(pictures), unit="pictures", shown=progress) as shown:
            for some in self.images(pictures, batch_size, broken):
                with quietly(), torch.no_grad():
                    found = self._of_one_kind(self.trainer.model_inference(some)).float().cpu()
                self._require_finite(found, pictures, done, broken)
                done += len(some)
                shown.update(done + len(broken or ()) - shown.n)
                yield found

    def _of_one_kind(self, found: object) -> Tensor:
        if isinstance(found, Tensor):
            return found
        raise ConfigError(
            f"model_inference of {type(self.trainer).__name__} returns a {type(found).__name__}, "
            "and not the scores of images for classes: nobody but its own program can read that"
        )

    @staticmethod
    def _require_finite(
        scores: Tensor, pictures: Sequence[Picture], done: int, broken: dict[int, str] | None
    ) -> None:
        wrong = (~scores.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if wrong:
            read = [picture for i, picture in enumerate(pictures) if i not in (broken or ())]
            place = done + wrong[0]
            raise NonFiniteScoresError(
                f"the scores of {read[place]} are NaN or infinite: the weights are damaged", place
            )

    def require(self, paths: Sequence[str]) -> None:
        """Raises DataError with the pictures that cannot be read; see `PictureBatches.require`."""
        self._batches.require(paths)

    def images(
        self,
        pictures: Sequence[Picture],
        batch_size: int = 0,
        broken: dict[int, str] | None = None,
    ) -> Iterator[Tensor]:
        """Yields pictures as the run's model takes them, (B, 3, H, W), on its device."""
        size = batch_size or self.run.cfg.DATALOADER.TEST.BATCH_SIZE
        for some in self._batches(pictures, size, broken):
            yield self._batches.floats(some.to(self.trainer.device))
