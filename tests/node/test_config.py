"""A configuration error names file, line, key, value and fix; each test breaks one thing in the files that ship."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from node.config import load_config
from node.config_peers import DicomwebPeer, DimsePeer, OrthancPeer
from node.domain import TimePoint
from node.errors import ConfigurationError

SHIPPED = Path(__file__).resolve().parent.parent.parent / "dicom_config"


class Folder:
    """A copy of the shipped configuration that a test may break."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(SHIPPED, path)

    def change(self, file: str, old: str, new: str) -> int:
        """Replace the first `old`; returns the number of the line where it stood."""
        text = (self.path / file).read_text(encoding="utf-8")
        assert old in text, f"{file} no longer holds {old!r}"
        (self.path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        return text[: text.index(old)].count("\n") + 1

    def fault(self, **environment: str) -> str:
        """The message with which the configuration is refused; the folder's own path is cut from it."""
        with pytest.raises(ConfigurationError) as refused:
            load_config(self.path, environment)
        return str(refused.value).replace(f"{self.path}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "dicom_config")


# file, what stands there, what a slip makes of it, what the message must say
SLIPS = [
    ("node.yaml", "series_quiet_s: 10", "series_quit_s: 10", "assembly.series_quit_s: no such key"),
    ("node.yaml", "port: 11112", "port: eleven", "dicom.port = 'eleven': Input should be a valid integer"),
    ("node.yaml", "port: 11112", "port: 70000", "dicom.port = 70000: Input should be less than or equal to 65535"),
    ("node.yaml", "ae_title: CRLM-NODE", "ae_title: LONGER-THAN-SIXTEEN", "an AE title has 1 to 16 characters"),
    ("node.yaml", "ae_title: CRLM-NODE", 'ae_title: "  "', "not all of them spaces"),
    ("node.yaml", "time_zone: UTC", "time_zone: Mars/Base", "'Mars/Base' is no time zone of the IANA list; write one"),
    ("node.yaml", "series_quiet_s: 10", "series_quiet_s: -1", "greater than or equal to 0"),
    ("node.yaml", "series_quiet_s: 10", "series_quiet_s: .nan", "greater than or equal to 0"),
    ("node.yaml", "  url: ", "  url: mysql://x", "write postgresql+psycopg://user:password@host/name"),
    ("node.yaml", "device: auto", "device: tpu", "compute.device = 'tpu': Input should be 'auto', 'cpu' or 'cuda'"),
    (
        "node.yaml",
        "tag_rules: []",
        "tag_rules: [{keyword: Nonsense, pattern: x, time_point: pre}]",
        "no attribute of DICOM",
    ),
    (
        "node.yaml",
        "tag_rules: []",
        "tag_rules: [{keyword: StudyDescription, pattern: '(', time_point: pre}]",
        "no regular",
    ),
    (
        "node.yaml",
        "earlier_studies: []",
        "earlier_studies:\n    - {keyword: StudyDescription, pattern: x, days_before: [9, 3], time_point: pre}",
        "time_point.earlier_studies.0.days_before: [9, 3] holds no value; write the lower bound first",
    ),
    (
        "node.yaml",
        "earlier_studies: []",
        "earlier_studies:\n    - {keyword: StudyDescription, days_before: [3, 9], time_point: pre}",
        "time_point.earlier_studies.0: write either was, or keyword and pattern",
    ),
    (
        "node.yaml",
        "earlier_studies: []",
        "earlier_studies:\n    - {was: pre, keyword: StudyDescription, days_before: [3, 9], time_point: post}",
        "time_point.earlier_studies.0: write either was, or keyword and pattern",
    ),
    (
        "node.yaml",
        "earlier_studies: []",
        "earlier_studies:\n    - {keyword: PatientName, pattern: x, days_before: [3, 9], time_point: pre}",
        "Input should be 'StudyDescription' or 'ModalitiesInStudy'",
    ),
    (
        "node.yaml",
        "earlier_studies: []",
        "earlier_studies:\n    - {was: pre, time_point: pre}",
        "time_point.earlier_studies.0.days_before: this key is missing; add it",
    ),
    ("node.yaml", "  port: 11112", "\tport: 11112", "not valid YAML: found character '\\t'"),
    ("peers.yaml", "  pacs:", "  PACS:", "a name has lower-case letters, digits and hyphens"),
    ("peers.yaml", "port: 104", "port: 0", "peers.pacs.port = 0"),
    ("peers.yaml", "may_send: true", "may_send: true\n    may_sned: true", "no such key"),
    ("routes.yaml", "weighting: dwi", "weighting: flair", "needs.image.weighting = 'flair': Input should be 'dwi'"),
    ("routes.yaml", "b_value_s_mm2: [800, 1200]", "b_value_s_mm2: [1200, 800]", "write the lower bound first"),
    ("routes.yaml", "time_point: pre", "time_point: before", "Input should be 'pre', 'post', 'unknown' or 'any'"),
    ("routes.yaml", "deliver_to: [pacs]", "deliver_to: [pax]", "no such peer (it has: pacs, results-folder)"),
    ("routes.yaml", "deliver_to: [pacs]", "deliver_to: [pacs, pacs]", "a peer stands twice"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), SLIPS, ids=[slip[2][:30].strip() for slip in SLIPS])
def test_a_slip_is_told_with_its_file_line_value_and_fix(
    folder: Folder, file: str, old: str, new: str, message: str
) -> None:
    line = folder.change(file, old, new)
    fault = folder.fault()
    assert message in fault
    told = re.match(rf"{file}:(\d+): ", fault)
    assert told, fault
    # a key added below what stood there is told on its own line
    assert line <= int(told[1]) <= line + new.count("\n")


def test_all_faults_of_a_file_are_told_at_once(folder: Folder) -> None:
    folder.change("node.yaml", "port: 11112", "port: eleven")
    folder.change("node.yaml", "device: auto", "device: tpu")
    assert len(folder.fault().splitlines()) == 2


def test_a_key_that_is_written_twice_is_refused(folder: Folder) -> None:
    line = folder.change("node.yaml", "  port: 11112", "  port: 11112\n  port: 11113")
    assert folder.fault().startswith(f"node.yaml:{line + 1}: not valid YAML: found duplicate key")


def test_broken_yaml_is_told_with_its_line(folder: Folder) -> None:
    folder.change("node.yaml", "ae_title: CRLM-NODE", "ae_title: [CRLM")
    assert re.match(r"node\.yaml:\d+: not valid YAML: .*; mend the line", folder.fault())


def test_yaml_cannot_run_code(folder: Folder) -> None:
    folder.change("node.yaml", "bundles: model/bundles", "bundles: !!python/object/apply:os.system [true]")
    assert "bundles: a path is needed here" in folder.fault()


@pytest.mark.parametrize("file", ["node.yaml", "peers.yaml", "routes.yaml", "terminology.yaml"])
def test_a_missing_file_is_told_with_where_to_get_it(folder: Folder, file: str) -> None:
    (folder.path / file).unlink()
    assert folder.fault() == f"{file}: no such file; copy the one that ships in dicom_config/ and edit it"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder; name the one with"):
        load_config(tmp_path / "nowhere", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "peers.yaml:1: expected `key: value` lines at the top level"),
        (b"peers:\n  a: \xff\n", "peers.yaml: not UTF-8 at byte 12; save the file as UTF-8"),
        (b"peers:\n  a: \x01\n", "peers.yaml: a control character stands at character 12; remove it"),
        (b"peers: {pacs: }\n", "peers.yaml:1: peers.pacs: a section is needed here"),
        (
            b"peers:\n  box: {protocol: ftp}\n",
            "peers.yaml:2: peers.box: its protocol is none of dimse, folder, orthanc, dicomweb",
        ),
        (b"peers:\n  pacs: {host: a, port: 104}\n", "peers.yaml:2: peers.pacs.ae_title: this key is missing; add it"),
        # a peer that is called as a protocol is: its own name must not be taken for the protocol
        (b"peers:\n  orthanc:\n    host: a\n    ae_title: A\n    port: x\n", "peers.yaml:5: peers.orthanc.port = 'x'"),
        (b"peers:\n  o: {protocol: orthanc, url: here}\n", "write http://host:8042 or https://"),
    ],
)
def test_a_file_of_another_shape_is_told(folder: Folder, content: bytes, message: str) -> None:
    (folder.path / "peers.yaml").write_bytes(content)
    assert message in folder.fault()


