"""What a stored feature is the feature of, and what it was computed by.

The *id* of a row says which file, and what is done to its content; the *space* says which weights,
precision, code and device. Whatever changes gives another key.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import PIL
import torch
import torchvision
from torch import nn
from torch.utils.data import SequentialSampler
from torchvision import transforms as T

import encoders
from dassl.data import DatasetWrapper
from dassl.data.workers import plain_sampler
from dassl.utils import read_image
from dassl.utils.files import file_state
from encoders.kernels.folding import Fingerprint
from encoders.openai import CLIP
from features.store import make_id

# Steps whose text says all that they do; the first ones are not random.
TEST_STEPS = (T.Resize, T.CenterCrop, T.ToTensor, T.Normalize)
VIEW_STEPS = (
    *TEST_STEPS,
    T.RandomResizedCrop,
    T.RandomCrop,
    T.RandomHorizontalFlip,
    T.ColorJitter,
    T.RandomGrayscale,
)

_digests: WeakKeyDictionary[nn.Module, tuple[Fingerprint, str]] = WeakKeyDictionary()


def space_of(visual: nn.Module, precision: str, device: torch.device) -> str:
    """Names what features are computed by: weights, precision, code, device."""
    settings = [precision, device.type, torch.__version__, _code_digest()]
    settings.append(torch.are_deterministic_algorithms_enabled())
    if device.type == "cuda":
        settings += [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    settings.append(getattr(visual, "identity", ""))  # what weights do not tell, such as heads
    digest = make_id(_weights_digest(visual), *settings).hex()
    return f"{type(visual).__name__}-{visual.output_dim}-{precision}-{digest}"


def _weights_digest(visual: nn.Module) -> str:
    tensors = visual.state_dict(keep_vars=True)
    known = _digests.get(visual)
    if known is None or not known[0].matches(tensors.values()):
        sha256 = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            sha256.update(flat.view(torch.uint8).numpy())
        known = _digests[visual] = (Fingerprint(tensors.values()), sha256.hexdigest())
    return known[1]


@cache
def _code_digest() -> str:
    """Returns the digest of the code that makes a feature of a file, beside the libraries."""
    digest = hashlib.sha256()
    for path in code_files():
        digest.update(path.read_bytes())
    digest.update(inspect.getsource(read_image).encode())
    return digest.hexdigest()


def code_files() -> list[Path]:
    """Returns the files of the package `encoders`, and OpenAI's model."""
    own = Path(encoders.__file__).parent.rglob("*.py")
    return [*sorted(own), Path(inspect.getfile(CLIP))]


def file_ids(
    dataset: DatasetWrapper, known: tuple[type, ...], more: object = None
) -> list[bytes] | None:
    """Returns an id for each image of a dataset: a file, and what is done to its content.

    Args:
        dataset: with a composed transform.
        known: the steps that the transform may have.
        more: settings behind the transform, where its text rounds them.

    Returns:
        The ids; None if the transform has other steps, or a file is missing.
    """
    if any(type(step) not in known for step in dataset.transform.transforms):
        return None
    how = (repr(dataset.transform), more, PIL.__version__, torchvision.__version__)
    how += (dataset.reader_identity,)
    try:
        return [make_id(how, *file_state(item.impath)) for item in dataset.data_source]
    except OSError:  # the plain path says which file is missing
        return None


def loader_ids(loader: Iterable) -> list[bytes] | None:
    """Returns the ids of a test loader's images; None if its batches are not only their images."""
    if not is_plain(loader) or type(plain_sampler(loader)) is not SequentialSampler:
        return None
    return file_ids(loader.dataset, TEST_STEPS)


def is_plain(loader: Iterable) -> bool:
    """Whether a loader gives one view of each image by our own dataset class."""
    dataset = getattr(loader, "dataset", None)
    return (
        type(dataset) is DatasetWrapper
        and type(dataset.transform) is T.Compose
        and dataset.k_tfm == 1
        and not dataset.return_img0
    )
