"""Parameters are drawn first; applying them moves image and truth alike."""

from __future__ import annotations

from dataclasses import replace

import torch

from model.training.augment import AugmentRanges, apply, draw

STILL = AugmentRanges(*[0.0] * 8)


def disc() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return (((rows - 20) ** 2 + (columns - 44) ** 2) < 36).float()[None, None]


def test_the_same_generator_draws_the_same_parameters() -> None:
    first, second = (draw(4, AugmentRanges(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.affine_B23, second.affine_B23)
    assert first.noise_seed == second.noise_seed


def test_zero_ranges_change_nothing() -> None:
    image = disc().expand(2, 3, -1, -1)
    same, truth = apply(image, disc().expand(2, -1, -1, -1), draw(2, STILL, torch.Generator().manual_seed(0)))
    assert torch.allclose(same, image, atol=1e-4)
    assert torch.allclose(truth, disc().expand(2, -1, -1, -1), atol=1e-4)


def test_image_and_truth_are_moved_alike() -> None:
    ranges = replace(STILL, rotation_deg=15, log_scale=0.18, log_aspect=0.1, shift=0.08)
    images, truths = disc().expand(8, 3, -1, -1), disc().expand(8, -1, -1, -1)
    moved, truth = apply(images, truths, draw(8, ranges, torch.Generator().manual_seed(1)))
    assert torch.allclose(moved[:, :1], truth, atol=1e-4)
    assert all(not torch.allclose(truth[i], disc()[0], atol=0.1) for i in range(8))


def test_intensity_changes_leave_the_truth_alone_and_the_image_in_range() -> None:
    ranges = replace(STILL, log_gamma=0.25, gain=0.12, offset=0.06, noise_sd=0.03)
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(2))[:, :1].expand(-1, 3, -1, -1)
    toned, truth = apply(images, disc().expand(8, -1, -1, -1), draw(8, ranges, torch.Generator().manual_seed(1)))
    assert torch.allclose(truth, disc().expand(8, -1, -1, -1), atol=1e-4)
    assert 0 <= float(toned.min()) < float(toned.max()) <= 1
    assert not torch.allclose(toned, images, atol=0.01)
    assert torch.equal(toned[:, 0], toned[:, 2])


def test_the_abdomen_is_never_mirrored() -> None:
    p = draw(500, AugmentRanges(), torch.Generator().manual_seed(0))
    assert (torch.linalg.det(p.affine_B23[:, :, :2]) > 0).all()
    assert (p.affine_B23[:, 0, 0] > 0).all()
