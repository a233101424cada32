"""System (c): one step of unpaired multi-modal training, in three parts (models.md §3.5).

1. The discriminator learns to tell real images from redrawn ones, and modalities from each other (`full` only).
2. The critic learns to tell the image masked by the answer from the image masked by the truth.
3. The generator learns to segment, against the critic, and to redraw, against the discriminator.

    mode     generator                                  discriminator   critic
    full     UAGAN, both streams                        yes             yes
    unified  UAGAN without translation: image + label   no              yes
    segan    SegAN's segmentor: image alone             no              yes

All chance within a step (dropout, the permutation of labels, where the gradient penalty is taken) is drawn from
(seed, step), so a run that was killed and resumed from its state takes exactly the steps of one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from model.networks.segan import CriticConfig, SegANConfig, SegANCritic, SegANSegmentor, weighted_vector
from model.networks.uagan import UAGAN, Discriminator, DiscriminatorConfig, UAGANConfig
from model.training.distributed import World
from model.training.losses_unified import (
    SEGAN_WEIGHTS,
    Terms,
    UnifiedWeights,
    cycle_terms,
    discriminator_terms,
    gradient_penalty,
    lesion_probability,
    multiscale_l1,
    segmentation_terms,
    total,
    translation_terms,
    vector_l1,
)

Mode = Literal["full", "unified", "segan"]


@dataclass(frozen=True)
class UnifiedSettings:
    """What is trained and how. `side` is that of the square images, a multiple of 64.

    Rates stay flat for the first `flat_share` of training and then fall linearly to `last_rate`. `distance` is the
    critic's: `levels` as the papers write it, `vector` as SegAN's reference computes it. `lesion_prior` is
    UAGAN's, `head_bias` SegAN's.
    """

    mode: Mode = "full"
    modalities: int = 5
    side: int = 256
    width: float = 1.0
    critic_width: float = 1.0
    """Of the critic, as a share of `width`."""
    seed: int = 0
    tanh: bool = True
    lesion_prior: float = 0.05
    head_bias: bool = True
    bound: Literal["clip", "spectral"] = "spectral"
    distance: Literal["levels", "vector"] = "levels"
    weights: UnifiedWeights = UnifiedWeights()  # noqa: RUF009 - frozen, so it may be shared
    generator_rate: float = 1e-4
    discriminator_rate: float = 1e-4
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    flat_share: float = 0.5
    last_rate: float = 1e-6


# SegAN as its reference has it, for images of one channel
SEGAN_REFERENCE = UnifiedSettings(
    mode="segan",
    side=128,
    head_bias=False,
    bound="clip",
    distance="vector",
    weights=SEGAN_WEIGHTS,
    generator_rate=2e-4,
)


@dataclass(frozen=True)
class UnifiedBatch:
    """Images in [−1, 1] and their truth in {0, 1}, both (B, 1, H, W), and the index of each image's modality (B,).

    Raises ValueError where the shapes do not agree.
    """

    images_B1HW: Tensor
    targets_B1HW: Tensor
    modality_B: Tensor

    def __post_init__(self) -> None:
        images, targets, modality = (tuple(t.shape) for t in (self.images_B1HW, self.targets_B1HW, self.modality_B))
        if len(images) != 4 or images[1] != 1 or targets != images or modality != images[:1]:
            raise ValueError(
                f"images {images}, targets {targets} and modalities {modality} do not make a batch; "
                "give (B, 1, H, W) twice and (B,)"
            )

    def to(self, device: torch.device) -> UnifiedBatch:
        return UnifiedBatch(*(t.to(device) for t in (self.images_B1HW, self.targets_B1HW, self.modality_B)))


@dataclass(frozen=True)
class Answer:
    """The generator's answer to a batch: logits (B, K, H, W), and in `full` the redrawn images (B, 1, H, W)."""

    logits_BKHW: Tensor
    drawn_B1HW: Tensor | None


