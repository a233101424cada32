"""System (d): which terms its loss has, whose expectation they use, and what of its network is served."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.networks import build_network
from model.problems import TrainingProblem
from model.training.distributed import World
from model.training.losses_weak import WeakLabels
from model.training.patches import VolumeBatch
from model.training.recipe import Recipe, find_recipe, read_recipe
from model.training.schemes import build_scheme
from model.training.schemes.global_local import GlobalLocalScheme
from model.training.volumes import SeenVolume, VolumeSet
from model.training.weak_labels import PATIENT_COLUMN, predictors_of
from model.training.weak_supervision import expectations_of

CPU = torch.device("cpu")
VOLUME = {
    "kind": "volume",
    "modality": "CT",
    "weighting": "ct",
    "scaling": {"kind": "hu-window"},
    "patch_DHW": [8, 24, 24],
}


def scheme_of(recipe: Recipe) -> GlobalLocalScheme:
    return GlobalLocalScheme(recipe, CPU, World())


def batch_of(expected: float = 0.2, following: float = 0.6) -> VolumeBatch:
    generator = torch.Generator().manual_seed(3)
    classes = torch.randint(3, (2, 8, 24, 24), generator=generator)
    return VolumeBatch(
        {"image": torch.rand((2, 1, 8, 24, 24), generator=generator)},
        {"image": torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()},
        torch.tensor([-1, -1]),
        WeakLabels(torch.full((2,), expected), torch.tensor([7, 8]), torch.ones(2)),
        torch.full((2,), following),
        0.0,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients, of whom age alone tells the share of tumour."""
    path = tmp_path_factory.mktemp("table") / "clinical.csv"
    rng = np.random.default_rng(0)
    columns = [predictor.column for predictor in predictors_of("published")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([PATIENT_COLUMN, *columns])
        for number in range(40):
            known = {p.column: next(iter(p.codes), f"{rng.uniform(1, 9):.2f}") for p in predictors_of("published")}
            writer.writerow([f"patient-{number}", *(str(number) if c == "age" else known[c] for c in columns)])
    return path


def forty(share_of: Callable[[int], float], order: list[int]) -> VolumeSet:
    nothing = np.zeros((1, 1, 1), np.uint8)
    return VolumeSet(
        tuple(
            SeenVolume(f"c-{n}", f"patient-{n}", None, (1, 1, 1), nothing, nothing, {}, 1, share_of(n), {})  # type: ignore[arg-type]  # only shares are asked
            for n in order
        )
    )


def test_the_autoencoder_is_dropped_from_what_is_served_and_the_logits_stay(
    volume_recipe: Callable[..., Recipe],
) -> None:
    recipe = volume_recipe()
    scheme = scheme_of(recipe)
    served = scheme.serving_weights(scheme.network.state_dict())
    assert any(name.startswith("vae_") for name in scheme.network.state_dict())
    network = build_network(recipe.network.id, recipe.network.kwargs)
    network.load_state_dict(served)
    image = batch_of().images["image"]
    with torch.no_grad():
        assert torch.equal(network.eval()(image), scheme.network.eval()(image))


@pytest.mark.parametrize(("profile", "learns"), [("published", True), ("best", True), ("as-coded", False)])
def test_the_autoencoder_learns_unless_it_is_dropped_as_coded(
    volume_recipe: Callable[..., Recipe], profile: str, learns: bool
) -> None:
    scheme = scheme_of(volume_recipe(profile=profile, optimiser={"kind": "sgd", "learning_rate": 0.1}))
    before = {name: value.clone() for name, value in scheme.trained.state_dict().items()}
    losses = scheme.step([batch_of()], 0.0)
    moved = {name for name, value in scheme.trained.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("vae_") for name in moved) is learns
    assert ("autoencoder" in losses) is learns
    assert "conv_final.2.conv.weight" in moved


def test_without_a_table_nothing_is_expected(volume_recipe: Callable[..., Recipe]) -> None:
    recipe = volume_recipe()
    assert "ratio" not in scheme_of(recipe).step([batch_of()], 0.0)
    assert not expectations_of(recipe, VolumeSet(())).by_patient


def ratio_of(scheme: GlobalLocalScheme, expected: float, following: float) -> float:
    torch.manual_seed(0)  # dropout
    return float(scheme.terms(batch_of(expected, following), 0.0)["ratio"].detach())


@pytest.mark.parametrize("profile", ["published", "best"])
def test_the_share_of_tumour_is_compared_with_the_patients_own_value(
    volume_recipe: Callable[..., Recipe], table: Path, profile: str
) -> None:
    scheme = scheme_of(volume_recipe(profile=profile, settings={"clinical_table": str(table)}))
    assert ratio_of(scheme, 0.2, 0.6) == ratio_of(scheme, 0.2, 0.7) != ratio_of(scheme, 0.3, 0.6)


def test_as_coded_it_is_compared_with_the_next_patients(volume_recipe: Callable[..., Recipe], table: Path) -> None:
    scheme = scheme_of(volume_recipe(profile="as-coded", settings={"clinical_table": str(table)}))
    assert ratio_of(scheme, 0.2, 0.6) == ratio_of(scheme, 0.3, 0.6) != ratio_of(scheme, 0.2, 0.7)
    assert ratio_of(scheme, 0.2, float("nan")) == 0


def test_smoothing_needs_a_value_and_moves_the_loss(volume_recipe: Callable[..., Recipe]) -> None:
    def segmentation(epsilon: float, expected: float) -> float:
        torch.manual_seed(0)
        scheme = scheme_of(volume_recipe(settings={"label_smoothing": epsilon}))
        return float(scheme.terms(batch_of(expected), 0.0)["segmentation"].detach())

    plain = segmentation(0.0, 0.2)
    assert segmentation(0.2, 0.2) != plain
    assert segmentation(0.2, float("nan")) == plain


@pytest.mark.parametrize("order", [list(range(40)), list(range(39, -1, -1))])
def test_a_fit_is_by_patient_whatever_the_order_of_the_cases(
    volume_recipe: Callable[..., Recipe], table: Path, order: list[int]
) -> None:
    recipe = volume_recipe(settings={"clinical_table": str(table)})
    found = expectations_of(recipe, forty(lambda n: n / 100, order))
    assert found.of("patient-10") == pytest.approx(0.1, abs=1e-3)
    assert found.of("patient-30") == pytest.approx(0.3, abs=1e-3)
    control = volume_recipe(settings={"clinical_table": str(table), "shuffled": 1})
    assert expectations_of(control, forty(lambda n: n / 100, order)).margin > 0.05


def test_only_best_leaves_a_margin(volume_recipe: Callable[..., Recipe], table: Path) -> None:
    rng = np.random.default_rng(1)
    volumes = forty(lambda _: rng.uniform(0, 0.4), list(range(40)))
    margins = {
        profile: expectations_of(
            volume_recipe(profile=profile, settings={"clinical_table": str(table)}), volumes
        ).margin
        for profile in ("published", "best")
    }
    assert margins["published"] == 0 < margins["best"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"settings": {"lambda": 1}}, "settings of the scheme global-local: lambda"),
        ({"network": {"id": "resenc", "kwargs": {"in_channels": 1, "dimensions": 3}}}, "trains segresnet"),
        ({"inputs": [{**VOLUME, "patch_DHW": [8, 24, 26]}]}, "multiples of 4"),
        (
            {
                "settings": {"clinical_table": "t.csv"},
                "output": {"classes": ["background", "liver"], "activation": "softmax"},
            },
            "share of tumour",
        ),
        ({"scheme": "supervised", "settings": {"ratio_weight": 1}}, "settings of the scheme supervised: ratio_weight"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(
    volume_recipe: Callable[..., Recipe], changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(TrainingProblem, match=complaint):
        build_scheme(volume_recipe(**changes), CPU, World())


def test_a_table_that_cannot_be_used_is_told_of(volume_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = volume_recipe(settings={"clinical_table": str(tmp_path / "none.csv")})
    with pytest.raises(TrainingProblem, match=r"none\.csv: cannot be read"):
        expectations_of(recipe, VolumeSet(()))


@pytest.mark.parametrize("name", ["demo-d-liver-ct", "demo-d-tumour-ct"])
def test_a_demo_of_system_d_is_small_when_it_is_served(name: str) -> None:
    scheme = build_scheme(read_recipe(find_recipe(name)), CPU, World())
    served = scheme.serving_weights(scheme.network.state_dict())
    assert sum(value.numel() for value in served.values()) * 2 <= 700_000
