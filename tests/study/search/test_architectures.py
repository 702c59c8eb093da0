"""One network at several widths, depths, kernels and resolutions."""

import pytest

from elision.study.search.architectures import architectures
from elision.workloads import Workload, find_workload, layer_shapes


def test_every_combination_is_there_in_order_with_its_size() -> None:
    workload = find_workload("photo-mobilenet-v1")
    found = architectures(workload, width=(0.5, 1), depth=(1, 1.5), kernel=(3, 5))
    assert len({a.label for a in found}) == 8
    assert found[0].label == "width 0.5, kernel 3"
    assert found[0].workload.model_options["width"] == 0.125
    dataset = workload.load_dataset()
    for one in found[::3]:
        model = one.workload.make_model(dataset)
        assert one.parameters == sum(p.numel() for p in model.parameters())
        shapes = layer_shapes(model, (1, 3, 32, 32))
        assert one.macs == sum(geometry.dense_macs for _, geometry in shapes)
    (plain,) = architectures(workload)
    assert plain.workload == workload
    assert plain.label == "as it is"
    assert found[-1].macs > plain.macs > found[0].macs


def test_a_resolution_is_that_of_the_data() -> None:
    workload = find_workload("photo-resnet8").changed(train_images=20, test_images=10)
    half, full = architectures(workload, width=(0.5,), resolution=(0.5, 1))
    assert half.workload.load_dataset().image_size == (16, 16)
    assert half.workload.model_options == {"width": 8}
    assert half.parameters == full.parameters
    assert 3.9 < full.macs / half.macs < 4.1


@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("photo-resnet8", {"depth": (2,)}, "'resnet8' has no option 'depth'; models"),
        ("photo-resnet8", {"kernel": (5,)}, "no option 'kernel'.*: .*mobilenet-v1"),
        (
            "digits-cnn",
            {"resolution": (0.5,)},
            "'digits' has images of one size.*photo",
        ),
        (
            "photo-resnet8",
            {"width": (0,)},
            r"architectures\(width=0\): must be a number",
        ),
    ],
)
def test_a_multiplier_that_does_not_fit_is_refused(name, how, says) -> None:
    with pytest.raises(ValueError, match=says):
        architectures(find_workload(name), **how)


def test_a_model_of_another_library_has_no_options_to_scale() -> None:
    workload = Workload(name="w", dataset="digits", model="timm:resnet18")
    with pytest.raises(ValueError, match="unknown model that can be scaled"):
        architectures(workload, width=(2,))
