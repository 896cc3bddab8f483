"""The classification evaluator: against scikit-learn, counts, reset, errors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from yacs.config import CfgNode

from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator


def evaluator_cfg(name: str = "Classification", verbose: bool = True, **test: bool) -> CfgNode:
    test = {"EVALUATOR": name, "PER_CLASS_RESULT": False, "COMPUTE_CMAT": False, **test}
    return CfgNode({"VERBOSE": verbose, "OUTPUT_DIR": "", "TEST": test})


def one_hot(labels: np.ndarray | list[int], n_cls: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(labels), n_cls).float()


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("n_items", "n_cls"), [(1, 2), (17, 5), (301, 40), (1000, 7)])
def test_agrees_with_scikit_learn(seed: int, n_items: int, n_cls: int, tmp_path: Path) -> None:
    rng = np.random.RandomState(seed)
    true, pred = rng.randint(0, n_cls, (2, n_items))
    cfg = evaluator_cfg(COMPUTE_CMAT=True)
    cfg.OUTPUT_DIR = str(tmp_path / "made" / "on demand")
    evaluator = Classification(cfg)
    evaluator.process(one_hot(pred, n_cls).half(), torch.from_numpy(true))
    results = evaluator.evaluate()
    f1 = f1_score(true, pred, average="macro", labels=np.unique(true), zero_division=0)
    assert results["macro_f1"] == pytest.approx(100 * f1, rel=1e-9, abs=1e-9)
    assert results["accuracy"] == pytest.approx(100 * (true == pred).mean(), rel=1e-9, abs=1e-9)
    matrix = torch.load(Path(cfg.OUTPUT_DIR) / "cmat.pt", weights_only=True)
    expected = confusion_matrix(true, pred, normalize="true")
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=0)


def test_per_class_counts() -> None:
    true, pred = [4, 0, 4, 2, 4], [4, 1, 0, 2, 4]
    evaluator = Classification(evaluator_cfg())
    evaluator.process(one_hot(pred, 5), torch.tensor(true))
    counts = evaluator.per_class_counts()
    assert counts == {0: (1, 0), 2: (1, 1), 4: (3, 2)}
    assert list(counts) == sorted(Counter(true))
    assert all(type(n) is int for key, pair in counts.items() for n in (key, *pair))


def test_reset_forgets_and_evaluate_repeats() -> None:
    evaluator = Classification(evaluator_cfg())
    evaluator.process(one_hot([0, 1], 3), torch.tensor([1, 0]))
    evaluator.reset()
    evaluator.process(one_hot([2, 1], 3), torch.tensor([2, 0]))
    assert evaluator.evaluate() == evaluator.evaluate()
    assert evaluator.evaluate()["accuracy"] == 50.0


@pytest.mark.parametrize("empty_batch", [False, True])
def test_nothing_to_evaluate(empty_batch: bool) -> None:
    evaluator = Classification(evaluator_cfg())
    if empty_batch:
        evaluator.process(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="no predictions to evaluate"):
        evaluator.evaluate()
    with pytest.raises(ValueError, match="no predictions to evaluate"):
        evaluator.per_class_counts()


def test_per_class_result_needs_names() -> None:
    with pytest.raises(ValueError, match=r"TEST\.PER_CLASS_RESULT .* lab2cname"):
        build_evaluator(evaluator_cfg(PER_CLASS_RESULT=True))


def test_a_class_has_one_line_whatever_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    names = {0: "crow\nerror: all is lost", 1: "jay"}
    evaluator = build_evaluator(evaluator_cfg(PER_CLASS_RESULT=True), lab2cname=names)
    evaluator.process(one_hot([0, 1], 2), torch.tensor([0, 1]))
    evaluator.evaluate()
    assert r"* class: 0 (crow\nerror: all is lost)" in capsys.readouterr().out


def test_labels_of_a_wrong_shape() -> None:
    evaluator = Classification(evaluator_cfg())
    with pytest.raises(ValueError, match=r"\(2, 1\) do not fit 2 predictions"):
        evaluator.process(one_hot([0, 1], 3), torch.tensor([[0], [1]]))


def test_predictions_keep_no_graph() -> None:
    evaluator = Classification(evaluator_cfg())
    evaluator.process(one_hot([0, 1], 3).requires_grad_(), torch.tensor([0, 1]))
    assert evaluator.evaluate()["accuracy"] == 100.0


def test_unknown_evaluator() -> None:
    with pytest.raises(Exception, match=r"TEST\.EVALUATOR is 'Clasification'.*'Classification'"):
        build_evaluator(evaluator_cfg("Clasification"))


def test_own_evaluators_can_be_registered(capsys: pytest.CaptureFixture[str]) -> None:
    class CountOnly(EvaluatorBase):
        def __init__(self, cfg: CfgNode, **kwargs: object) -> None:
            super().__init__(cfg)
            self.kwargs = kwargs

    EVALUATOR_REGISTRY.register(CountOnly, force=True)
    evaluator = build_evaluator(evaluator_cfg("CountOnly", verbose=False), lab2cname={0: "cat"})
    assert evaluator.kwargs == {"lab2cname": {0: "cat"}}
    assert capsys.readouterr().out == ""
    for method, args in (("reset", ()), ("process", (None, None)), ("evaluate", ())):
        with pytest.raises(NotImplementedError):
            getattr(evaluator, method)(*args)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_the_gpu() -> None:
    evaluator = Classification(evaluator_cfg())
    evaluator.process(one_hot([0, 1, 1], 3).cuda(), torch.tensor([0, 1, 2]).cuda())
    assert evaluator.evaluate()["accuracy"] == pytest.approx(200 / 3)