@pytest.mark.parametrize("content", ["terms: [a]\n", "term: {}\n", "terms:\n  lesion: [52988006, SCT, Lesion]\n"])
def test_terms_of_another_shape_are_told(folder: Folder, content: str) -> None:
    (folder.path / "terminology.yaml").write_text(content)
    assert re.match(r"terminology\.yaml:\d+: term", folder.fault())


def test_a_code_that_is_longer_than_dicom_allows_is_told_with_its_line(folder: Folder) -> None:
    folder.change("terminology.yaml", '"52988006"', '"5298800600000000000"')
    assert re.match(r"terminology\.yaml:\d+: terms\.lesion = '5.*': 19 characters; DICOM allows 16", folder.fault())


def test_a_condition_that_stands_twice_is_refused(folder: Folder) -> None:
    folder.change("routes.yaml", "condition: pre-nact-t2wi", "condition: pre-nact-dwi")
    assert "the condition 'pre-nact-dwi' stands twice" in folder.fault()


def test_a_route_to_a_peer_that_may_not_receive_is_refused(folder: Folder) -> None:
    folder.change("peers.yaml", "may_receive: true", "may_receive: false")
    assert "that peer may not receive; set may_receive: true in peers.yaml" in folder.fault()


@pytest.mark.parametrize("finding", ["blemish", "millimeter"])
def test_a_finding_that_is_none_is_refused(folder: Folder, finding: str) -> None:
    folder.change("routes.yaml", "outputs: [seg, sr]", f"finding: {finding}\n    outputs: [seg, sr]")
    assert "'lesion', 'mass', 'neoplasm' or 'metastasis'" in folder.fault()


