"""Error analysis: against scikit-learn and torch.topk, odd inputs, and what is kept in memory."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from dassl.evaluation import Classification, ErrorAnalysis
from dassl.evaluation.error_analysis import FILES, JOINED, TOP
from dassl.utils import ConfigError
from tests.evaluation.test_classification import evaluator_cfg

NAMES = {label: f"class {label}" for label in range(7)}


def rows(folder: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def analyse(
    folder: Path, scores: torch.Tensor, labels: torch.Tensor, paths: list[str] | None = None
) -> list[dict[str, str]]:
    """Hands scores over in batches of five; returns the rows of `predictions.csv`."""
    analysis = ErrorAnalysis(NAMES)
    for some in torch.arange(len(labels)).split(5):
        batch = {"impath": [paths[i] for i in some]} if paths else {}
        analysis.add(scores[some], labels[some], batch)
    analysis.save(folder, "Trainer on Dataset", folder)
    return rows(folder)


def draw(n_images: int, n_cls: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(n_images, n_cls, generator=generator)
    return scores, torch.randint(0, n_cls, (n_images,), generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize(("n_images", "n_cls"), [(31, 2), (31, 3), (10 * JOINED + 3, 7)])
def test_agrees_with_topk_and_scikit_learn(n_images: int, n_cls: int, tmp_path: Path):
    scores, labels = draw(n_images, n_cls)
    paths = [str(tmp_path / f"{i}.jpg") for i in range(n_images)]
    found = analyse(tmp_path, scores, labels, paths)
    k = min(TOP, n_cls)
    probabilities, order = scores.softmax(dim=1).topk(k)
    assert [row["path"] for row in found] == [f"{i}.jpg" for i in range(n_images)]
    for row, label, p, classes, all_scores in zip(found, labels, probabilities, order, scores):
        assert row["truth"] == NAMES[int(label)]
        assert row["predicted"] == row["class_1"]
        assert row["correct"] == str(int(label == classes[0]))
        assert [row[f"class_{i + 1}"] for i in range(k)] == [NAMES[int(c)] for c in classes]
        ours = [float(row[f"probability_{i + 1}"]) for i in range(k)]
        assert ours == pytest.approx(p.tolist(), rel=1e-5)
        ours = [float(row[f"score_{i + 1}"]) for i in range(k)]
        assert ours == pytest.approx(all_scores[classes].tolist(), rel=1e-5)
        assert f"class_{k + 1}" not in row
        truth = all_scores.softmax(dim=0)[label].item()
        assert float(row["truth_probability"]) == pytest.approx(truth, rel=1e-5)
        assert int(row["truth_rank"]) == 1 + int((all_scores > all_scores[label]).sum())
    counts = [[int(n) for n in list(row.values())[1:]] for row in rows(tmp_path, "confusion.csv")]
    expected = confusion_matrix(labels, scores.argmax(dim=1), labels=range(n_cls))
    np.testing.assert_array_equal(counts, expected)


def test_ties_are_decided_as_by_the_evaluator(tmp_path: Path):
    scores, labels = draw(200, 7)
    scores = scores.round().half()  # many equal ones, as half precision makes them
    evaluator = Classification(evaluator_cfg())
    evaluator.process(scores, labels)
    found = analyse(tmp_path, scores, labels)
    shares = 100 * sum(int(row["correct"]) for row in found) / len(found)
    assert shares == pytest.approx(evaluator.evaluate()["accuracy"])
    assert [row["predicted"] for row in found] == [NAMES[int(c)] for c in scores.max(1).indices]


def test_only_the_candidates_stay_in_memory():
    analysis = ErrorAnalysis()
    for _ in range(3):
        analysis.add(torch.randn(100, 1000), torch.zeros(100, dtype=torch.long), {})
    kept = {id(t.untyped_storage()): t for b in analysis._batches for t in vars(b).values()}
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert total <= 300 * (TOP * (8 + 4 + 4) + 8 + 8 + 4), "bytes of 300 images"


def test_classes_that_share_a_name_or_have_none(tmp_path: Path):
    analysis = ErrorAnalysis({0: "crane", 1: "crane", 2: "owl"})
    analysis.add(torch.eye(4), torch.tensor([0, 1, 2, 0]), {})
    analysis.save(tmp_path, "")
    names = ["crane (0)", "crane (1)", "owl", "3"]
    assert [row["truth"] for row in rows(tmp_path)] == [*names[:3], names[0]]
    assert list(rows(tmp_path, "confusion.csv")[0]) == ["truth", *names]


def test_labels_beyond_the_scores_count_as_wrong(tmp_path: Path):
    (row,) = analyse(tmp_path, torch.eye(3)[:1], torch.tensor([5]))
    assert (row["truth"], row["correct"], row["truth_rank"]) == ("class 5", "0", "0")
    assert row["truth_probability"] == "0"


@pytest.mark.parametrize("batch", [{}, {"impath": ["one for two"]}, (1, 2), None])
def test_batches_without_a_path_per_image(batch: object, tmp_path: Path):
    analysis = ErrorAnalysis(NAMES)
    analysis.add(torch.eye(3)[:2], torch.tensor([1, 1]), batch)
    analysis.save(tmp_path, "")
    assert [row["path"] for row in rows(tmp_path)] == ["", ""]


@pytest.mark.parametrize(
    ("output", "given"),
    [(torch.zeros(2), r"\(2,\)"), (torch.zeros(4, 3), r"\(4, 3\)"), ((1, 2), "tuple")],
)
def test_outputs_that_are_no_scores(output: object, given: str):
    with pytest.raises(ConfigError, match=rf"TEST\.ERROR_ANALYSIS needs .* output is {given}"):
        ErrorAnalysis(NAMES).add(output, torch.tensor([0, 1]), {})


# --- the picture ----------------------------------------------------------------------------------


def picture(folder: Path) -> Image.Image:
    with Image.open(folder / "confused.png") as image:
        return image.convert("RGB")


def colors(image: Image.Image) -> set[tuple[int, int, int]]:
    return {color for _, color in image.getcolors(2**24)}


def test_the_picture_shows_the_images(tmp_path: Path):
    """One confusion: magenta images of class 0, taken for class 1, whose example is cyan."""
    paths = []
    for i, color in enumerate([(255, 0, 255), (255, 0, 255), (0, 255, 255), (255, 255, 0)]):
        Image.new("RGB", (20, 30), color).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    scores = torch.eye(3)[[1, 1, 1, 2]]
    analyse(tmp_path, scores, torch.tensor([0, 0, 1, 2]), paths)
    drawn = colors(picture(tmp_path))
    assert {(255, 0, 255), (0, 255, 255)} <= drawn
    assert (255, 255, 0) not in drawn, "class 2 is not confused with another"


def test_the_picture_shows_images_as_the_data_set_reads_them(tmp_path: Path):
    """Orientation, background and range of grey levels are the reader's affair."""
    analysis = ErrorAnalysis(NAMES, lambda path: Image.new("RGB", (20, 30), path))
    analysis.add(torch.eye(3)[[1, 1]], torch.tensor([0, 1]), {"impath": ["magenta", "cyan"]})
    analysis.save(tmp_path, "")
    assert {(255, 0, 255), (0, 255, 255)} <= colors(picture(tmp_path))


