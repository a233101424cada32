"""From a trained network to a bundle: the card, the operating point, the probe, and the run card for people.

The card's measures stay empty: they come from `crlm-model evaluate`, on cases that no training and no choice has seen.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from model.bundle import Bundle, add_probe, save_bundle
from model.canonical import VolumeProblem
from model.card import UNSAVED_SHA256, Card, Companion, OutputSpec, PlanarInput, TrainingStatement, read_card
from model.engine import Engine
from model.input_check import seen_in
from model.problems import TrainingProblem
from model.runner import Runner
from model.samples import Sample, samples_ahead
from model.training.loop import Heard, Trained
from model.training.operating_point import FEWEST_VOXELS, REFUSED, choose, dice_of_sample
from model.training.probes import planar_probe
from model.training.recipe import PhantomSource, Recipe

VERSION = "0.1.0"
PROBE_SAMPLES = 12
_PHANTOM_LIMITS = (
    "Trained on computed phantoms only; on images of patients its answers mean nothing.",
    "Not for diagnosis, not for research on patients: for showing and testing the node.",
)


def publish(recipe: Recipe, trained: Trained, out: Path, *, workers: int, heard: Heard = lambda *_: None) -> Bundle:
    """Write `<out>/<recipe name>`. Companions are looked for in `out`. Raises BundleProblem, and TrainingProblem
    where the engine refuses all validation samples."""
    draft = draft_card(recipe, trained, out)
    weights = dict(trained.weights)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        # beside its companions, for the engine looks for them there
        engine = Engine(save_bundle(Path(folder), draft, weights), "auto")
        samples = samples_ahead(trained.split.validation, recipe.inputs, workers)
        tables, shown = [], list[Sample]()
        for number, sample in enumerate(samples, start=1):
            try:
                tables.append(dice_of_sample(engine, sample))
            except VolumeProblem:
                tables.append(REFUSED)  # such as one in which the companion finds no liver
            else:
                shown += [sample] if len(shown) < PROBE_SAMPLES else []
            heard("operating point", number, len(trained.split.validation), choose(tables).mean_dice)
    if not shown:
        raise TrainingProblem(
            f"{recipe.name}: the engine refuses each of the {len(tables)} validation samples; if the network looks "
            "inside the liver, its companion finds none: train that first"
        )
    point = choose(tables)
    limits: dict[str, float | int] = {
        "threshold": point.threshold,
        "minimum_peak_probability": point.peak,
        "minimum_lesion_ml": point.minimum_ml,
        "minimum_lesion_voxels": FEWEST_VOXELS,
    }
    output = OutputSpec.model_validate({**recipe.output.model_dump(), **limits})
    bundle = save_bundle(out / recipe.name, draft.model_copy(update={"output": output}), weights)
    return with_probe(bundle, shown)


def draft_card(recipe: Recipe, trained: Trained, out: Path) -> Card:
    """The card before operating point and measures are known. Raises BundleProblem for a companion that is absent."""
    is_phantom = isinstance(recipe.source, PhantomSource)
    seeds = (0, recipe.source.cases - 1) if isinstance(recipe.source, PhantomSource) else None
    statement = TrainingStatement(
        trained_on="phantom" if is_phantom else "patients",
        description=f"{recipe.title}; {_data_words(recipe, trained)}",
        cases=len(trained.split.training),
        seeds=seeds,
        split_sha256=None if is_phantom else trained.split.sha256,
        images_seen=trained.images_seen,
        inputs_seen={role: seen_in(measured) for role, measured in trained.training.measured.items()},
        licence="Apache-2.0" if is_phantom else _licences(trained),
    )
    return Card(
        name=recipe.name,
        system=recipe.system,
        profile=recipe.profile,
        version=VERSION,
        sha256=UNSAVED_SHA256,
        network=recipe.network,
        conditions=recipe.conditions,
        companions=companions_of(recipe, out),
        inputs=recipe.inputs,
        output=recipe.output,
        inference=recipe.inference,
        training=statement,
        limits=(*recipe.limits, *(_PHANTOM_LIMITS if is_phantom else ())) or ("none stated",),
        intended_use="demo" if is_phantom else "research",
        trained=True,
    )


def companions_of(recipe: Recipe, out: Path) -> dict[Literal["liver"], Companion]:
    """Those beside which the bundle will lie in `out`. Raises BundleProblem for one that is absent."""
    return {
        role: Companion(bundle=name, sha256=read_card(out / name).sha256) for role, name in recipe.companions.items()
    }


def with_probe(bundle: Bundle, samples: Sequence[Sample]) -> Bundle:
    """The bundle with the slices, or the window, in which it finds most."""
    engine = Engine(bundle, "cpu")
    studies = (engine.place(sample.fed) for sample in samples)
    runner = Runner(bundle, engine.device)
    if isinstance(bundle.card.input, PlanarInput):
        return add_probe(bundle, planar_probe(runner, studies))
    from model.training.probes_volume import volume_probe  # brings MONAI, which takes seconds to import

    return add_probe(bundle, volume_probe(runner, studies))


def write_run_card(folder: Path, recipe: Recipe, trained: Trained, bundle: Bundle) -> Path:
    """`run.json` and `run.md`: what was trained on what, how it went, and whether it had settled."""
    content = {
        "recipe": json.loads(recipe.model_dump_json()),
        "recipe_sha256": recipe.sha256,
        "split_sha256": trained.split.sha256,
        "training_cases": len(trained.split.training),
        "validation_cases": len(trained.split.validation),
        "training_images": len(trained.training),
        "images_seen": trained.images_seen,
        "validation_dice": list(trained.looks),
        "validation_slope": trained.slope,
        "is_converged": trained.is_converged,
        "torch": torch.__version__,
        "bundle": {"name": bundle.card.name, "sha256": bundle.sha256, "weights_sha256": bundle.card.sha256},
        "output": json.loads(bundle.card.output.model_dump_json()),
    }
    (folder / "run.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    path = folder / "run.md"
    path.write_text(_run_words(recipe, trained, bundle), encoding="utf-8")
    return path


def _run_words(recipe: Recipe, trained: Trained, bundle: Bundle) -> str:
    looks = ", ".join(f"{dice:.3f}" for dice in trained.looks[-5:])
    settled = "it did not rise any more" if trained.is_converged else "**not converged**: it was still rising"
    output = bundle.card.output
    return f"""# {recipe.title}