def test_a_finding_without_a_term_is_refused(folder: Folder) -> None:
    folder.change("routes.yaml", "outputs: [seg, sr]", "finding: mass\n    outputs: [seg, sr]")
    folder.change("terminology.yaml", "  mass:", "  lump:")
    assert "finding = 'mass': terminology.yaml has no such term; add it there" in folder.fault()


def test_a_preferred_b_value_that_is_not_taken_is_refused(folder: Folder) -> None:
    folder.change("routes.yaml", "b_preferred_s_mm2: 1000", "b_preferred_s_mm2: 50")
    assert "b_preferred_s_mm2 50 lies outside b_value_s_mm2" in folder.fault()


def test_a_result_that_is_required_but_not_sent_is_refused(folder: Folder) -> None:
    folder.change("peers.yaml", "accepts_demo_results: false", "results: {objects: [seg], required: [seg, sr]}")
    assert "required names sr, which objects does not" in folder.fault()


def test_who_takes_reports_of_refusal_alone_requires_no_segmentation(folder: Folder) -> None:
    folder.change("peers.yaml", "accepts_demo_results: false", "results: {objects: [refusal]}")
    assert load_config(folder.path, {}).peers["pacs"].results.required == ()


def test_a_variable_that_holds_a_peers_password_is_no_value_of_ours(folder: Folder) -> None:
    orthanc = "{protocol: orthanc, url: 'http://x:8042', password_variable: CRLM_NODE_SECRET}"
    (folder.path / "peers.yaml").write_text(f"peers:\n  pacs: {orthanc}\n")
    (folder.path / "routes.yaml").write_text("routes: []\n")
    assert load_config(folder.path, {"CRLM_NODE_SECRET": "x"}).peers.keys() == {"pacs"}


DICOMWEB = "protocol: dicomweb, url: 'https://pacs:8443/rs'"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("protocol: dicomweb", "peers.d.url: this key is missing"),
        ("protocol: dicomweb, url: pacs/rs", "peers.d.url = 'pacs/rs': write https://host:port/path"),
        ("protocol: dicomweb, url: 'https://pacs/rs?x=1'", "what stands before /studies"),
        ("protocol: dicomweb, url: 'https://me:geheim@pacs/rs'", "user name and password have their own keys"),
        (f"{DICOMWEB}, password: geheim", "password: secrets stay out of this file; name an environment variable by"),
        (f"{DICOMWEB}, token: geheim", "token: secrets stay out of this file; name an environment variable by"),
        (f"{DICOMWEB}, username: me", "username and password_variable (or password_file) belong together"),
        (f"{DICOMWEB}, password_file: p", "username and password_variable (or password_file) belong together"),
        (f"{DICOMWEB}, username: me, password_file: p, password_variable: P", "both by a variable and by a file"),
        (f"{DICOMWEB}, token_file: t, token_variable: T", "both by a variable and by a file"),
        (f"{DICOMWEB}, token_file: t, username: me, password_file: p", "write either username and password_…, or"),
        ("protocol: dicomweb, url: 'http://pacs/rs', ca_file: c.pem", "ca_file is for https"),
        (f"{DICOMWEB}, timeout_s: 0", "peers.d.timeout_s = 0"),
    ],
)
def test_a_dicomweb_peer_that_is_written_wrongly_is_told_and_no_secret_with_it(
    folder: Folder, keys: str, message: str
) -> None:
    (folder.path / "peers.yaml").write_text(f"peers:\n  d: {{{keys}}}\n")
    (folder.path / "routes.yaml").write_text("routes: []\n")
    told = folder.fault()
    assert message in told
    assert told.startswith("peers.yaml:2: peers.d")
    assert "geheim" not in told