class UnifiedScheme:
    """The networks of one mode with their optimisers. `generator` is what is served once it is trained."""

    def __init__(self, settings: UnifiedSettings, device: str = "cpu", world: World | None = None) -> None:
        self.settings = settings
        self._world = world or World()
        self.device = torch.device(device)
        self.step_number = 0
        with _chance(settings.seed, 0, self.device):
            self.generator = _generator(settings).to(self.device)
            self.critic = SegANCritic(CriticConfig(1, settings.width * settings.critic_width, settings.bound)).to(
                self.device
            )
            self.discriminator = _discriminator(settings)
        self.critic.clip()
        self._networks: dict[str, nn.Module] = {"generator": self.generator, "critic": self.critic}
        rates = {"generator": settings.generator_rate, "critic": settings.critic_rate}
        if self.discriminator is not None:
            self._networks["discriminator"] = self.discriminator.to(self.device)
            rates["discriminator"] = settings.discriminator_rate
        self._rates = rates
        self._optimisers = {
            name: Adam(network.parameters(), lr=rates[name], betas=settings.betas)
            for name, network in self._networks.items()
        }

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """The generator's key in NETWORKS and its kwargs, as a card states them."""
        name = "segan" if self.settings.mode == "segan" else "uagan"
        return name, asdict(self.generator.config)

    def step(self, batch: UnifiedBatch, epoch_share: float) -> dict[str, float]:
        """One update of every network when `epoch_share` (0 to 1) of the epochs are done; the weighted loss terms."""
        self._prepare(epoch_share)
        batch = batch.to(self.device)
        self.step_number += 1
        with _chance(self.settings.seed, self.step_number, self.device):
            target_B = batch.modality_B[torch.randperm(len(batch.modality_B)).to(self.device)]
            with torch.no_grad():
                before = self.answer(batch, target_B)
            terms = {"discriminator": self.discriminator_step(batch, before)} if self.discriminator else {}
            terms["critic"] = self.critic_step(batch, lesion_probability(before.logits_BKHW))
            terms["generator"] = self.generator_step(batch, target_B, epoch_share)
        return {f"{who}/{name}": value.item() for who, theirs in terms.items() for name, value in theirs.items()}

    def answer(self, batch: UnifiedBatch, target_modality_B: Tensor) -> Answer:
        """`full` asks with the label of the target modality, as it must to redraw; `unified` with the image's own."""
        if isinstance(self.generator, SegANSegmentor):
            return Answer(self.generator(batch.images_B1HW), None)
        if self.discriminator is None:
            return Answer(self.generator(batch.images_B1HW, self._code(batch.modality_B)), None)
        outputs = self.generator.training_outputs(batch.images_B1HW, self._code(target_modality_B))
        return Answer(outputs.logits_B2HW, outputs.translated_B1HW)

    def distance(self, batch: UnifiedBatch, probability_B1HW: Tensor) -> Tensor:
        """L_ms between the images masked by the answer and by the truth, as the critic sees them."""
        answered, true = self.critic.compare(batch.images_B1HW, probability_B1HW, batch.targets_B1HW)
        if self.settings.distance == "vector":
            return vector_l1(weighted_vector(answered), weighted_vector(true))
        return multiscale_l1(answered, true)

    def discriminator_step(self, batch: UnifiedBatch, before: Answer) -> Terms:
        """Part 1. Raises ValueError in a mode without a discriminator."""
        if self.discriminator is None or before.drawn_B1HW is None:
            raise ValueError(f"mode {self.settings.mode!r} has no discriminator; choose 'full'")
        real, drawn, realness = batch.images_B1HW, before.drawn_B1HW.detach(), self.discriminator
        share_B111 = torch.rand(len(real), 1, 1, 1).to(self.device)
        penalty = gradient_penalty(lambda images: realness(images)[0], real, drawn, share_B111)
        terms = discriminator_terms(
            realness(real), realness(drawn)[0], batch.modality_B, penalty, self.settings.weights
        )
        self._update("discriminator", terms)
        return terms

    def critic_step(self, batch: UnifiedBatch, probability_B1HW: Tensor) -> Terms:
        """Part 2: one step up L_ms, then the bound."""
        terms = {"multiscale": -self.distance(batch, probability_B1HW.detach())}
        self._update("critic", terms)
        self.critic.clip()
        return terms

    def generator_step(self, batch: UnifiedBatch, target_modality_B: Tensor, epoch_share: float) -> Terms:
        """Part 3: one step down everything that asks something of the generator, the other networks held still."""
        with _still(self.critic, self.discriminator):
            answer = self.answer(batch, target_modality_B)
            distance = self.distance(batch, lesion_probability(answer.logits_BKHW))
            terms = segmentation_terms(answer.logits_BKHW, batch.targets_B1HW, distance, self.settings.weights)
            if answer.drawn_B1HW is not None:
                drawn = UnifiedBatch(answer.drawn_B1HW, batch.targets_B1HW, target_modality_B)
                terms |= self._translation_terms(batch, drawn, epoch_share)
            self._update("generator", terms)
        return terms

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain dictionaries of tensors and numbers."""
        return {
            "step": self.step_number,
            "networks": {name: network.state_dict() for name, network in self._networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken. Raises ValueError where it is of another mode."""
        if set(state["networks"]) != set(self._networks):
            theirs, ours = sorted(state["networks"]), sorted(self._networks)
            raise ValueError(f"the state has the networks {theirs}, mode {self.settings.mode!r} has {ours}")
        self.step_number = int(state["step"])
        for name, network in self._networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimisers[name].load_state_dict(state["optimisers"][name])

    def _prepare(self, epoch_share: float) -> None:
        for name, network in self._networks.items():
            network.train()
            rate = decayed_rate(epoch_share, self._rates[name], self.settings.flat_share, self.settings.last_rate)
            for group in self._optimisers[name].param_groups:
                group["lr"] = rate

    def _update(self, name: str, terms: Terms) -> None:
        self._optimisers[name].zero_grad(set_to_none=True)
        total(terms).backward()  # type: ignore[no-untyped-call]  # torch's stub
        self._world.average_gradients(self._networks[name].parameters())
        self._optimisers[name].step()

    def _translation_terms(self, batch: UnifiedBatch, drawn: UnifiedBatch, epoch_share: float) -> Terms:
        """`drawn` holds the redrawn images under their new modality, and the truth, which is as before."""
        back = self.answer(drawn, batch.modality_B)
        if self.discriminator is None or back.drawn_B1HW is None:
            raise ValueError(f"mode {self.settings.mode!r} does not translate; choose 'full'")
        weights, images = self.settings.weights, batch.images_B1HW
        terms = translation_terms(self.discriminator(drawn.images_B1HW), drawn.modality_B, weights)
        return terms | cycle_terms(images, back.drawn_B1HW, back.logits_BKHW, drawn.targets_B1HW, epoch_share, weights)

    def _code(self, modality_B: Tensor) -> Tensor:
        return nn.functional.one_hot(modality_B, self.settings.modalities).float()


