"""TransUNet has the published shape, and takes the official file's weights (models.md §1.11, §11 tests 1, 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.networks import build_network
from model.networks.transunet import GROUPS, StandardisedConv2d, TransUNet, TransUNetConfig, resized
from model.networks.transunet_weights import WeightsProblem, load_vit_weights

TINY = TransUNetConfig(out_channels=2, image_size=(32, 64), width=0.125, units=(1, 2, 1), layers=2)
Arrays = dict[str, NDArray[np.float32]]


def test_the_published_network_has_exactly_the_published_number_of_parameters() -> None:
    """105,277,081 with the 9 classes of the paper's data: 105.28 M."""
    with torch.device("meta"):
        network = TransUNet(TransUNetConfig(out_channels=9))
    assert sum(p.numel() for p in network.parameters()) == 105_277_081


def test_the_stages_have_the_published_shapes() -> None:
    with torch.device("meta"):
        network = TransUNet(TransUNetConfig())
        deepest, skips = network._encoded(torch.zeros(1, 3, 224, 224))
    assert deepest.shape == (1, 1024, 14, 14)
    assert [tuple(s.shape[1:]) for s in skips] == [(512, 28, 28), (256, 56, 56), (64, 112, 112)]
    assert network.positions.shape == (1, 196, 768)
    assert network.root[1].num_groups == GROUPS