@pytest.mark.parametrize(
    "url", ["http://pacs/rs", "https://pacs:8443/a/b/rs/", "https://10.1.2.3", "http://[::1]:80/x"]
)
def test_a_dicomweb_peer_is_a_root_and_who_we_are_there(folder: Folder, url: str) -> None:
    keys = "username: me, password_variable: CRLM_NODE_DICOMWEB_SECRET, look_up_earlier_studies: true"
    (folder.path / "peers.yaml").write_text(f"peers:\n  d: {{protocol: dicomweb, url: '{url}', {keys}}}\n")
    (folder.path / "routes.yaml").write_text("routes: []\n")
    peer = load_config(folder.path, {"CRLM_NODE_DICOMWEB_SECRET": "x"}).peers["d"]
    assert isinstance(peer, DicomwebPeer)
    assert (peer.url, peer.look_up_earlier_studies, peer.may_receive) == (url, True, False)


def test_a_single_value_is_overridden_by_the_environment(folder: Folder) -> None:
    environment = {
        "CRLM_NODE_DICOM__PORT": "0",
        "CRLM_NODE_DICOM__AE_TITLE": "007",
        "CRLM_NODE_DICOM__ACCEPT_UNKNOWN_CALLERS": "true",
        "CRLM_NODE_SITE__INSTITUTION_NAME": "St. Mary: Radiology",
        "CRLM_NODE_TIME_POINT__TAG_RULES": "[{keyword: StudyDescription, pattern: POST, time_point: post}]",
        "CRLM_NODE_CONFIG": "/elsewhere",
        "PATH": "/bin",
    }
    node = load_config(folder.path, environment).node
    assert (node.dicom.port, node.dicom.ae_title, node.dicom.accept_unknown_callers) == (0, "007", True)
    assert node.site.institution_name == "St. Mary: Radiology"
    assert node.time_point.tag_rules[0].time_point == "post"


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "CRLM_NODE_DICOM__PORT",
            "abc",
            "environment variable CRLM_NODE_DICOM__PORT='abc': Input should be a valid int",
        ),
        ("CRLM_NODE_DICOM__PROT", "1", "environment variable CRLM_NODE_DICOM__PROT='1': no such key"),
        ("CRLM_NODE_DICOM", "1", "environment variable CRLM_NODE_DICOM='1': a section is needed here"),
        ("CRLM_NODE_TIME_POINT__TAG_RULES", "[{", "not valid YAML; close its brackets"),
    ],
)
def test_a_wrong_override_is_told_by_its_variable(folder: Folder, variable: str, text: str, message: str) -> None:
    assert message in folder.fault(**{variable: text})


def test_a_password_is_never_printed(folder: Folder) -> None:
    told = folder.fault(CRLM_NODE_DATABASE__URL="postgres://node:geheim@db/crlm")
    assert "geheim" not in told
    assert "postgres://node:…@db/crlm" in told


def test_a_peer_without_a_protocol_is_a_dimse_peer(folder: Folder) -> None:
    (folder.path / "peers.yaml").write_text(
        "peers:\n"
        "  pacs: {ae_title: PACS, host: pacs.example, port: 104, may_receive: true}\n"
        "  archive: {protocol: orthanc, url: 'http://archive.example:8042'}\n"
    )
    peers = load_config(folder.path, {}).peers
    assert isinstance(peers["pacs"], DimsePeer)
    assert isinstance(peers["archive"], OrthancPeer)


def test_the_called_ae_title_tells_the_time_point(folder: Folder) -> None:
    config = load_config(folder.path, {})
    assert config.called_time_point("CRLM-PRE") is TimePoint.PRE
    assert config.called_time_point("CRLM-NODE") is None
    assert config.called_time_point("SOMEBODY") is None


def test_a_route_revision_follows_what_changes_a_result_and_nothing_else(folder: Folder) -> None:
    first = load_config(folder.path, {}).routes[0].revision
    folder.change("routes.yaml", "deliver_to: [pacs]", "deliver_to: [results-folder]")
    assert load_config(folder.path, {}).routes[0].revision == first
    folder.change("routes.yaml", "b_preferred_s_mm2: 1000", "b_preferred_s_mm2: 900")
    assert load_config(folder.path, {}).routes[0].revision != first


def test_retries_are_delayed_longer_each_time_up_to_the_longest(folder: Folder) -> None:
    retry = load_config(folder.path, {}).peers["pacs"].retry
    assert [retry.delay_s(attempt) for attempt in (1, 2, 3)] == [30, 60, 120]
    assert retry.delay_s(1000) == retry.max_s
