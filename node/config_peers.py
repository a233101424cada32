"""Remote systems as peers.yaml has them: one class a protocol, and what is the same for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from node.config_types import AeTitle, Name, Strict, matching


class ResultProfile(Strict):
    """Which result objects a peer gets, and which it must be able to store before anything is sent."""

    objects: tuple[Literal["seg", "sr", "refusal"], ...] = ("seg", "sr")
    """`refusal` is a report that a series could not be analysed, and why. It comes alone."""
    required: tuple[Literal["seg", "sr"], ...] = ("seg", "sr")

    @model_validator(mode="before")
    @classmethod
    def _requires_what_results_it_takes(cls, data: Any) -> Any:
        """Unless it says otherwise: who takes reports alone requires no segmentation."""
        if not isinstance(data, dict) or "required" in data or not isinstance(data.get("objects"), list):
            return data
        return {**data, "required": [kind for kind in ("seg", "sr") if kind in data["objects"]]}

    @model_validator(mode="after")
    def _requires_what_it_gets(self) -> ResultProfile:
        if absent := set(self.required) - set(self.objects):
            raise ValueError(f"required names {', '.join(sorted(absent))}, which objects does not; add it there")
        return self


class Retry(Strict):
    """Delays between delivery attempts: first_s, then times factor, at most max_s, until give_up_h have passed."""

    first_s: Annotated[float, Field(gt=0)] = 30.0
    factor: Annotated[float, Field(ge=1)] = 2.0
    max_s: Annotated[float, Field(gt=0)] = 3600.0
    give_up_h: Annotated[float, Field(gt=0)] = 72.0

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (1, 2, …)."""
        return float(min(self.max_s, self.first_s * self.factor ** min(attempt - 1, 64)))


class _Peer(Strict):
    may_send: bool = False
    may_receive: bool = False
    accepts_demo_results: bool = False
    results: ResultProfile = ResultProfile()
    retry: Retry = Retry()


class DimsePeer(_Peer):
    """A remote application entity."""

    protocol: Literal["dimse"] = "dimse"
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    check_host: bool = False
    storage_commitment: bool = True
    commitment_timeout_h: Annotated[float, Field(gt=0)] = 24.0
    offer_implicit_vr: bool = True
    look_up_study: bool = True
    """Before a late or repeated delivery, ask by C-FIND whether the study is still there and of the same patient."""
    look_up_earlier_studies: bool = False
    """Ask it by C-FIND for a patient's earlier studies, where a rule of `time_point.earlier_studies` needs them."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0


class FolderPeer(_Peer):
    """A folder: results are files in it, one folder per job."""

    protocol: Literal["folder"]
    path: Path


class OrthancPeer(_Peer):
    """An Orthanc spoken to over its REST interface."""

    protocol: Literal["orthanc"]
    url: Annotated[str, matching(r"https?://[^/\s]+.*", "write http://host:8042 or https://…")]
    username: str = ""
    password_variable: str = ""
    """Name of the environment variable that holds the password: secrets stay out of YAML."""
    look_up_earlier_studies: bool = False
    """As of a DIMSE peer, over REST."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0


_SECRETS = {
    "password": "name an environment variable by password_variable or a file by password_file",
    "token": "name an environment variable by token_variable or a file by token_file",
}


class DicomwebPeer(_Peer):
    """A DICOMweb service (PS3.18): searched by QIDO-RS, and results are stored by STOW-RS."""

    protocol: Literal["dicomweb"]
    url: Annotated[
        str,
        matching(
            r"https?://(\[[0-9A-Fa-f:.]+\]|[^/@?#\s:\[\]]+)(:[0-9]+)?(/[^?#\s]*)?",
            "write https://host:port/path, what stands before /studies; user name and password have their own keys",
        ),
    ]
    """The service's root: `url`/studies is searched and stored to."""
    username: str = ""
    password_variable: str = ""
    """Name of the environment variable that holds the password: secrets stay out of YAML."""
    password_file: Path | None = None
    """A file whose first line is the password."""
    token_variable: str = ""
    """As the password's, of a bearer token (RFC 6750) in place of user name and password."""
    token_file: Path | None = None
    """Read anew for each request, so that another program may renew it."""
    ca_file: Path | None = None
    """Certificates (PEM) of the authorities that the server's may come from; else the system's authorities."""
    look_up_study: bool = True
    """As of a DIMSE peer, by QIDO-RS."""
    look_up_earlier_studies: bool = False
    """As of a DIMSE peer, by QIDO-RS."""
    connection_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """How long its answer may be silent."""

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, data: Any) -> Any:
        for key, fix in _SECRETS.items():
            if isinstance(data, dict) and key in data:
                raise ValueError(f"{key}: secrets stay out of this file; {fix}")
        return data

    @model_validator(mode="after")
    def _says_once_who_we_are(self) -> DicomwebPeer:
        passwords = [bool(self.password_variable), self.password_file is not None]
        tokens = [bool(self.token_variable), self.token_file is not None]
        if all(passwords) or all(tokens):
            raise ValueError("a secret is named both by a variable and by a file; leave one of them out")
        if any(tokens) and (any(passwords) or self.username):
            raise ValueError("write either username and password_…, or token_…: one of them is sent")
        if bool(self.username) != any(passwords):
            raise ValueError("username and password_variable (or password_file) belong together; write both or none")
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ValueError("ca_file is for https; write https:// in url, or leave it out")
        return self


AnyPeer = DimsePeer | FolderPeer | OrthancPeer | DicomwebPeer
QueriedPeer = DimsePeer | OrthancPeer | DicomwebPeer
"""A peer that may have earlier studies: a folder has none to ask for."""


class PeersFile(Strict):
    """peers.yaml."""

    peers: dict[Name, Annotated[AnyPeer, Field(discriminator="protocol")]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _default_protocol(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("peers"), dict):
            peers = {
                name: {"protocol": "dimse", **peer} if isinstance(peer, dict) else peer
                for name, peer in data["peers"].items()
            }
            return {**data, "peers": peers}
        return data
