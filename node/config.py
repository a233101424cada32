"""The site's wishes as one frozen value, read from the folder `dicom_config` and checked at the door.

Every refusal names file, line, key, value and what to write instead; the node does not start on it. Single
values of node.yaml can be overridden by environment variables: `CRLM_NODE_DICOM__PORT=0` sets `dicom.port`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator
from pydicom.datadict import tag_for_keyword

from node.config_peers import AnyPeer, FolderPeer, PeersFile, QueriedPeer
from node.config_routes import Route, RoutesFile, Trust
from node.config_types import AeTitle, Days, Pattern, Port, Seconds, Strict, matching
from node.domain import TimePoint
from node.errors import ConfigurationError
from node.yaml_file import line_of, parse_yaml, read_yaml

ENVIRONMENT_PREFIX = "CRLM_NODE_"
# variables with the prefix that are not values of node.yaml
_OTHER_VARIABLES = frozenset({"CRLM_NODE_CONFIG", "CRLM_NODE_LOG_LEVEL", "CRLM_NODE_LOG_FORMAT"})


class CalledAe(Strict):
    """A further AE title of ours, and what a study sent to it is by that alone."""

    time_point: Literal["pre", "post"] | None = None


class DicomSettings(Strict):
    """How we listen and who may call."""

    ae_title: AeTitle = "CRLM-NODE"
    host: str = "0.0.0.0"
    port: Port = 11112
    called_ae_titles: dict[AeTitle, CalledAe] = Field(default_factory=dict)
    accept_unknown_callers: bool = False
    receivers: Annotated[int, Field(ge=1, le=32)] = 1
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 32
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    network_timeout_s: Seconds = 300.0

    @property
    def our_titles(self) -> frozenset[str]:
        """Every AE title that we answer to."""
        return frozenset({self.ae_title, *self.called_ae_titles})


class SpoolSettings(Strict):
    """Where received instances and results lie. One machine's local disk."""

    path: Path = Path("spool")
    min_free_mb: Annotated[int, Field(ge=0)] = 2048


class DatabaseSettings(Strict):
    """SQLite inside the spool when no URL is given; else a SQLAlchemy URL such as postgresql+psycopg://…"""

    url: (
        Annotated[
            str,
            matching(
                r"(sqlite:///.+|postgresql\+psycopg://.+)?",
                "write postgresql+psycopg://user:password@host/name, or sqlite:////path",
            ),
        ]
        | None
    ) = None


class AssemblySettings(Strict):
    """When a series, and then its study, counts as complete."""

    series_quiet_s: Seconds = 10.0
    study_quiet_s: Seconds = 20.0
    gap_patience_s: Seconds = 300.0
    poll_s: Annotated[float, Field(gt=0, le=60)] = 0.2


class ComputeSettings(Strict):
    """Where the networks run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "eager", "openvino", "cuda-graph"] = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 600.0


class SiteSettings(Strict):
    """What is written into results, and how patients are told apart."""

    institution_name: str = ""
    time_zone: str = "UTC"
    patient_id_issuer: str = ""
    uid_root: (
        Annotated[str, matching(r"[0-2](\.(0|[1-9]\d*)){1,10}", "a UID root is numbers with dots between, 1.2.…")]
        | None
    ) = None
    device_serial: str = "0"

    @field_validator("time_zone")
    @classmethod
    def _is_known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone of the IANA list; write one such as Europe/Vienna") from error
        return value


class TagRule(Strict):
    """A rule the administrator owns: this attribute matching this pattern means this time point."""

    keyword: str
    pattern: Pattern
    time_point: Literal["pre", "post"]

    @field_validator("keyword")
    @classmethod
    def _is_an_attribute(cls, value: str) -> str:
        if tag_for_keyword(value) is None:
            raise ValueError("no attribute of DICOM has this keyword; write one of PS3.6, such as StudyDescription")
        return value


class EarlierStudyRule(Strict):
    """A rule the administrator owns: an earlier study of the patient, so many days before, means this time point.

    It is known by what it `was` (by a word, never by another rule of this kind), or by an attribute of it.
    """

    was: Literal["pre", "post"] | None = None
    keyword: Literal["StudyDescription", "ModalitiesInStudy"] | None = None
    pattern: Pattern | None = None
    days_before: Days
    time_point: Literal["pre", "post"]

    @model_validator(mode="after")
    def _asks_one_thing(self) -> EarlierStudyRule:
        is_by_attribute = self.keyword is not None and self.pattern is not None
        is_half = (self.keyword is None) != (self.pattern is None)
        if is_half or is_by_attribute == (self.was is not None):
            raise ValueError("write either was, or keyword and pattern: that is what is asked of the earlier study")
        return self


class TimePointSettings(Strict):
    """Windows around a therapy, in days; outside them a study is held, never guessed."""

    pre_days_before_start: Annotated[int, Field(ge=0)] = 60
    post_days_after_start: Annotated[int, Field(ge=0)] = 28
    post_days_after_end: Annotated[int, Field(ge=0)] = 90
    days_without_end: Annotated[int, Field(ge=0)] = 270
    """So long after its start a therapy whose end nobody entered says something of a study."""
    tag_rules: tuple[TagRule, ...] = ()
    earlier_studies: tuple[EarlierStudyRule, ...] = ()

    @property
    def keywords(self) -> tuple[str, ...]:
        """The attributes that tag rules ask of a study's headers."""
        return tuple(rule.keyword for rule in self.tag_rules)

    @property
    def days_looked_up(self) -> tuple[int, int] | None:
        """From how many days to how many before a study a peer is asked for; None where no rule needs a peer."""
        asked = [rule.days_before for rule in self.earlier_studies if rule.keyword is not None]
        return (min(low for low, _ in asked), max(high for _, high in asked)) if asked else None