def decayed_rate(epoch_share: float, rate: float, flat_share: float, last_rate: float) -> float:
    """`rate` for the first `flat_share` of training, then a straight line down to `last_rate` at its end."""
    if epoch_share <= flat_share or flat_share >= 1:
        return rate
    fallen = min(1.0, (epoch_share - flat_share) / (1 - flat_share))
    return rate + fallen * (last_rate - rate)


def balanced_indices(modality_N: Sequence[int], count: int, seed: int, step: int) -> tuple[int, ...]:
    """Which `count` of N images make the batch of a step: every modality present as often as every other, ±1.

    An image comes twice only where its modality has fewer images than its share. A pure function of its arguments.
    Raises ValueError where there is no image.
    """
    if not modality_N:
        raise ValueError("there is no image to draw a batch from")
    chance = np.random.default_rng((seed, step))
    modality = np.asarray(modality_N)
    present = chance.permutation(np.unique(modality))
    shares = [count // len(present) + (place < count % len(present)) for place in range(len(present))]
    drawn = [_drawn(np.flatnonzero(modality == m), share, chance) for m, share in zip(present, shares, strict=True)]
    return tuple(int(i) for i in chance.permutation(np.concatenate(drawn)))


def _drawn(candidates: np.ndarray[Any, np.dtype[np.int64]], count: int, chance: np.random.Generator) -> Any:
    rounds = -(-count // len(candidates))
    return np.concatenate([chance.permutation(candidates) for _ in range(max(1, rounds))])[:count]


def _generator(settings: UnifiedSettings) -> UAGAN | SegANSegmentor:
    if settings.mode == "segan":
        return SegANSegmentor(SegANConfig(in_channels=1, width=settings.width, head_bias=settings.head_bias))
    translation = settings.mode == "full"
    shape = UAGANConfig(settings.modalities, settings.width, translation, settings.tanh, settings.lesion_prior)
    return UAGAN(shape)


def _discriminator(settings: UnifiedSettings) -> Discriminator | None:
    if settings.mode != "full":
        return None
    return Discriminator(DiscriminatorConfig(settings.modalities, settings.side, width=settings.width))


@contextmanager
def _chance(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Within, torch draws from (seed, step) alone; afterwards its generators are as they were."""
    (state,) = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(state))
        yield


@contextmanager
def _still(*networks: nn.Module | None) -> Iterator[None]:
    """Gradients pass through these networks, and do not stop at their weights."""
    weights = [weight for network in networks if network is not None for weight in network.parameters()]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
