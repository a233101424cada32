"""Layers by nnU-Net's rule. The expected plans were computed by nnU-Net 2.8.1 itself."""

from __future__ import annotations

import pytest

from model.networks.nnunet_plan import plan, total_stride


@pytest.mark.parametrize(
    ("patch", "halvings", "padded"),
    [
        ((224, 224), (5, 5), (224, 224)),
        ((512, 512), (7, 7), (512, 512)),
        ((128, 96), (4, 4), (128, 96)),
        ((7, 7), (0, 0), (7, 7)),
        ((100, 60), (4, 4), (112, 64)),
    ],
)
def test_a_slice_is_halved_until_no_side_has_eight_pixels(
    patch: tuple[int, ...], halvings: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    planned = plan(patch)
    assert total_stride(planned.strides) == tuple(2**n for n in halvings)
    assert planned.patch == padded
    assert set(planned.kernels) == {(3, 3)}


def test_thick_slices_wait_until_the_plane_is_as_coarse() -> None:
    planned = plan((48, 192, 192), (2.5, 0.8, 0.8))
    assert planned.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert planned.kernels == ((1, 3, 3), *((3, 3, 3),) * 5)


def test_very_thick_slices_are_flat_for_two_stages() -> None:
    planned = plan((20, 256, 256), (7.0, 0.8, 0.8))
    assert planned.strides[1:4] == ((1, 2, 2), (1, 2, 2), (1, 2, 2))
    assert planned.kernels[:4] == ((1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_a_single_side_is_halved_only_while_it_has_twelve_pixels() -> None:
    assert plan((7, 11)).stages == 1
    assert plan((7, 12)).strides == ((1, 1), (1, 2))


def test_features_double_up_to_the_most() -> None:
    assert plan((224, 224)).features(32, 512) == (32, 64, 128, 256, 512, 512)


def test_patch_and_spacing_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="as many entries"):
        plan((64, 64), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="all above 0"):
        plan((64, 0))