class NodeSettings(Strict):
    """node.yaml."""

    dicom: DicomSettings = DicomSettings()
    spool: SpoolSettings = SpoolSettings()
    database: DatabaseSettings = DatabaseSettings()
    assembly: AssemblySettings = AssemblySettings()
    compute: ComputeSettings = ComputeSettings()
    site: SiteSettings = SiteSettings()
    time_point: TimePointSettings = TimePointSettings()
    bundles: Path = Path("model/bundles")


_TERM_LENGTHS = (16, 16, 64)
"""Most characters of value and scheme (SH) and of the meaning (LO), PS3.5 6.2."""


@dataclass(frozen=True)
class Term:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Config:
    """All of it, frozen; a changed file is a new value."""

    folder: Path
    node: NodeSettings
    peers: Mapping[str, AnyPeer]
    routes: tuple[Route, ...]
    terms: Mapping[str, Term]
    trust: tuple[Trust, ...] = ()

    @cached_property
    def spool_path(self) -> Path:
        """Absolute path of the spool; relative ones are taken from the working folder."""
        return self.node.spool.path.expanduser().resolve()

    @cached_property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.node.database.url or f"sqlite:///{self.spool_path / 'node.sqlite'}"

    def bundle_path(self, name: str) -> Path:
        """Folder of the bundle `name`."""
        return (self.node.bundles.expanduser() / name).resolve()

    def route(self, condition: str) -> Route | None:
        """The route of that condition, if there is one."""
        return next((route for route in self.routes if route.condition == condition), None)

    @cached_property
    def asked_for_earlier_studies(self) -> Mapping[str, QueriedPeer]:
        """The peers that know a patient's earlier studies, by name; none where no rule needs them."""
        if self.node.time_point.days_looked_up is None:
            return {}
        return {
            name: peer
            for name, peer in self.peers.items()
            if not isinstance(peer, FolderPeer) and peer.look_up_earlier_studies
        }

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.node.site.time_zone)

    def called_time_point(self, called_ae_title: str) -> TimePoint | None:
        """What the called AE title alone says of a study's time point."""
        called = self.node.dicom.called_ae_titles.get(called_ae_title)
        return TimePoint(called.time_point) if called and called.time_point else None


def load_config(folder: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check `node.yaml`, `peers.yaml`, `routes.yaml` and `terminology.yaml` in `folder`.

    Raises ConfigurationError whose message lists every fault, one a line: file, line, key, value, fix.
    """
    environment = os.environ if environment is None else environment
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder; name the one with node.yaml in it by --config DIR")
    peers = read_yaml(folder / "peers.yaml", PeersFile)
    secrets = {
        variable
        for peer in peers.peers.values()
        for variable in (getattr(peer, "password_variable", ""), getattr(peer, "token_variable", ""))
    }
    node = read_yaml(folder / "node.yaml", NodeSettings, overrides=dict(_overrides(environment, secrets)))
    routes = read_yaml(folder / "routes.yaml", RoutesFile)
    terms = _read_terms(folder / "terminology.yaml")
    config = Config(folder.resolve(), node, peers.peers, routes.routes, terms, routes.trust)
    faults = [*_join_faults(config)]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return config


def _overrides(
    environment: Mapping[str, str], secrets: Collection[str]
) -> Iterator[tuple[tuple[str, ...], tuple[str, str]]]:
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _OTHER_VARIABLES and name not in secrets:
            yield tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")), (name, text)


def _read_terms(path: Path) -> dict[str, Term]:
    raw = parse_yaml(path)
    terms: dict[str, Term] = {}
    faults = [
        f"{path}:{line_of(raw, [key])}: {key}: no such key; every term stands under `terms`"
        for key in raw
        if key != "terms"
    ]
    section = raw.get("terms") or {}
    if not isinstance(section, dict):
        raise ConfigurationError(
            f"{path}:{line_of(raw, ['terms'])}: terms: write lines of `key: [value, scheme, meaning]`"
        )
    for key, item in section.items():
        place = f"{path}:{line_of(raw, ['terms', key])}: terms.{key}"
        if not (isinstance(item, list) and len(item) == 3 and all(isinstance(part, str) and part for part in item)):
            faults.append(f"{place}: write it as [value, scheme, meaning], three quoted texts")
            continue
        too_long = [(part, most) for part, most in zip(item, _TERM_LENGTHS, strict=True) if len(part) > most]
        faults += [f"{place} = {part!r}: {len(part)} characters; DICOM allows {most} here" for part, most in too_long]
        terms[str(key)] = Term(*item)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return terms


def _join_faults(config: Config) -> Iterator[str]:
    """What is wrong between the files, though each is right by itself."""
    routes_path = config.folder / "routes.yaml"
    raw = parse_yaml(routes_path)
    for index, route in enumerate(config.routes):
        line = line_of(raw, ["routes", index, "deliver_to"])
        for name in route.deliver_to:
            peer = config.peers.get(name)
            if peer is None:
                known = ", ".join(sorted(config.peers)) or "none"
                yield (
                    f"{routes_path}:{line}: routes.{index}.deliver_to = {name!r}: "
                    f"peers.yaml has no such peer (it has: {known})"
                )
            elif not peer.may_receive:
                yield (
                    f"{routes_path}:{line}: routes.{index}.deliver_to = {name!r}: "
                    f"that peer may not receive; set may_receive: true in peers.yaml"
                )
        if route.finding not in config.terms:
            line = line_of(raw, ["routes", index, "finding"])
            yield (
                f"{routes_path}:{line}: routes.{index}.finding = {route.finding!r}: "
                f"terminology.yaml has no such term; add it there"
            )
