"""routes.yaml: conditions as data, one block each, and what a site declares of its own protocols."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from node.config_types import AeTitle, Name, Pattern, Range, Seconds, Strict


class Evidence(Strict):
    """What a series must be to fill a role. A missing key asks nothing."""

    modality: Literal["MR", "CT"]
    weighting: Literal["dwi", "t2", "t1", "ct"]
    b_value_s_mm2: Range | None = None
    b_preferred_s_mm2: float | None = None
    fat_suppressed: bool | None = None
    echo_time_ms: Range | None = None
    contrast_phase: Literal["portal-venous", "arterial"] | None = None
    slice_spacing_mm: Range | None = None
    min_slices: Annotated[int, Field(ge=3)] = 8
    min_extent_mm: Annotated[float, Field(ge=0)] = 50.0
    regions: tuple[str, ...] = ("liver", "abdomen")

    @model_validator(mode="after")
    def _prefers_what_it_takes(self) -> Evidence:
        wanted, taken = self.b_preferred_s_mm2, self.b_value_s_mm2
        if wanted is not None and (taken is None or not taken[0] <= wanted <= taken[1]):
            raise ValueError(f"b_preferred_s_mm2 {wanted:g} lies outside b_value_s_mm2; widen that or change this")
        return self


class Route(Strict):
    """One condition: what it needs, which bundle answers it, and where the answer goes."""

    condition: Name
    title: str
    time_point: Literal["pre", "post", "unknown", "any"]
    """`any` does not ask; `unknown` is a mixed bundle's route for studies whose time point nobody told."""
    needs: Annotated[dict[Name, Evidence], Field(min_length=1)]
    bundle: Name
    finding: Literal["lesion", "mass", "neoplasm", "metastasis"] = "lesion"
    """Key of terminology.yaml. All but `lesion` claim what only a bundle for clinical use may claim."""
    outputs: tuple[Literal["seg", "sr"], ...] = ("seg", "sr")
    deliver_to: tuple[Name, ...] = ()
    patience_s: Seconds = 900.0
    """A route with several roles waits so long after the last image of those that are there."""
    all: bool = False
    """Analyse every fitting series of a study, not only the best one."""

    @field_validator("deliver_to")
    @classmethod
    def _delivers_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a peer stands twice; name each once")
        return value

    @property
    def revision(self) -> str:
        """Digest of the block's content: part of a job's identity. What changes no result is not part of it."""
        content = self.model_dump(mode="json", exclude={"deliver_to", "title", "patience_s"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Trust(Strict):
    """One thing that the site knows of what a sender sends, or of its protocols: a vote beside the header's."""

    called_ae: AeTitle | None = None
    calling_ae: AeTitle | None = None
    protocol: Pattern | None = None
    contrast_phase: Literal["portal-venous", "arterial", "delayed", "non-contrast"] | None = None
    weighting: Literal["t1", "t2"] | None = None

    @model_validator(mode="after")
    def _says_one_thing_of_one_source(self) -> Trust:
        if sum(source is not None for source in (self.called_ae, self.calling_ae, self.protocol)) != 1:
            raise ValueError("name one source: called_ae, calling_ae or protocol")
        if (self.contrast_phase is None) == (self.weighting is None):
            raise ValueError("declare one thing: contrast_phase or weighting")
        return self


class RoutesFile(Strict):
    """routes.yaml."""

    routes: tuple[Route, ...] = ()
    trust: tuple[Trust, ...] = ()

    @field_validator("routes")
    @classmethod
    def _names_are_unique(cls, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        seen: set[str] = set()
        for route in routes:
            if route.condition in seen:
                raise ValueError(f"the condition {route.condition!r} stands twice; give each route its own name")
            seen.add(route.condition)
        return routes
