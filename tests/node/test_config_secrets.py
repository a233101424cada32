"""Secrets and certificates beside the configuration: read, or told by their place and never by what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config_peers import DicomwebPeer
from node.config_secrets import file_faults, read_secret, require_authorities, unset_variables
from node.errors import ConfigurationError

SECRET = "geheim"


def peer(**settings: object) -> DicomwebPeer:
    return DicomwebPeer.model_validate({"protocol": "dicomweb", "url": "https://pacs/rs", **settings})


def test_a_secret_is_the_variables_value_or_the_files_first_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n\nkept by the vault\n", encoding="utf-8")
    assert read_secret("PASSWORD", None, {"PASSWORD": SECRET}) == SECRET
    assert read_secret("", file, {}) == SECRET
    assert read_secret("", None, {"PASSWORD": SECRET}) == "", "nothing is named"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "no text"),
    ],
)
def test_a_file_without_a_secret_is_told_by_its_path(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        read_secret("", file, {})
    assert str(raised.value).startswith(f"{file}: {told}" if content != b"\xff" else f"{file}: holds no text")


def test_a_variable_that_is_empty_is_as_good_as_none() -> None:
    with pytest.raises(ConfigurationError, match="environment variable PASSWORD is not set"):
        read_secret("PASSWORD", None, {"PASSWORD": ""})


def test_a_file_of_authorities_must_hold_certificates(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        require_authorities(file)
    file.write_text("no certificate", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds no certificates in PEM form"):
        require_authorities(file)
    require_authorities(None)


def test_every_file_that_is_of_no_use_is_told_with_its_peer_and_key(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text(SECRET, encoding="utf-8")
    none = tmp_path / "none"
    peers = {
        "one": peer(username="me", password_file=good, ca_file=none),
        "two": peer(token_file=none),
        "three": peer(),
    }
    faults = list(file_faults(peers))
    assert [fault.partition(" ")[0] for fault in faults] == ["peers.one.ca_file", "peers.two.token_file"]
    assert SECRET not in "".join(faults)


def test_a_variable_is_told_where_it_is_not_set() -> None:
    peers = {"one": peer(token_variable="TOKEN"), "two": peer(username="me", password_variable="PASSWORD")}
    (told,) = unset_variables(peers, {"TOKEN": SECRET})
    assert told == "peers.two.password_variable = PASSWORD: not set here; the node needs it where it runs"