def test_missing_images_and_odd_names_leave_a_gap(tmp_path: Path):
    scores, labels = draw(31, 7)
    paths = ["", str(tmp_path / "gone.jpg"), str(tmp_path)] * 11
    odd = {0: "$x_y^2$", 1: "a very long name " * 9, 2: ""}
    analysis = ErrorAnalysis(odd)
    analysis.add(scores, labels, {"impath": paths[:31]})
    analysis.save(tmp_path, "$\\title$")
    assert picture(tmp_path).width > 800


def test_nothing_was_confused(tmp_path: Path):
    analyse(tmp_path, torch.eye(3), torch.arange(3))
    assert picture(tmp_path).height < 400


def test_a_failure_leaves_the_files_of_before(tmp_path: Path, monkeypatch):
    analyse(tmp_path, torch.eye(3), torch.arange(3))
    before = {name: (tmp_path / name).read_bytes() for name in FILES}

    def full(self, rows: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dassl.evaluation.error_analysis.save_picture", full)
    monkeypatch.setattr("dassl.evaluation.error_analysis.confusion_rows", lambda *a: full(*a))
    with pytest.raises(OSError, match="No space left"):
        analyse(tmp_path, torch.eye(3), torch.tensor([1, 1, 1]))
    assert (tmp_path / "confusion.csv").read_bytes() == before["confusion.csv"]
    assert {path.name for path in tmp_path.iterdir()} == set(FILES), "no part is left behind"