`{recipe.name}`: system {recipe.system}, profile {recipe.profile}, scheme {recipe.scheme}, network
`{recipe.network.id}` {dict(recipe.network.kwargs)}, seed {recipe.seed}.

- Learnt from {len(trained.split.training)} cases ({len(trained.training)} {_images(recipe)}) and saw
  {trained.images_seen} images; chosen by {len(trained.split.validation)} other cases: {_data_words(recipe, trained)}.
- Dice of the validation cases at the network's resolution, last looks: {looks}; {settled}
  ({trained.slope:+.4f} over the last third of the looks).
- {_limits_words(output)}
- How well it does on cases that nobody has seen: `crlm-model evaluate {bundle.path.name}`.
"""


def _limits_words(output: OutputSpec) -> str:
    if output.target == "liver":
        return f"Liver is probability {output.threshold:g} or more."
    return (
        f"A lesion is probability {output.threshold:g} or more, somewhere {output.minimum_peak_probability:g} or more, "
        f"at least\n  {output.minimum_lesion_ml:g} ml."
    )


def _images(recipe: Recipe) -> str:
    return "slices" if isinstance(recipe.inputs[0], PlanarInput) else "volumes"


def _data_words(recipe: Recipe, trained: Trained) -> str:
    if isinstance(recipe.source, PhantomSource):
        return f"computed phantoms of {', '.join(recipe.source.conditions)}, drawn by model.phantom; no patient's image"
    collections = sorted({case.collection for case in trained.split.training})
    return f"cases of {', '.join(collections)}, split by patient"


def _licences(trained: Trained) -> str:
    return "; ".join(sorted({case.licence for case in trained.split.training}))
