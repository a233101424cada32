"""Secrets that stand in no configuration file: where one is named, and what is wrong when it is not there."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from node.config_peers import AnyPeer, DicomwebPeer
from node.errors import ConfigurationError


def read_secret(variable: str, file: Path | None, environment: Mapping[str, str]) -> str:
    """What the environment variable holds, or the file's first line; "" where neither is named.

    Raises ConfigurationError, whose message names the variable or the file and never what it holds.
    """
    if variable:
        if not (secret := environment.get(variable)):
            raise ConfigurationError(f"environment variable {variable} is not set; it must hold the secret")
        return secret
    if file is None:
        return ""
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}); it must hold the secret") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: holds no text; write the secret as its first line") from error
    if not lines or not lines[0].strip():
        raise ConfigurationError(f"{file}: is empty; write the secret as its first line")
    return lines[0].strip()


def require_authorities(file: Path | None) -> None:
    """Raises ConfigurationError where the file of certificate authorities cannot be used."""
    if file is None:
        return
    try:
        ssl.create_default_context(cafile=file.expanduser())
    except ssl.SSLError as error:
        raise ConfigurationError(f"{file}: holds no certificates in PEM form; export the authority's as PEM") from error
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}); it must hold certificates") from error


def file_faults(peers: Mapping[str, AnyPeer]) -> Iterator[str]:
    """One sentence for each file of a secret or of certificates that a peer names and that is of no use."""
    for name, peer in peers.items():
        if not isinstance(peer, DicomwebPeer):
            continue
        for key in ("password_file", "token_file", "ca_file"):
            file: Path | None = getattr(peer, key)
            try:
                require_authorities(file) if key == "ca_file" else read_secret("", file, {})
            except ConfigurationError as error:
                yield f"peers.{name}.{key} = {error}"


def unset_variables(peers: Mapping[str, AnyPeer], environment: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each environment variable that a peer's secret should be in and that is not set here."""
    for name, peer in peers.items():
        for key in ("password_variable", "token_variable"):
            variable = getattr(peer, key, "")
            if variable and not environment.get(variable):
                yield f"peers.{name}.{key} = {variable}: not set here; the node needs it where it runs"
