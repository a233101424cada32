"""`crlm-node`: the command line. Thin: each verb reads its arguments, calls one room, and prints the answer.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration. Heavy rooms are imported by the verb that needs them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli_print import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    coloured,
    console,
    counted,
    fail,
    plain,
    print_json,
    print_retrial,
    print_table,
    retrial_json,
    stderr,
    verdict,
)
from node.config import Config, DimsePeer, FolderPeer, OrthancPeer, load_config
from node.errors import ConfigurationError, NodeError

if TYPE_CHECKING:
    from node.offline import Answer

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


class Condition(StrEnum):
    """The shipped conditions."""

    PRE_NACT_DWI = "pre-nact-dwi"
    PRE_NACT_T2WI = "pre-nact-t2wi"
    POST_NACT_DWI = "post-nact-dwi"
    POST_NACT_T2WI = "post-nact-t2wi"
    CT_PORTAL_VENOUS = "ct-portal-venous"


class Dialect(StrEnum):
    """The vendors whose manners phantoms are written in."""

    GE = "ge"
    SIEMENS = "siemens"
    PHILIPS = "philips"
    CANON = "canon"
    UIH = "uih"


def main() -> None:
    """Entry point: errors of ours become a sentence on stderr and an exit code."""
    # imported here: with the database and the queue's tables they cost half a second that `--help` need not pay
    from node.cli_jobs import jobs_app, therapies_app

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

    settings = load_config(config)
    cards = cards_of(settings)
    require_terms(settings)
    dicom = settings.node.dicom
    if as_json:
        print_json(
            {
                "ok": True,
                "ae_titles": sorted(dicom.our_titles),
                "port": dicom.port,
                "spool": str(settings.spool_path),
                "peers": sorted(settings.peers),
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


@app.command()
def route(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="DICOM files, or folders that are searched for them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide anew what was received, and show what would change.")
    ] = False,
    since: Annotated[str, typer.Option(help="With --dry-run: how far back, such as 12h, 30d or 8w.")] = "30d",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say which condition each series would be, on what evidence, or why none. Reads headers, sends nothing.

    After a change of routes.yaml, `--dry-run --since 30d` shows which series of the past it would decide otherwise.
    """
    from node.survey import survey

    if dry_run:
        if paths:
            raise typer.BadParameter("--dry-run looks at what was received; name files or --dry-run, not both")
        _route_again(load_config(config), _period(since), as_json=as_json)
        return
    if not paths:
        raise typer.BadParameter("name files or folders, or --dry-run for what was received")
    _require_existing(paths)
    found = survey(paths, load_config(config))
    told = found.as_json()
    if as_json:
        print_json(told)
        return
    if not told:
        console.print("No DICOM file there.")
    for item in told:
        if item.get("unreadable"):
            console.print(f"[red]unreadable[/] {plain(item['source'])}: {plain(item['reason'])}")
            continue
        condition = item["condition"] or " or ".join(item["candidates"]) or ""
        number = f"series {item['series_number']}, " if item["series_number"] is not None else ""
        b_value = f" b={item['b_s_mm2']:g}" if item["b_s_mm2"] is not None else ""
        mean = " mean of directions" if item["directionality"] == "derived-mean" else ""
        console.print(
            f"{coloured(item['decision'])} [dim]({item['margin']:+d})[/] [bold]{plain(condition)}[/]  "
            f"{number}{item['weighting']}{b_value}{mean}, {item['slices']} slices  [dim]{plain(item['source'])}[/]"
        )
        if item["hold_reason"]:
            console.print(f"    [yellow]held:[/] {plain(item['hold_reason'])}")
        for reason in item["reasons"]:
            mark = "[green]+[/]" if reason["for"] else "[red]−[/]"
            console.print(f"    {mark} {plain(reason['what'])}  [dim]{plain(reason['where'])}[/]", highlight=False)


def _period(words: str) -> timedelta:
    """`30d` → 30 days. Raises BadParameter."""
    found = re.fullmatch(r"(\d+)([hdw])", words)
    if found is None:
        raise typer.BadParameter(f"{words!r} is no period; write 12h, 30d or 8w")
    hours = {"h": 1, "d": 24, "w": 168}[found[2]]
    return timedelta(hours=int(found[1]) * hours)


def _route_again(settings: Config, period: timedelta, *, as_json: bool) -> None:
    from node.database import Database, utc_now
    from node.retrial import retry_since
    from node.spool import Spool

    spool = Spool.of_node(settings.spool_path)
    database = Database.open(settings)
    try:
        found = list(retry_since(settings, spool, database, utc_now() - period))
    finally:
        database.close()
    if as_json:
        print_json([retrial_json(item) for item in found])
        return
    changed = [item for item in found if item.is_changed]
    for item in changed:
        print_retrial(item)
    gone = sum(item.after is None for item in found)
    left = f"; the images of {gone} are no longer here" if gone else ""
    console.print(
        f"{counted(len(found), 'series', 'series')} looked at, {len(changed)} would be decided otherwise{left}."
    )


