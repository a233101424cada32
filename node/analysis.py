"""Segment an order, then encode it: a folder in, files in that folder out. No queue, no network, no database row.

Expected outcomes are returned, never raised: a job that is replayed after a crash must take the same branch
(architecture: durable steps). The outcome is `done`, `refused` where these images cannot be analysed, or `failed`,
with the reason that a person reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from model.exchange import ExchangeProblem, read_probability, write_volume
from model.findings import Finding, find_lesions
from model.volume import Buffer, Mask
from node.bundles import BundleCard, card_roles, card_spec
from node.config import Config
from node.config_routes import Route
from node.dicom import objects
from node.dicom.check import check_objects, check_refusal
from node.dicom.context import BundleFacts, EncodeContext, Equipment, Predecessor, Tracking
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_refusal_sr, encode_sr
from node.dicom.terms import missing_terms
from node.dicom.volume import SourceVolume, read_volume
from node.domain import GivenImage, Inference, JobOrder, ResultObject
from node.errors import (
    ConfigurationError,
    GeometryError,
    InferenceError,
    NodeError,
    ObjectError,
    UnreadableInstance,
    VolumeRefusal,
)
from node.job_files import (
    FINDINGS_NAME,
    MASK_NAME,
    OVERLAY_NAME,
    read_findings,
    read_mask,
    read_remarks,
    summarise,
    write_findings,
    write_mask,
)
from node.overlay import draw_overlay
from node.tracking import Previous, name_lesions
from node.yaml_file import line_of, parse_yaml

MANUFACTURER = "crlm-node"


class Segmenter(Protocol):
    """What runs a network: node.inference.EngineProcess."""

    def segment(self, bundle: Path, images: Mapping[str, GivenImage], out: Path) -> Inference: ...


class Ledger(Protocol):
    """What a job's results need from the database; off-line nothing is known and everything is new."""

    def series_number(self, order: JobOrder) -> int:
        """Series Number of the job's first result series."""

    def content_datetime(self, order: JobOrder) -> datetime:
        """When the job was made, on the site's clock: the same however often it is encoded."""

    def previous(self, order: JobOrder) -> Previous | None:
        """The delivered result of the same study and condition, if there is one."""

    def keep_tracking(self, order: JobOrder, tracking: Sequence[Tracking]) -> Sequence[Tracking]:
        """Keep the identities of the job's lesions; returns those kept by an earlier call where there was one."""


class OfflineLedger:
    """`crlm-node segment`: no database, no earlier result."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def series_number(self, order: JobOrder) -> int:
        return 90000

    def content_datetime(self, order: JobOrder) -> datetime:
        return self._now

    def previous(self, order: JobOrder) -> Previous | None:
        return None

    def keep_tracking(self, order: JobOrder, tracking: Sequence[Tracking]) -> Sequence[Tracking]:
        return tracking


@dataclass(frozen=True)
class Encoding:
    """What an encoder may read."""

    context: EncodeContext
    source: SourceVolume
    others: Sequence[SourceVolume]
    """What the network read beside the source: of other roles, on grids of their own."""
    mask: Mask
    findings: tuple[Finding, ...]
    tracking: Sequence[Tracking]
    folder: Path


def _seg(job: Encoding, earlier: Mapping[str, ResultObject]) -> ResultObject | None:
    if not job.findings:
        return None  # no lesion, no segmentation: the report says so
    return encode_seg(job.context, job.source, job.mask, job.findings, job.tracking, job.folder / "seg.dcm")


def _sr(job: Encoding, earlier: Mapping[str, ResultObject]) -> ResultObject | None:
    return encode_sr(
        job.context,
        job.source,
        job.mask,
        job.findings,
        job.tracking,
        job.folder / "sr.dcm",
        seg=earlier.get("seg"),
        others=job.others,
    )


ENCODERS: dict[str, Callable[[Encoding, Mapping[str, ResultObject]], ResultObject | None]] = {
    # in the order of making and of sending: a report points at the segmentation
    "seg": _seg,
    "sr": _sr,
}


class _Clock:
    """Wall time of one step after the other; `engine` holds all that the engine's process tells in detail."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._since = now - self._since, now


