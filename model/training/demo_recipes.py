"""The recipes of the demo bundles, one per condition: all that `crlm-model train-demo` does not read from a card.

Steps and cases are what two CPU cores do in a quarter of an hour per condition. Why they are as they are: docs/LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model.training.augment import AugmentRanges


@dataclass(frozen=True)
class Stage:
    """A part of the training with a learning rate that rises and falls once."""

    name: str
    steps: int
    learning_rate: float
    seed: int
    warmup_share: float = 0.05


@dataclass(frozen=True)
class DemoRecipe:
    """How a demo bundle is trained. `images_seen` images are seen, whatever the machine."""

    cases: int = 240
    validation_cases: int = 48
    steps: int = 400
    hard_steps: tuple[int, ...] = (400,)
    """Rounds of steps in which half of the lesion-free slices are those on which the network found most before."""
    batch: int = 12
    lesion_share: float = 0.5
    """Share of each batch that shows a lesion; the rest are slices without any."""
    learning_rate: float = 6e-3
    hard_learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    average_decay: float = 0.995
    rows: int = 96
    """Rows of the picture that a step sees, of 128: above and below a body there is air, which costs time only."""
    seed: int = 0
    augment: AugmentRanges = field(default_factory=AugmentRanges)
    start: str | None = None
    """The condition whose demo bundle gives the first weights; None begins with random ones."""

    @property
    def first(self) -> Stage:
        """On all slices alike."""
        return Stage("training", self.steps, self.learning_rate, self.seed)

    @property
    def hard(self) -> tuple[Stage, ...]:
        """On the slices without a lesion that look as if they had one: organs, bowel, cysts, vessels."""
        return tuple(
            Stage("hard slices", steps, self.hard_learning_rate, self.seed + number)
            for number, steps in enumerate(self.hard_steps, start=1)
        )

    @property
    def images_seen(self) -> int:
        return (self.steps + sum(self.hard_steps)) * self.batch


# Hounsfield units mean the same everywhere: what would be another scanner's scale in MR is noise in CT.
_CT_RANGES = AugmentRanges(log_gamma=0.08, gain=0.04, offset=0.03, noise_sd=0.006)

RECIPES: dict[str, DemoRecipe] = {
    "pre-nact-dwi": DemoRecipe(cases=400, steps=3000, hard_steps=(1800,)),
    "pre-nact-t2wi": DemoRecipe(start="pre-nact-dwi"),
    "post-nact-dwi": DemoRecipe(start="pre-nact-dwi"),
    "post-nact-t2wi": DemoRecipe(start="pre-nact-t2wi"),
    "ct-portal-venous": DemoRecipe(cases=400, steps=3600, hard_steps=(1800, 1200), augment=_CT_RANGES),
}
"""A condition stands after the one that it starts from."""