@app.command()
def segment(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders that are searched for them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results: one folder in it per series.")],
    condition: Annotated[
        str | None,
        typer.Option(
            help="What the series is, a condition of routes.yaml: settles pre or post and thin evidence, overrules no "
            "contradiction."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Analyse files without a node: seg.dcm, sr.dcm, findings.json and overlay.png per series.

    Every series found gets an answer: a result, or the reason why not. Exit 1 if none was segmented.
    """
    from node.offline import segment_files, write_summary

    _require_existing(paths)
    settings = load_config(config)
    answers = []
    with stderr.status("reading headers …"):
        for answer in segment_files(paths, out, settings, condition):
            answers.append(answer)
            if answer.is_segmented and not as_json:
                _print_segmented(answer)
    if not as_json:
        _print_refusals(answers)
    write_summary(out, answers)
    if as_json:
        print_json([answer.as_json() for answer in answers])
    if any(answer.is_segmented and answer.is_demo for answer in answers):
        stderr.print(
            "[black on yellow] DEMO WEIGHTS [/] trained on phantoms: these findings mean nothing for a patient."
        )
    if not answers:
        raise NodeError(f"{', '.join(map(str, paths))}: no DICOM file there")
    if not any(answer.is_segmented for answer in answers):
        raise typer.Exit(1)


def _print_segmented(answer: Answer) -> None:
    found = answer.summary or {}
    longest = f", longest axis {found['longest_axis_mm']:.1f} mm" if found["lesion_count"] else ""
    console.print(
        f"[green]segmented[/] [bold]{answer.condition}[/]: {counted(found['lesion_count'], 'lesion')}, "
        f"{found['total_volume_ml']:.2f} ml{longest}  → {plain(answer.folder)}",
        highlight=False,
    )


def _print_refusals(answers: Sequence[Answer]) -> None:
    """One line per series of which nothing was segmented; what a person could mend comes first."""
    taken = {answer.series_uid for answer in answers if answer.is_segmented}
    by_series: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        if answer.series_uid not in taken or not answer.series_uid:
            by_series.setdefault((answer.source, answer.series_uid), []).append(answer.reason)
    for (source, _), reasons in by_series.items():
        first, *others = sorted(dict.fromkeys(reasons), key=lambda reason: "--condition" not in reason)
        more = f" [dim](and {len(others)} other reasons for its other volumes)[/]" if others else ""
        console.print(f"[red]not segmented[/] {plain(source)}: {plain(first)}{more}", highlight=False)


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

    _require_existing(paths)
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


@app.command()
def phantom(
    condition: Annotated[Condition, typer.Option(help="Which condition's phantom.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the DICOM files, truth.json and the truth mask.", file_okay=False)
    ],
    seed: Annotated[int, typer.Option(help="The same seed gives the same patient.")] = 900001,
    dialect: Annotated[
        Dialect, typer.Option(help="Whose private elements and manners; uih makes MR only.")
    ] = Dialect.GE,
) -> None:
    """Make a synthetic patient: a DICOM series as a scanner writes it, with the lesions' truth beside it."""
    from model.phantom import make_phantom
    from simulator.modality import write_series

    if condition is Condition.CT_PORTAL_VENOUS and dialect is Dialect.UIH:
        raise typer.BadParameter("uih makes MR only; for CT name ge, siemens, philips or canon")
    made = make_phantom(condition.value, seed)
    files = write_series(made, out, dialect=dialect.value)
    lesions = counted(len(made.lesions), "lesion")
    console.print(f"{counted(len(files), 'file')} in [bold]{plain(out)}[/], {lesions} (truth.json).")
    console.print(f"Next: crlm-node segment {plain(out)} --out results --condition {condition.value}", highlight=False)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave archive and node running at the end.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for what the demo leaves.")] = Path("demo-results"),
    seed: Annotated[int, typer.Option(help="First seed of the phantoms.")] = 900100,
) -> None:
    """The main job on this machine in one command: six phantom studies through a real node into a real archive."""
    from node.demo import run

    raise typer.Exit(run(out, keep=keep, seed=seed, console=console))


def _require_existing(paths: list[Path]) -> None:
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise typer.BadParameter(f"no such file or folder: {', '.join(missing)}")


def _peer(settings: Config, name: str) -> DimsePeer | FolderPeer | OrthancPeer:
    peer = settings.peers.get(name)
    if peer is None:
        known = ", ".join(sorted(settings.peers)) or "none"
        raise ConfigurationError(f"{settings.folder / 'peers.yaml'}: no peer {name!r}; it has: {known}")
    return peer


def _place(peer: DimsePeer | FolderPeer | OrthancPeer) -> str:
    if isinstance(peer, DimsePeer):
        return f"{peer.ae_title}@{peer.host}:{peer.port}"
    return str(peer.path) if isinstance(peer, FolderPeer) else peer.url


def _rights(peer: DimsePeer | FolderPeer | OrthancPeer) -> str:
    rights = [word for word, is_so in (("send", peer.may_send), ("receive", peer.may_receive)) if is_so]
    return ", ".join(rights) or "nothing"
