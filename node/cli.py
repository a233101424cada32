"""`crlm-node`: the command line. Thin: each verb reads its arguments, calls one room, and prints the answer.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration. Heavy rooms are imported by the verb that needs them.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.cli_dataset import dataset_app
from node.cli_files import require_existing, route, segment
from node.cli_phantom import phantom
from node.cli_print import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    console,
    counted,
    fail,
    plain,
    print_json,
    print_table,
    verdict,
)
from node.config import Config, load_config
from node.config_peers import AnyPeer, DimsePeer, FolderPeer
from node.errors import ConfigurationError, NodeError

app = typer.Typer(
    name="crlm-node",
    help="A DICOM node that segments colorectal liver metastases in MRI and CT and answers the PACS with DICOM-SEG "
    "and a structured report.\n\nStart with `crlm-node demo`; point a PACS at `crlm-node serve`; ask "
    "`crlm-node doctor` when something is wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
peers_app = typer.Typer(no_args_is_help=True, help="The remote systems of peers.yaml.")


class Role(StrEnum):
    """Which processes `serve` starts."""

    RECEIVE = "receive"
    WORK = "work"
    ALL = "all"


def main() -> None:
    """Entry point: errors of ours become a sentence on stderr and an exit code."""
    # imported here: with the database and the queue's tables they cost half a second that `--help` need not pay
    from node.cli_jobs import jobs_app, therapies_app

    app.add_typer(dataset_app, name="dataset")
    app.add_typer(jobs_app, name="jobs")
    app.add_typer(peers_app, name="peers")
    app.add_typer(therapies_app, name="therapies")
    try:
        app()
    except ConfigurationError as error:
        fail(str(error), code=2)
    except NodeError as error:
        fail(str(error), code=1)
    except BrokenPipeError:
        # the reader of our output went away, as `head` does; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        # a file, folder or port of the caller's: named, with the system's own word
        fail(f"{error.filename or 'the system'}: {error.strerror or error}", code=1)


@app.command()
def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    role: Annotated[Role, typer.Option(help="Run only this role of the node here.")] = Role.ALL,
) -> None:
    """Run the node until SIGTERM: receive, route, segment, encode, deliver.

    Prints one line when it is ready. Studies that were under way when it last ended go on where they stood.
    """
    from node import logs, supervise

    settings = load_config(config)
    logs.set_up("serve")
    roles = ("receive", "work") if role is Role.ALL else (role.value,)
    raise typer.Exit(supervise.serve(settings, roles))


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check the configuration, bundles included, as `serve` would, and say what it means. Exit 2 if it is wrong."""
    from node.analysis import require_terms
    from node.bundles import cards_of
    from node.config_secrets import file_faults, unset_variables

    settings = load_config(config)
    cards = cards_of(settings)
    require_terms(settings)
    if faults := [f"{settings.folder / 'peers.yaml'}: {fault}" for fault in file_faults(settings.peers)]:
        raise ConfigurationError("\n".join(faults))
    unset = [*unset_variables(settings.peers, os.environ)]
    dicom = settings.node.dicom
    if as_json:
        print_json(
            {
                "ok": True,
                "ae_titles": sorted(dicom.our_titles),
                "port": dicom.port,
                "spool": str(settings.spool_path),
                "peers": sorted(settings.peers),
                "unset_variables": unset,
                "routes": [
                    {
                        "condition": route.condition,
                        "bundle": route.bundle,
                        "demo_weights": cards[route.bundle].card.is_demo,
                        "deliver_to": list(route.deliver_to),
                    }
                    for route in settings.routes
                ],
            }
        )
        return
    console.print(
        f"[bold]{plain(settings.folder)}[/] is right. AE {plain(', '.join(sorted(dicom.our_titles)))} on "
        f"{dicom.host}:{dicom.port}; spool {plain(settings.spool_path)}; {len(settings.peers)} peers."
    )
    for sentence in unset:
        console.print(f"[yellow]{plain(sentence)}[/]", highlight=False)
    print_table(
        ("condition", "time point", "bundle", "delivers to"),
        [
            (
                route.condition,
                route.time_point,
                route.bundle + (" [yellow](demo weights)[/]" if cards[route.bundle].card.is_demo else ""),
                ", ".join(route.deliver_to) or "nowhere: results stay in the spool",
            )
            for route in settings.routes
        ],
    )