def test_the_logits_have_the_size_of_the_image_whatever_it_is() -> None:
    network = build_network(
        "transunet", {"image_size": [32, 64], "width": 0.125, "units": [1, 1, 1], "layers": 1, "out_channels": 2}
    ).eval()
    for size in ((32, 64), (64, 32), (48, 48)):
        assert network(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_every_parameter_takes_part_in_the_answer() -> None:
    network = TransUNet(TINY)
    network(torch.rand(2, 3, 32, 64)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_kernel_is_standardised_before_it_is_used() -> None:
    convolution = StandardisedConv2d(3, 4, 3, bias=False)
    images = torch.rand(1, 3, 8, 8)
    before = convolution(images)
    with torch.no_grad():
        convolution.weight.mul_(50).add_(3)
    assert torch.allclose(convolution(images), before, atol=1e-2)


def test_positions_keep_their_corners_on_another_grid() -> None:
    positions = torch.arange(12.0).view(1, 12, 1)
    larger = resized(positions, (3, 4), (5, 7)).view(5, 7)
    assert larger[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 3, 8, 11]
    assert larger[2, 3].item() == pytest.approx(5.5)


def test_channels_that_the_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be shared by 12 attention heads"):
        TransUNetConfig(width=0.01)


def official_arrays(config: TransUNetConfig, side: int, seed: int = 0) -> Arrays:
    """Made-up values under the official file's names and in its layouts, for a network of this size."""
    rng = np.random.default_rng(seed)
    hidden, heads, stem = config.hidden, config.attention_heads, config.stem
    shapes: dict[str, tuple[int, ...]] = {
        "conv_root/kernel": (7, 7, 3, stem),
        "gn_root/scale": (1, 1, 1, stem),
        "gn_root/bias": (1, 1, 1, stem),
        "embedding/kernel": (1, 1, 16 * stem, hidden),
        "embedding/bias": (hidden,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + side * side, hidden),
        "Transformer/encoder_norm/scale": (hidden,),
        "Transformer/encoder_norm/bias": (hidden,),
        "cls": (1, 1, hidden),
        "head/kernel": (hidden, 21843),
    }
    before = stem
    for block, units in enumerate(config.units, start=1):
        middle, after = stem * 2 ** (block - 1), stem * 2 ** (block + 1)
        for unit in range(1, units + 1):
            at, channels_in = f"block{block}/unit{unit}", before if unit == 1 else after
            shapes |= {
                f"{at}/conv1/kernel": (1, 1, channels_in, middle),
                f"{at}/conv2/kernel": (3, 3, middle, middle),
                f"{at}/conv3/kernel": (1, 1, middle, after),
            }
            norms = {"gn1": middle, "gn2": middle, "gn3": after}
            if unit == 1:
                shapes[f"{at}/conv_proj/kernel"] = (1, 1, channels_in, after)
                norms["gn_proj"] = after
            shapes |= {f"{at}/{n}/{part}": (1, 1, 1, c) for n, c in norms.items() for part in ("scale", "bias")}
        before = after
    for layer in range(config.layers):
        at = f"Transformer/encoderblock_{layer}"
        attention = f"{at}/MultiHeadDotProductAttention_1"
        for name in ("query", "key", "value"):
            shapes |= {f"{attention}/{name}/kernel": (hidden, heads, hidden // heads)}
            shapes |= {f"{attention}/{name}/bias": (heads, hidden // heads)}
        shapes |= {f"{attention}/out/kernel": (heads, hidden // heads, hidden), f"{attention}/out/bias": (hidden,)}
        shapes |= {
            f"{at}/MlpBlock_3/Dense_0/kernel": (hidden, 4 * hidden),
            f"{at}/MlpBlock_3/Dense_0/bias": (4 * hidden,),
        }
        shapes |= {f"{at}/MlpBlock_3/Dense_1/kernel": (4 * hidden, hidden), f"{at}/MlpBlock_3/Dense_1/bias": (hidden,)}
        shapes |= {f"{at}/{n}/{part}": (hidden,) for n in ("LayerNorm_0", "LayerNorm_2") for part in ("scale", "bias")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Arrays], tuple[Path, str]]:
    def save(arrays: Arrays) -> tuple[Path, str]:
        path = tmp_path / "R50+ViT-B_16.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub takes an array for the flag `allow_pickle`
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return save


def test_the_official_files_arrays_come_to_their_places(saved: Callable[[Arrays], tuple[Path, str]]) -> None:
    """By the meaning of each layout: what an array does to an input, it does in the network too."""
    arrays = official_arrays(TINY, side=4)
    network = TransUNet(TINY)
    load_vit_weights(network, *saved(arrays))
    tokens = torch.rand(5, TINY.hidden)
    layer, at = network.layers[1], "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    query = np.einsum("nc,chd->nhd", tokens.numpy(), arrays[f"{at}/query/kernel"]) + arrays[f"{at}/query/bias"]
    assert layer.get_submodule("query")(tokens).detach().numpy() == pytest.approx(query.reshape(5, -1), abs=1e-4)
    mixed = np.random.default_rng(1).normal(size=(5, 12, TINY.hidden // 12)).astype(np.float32)
    out = np.einsum("nhd,hdc->nc", mixed, arrays[f"{at}/out/kernel"]) + arrays[f"{at}/out/bias"]
    flat = torch.from_numpy(mixed.reshape(5, -1))
    assert layer.get_submodule("out")(flat).detach().numpy() == pytest.approx(out, abs=1e-4)
    kernel = arrays["block2/unit1/conv2/kernel"]
    found = network.stages[1].get_submodule("0.conv2").get_parameter("weight")
    assert found[3, 5, 0, 2].item() == kernel[0, 2, 5, 3]
    assert network.root[1].weight.tolist() == arrays["gn_root/scale"].ravel().tolist()


def test_positions_lose_the_class_token_and_are_stretched_to_the_networks_grid(
    saved: Callable[[Arrays], tuple[Path, str]],
) -> None:
    arrays = official_arrays(TINY, side=3)
    network = TransUNet(TINY)
    load_vit_weights(network, *saved(arrays))
    grid = torch.from_numpy(arrays["Transformer/posembed_input/pos_embedding"][:, 1:]).mT.reshape(1, -1, 3, 3)
    expected = torch.nn.functional.interpolate(grid, (2, 4), mode="bilinear", align_corners=True)
    assert torch.equal(network.positions.mT.reshape(expected.shape), expected)


def test_another_file_than_the_one_named_is_refused_and_both_digests_are_told(
    saved: Callable[[Arrays], tuple[Path, str]],
) -> None:
    path, digest = saved(official_arrays(TINY, side=4))
    with pytest.raises(WeightsProblem, match=f"its SHA-256 is {digest}, not {'0' * 64}"):
        load_vit_weights(TransUNet(TINY), path, "0" * 64)


@pytest.mark.parametrize(
    ("name", "replacement", "reason"),
    [
        ("block3/unit1/gn3/bias", None, "has no array block3/unit1/gn3/bias"),
        ("embedding/kernel", np.zeros((1, 1, 8, 8), np.float32), r"embedding/kernel is \(1, 1, 8, 8\)"),
        ("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", np.zeros((384, 96), np.float32), "Dense_0/kernel is"),
        ("Transformer/posembed_input/pos_embedding", np.zeros((1, 12, 96), np.float32), "side²"),
    ],
)
def test_a_file_of_another_network_changes_nothing_and_says_where_it_differs(
    saved: Callable[[Arrays], tuple[Path, str]], name: str, replacement: NDArray[np.float32] | None, reason: str
) -> None:
    arrays = official_arrays(TINY, side=4)
    if replacement is None:
        del arrays[name]
    else:
        arrays[name] = replacement
    network = TransUNet(TINY)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsProblem, match=reason):
        load_vit_weights(network, *saved(arrays))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(WeightsProblem, match="not readable as"):
        load_vit_weights(TransUNet(TINY), path, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsProblem, match="no such file"):
        load_vit_weights(TransUNet(TINY), tmp_path / "absent.npz", "0" * 64)
