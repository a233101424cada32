"""An Orthanc over its REST interface, spoken to through pyorthanc."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from pyorthanc import Orthanc

from node.config_peers import OrthancPeer
from node.domain import Receipt, ResultObject
from node.errors import PeerError, PeerRefusal
from node.peers.answers import MAX_MATCHES, EchoResult, StudyMatch, StudyQuery, in_sending_order

CONNECTION_TIMEOUT_S = 10.0
_REFUSALS = {
    400: "it does not take the file as DICOM",
    401: "it refuses our user name or password; see username and password_variable in peers.yaml",
    403: "our user may not do this there",
    404: "there is no Orthanc at this address; check url in peers.yaml",
    413: "the file is larger than a proxy before it allows",
}
_OUTAGES = {
    429: "it asks to come back later",
    500: "it failed inside; its log says more",
    502: "a proxy before it does not reach it",
    503: "it is not ready, or full",
    504: "a proxy before it does not reach it",
    507: "its storage is full",
}


def send(peer: OrthancPeer, objects: Sequence[ResultObject], our_ae_title: str) -> Receipt:
    """Upload the objects, SEG first, SR last, each file's bytes as they are. Stops at the first that fails.

    Orthanc answers a SOP Instance UID that it knows with success and keeps what it has: sending twice is sending once.
    """
    told: dict[str, int] = {}
    stored: dict[str, str] = {}
    try:
        with _client(peer) as client:
            for item in in_sending_order(objects):
                response = client.post_instances(item.path.read_bytes())
                told[item.sop_instance_uid] = response.status_code
                _require_success(peer, response)
                _require_stored(peer, response)
                stored[item.sop_instance_uid] = item.kind
    except PeerError as error:
        progress = f"; {len(stored)} of {len(objects)} objects ({', '.join(stored.values())}) were stored before that"
        return Receipt(False, error.retry, f"{error}{progress if stored else ''}", told, tuple(stored))
    return Receipt(True, False, f"stored at {peer.url}", told, tuple(stored))


def echo(peer: OrthancPeer, our_ae_title: str) -> EchoResult:
    """GET /system."""
    began_s = time.monotonic()
    try:
        with _client(peer) as client:
            response = client.get_system()
            _require_success(peer, response)
            what = f"Orthanc {response.json().get('Version', '?')} at {peer.url}"
    except PeerError as error:
        return EchoResult(False, (time.monotonic() - began_s) * 1000, str(error))
    except ValueError:
        return EchoResult(False, (time.monotonic() - began_s) * 1000, f"{peer.url} answers, but is no Orthanc")
    return EchoResult(True, (time.monotonic() - began_s) * 1000, what)


def find_studies(peer: OrthancPeer, query: StudyQuery, our_ae_title: str) -> list[StudyMatch]:
    """A patient's studies of some days. Raises PeerError, or PeerRefusal where a person must change something.

    Modalities stand at its series, and the issuer of the patient id in one of its instances.
    """
    wanted = {
        "Level": "Study",
        "Query": {"PatientID": query.patient_id, "StudyDate": query.study_date},
        "Expand": True,
        "Limit": MAX_MATCHES + 1,
    }
    with _client(peer) as client:
        try:
            studies = _answer(peer, client.post_tools_find(wanted))
            if len(studies) > MAX_MATCHES:
                raise PeerRefusal(f"{peer.url} answers with more than {MAX_MATCHES} studies of one patient")
            return [_match(peer, client, study) for study in studies]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise _no_orthanc(peer) from error


def _match(peer: OrthancPeer, client: Orthanc, study: Mapping[str, Any]) -> StudyMatch:
    tags, patient = study["MainDicomTags"], study["PatientMainDicomTags"]
    series = _answer(peer, client.get_studies_id_series(study["ID"]))
    instance = _answer(peer, client.get_instances_id_tags(series[0]["Instances"][0], {"simplify": ""}))
    return StudyMatch(
        study_uid=tags["StudyInstanceUID"],
        patient_id=patient.get("PatientID", "").strip(),
        issuer_of_patient_id=str(instance.get("IssuerOfPatientID") or "").strip(),
        study_date=tags.get("StudyDate", ""),
        description=tags.get("StudyDescription", "").strip(),
        modalities=tuple(sorted({item["MainDicomTags"].get("Modality", "") for item in series} - {""})),
    )


@contextmanager
def _client(peer: OrthancPeer) -> Iterator[Orthanc]:
    """A client whose failures to connect are PeerErrors. Raises PeerRefusal when the password is not there."""
    client = Orthanc(
        peer.url.rstrip("/"),
        username=peer.username or None,
        password=_password(peer, os.environ),
        return_raw_response=True,
        timeout=httpx.Timeout(peer.timeout_s, connect=min(CONNECTION_TIMEOUT_S, peer.timeout_s)),
        # the system's certificate store knows the hospital's own authority, httpx's list does not
        verify=ssl.create_default_context(),
        # patient data must not pass through whatever proxy the environment names
        trust_env=False,
    )
    with client:
        try:
            yield client
        except httpx.TimeoutException as error:
            raise PeerError(f"{peer.url} did not answer in time ({type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise PeerRefusal(f"{peer.url} is no address; correct url in peers.yaml") from error
        except httpx.TransportError as error:
            raise PeerError(f"{peer.url} is not reachable: {error}") from error


def _password(peer: OrthancPeer, environment: Mapping[str, str]) -> str | None:
    if not peer.password_variable:
        return None
    password = environment.get(peer.password_variable)
    if not password:
        raise PeerRefusal(
            f"environment variable {peer.password_variable} is not set; it must hold the password of {peer.url}"
        )
    return password


def _require_success(peer: OrthancPeer, response: httpx.Response) -> None:
    code = response.status_code
    if code == httpx.codes.OK:
        return
    if code in _REFUSALS or (400 <= code < 500 and code not in _OUTAGES) or 300 <= code < 400:
        raise PeerRefusal(f"{peer.url} answered {code}: {_REFUSALS.get(code, 'it refuses')}")
    raise PeerError(f"{peer.url} answered {code}: {_OUTAGES.get(code, 'it failed')}")


def _answer(peer: OrthancPeer, response: httpx.Response) -> Any:
    _require_success(peer, response)
    try:
        return response.json()
    except ValueError as error:
        raise _no_orthanc(peer) from error


def _no_orthanc(peer: OrthancPeer) -> PeerRefusal:
    return PeerRefusal(f"{peer.url} answers, but not as Orthanc does; check url in peers.yaml")


def _require_stored(peer: OrthancPeer, response: httpx.Response) -> None:
    """Success of HTTP is not yet storage: a filter inside Orthanc may have dropped the instance."""
    try:
        outcome = response.json()["Status"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_orthanc(peer) from error
    if outcome not in ("Success", "AlreadyStored"):
        raise PeerRefusal(f"{peer.url} did not keep the object ({outcome}); a filter there refuses it")
