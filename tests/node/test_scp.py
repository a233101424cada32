"""The receiver's decisions as data: who may associate, and what is wrong with an instance."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.pixels import get_decoder
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode

from node.config import DicomSettings
from node.config_peers import DimsePeer, FolderPeer
from node.dicom.identity import Identity
from node.scp import (
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    HOST_UNKNOWN,
    TOO_MANY,
    Admission,
    Caller,
    Request,
    Store,
    admit,
    contradiction,
    is_at,
    missing,
)
from node.scp_contexts import READABLE_SYNTAXES, is_kept, storage_classes
from node.scp_reactor import store_answer
from node.spool import Spool
from tests.receiving import ct_slice, encoded

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
SETTINGS = DicomSettings.model_validate({"called_ae_titles": {"CRLM-PRE": {"time_point": "pre"}}})


def peer(**values: Any) -> DimsePeer:
    return DimsePeer.model_validate({"ae_title": "PACS", "host": "10.0.0.1", "port": 104, **values})


def verdict(
    *peers: Any, calling: str = "PACS", called: str = "CRLM-NODE", host: str = "10.0.0.1", full: bool = False
) -> Any:
    return admit(Caller(calling, called, host), SETTINGS, peers, full)


# --- who may


@pytest.mark.parametrize("called", ["CRLM-NODE", "CRLM-PRE"])
def test_a_peer_that_may_send_is_admitted_under_each_of_our_titles(called: str) -> None:
    assert verdict(peer(may_send=True), called=called) == Admission(may_store=True)


def test_titles_are_compared_as_they_are() -> None:
    assert verdict(peer(may_send=True), called="crlm-node") == CALLED_AE_UNKNOWN
    assert verdict(peer(may_send=True), calling="pacs") == CALLING_AE_UNKNOWN


def test_a_peer_that_may_not_send_is_unknown() -> None:
    assert verdict(peer()) == CALLING_AE_UNKNOWN


def test_an_archive_may_come_with_its_commitment_reports_only() -> None:
    assert verdict(peer(may_receive=True)) == Admission(may_store=False)
    assert verdict(peer(may_receive=True, storage_commitment=False)) == CALLING_AE_UNKNOWN


def test_a_host_is_checked_where_the_peer_says_so() -> None:
    assert verdict(peer(may_send=True, check_host=True)) == Admission(may_store=True)
    assert verdict(peer(may_send=True, check_host=True), host="10.0.0.2") == HOST_UNKNOWN
    assert verdict(peer(may_send=True), host="10.0.0.2") == Admission(may_store=True)


def test_two_peers_may_share_a_title_at_two_hosts() -> None:
    peers = [peer(may_send=True, check_host=True, host=host) for host in ("10.0.0.1", "10.0.0.2")]
    assert verdict(*peers, host="10.0.0.2") == Admission(may_store=True)
    assert verdict(*peers, host="10.0.0.3") == HOST_UNKNOWN


def test_a_peer_of_another_protocol_has_no_title() -> None:
    assert verdict(FolderPeer(protocol="folder", path=Path("x"), may_send=True)) == CALLING_AE_UNKNOWN


def test_unknown_callers_are_admitted_where_the_site_wants_it() -> None:
    settings = DicomSettings(accept_unknown_callers=True)
    assert admit(Caller("ANY", "CRLM-NODE", "10.9.9.9"), settings, [], False) == Admission(may_store=True)


def test_a_full_node_says_so_only_to_those_who_might_come() -> None:
    assert verdict(peer(may_send=True), full=True) == TOO_MANY
    assert verdict(peer(), full=True) == CALLING_AE_UNKNOWN


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("127.0.0.1", "localhost", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("10.0.0.2", "10.0.0.1", False),
        ("10.0.0.1", "no-such-host.invalid", False),
    ],
)
def test_an_address_is_compared_in_its_plain_form(address: str, host: str, expected: bool) -> None:
    assert is_at(address, host) is expected


# --- what is kept


KEPT = ("2", "2.1", "2.2", "4", "4.1", "4.4", "66.4", "66.7", "88.22", "88.34", "88.59", "88.67")


@pytest.mark.parametrize("sop_class", [f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in KEPT])
def test_images_segmentations_reports_and_key_objects_are_kept(sop_class: str) -> None:
    assert is_kept(sop_class)
    assert sop_class in storage_classes()


@pytest.mark.parametrize("tail", ["7", "11.1", "66.1", "104.1", "128", "481.3", "20", "4.2", "6.1", "3"])
def test_other_storage_classes_are_accepted_and_not_kept(tail: str) -> None:
    assert f"1.2.840.10008.5.1.4.1.1.{tail}" in storage_classes()
    assert not is_kept(f"1.2.840.10008.5.1.4.1.1.{tail}")


@pytest.mark.parametrize("sop_class", ["1.3.12.2.1107.5.9.1", "1.3.46.670589.11.0.0.12.4"])
def test_what_scanners_put_among_their_images_is_accepted_and_not_kept(sop_class: str) -> None:
    assert sop_class in storage_classes()
    assert not is_kept(sop_class)


def test_an_unknown_private_class_is_not_accepted() -> None:
    assert "1.2.826.0.1.3680043.9999.1" not in storage_classes()


def test_services_that_store_nothing_are_no_storage_class() -> None:
    assert not {"1.2.840.10008.1.1", "1.2.840.10008.1.20.1", "1.2.840.10008.1.3.10"} & storage_classes()


@pytest.mark.parametrize("syntax", READABLE_SYNTAXES, ids=lambda syntax: syntax.name)
def test_for_every_syntax_that_we_accept_a_decoder_is_installed(syntax: Any) -> None:
    assert get_decoder(syntax).is_available


# --- the answer


@pytest.mark.parametrize("sop_instance", ["1.2.3", "1.2.34", "", "Ü"])
def test_the_answer_written_by_hand_is_the_one_that_pynetdicom_reads(sop_instance: str) -> None:
    asked = C_STORE()
    asked.MessageID = 4711
    asked.AffectedSOPClassUID, asked.AffectedSOPInstanceUID = CT, sop_instance
    read = decode(BytesIO(store_answer(asked, 0xB007)), True, True)
    assert (read.CommandField, read.CommandDataSetType) == (0x8001, 0x0101)
    assert (read.MessageIDBeingRespondedTo, read.Status) == (4711, 0xB007)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CT, sop_instance)
    assert read.CommandGroupLength == len(store_answer(asked, 0)) - 12


# --- what is wrong


def request(**values: str) -> Request:
    told = {"sop_class_uid": CT, "sop_instance_uid": "1.2.3", "context_class_uid": CT, "transfer_syntax_uid": EXPLICIT}
    return Request(**{**told, "calling_ae": "PACS", "called_ae": "CRLM-NODE", **values})


def identity(**values: str) -> Identity:
    told = {"sop_class_uid": CT, "sop_instance_uid": "1.2.3", "study_uid": "1.4", "series_uid": "1.5"}
    return Identity(**{**told, **values})


def test_an_instance_in_order_contradicts_nothing_and_misses_nothing() -> None:
    assert contradiction(request(), identity()) is None
    assert missing(request(), identity()) is None


def test_an_empty_identifier_in_the_data_set_is_no_contradiction() -> None:
    assert contradiction(request(), identity(sop_class_uid="", sop_instance_uid="")) is None


def test_all_that_is_missing_is_named() -> None:
    reason = missing(request(sop_instance_uid=""), identity(study_uid="", series_uid=""))
    assert reason == "no SOP Instance UID and no Study Instance UID and no Series Instance UID: it belongs to no series"


class BrokenSpool(Spool):
    """A spool with a fault of ours in it."""

    def keep_instance(self, *arguments: Any) -> Any:
        raise ZeroDivisionError


def test_our_own_fault_costs_the_sender_nothing(tmp_path: Path) -> None:
    spool = BrokenSpool.open(tmp_path / "spool")
    dataset = ct_slice()
    data = encoded(dataset)
    answer = Store(spool).store(request(sop_instance_uid=str(dataset.SOPInstanceUID)), data)
    assert answer == (0x0000, "quarantined")
    (item,) = spool.quarantined()
    assert item.reason == "the node failed on it (ZeroDivisionError)"
    assert item.path.read_bytes().endswith(data)


def test_our_own_fault_on_a_full_disk_lets_the_sender_keep_its_image(tmp_path: Path) -> None:
    spool = BrokenSpool.open(tmp_path / "spool", min_free_bytes=1 << 60)
    dataset = ct_slice()
    answer = Store(spool).store(request(sop_instance_uid=str(dataset.SOPInstanceUID)), encoded(dataset))
    assert answer == (0xA700, "refused")
