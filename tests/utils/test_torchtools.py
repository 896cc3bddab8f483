"""Tools on layers that other people's files use."""

import pytest
import torch
from torch import nn

from dassl.modeling.ops import (
    create_onehot,
    ema_model_update,
    linear_rampup,
    mixup,
    sharpen_prob,
    sigmoid_rampup,
)
from dassl.utils.tools import get_most_similar_str_to_a_from_b
from dassl.utils.torchtools import init_network_weights, open_all_layers, open_specified_layers


def model() -> nn.Module:
    layers = {"body": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "head": nn.Linear(4, 2)}
    return nn.ModuleDict(layers)


def test_open_layers() -> None:
    net = model()
    open_specified_layers(net, "head")
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learning == {"head.weight", "head.bias"}
    assert (net["head"].training, net["norm"].training) == (True, False)
    open_all_layers(net)
    assert net["norm"].training and all(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match=r"'hed'.*body, norm, head.*Did you mean 'head'"):
        open_specified_layers(net, ["hed"])


@pytest.mark.parametrize("kind", ["normal", "xavier", "kaiming", "orthogonal"])
def test_new_weights(kind: str) -> None:
    net = model()
    before = net["body"].weight.clone()
    init_network_weights(net, kind)
    assert not torch.equal(net["body"].weight, before)
    assert not net["head"].bias.any() and torch.equal(net["norm"].weight, torch.ones(4))


def test_unknown_weights() -> None:
    with pytest.raises(ValueError, match=r"init_type is 'xavir'.*Did you mean 'xavier'"):
        init_network_weights(model(), "xavir")


def test_nearest_text() -> None:
    assert get_most_similar_str_to_a_from_b("CoOpp", ["CoCoOp", "CoOp", "zz"]) == "CoOp"
    assert get_most_similar_str_to_a_from_b("a", []) is None


def test_probabilities() -> None:
    p = torch.tensor([[0.25, 0.75]])
    torch.testing.assert_close(sharpen_prob(p, 2), torch.tensor([[0.1, 0.9]]))
    assert create_onehot(torch.tensor([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert [linear_rampup(n, 4) for n in (0, 1, 9)] == [0, 0.25, 1]
    assert sigmoid_rampup(4, 4) == 1.0 > sigmoid_rampup(0, 4) == pytest.approx(0.00674, abs=1e-5)


def test_mixed_batches() -> None:
    torch.manual_seed(0)
    x, y = torch.ones(64, 3, 2, 2), torch.tensor([[1.0, 0.0]]).expand(64, 2)
    mixed, label = mixup(x, 0 * x, y, y.flip(1), beta=0.5, preserve_order=True)
    torch.testing.assert_close(mixed[:, 0, 0, 0], label[:, 0])
    assert label.min() >= 0 and label[:, 0].min() >= 0.5 and label[:, 0].std() > 0.05


def test_running_mean_of_a_model() -> None:
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    expected = 0.9 * old.weight + 0.1 * new.weight
    ema_model_update(new, old, 0.9)
    torch.testing.assert_close(old.weight, expected)
