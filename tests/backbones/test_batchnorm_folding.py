"""BatchNorm inside the convolution: the same function and gradient, in every mode."""

import copy

import pytest
import timm
import torch
import torchvision

from wildcat.backbones.batchnorm_folding import fold_batchnorm

NETS = {
    "resnet18": lambda: torchvision.models.resnet18(weights=None),
    "lite0": lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", pretrained=False),
    "densenet": lambda: timm.create_model("densenet121", pretrained=False, block_config=(2, 2, 2, 2)),
}
LEAST_PAIRS = {"resnet18": 20, "lite0": 49, "mobilenet": 30, "densenet": 2}


def randomised(name):
    torch.manual_seed(0)
    net = NETS[name]().double()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_folded_equals_plain_in_every_mode(name):
    plain = randomised(name)
    folded = copy.deepcopy(plain)
    images = torch.randn(2, 3, 40, 64, dtype=torch.float64)
    pairs = fold_batchnorm(folded, images)
    assert pairs >= LEAST_PAIRS[name]
    assert list(folded.state_dict()) == list(plain.state_dict())
    again = copy.deepcopy(folded)
    for mode in (False, True, False):
        results = []
        for net in (plain, folded, again):
            net.train(mode)
            net.zero_grad()
            torch.manual_seed(1)  # dropout
            out = net(images)
            out.square().sum().backward()
            results.append((out, {n: p.grad for n, p in net.named_parameters()}))
        (expected, gradients), *others = results
        for out, gradients in others:
            torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
            for key, gradient in gradients.items():
                torch.testing.assert_close(
                    gradients[key], gradient, rtol=1e-6, atol=1e-8 * float(gradient.abs().max() + 1)
                )


@pytest.mark.slow
def test_a_copy_reads_its_own_weights():
    net = randomised("resnet18").eval()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fold_batchnorm(net, images)
    other = copy.deepcopy(net)
    before = net(images)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(net(images), before)
    assert other(images).abs().max() == 0


def test_outputs_that_are_read_twice_stay_apart():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    assert fold_batchnorm(Branching(), torch.zeros(1, 3, 4, 4)) == 0