@app.command()
def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Examine disk, database, weights, accelerator and peers; each fault comes with its fix. Exit 1 if any fails."""
    from node.doctor import examine

    checks = list(examine(load_config(config)))
    if as_json:
        print_json(
            [{"name": c.name, "ok": c.is_ok, "detail": c.detail, "fix": "" if c.is_ok else c.fix} for c in checks]
        )
    else:
        print_table(
            ("", "examined", "found", "what to do"),
            [(verdict(c.is_ok), plain(c.name), plain(c.detail), "" if c.is_ok else plain(c.fix)) for c in checks],
        )
    if not all(check.is_ok for check in checks):
        raise typer.Exit(1)


app.command()(route)
app.command()(segment)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders that are searched for them.")],
    to: Annotated[str, typer.Option("--to", help="Name of the peer in peers.yaml.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send DICOM files to a peer as the node would deliver them, and print the peer's answer."""
    from node.delivery import withheld
    from node.peers import send as send_objects
    from node.survey import describe_instance, dicom_files, is_of_demo_weights

    require_existing(paths)
    settings = load_config(config)
    peer = _peer(settings, to)
    files = dicom_files(paths)
    if not files:
        raise NodeError(f"{', '.join(map(str, paths))}: no DICOM file there")
    for is_demo in sorted({is_of_demo_weights(path) for path in files}):
        if reason := withheld(is_demo, to, settings.peers):
            raise NodeError(f"nothing was sent: {reason}; peers.yaml says what {to} may receive")
    objects = [describe_instance(path) for path in files]
    receipt = send_objects(peer, objects, settings.node.dicom.ae_title)
    if as_json:
        print_json({"stored": receipt.is_stored, "reason": receipt.reason, "statuses": receipt.statuses})
    else:
        console.print(
            f"{verdict(receipt.is_stored)} {counted(len(objects), 'object')} to {to}: {plain(receipt.reason)}"
        )
    if not receipt.is_stored:
        raise typer.Exit(1)


@peers_app.command("list")
def peers_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show the peers and what each may do."""
    settings = load_config(config)
    if as_json:
        print_json({name: peer.model_dump(mode="json") for name, peer in settings.peers.items()})
        return
    print_table(
        ("peer", "protocol", "where", "may", "takes demo results"),
        [
            (name, peer.protocol, plain(_place(peer)), _rights(peer), "yes" if peer.accepts_demo_results else "no")
            for name, peer in settings.peers.items()
        ],
    )


@peers_app.command("echo")
def peers_echo(
    names: Annotated[list[str] | None, typer.Argument(help="Peers to try; all when none is named.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Try to reach peers (C-ECHO, REST or a write), and say why not. Exit 1 if any does not answer."""
    from node.peers import echo

    settings = load_config(config)
    answers = {
        name: echo(_peer(settings, name), settings.node.dicom.ae_title) for name in (names or sorted(settings.peers))
    }
    if as_json:
        print_json({n: {"ok": r.is_ok, "ms": round(r.milliseconds, 1), "what": r.what} for n, r in answers.items()})
    else:
        print_table(
            ("", "peer", "ms", "answer"),
            [(verdict(r.is_ok), n, f"{r.milliseconds:.0f}", plain(r.what)) for n, r in answers.items()],
        )
    if not all(answer.is_ok for answer in answers.values()):
        raise typer.Exit(1)


app.command()(phantom)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave archive and node running at the end.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for what the demo leaves.")] = Path("demo-results"),
    seed: Annotated[int, typer.Option(help="First seed of the phantoms.")] = 900100,
) -> None:
    """The main job on this machine in one command: six phantom studies through a real node into a real archive."""
    from node.demo import run

    raise typer.Exit(run(out, keep=keep, seed=seed, console=console))


def _peer(settings: Config, name: str) -> AnyPeer:
    peer = settings.peers.get(name)
    if peer is None:
        known = ", ".join(sorted(settings.peers)) or "none"
        raise ConfigurationError(f"{settings.folder / 'peers.yaml'}: no peer {name!r}; it has: {known}")
    return peer


def _place(peer: AnyPeer) -> str:
    if isinstance(peer, DimsePeer):
        return f"{peer.ae_title}@{peer.host}:{peer.port}"
    return str(peer.path) if isinstance(peer, FolderPeer) else peer.url


def _rights(peer: AnyPeer) -> str:
    rights = [word for word, is_so in (("send", peer.may_send), ("receive", peer.may_receive)) if is_so]
    return ", ".join(rights) or "nothing"