class Analysis:
    """The two steps of a job, one step at a time.

    Holds the last source volumes read, so that encoding need not decode them again, and their memory for the next.
    `scratch` is a folder of its own for what it hands to the engine.
    """

    def __init__(
        self, config: Config, cards: Mapping[str, BundleCard], engine: Segmenter, ledger: Ledger, scratch: Path
    ) -> None:
        self._config = config
        self._cards = cards
        self._engine = engine
        self._ledger = ledger
        self._scratch = scratch
        self._turn = threading.Lock()
        self._buffers: dict[str, Buffer] = {}
        self._recent: tuple[str, dict[str, SourceVolume]] | None = None

    def segment(self, order: JobOrder, folder: Path) -> dict[str, Any]:
        """Volume → network → lesions. Leaves mask.npz and findings.json in `folder`; returns the outcome."""
        with self._turn:
            return _outcome(lambda: self._segment(order, folder))

    def encode(self, order: JobOrder, folder: Path) -> dict[str, Any]:
        """Lesions → result objects, read back and checked, and the overlay picture; returns them with the outcome."""
        with self._turn:
            return _outcome(lambda: self._encode(order, folder))

    def refuse(self, order: JobOrder, folder: Path, reason: str) -> dict[str, Any]:
        """A report that the images were not analysed and why, read back and checked; returned as by `encode`."""
        with self._turn:
            return _outcome(lambda: self._refuse(order, folder, reason))

    def _segment(self, order: JobOrder, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        card = self._card(order)
        clock = _Clock()
        sources = self._sources(order)
        source = sources[card.card.roles[0]]
        clock.lap("source")
        images = {role: self._hand_over(order, role, given) for role, given in sources.items()}
        probability_path = self._scratch / "probability.bin"
        clock.lap("hand_over")
        in_engine = self._engine.segment(card.path, images, probability_path)
        clock.lap("engine")
        mask, findings = find_lesions(read_probability(probability_path), source.volume, card.card.output)
        write_mask(folder / MASK_NAME, mask)
        clock.lap("find")
        seconds = {**clock.seconds, **in_engine.seconds}
        write_findings(folder / FINDINGS_NAME, order, card, source, findings, in_engine.remarks, seconds)
        return {"lesion_count": len(findings), "seconds": seconds}

    def _encode(self, order: JobOrder, folder: Path) -> dict[str, Any]:
        route = self._route(order)
        source, *others = self._sources(order).values()
        mask = read_mask(folder / MASK_NAME)
        findings, remarks = read_findings(folder / FINDINGS_NAME), read_remarks(folder / FINDINGS_NAME)
        previous = self._ledger.previous(order)
        tracking = self._ledger.keep_tracking(order, name_lesions(mask, previous))
        context = self._context(order, route, previous, remarks)
        job = Encoding(context, source, others, mask, findings, tracking, folder)
        made: dict[str, ResultObject] = {}
        for kind in (kind for kind in ENCODERS if kind in route.outputs):
            encoded = ENCODERS[kind](job, made)
            if encoded is not None:
                made[kind] = encoded
        check_objects(
            seg_path=made["seg"].path if "seg" in made else None,
            sr_path=made["sr"].path if "sr" in made else None,
            context=context,
            source=source,
            others=others,
            mask=mask,
            findings=findings,
            tracking=tracking,
        )
        draw_overlay(
            folder / OVERLAY_NAME,
            source,
            mask,
            findings,
            title=route.title,
            warning=context.warning,
        )
        self._recent = None
        return {
            "objects": [{**asdict(item), "path": str(item.path)} for item in made.values()],
            "summary": {**summarise(findings), **({"remarks": list(remarks)} if remarks else {})},
        }

    def _refuse(self, order: JobOrder, folder: Path, reason: str) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        instances = [instance for given in order.inputs.values() for instance in given.every_instance]
        # it is nobody's successor: a report that says nothing must not take the place of one that says something
        context = self._context(order, self._route(order), None)
        made = encode_refusal_sr(context, instances, reason, folder / "refusal.dcm")
        check_refusal(made.path, context, instances, reason)
        return {"objects": [{**asdict(made), "path": str(made.path)}], "summary": {"not_analysed": reason}}

    def _card(self, order: JobOrder) -> BundleCard:
        card = self._cards.get(order.bundle)
        if card is None or card.sha256 != order.bundle_sha256:
            raise ObjectError(
                f"the bundle {order.bundle} is not the one that the order was made for; "
                "retry the job with the present one"
            )
        return card

    def _route(self, order: JobOrder) -> Route:
        route = self._config.route(order.condition)
        if route is None:
            raise ObjectError(f"routes.yaml has no condition {order.condition} any more")
        return route

    def _sources(self, order: JobOrder) -> dict[str, SourceVolume]:
        """What the card's roles read, in its order: the first gives the grid."""
        if self._recent is None or self._recent[0] != order.job_id:
            self._recent = None  # its memory is the next one's
            given = self._inputs(order)
            read = {
                role: read_volume(order.inputs[named], self._buffers.setdefault(role, Buffer(np.float32)))
                for role, named in given.items()
            }
            self._recent = (order.job_id, read)
        return self._recent[1]

    def _inputs(self, order: JobOrder) -> dict[str, str]:
        """The card's role → the route's, in the card's order. Raises ObjectError where route and card have parted."""
        card = self._card(order).card
        names = card_roles(self._route(order), card)
        if names is None or set(names) != set(order.inputs):
            raise ObjectError(
                f"the order fills {', '.join(order.inputs)}, the bundle {order.bundle} reads {', '.join(card.roles)}; "
                "retry the job with the present route"
            )
        of_card = {role: named for named, role in names.items()}
        return {role: of_card[role] for role in card.roles}

    def _hand_over(self, order: JobOrder, role: str, source: SourceVolume) -> GivenImage:
        path = self._scratch / f"{role}.bin"
        write_volume(path, source.volume)
        spec = card_spec(self._route(order).needs[self._inputs(order)[role]], self._card(order).card, role)
        return GivenImage(path, spec.weighting, spec.phase)

    def _context(
        self, order: JobOrder, route: Route, previous: Previous | None, remarks: Sequence[str] = ()
    ) -> EncodeContext:
        bundle = self._card(order)
        site = self._config.node.site
        weighting = route.needs[next(iter(self._inputs(order).values()))].weighting
        return EncodeContext(
            job_id=order.job_id,
            condition=order.condition,
            title=route.title,
            weighting=weighting,
            time_point=order.time_point,
            bundle=BundleFacts(
                name=bundle.card.name,
                version=bundle.card.version,
                sha256=bundle.card.sha256,
                is_demo=bundle.card.is_demo,
                is_for_clinical_use=bundle.card.intended_use == "clinical",
            ),
            # off-line nobody compared route and card: a claim that the bundle cannot make is not made
            finding=route.finding if bundle.card.intended_use == "clinical" else "lesion",
            terms=self._config.terms,
            equipment=Equipment(
                manufacturer=MANUFACTURER,
                model="crlm-node",
                software_version=version("crlm-node"),
                serial=site.device_serial,
                institution=site.institution_name,
            ),
            series_number=self._ledger.series_number(order),
            content_datetime=self._ledger.content_datetime(order),
            run=previous.version + 1 if previous else 1,
            predecessor=(
                Predecessor(previous.version, previous.sr_series_uid, previous.sr_instance_uid) if previous else None
            ),
            uid_root=site.uid_root,
            remarks=tuple(remarks),
        )


def warm_up() -> None:
    """Load what the first encoding would load."""
    objects.warm_up()
    Image.preinit()


def require_terms(config: Config) -> None:
    """Raises ConfigurationError where terminology.yaml lacks a term that results are written with."""
    missing = missing_terms(config.terms)
    if missing:
        path = config.folder / "terminology.yaml"
        line = line_of(parse_yaml(path), ["terms"])
        raise ConfigurationError(
            f"{path}:{line}: terms: {', '.join(missing)} not there; copy the lines from the file that ships"
        )


def _outcome(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A step's result or its failure as a value. What is not foreseen here is a fault of ours and stays an error."""
    try:
        return {"status": "done", "retry": False, "reason": "", **step()}
    except (GeometryError, UnreadableInstance, VolumeRefusal) as error:
        return {"status": "refused", "retry": False, "reason": str(error)}
    except InferenceError as error:
        return {"status": "failed", "retry": error.retry, "reason": str(error)}
    except ExchangeProblem as error:
        return {"status": "failed", "retry": True, "reason": str(error)}
    except NodeError as error:
        return {"status": "failed", "retry": error.retry, "reason": str(error)}
    except OSError as error:
        # a full or failing disk: the job waits for a better day
        return {"status": "failed", "retry": True, "reason": f"{type(error).__name__}: {error.strerror}"}
