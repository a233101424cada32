"""`crlm-node phantom`: synthetic patients as DICOM series, with the truth beside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli_print import console, counted, plain

if TYPE_CHECKING:
    from model.phantom import Geometry

SHIPPED = ("pre-nact-dwi", "pre-nact-t2wi", "post-nact-dwi", "post-nact-t2wi", "ct-portal-venous")


class Shown(StrEnum):
    """What a phantom may be: the shipped conditions, what other bundles read, and two phases of one CT."""

    PRE_NACT_DWI = "pre-nact-dwi"
    PRE_NACT_T2WI = "pre-nact-t2wi"
    POST_NACT_DWI = "post-nact-dwi"
    POST_NACT_T2WI = "post-nact-t2wi"
    CT_PORTAL_VENOUS = "ct-portal-venous"
    CT_ARTERIAL = "ct-arterial"
    CT_BIPHASIC = "ct-biphasic"
    T1_PORTAL_VENOUS = "t1-portal-venous"

    @property
    def is_ct(self) -> bool:
        """Computed tomography."""
        return self.value.startswith("ct")


class Dialect(StrEnum):
    """The vendors whose manners phantoms are written in."""

    GE = "ge"
    SIEMENS = "siemens"
    PHILIPS = "philips"
    CANON = "canon"
    UIH = "uih"


def phantom(
    condition: Annotated[
        Shown, typer.Option(help="Which condition's phantom; ct-biphasic is an arterial and a portal-venous series.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the DICOM files, truth.json and the truth mask.", file_okay=False)
    ],
    seed: Annotated[int, typer.Option(help="The same seed gives the same patient.")] = 900001,
    dialect: Annotated[
        Dialect, typer.Option(help="Whose private elements and manners; uih makes MR only.")
    ] = Dialect.GE,
    family: Annotated[
        int,
        typer.Option(min=1, max=2, help="1: what the demo bundles know; 2: another anatomy and scanner, to test on."),
    ] = 1,
    hepatocellular: Annotated[
        bool, typer.Option("--hepatocellular", help="Hepatocellular carcinomas in place of metastases; CT only.")
    ] = False,
    longest_side: Annotated[
        int | None, typer.Option(min=32, help="No more pixels a side: smaller, and made sooner.")
    ] = None,
) -> None:
    """Make a synthetic patient: a DICOM series as a scanner writes it, with the lesions' truth beside it."""
    if condition.is_ct and dialect is Dialect.UIH:
        raise typer.BadParameter("uih makes MR only; for CT name ge, siemens, philips or canon")
    if hepatocellular and not condition.is_ct:
        raise typer.BadParameter("hepatocellular carcinomas are shown on CT only; name a condition that begins with ct")
    disease = "hepatocellular" if hepatocellular else "metastases"
    files, lesions = _write(condition.value, seed, family, disease, longest_side, out, dialect.value)
    console.print(f"{counted(files, 'file')} in [bold]{plain(out)}[/], {counted(lesions, 'lesion')} (truth.json).")
    if condition.value in SHIPPED:
        after = f"segment {plain(out)} --out results --condition {condition.value}"
    else:
        after = f"route {plain(out)}"
    console.print(f"Next: crlm-node {after}", highlight=False)


def _write(
    condition: str, seed: int, family: int, disease: str, longest_side: int | None, out: Path, dialect: str
) -> tuple[int, int]:
    """Draws and writes; how many files, and how many lesions the portal-venous or only series shows."""
    from model.phantom_catalogue import PAIR, draw_pair, draw_phantom, reduced, usual_geometry
    from simulator.modality import write_pair, write_series

    def lies(name: str) -> Geometry:
        usual = usual_geometry(name, seed, family)
        return usual if longest_side is None else reduced(usual, longest_side)

    if condition != PAIR:
        made = draw_phantom(condition, seed, family=family, geometry=lies(condition), disease=disease)
        return len(write_series(made, out, dialect=dialect)), len(made.lesions)
    venous, arterial = lies("ct-portal-venous"), lies("ct-arterial")
    pair = draw_pair(seed, family=family, geometry=venous, arterial_geometry=arterial, disease=disease)
    series = write_pair(pair, out, dialect=dialect)
    return sum(map(len, series.values())), len(pair.portal_venous.lesions)
