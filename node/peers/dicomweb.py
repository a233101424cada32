"""A DICOMweb service: searched by QIDO-RS (PS3.18 10.6), stored to by STOW-RS (PS3.18 10.5). Through dicomweb-client.

The texts of this library's errors quote the URL, and the URL of a search names the patient: none of them goes on.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.config_peers import DicomwebPeer
from node.config_secrets import read_secret, require_authorities
from node.dicom.header import PARSE_FAULTS
from node.domain import Receipt, ResultObject
from node.errors import ConfigurationError, PeerError, PeerRefusal, UnreadableInstance
from node.peers import statuses
from node.peers.answers import MAX_MATCHES, EchoResult, StudyMatch, StudyQuery, in_sending_order
from node.peers.receipts import broken_off, is_required, judge

AnswerT = TypeVar("AnswerT")

JSON = "application/dicom+json"
NO_STUDY = "2.25.0"
"""The nil UUID as a UID (PS3.5 B.2): a search for it finds nothing, and says that searching works."""
SLOWEST_BYTES_PER_S = 125_000
_RETURNED = ("IssuerOfPatientID", "AccessionNumber", "StudyDescription", "ModalitiesInStudy")
"""Asked for beside the attributes that every answer has (PS3.18 Table 10.6.3-3)."""
_MORE = "299"
"""The warn-code of an answer that is not the whole one (PS3.18 8.3.4.4)."""
_NO_SEARCH = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})

_REFUSALS = {
    400: "it does not understand the request, or does not take the object as DICOM",
    401: "it refuses our credentials; see username, password_… and token_… in peers.yaml",
    403: "our user may not do this there",
    404: "there is no DICOMweb service at this address; check url in peers.yaml, it ends before /studies",
    405: "it does not offer this service",
    406: f"it does not answer in {JSON}",
    409: "it does not keep the object; its log says more",
    413: "the object, or the answer, is larger than it or a proxy before it allows",
    415: "it does not take DICOM files",
    501: "it does not offer this service",
}
_OUTAGES = {
    408: "it waited too long for us",
    429: "it asks to come back later",
    500: "it failed inside; its log says more",
    502: "a proxy before it does not reach it",
    503: "it is not ready, or full",
    504: "a proxy before it does not reach it",
    507: "its storage is full",
}


def find_studies(peer: DicomwebPeer, query: StudyQuery, our_ae_title: str) -> list[StudyMatch]:
    """A patient's studies of some days. Raises PeerError, or PeerRefusal where a person must change something.

    The issuer is asked for, not matched, as by C-FIND.
    """
    return _search(peer, {"PatientID": query.patient_id, "StudyDate": query.study_date})


def find_study(peer: DicomwebPeer, study_uid: str, our_ae_title: str) -> list[StudyMatch]:
    """The study as the peer holds it now, with whose it is there; empty when it is gone. Raises as `find_studies`."""
    return [match for match in _search(peer, {"StudyInstanceUID": study_uid}) if match.study_uid == study_uid]


def echo(peer: DicomwebPeer, our_ae_title: str) -> EchoResult:
    """A search that finds nothing. A service that stores only, and is asked for nothing else, need not search."""
    began_s = time.monotonic()
    try:
        with _service(peer) as service:
            service.search({"StudyInstanceUID": NO_STUDY}, limit=1)
    except _Answered as error:
        is_store = error.code in _NO_SEARCH and not peer.look_up_earlier_studies
        what = f"{peer.url} is there, and offers no search ({error.code}); whether it stores shows when it is sent to"
        return EchoResult(is_store, (time.monotonic() - began_s) * 1000, what if is_store else str(error))
    except PeerError as error:
        return EchoResult(False, (time.monotonic() - began_s) * 1000, str(error))
    return EchoResult(True, (time.monotonic() - began_s) * 1000, f"{peer.url} answers QIDO-RS")


def send(peer: DicomwebPeer, objects: Sequence[ResultObject], our_ae_title: str) -> Receipt:
    """Store the objects one by one: SEG first, SR last; stops at the first required one that is not stored.

    Nothing tells beforehand whether an object will be taken, for there is no negotiation in HTTP. A status is the
    Failure or Warning Reason that the service names (PS3.18 Annex I), else that of HTTP.
    """
    told: dict[str, int] = {}
    try:
        with _service(peer) as service:
            for item in in_sending_order(objects):
                told[item.sop_instance_uid] = status = service.store(item)
                if not statuses.of_store(status).is_done and is_required(peer.results, item):
                    break
    except (PeerError, UnreadableInstance) as error:
        if isinstance(error, _Answered):
            told = {**told, error.sop_instance_uid: error.code}
        return broken_off(error, objects, told)
    return judge(peer.url, peer.results, objects, told)


def _search(peer: DicomwebPeer, filters: Mapping[str, str]) -> list[StudyMatch]:
    found: list[StudyMatch] = []
    answers = 0
    with _service(peer) as service:
        while True:
            page = [_match(peer, item) for item in service.search(filters, limit=MAX_MATCHES + 1, offset=answers)]
            answers += len(page)
            news = [match for match in page if match not in found]
            found += news
            if len(found) > MAX_MATCHES:
                raise PeerRefusal(f"{peer.url} answers with more than {MAX_MATCHES} studies of one patient")
            if not page or not service.has_more:
                return found
            if not news:
                raise PeerRefusal(f"{peer.url} has more than it tells, and tells the same when asked for the rest")


class _Answered(PeerError):
    """The service answered with an HTTP status that is no success; `sop_instance_uid` is of what it was sent."""

    def __init__(self, url: str, code: int, words: str) -> None:
        super().__init__(f"{url} answered {code}: {words}")
        self.code = code
        self.sop_instance_uid = ""


class _Refused(_Answered, PeerRefusal):
    """… and will answer so again."""


def _answered(url: str, code: int) -> _Answered:
    if code in _OUTAGES or (code >= 500 and code not in _REFUSALS):
        return _Answered(url, code, _OUTAGES.get(code, "it failed"))
    return _Refused(url, code, _REFUSALS.get(code, "it refuses"))


class _Session(requests.Session):
    """What the library does not do: our authorities, our credentials, no proxy of the environment, no redirects."""

    def __init__(self, peer: DicomwebPeer) -> None:
        super().__init__()
        require_authorities(peer.ca_file)
        paths = ssl.get_default_verify_paths()
        # the system's certificate store knows the hospital's own authority, the list that requests brings does not
        self.verify = str(peer.ca_file.expanduser()) if peer.ca_file else paths.cafile or paths.capath or True
        # patient data must not pass through whatever proxy the environment names
        self.trust_env = False
        self.headers["Accept"] = JSON
        if token := read_secret(peer.token_variable, peer.token_file, os.environ):
            if not (token.isascii() and token.isprintable()):
                raise ConfigurationError("the token has characters that a bearer token cannot have")
            self.headers["Authorization"] = f"Bearer {token}"
        if password := read_secret(peer.password_variable, peer.password_file, os.environ):
            told = base64.b64encode(f"{peer.username}:{password}".encode()).decode()
            self.headers["Authorization"] = f"Basic {told}"
        self.last: requests.Response | None = None

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: patient data must not follow where a server points."""

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        # the library names the host without its port, which a proxy before several services needs
        request.headers.pop("Host", None)
        self.last = response = super().send(request, **settings)
        if response.is_redirect:
            raise requests.TooManyRedirects(response=response)
        # it compares the media type as a whole, parameters included
        response.headers["Content-Type"] = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return response


