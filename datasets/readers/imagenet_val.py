"""What the images of ImageNet's flat validation folder show."""

from __future__ import annotations

from pathlib import Path

from dassl.utils import DataError, MissingFileError
from dassl.utils.files import listed
from datasets.readers.annotations import class_number, read_mat, read_rows

DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LISTS = ("LOC_val_solution.csv", "val.txt")


def sort_flat_val(
    images: list[str], wnids: list[str], dataset_dir: str, image_dir: str
) -> dict[str, str]:
    """Returns {image name: wnid}, in the order of `images`.

    Looked for in `dataset_dir` and `image_dir`:

    - lists of a file and a wnid, or a label counted from 0, in each line: Kaggle's
      `LOC_val_solution.csv`, or `val.txt`;
    - the development kit's `ILSVRC2012_validation_ground_truth.txt` with `meta.mat`, also within
      `ILSVRC2012_devkit_t12/data`.

    Args:
        images: names of the files.
        wnids: ImageNet's, in label order.

    Raises:
        MissingFileError: none of these files is there.
        DataError: the file says nothing of some images.
    """
    folders = [Path(dataset_dir), Path(image_dir)]
    source, known = _from_lists(folders, wnids) or _from_devkit(folders) or (None, {})
    if source is None:
        raise MissingFileError(
            f"{image_dir}/val has no class folders, and nothing tells what its images show: put "
            f"{LISTS[0]}, {LISTS[1]} (lines of a file and a wnid) or {DEVKIT} into {dataset_dir}, "
            "or move the images into class folders"
        )
    found = {image: known.get(Path(image).stem) for image in images}
    classes = set(wnids)
    lacking = [image for image, wnid in found.items() if wnid not in classes]
    if lacking:
        raise DataError(f"{source} does not tell the class of {listed(lacking)} in {image_dir}/val")
    return found


def _from_lists(folders: list[Path], wnids: list[str]) -> tuple[Path, dict[str, str]] | None:
    for path in (folder / name for name in LISTS for folder in folders):
        if path.is_file():
            rows = [row[0].replace(",", " ").split()[:2] for row in read_rows(path, 1)]
            rows = [row for row in rows if row[0] != "ImageId"]  # heading of the CSV file
            by_label = {str(label): wnid for label, wnid in enumerate(wnids)}
            return path, {Path(row[0]).stem: by_label.get(row[-1], row[-1]) for row in rows}
    return None


def _from_devkit(folders: list[Path]) -> tuple[Path, dict[str, str]] | None:
    for folder in (folder / inner for inner in ("", DEVKIT) for folder in folders):
        path = folder / GROUND_TRUTH
        if path.is_file() and (folder / "meta.mat").is_file():
            # Numbers 1 to 1000 are the classes in an order of their own, as meta.mat has them.
            synsets = read_mat(folder / "meta.mat", "synsets", "ILSVRC2012_ID", "WNID")
            wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
            numbers = [class_number(path, row[0]) + 1 for row in read_rows(path, 1)]
            return path, {
                f"ILSVRC2012_val_{index:08d}": wnids.get(number, "")
                for index, number in enumerate(numbers, start=1)
            }
    return None
