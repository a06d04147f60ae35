"""EfficientNet-Lite against timm's networks of the same name."""

import pytest
import timm
import torch

from wildcat.backbones.efficientnet_lite import VARIANTS, EfficientNetLite


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("output_stride", [8, 32])
def test_it_is_timms_network(name: str, output_stride: int) -> None:
    """With the same parameters the same features, logits and statistics, whatever the size."""
    torch.manual_seed(3)
    theirs = timm.create_model(f"tf_efficientnet_{name}", pretrained=False, output_stride=output_stride)
    ours = EfficientNetLite(name, output_stride)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):  # initialised in the same way
        assert mine.detach().std().item() == pytest.approx(their.detach().std().item(), rel=0.3)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 65, 94)
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        with torch.no_grad():
            torch.testing.assert_close(ours.forward_features(images), theirs.forward_features(images))
            torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_its_stages_are_timms() -> None:
    from timm.models import group_parameters

    net = EfficientNetLite()
    matcher = timm.create_model("tf_efficientnet_lite0", pretrained=False).group_matcher(coarse=True)
    groups = group_parameters(net, matcher)
    parameters = [name for name, _ in net.named_parameters() if not name.startswith("classifier")]
    stages = [[name for name in parameters if name.startswith(tuple(f"{m}." for m in stage))] for stage in net.stages]
    expected = [[name for name in groups[key] if name in parameters] for key in sorted(groups)]
    assert [sorted(stage) for stage in stages] == [sorted(group) for group in expected if group]