class _Service:
    """One conversation. Every failure comes out as a PeerError that quotes nothing."""

    def __init__(self, peer: DicomwebPeer, session: _Session) -> None:
        self._peer = peer
        self._session = session

    @property
    def has_more(self) -> bool:
        """Whether the last answer was not the whole one."""
        last = self._session.last
        return last is not None and last.headers.get("Warning", "").lstrip().startswith(_MORE)

    def search(self, filters: Mapping[str, str], *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """Studies as the service tells them, in DICOM JSON (PS3.18 Annex F)."""
        client = self._client(self._peer.timeout_s)
        told: object = self._ask(
            lambda: client.search_for_studies(
                limit=limit, offset=offset or None, fields=_RETURNED, search_filters=dict(filters)
            )
        )
        if not isinstance(told, list):
            raise _no_dicomweb(self._peer)
        return told

    def store(self, item: ResultObject) -> int:
        """What became of an object: 0, or the reason that the service names. Raises _Answered where it names none."""
        try:
            dataset, size_bytes = dcmread(item.path), item.path.stat().st_size
        except (OSError, InvalidDicomError, *PARSE_FAULTS) as error:
            raise UnreadableInstance(
                f"{item.path.name}: no DICOM file that could be sent ({type(error).__name__})"
            ) from error
        client = self._client(self._peer.timeout_s + size_bytes / SLOWEST_BYTES_PER_S)
        try:
            answer = self._ask(lambda: client.store_instances([dataset]))
        except _Answered as error:
            if (status := self._ask(lambda: _told_of(self._failure(), item))) is not None:
                return status
            error.sop_instance_uid = item.sop_instance_uid
            raise
        if (status := self._ask(lambda: _told_of(answer, item))) is None:
            # success of HTTP may be a login page's
            raise PeerRefusal(f"{self._peer.url} does not say what became of the object, as STOW-RS has to")
        return status

    def _client(self, timeout_s: float) -> DICOMwebClient:
        client = self._ask(
            lambda: DICOMwebClient(
                self._peer.url.rstrip("/"),
                session=self._session,
                timeout=(self._peer.connection_timeout_s, timeout_s),
                chunk_size=sys.maxsize,  # a length in the header, for not every server takes chunks
            )
        )
        client.set_http_retry_params(retry=False)  # when again is decided elsewhere
        return client

    def _ask(self, ask: Callable[[], AnswerT]) -> AnswerT:
        peer = self._peer
        try:
            return ask()
        except requests.HTTPError as error:
            raise _answered(peer.url, error.response.status_code if error.response is not None else 0) from None
        except requests.exceptions.InvalidJSONError:
            raise _no_dicomweb(peer) from None
        except requests.RequestException as error:
            raise _unreachable(peer, error) from None
        except (ValueError, KeyError, TypeError, AttributeError, SyntaxError):
            raise _no_dicomweb(peer) from None

    def _failure(self) -> Dataset:
        """The response module of an answer that is no success; empty where there is none."""
        last = self._session.last
        try:
            return Dataset.from_json(last.text) if last is not None else Dataset()
        except (ValueError, KeyError, TypeError, AttributeError):
            return Dataset()


@contextmanager
def _service(peer: DicomwebPeer) -> Iterator[_Service]:
    """Raises PeerRefusal where a secret or a certificate of ours is not there."""
    try:
        session = _Session(peer)
    except ConfigurationError as error:
        raise PeerRefusal(f"{peer.url}: {error}") from error
    with session:
        yield _Service(peer, session)


_OUTCOMES = (("FailedSOPSequence", "FailureReason", 0x0110), ("ReferencedSOPSequence", "WarningReason", 0))
"""Where an object stands in an answer, its reason, and what holds where none is given."""


def _told_of(answer: Dataset, item: ResultObject) -> int | None:
    """What an answer says of an object; None where it says nothing."""
    for sequence, reason, otherwise in _OUTCOMES:
        for told in answer.get(sequence) or ():
            if told.get("ReferencedSOPInstanceUID") == item.sop_instance_uid:
                return int(told.get(reason) or otherwise)
    return None


def _match(peer: DicomwebPeer, item: Any) -> StudyMatch:
    if not isinstance(item, dict) or not (study_uid := _first(item, "0020000D")):
        raise _no_dicomweb(peer)
    return StudyMatch(
        study_uid=study_uid,
        patient_id=_first(item, "00100020"),
        issuer_of_patient_id=_first(item, "00100021"),
        accession_number=_first(item, "00080050"),
        study_date=_first(item, "00080020"),
        description=_first(item, "00081030"),
        modalities=tuple(_values(item, "00080061")),
    )


def _values(item: Mapping[str, Any], tag: str) -> list[str]:
    """The values of an attribute as text; an empty one in between is null in JSON (PS3.18 F.2.5)."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [str(value).strip() for value in values or () if value is not None]


def _first(item: Mapping[str, Any], tag: str) -> str:
    return next(iter(_values(item, tag)), "")


def _unreachable(peer: DicomwebPeer, error: requests.RequestException) -> PeerError:
    if isinstance(error, requests.TooManyRedirects):
        return PeerRefusal(f"{peer.url} points to another address; write that one as url in peers.yaml")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return PeerRefusal(f"{peer.url} is no address; correct url in peers.yaml")
    if isinstance(error, requests.Timeout):
        return PeerError(f"{peer.url} did not answer in time")
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return PeerRefusal(
                f"{peer.url}: its certificate is not trusted ({cause.verify_message}); name the authority's by ca_file"
            )
        if isinstance(cause, socket.gaierror):
            return PeerError(f"{peer.url}: no such host name here; check url in peers.yaml and the name service")
        if isinstance(cause, OSError) and cause.strerror:
            return PeerError(f"{peer.url} is not reachable: {cause.strerror}")
    return PeerError(f"{peer.url} broke off ({type(error).__name__})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """What an error came of, the outermost first, and what libraries keep as its reason."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_dicomweb(peer: DicomwebPeer) -> PeerRefusal:
    return PeerRefusal(
        f"{peer.url} answers, but not as DICOMweb does; check url in peers.yaml, it ends before /studies"
    )
