"""One picture a study for human eyes: the largest lesion in its slice, close-ups of up to three, sizes in mm.

It is no DICOM object and decides nothing: a quick look for whoever runs the node, and the demo's proof. No patient's
name is drawn; research and demo wording is. Colours are those of the segments (node/dicom/palette.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from model.body import body_of
from model.findings import Finding
from model.volume import Float64, Mask, Volume
from node.dicom.header import FrameHeader, read_header
from node.dicom.palette import Rgb, lesion_rgb
from node.dicom.volume import SourceVolume
from node.overlay_view import (
    Crop,
    Hanging,
    body_crop,
    crop_around,
    hanging,
    place_label,
    render,
    slice_label,
    slice_of,
    window_label,
    window_of,
)

WIDTH, STRIP_WIDTH, MARGIN, HEADER = 1280, 392, 16, 88
MIN_HEIGHT, MAX_HEIGHT = 600, 860
MAX_CLOSE_UPS, MAX_LISTED, LISTED_PER_ROW, LIST_ROW = 3, 8, 4, 28
CLOSE_UP_MM, CLOSE_UP_FACTOR = 45.0, 2.0
SCALE_BAR_MM, CLOSE_UP_BAR_MM = 50, 10
_FINE = 2
"""Lines are drawn larger by this and reduced: smooth edges."""

BACKGROUND: Rgb = (13, 17, 23)
PANEL_EDGE: Rgb = (48, 56, 66)
INK: Rgb = (230, 237, 243)
FAINT: Rgb = (139, 148, 158)
AMBER: Rgb = (255, 193, 70)
TRUTH: Rgb = (255, 255, 255)

Pixels = NDArray[np.bool_]


@dataclass(frozen=True)
class _Scene:
    """What every panel shows."""

    source: SourceVolume
    mask: Mask
    findings: Sequence[Finding]
    truth: Mask | None
    view: Hanging
    window: tuple[float, float]

    @property
    def volume(self) -> Volume:
        """The source's values and grid."""
        return self.source.volume

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        _, rows, columns = self.volume.array_DHW.shape
        return rows, columns


def draw_overlay(
    path: Path,
    source: SourceVolume,
    mask: Mask,
    findings: Sequence[Finding],
    *,
    title: str,
    warning: str = "",
    details: str = "",
    truth: Mask | None = None,
) -> None:
    """Write the picture to `path` (PNG).

    `title` is the condition in words, `details` a line about weights or study, `warning` is set in amber; `truth` is
    outlined in dashes and may lie on another grid. An image that the node derived is said to be one.
    """
    is_ct = source.modality == "CT"
    volume = source.volume
    view = hanging(volume.affine_lps_mm)
    body = body_of(volume.array_DHW, is_ct=is_ct)
    window = window_of(volume, body, mask.labels_DHW > 0, is_ct=is_ct)
    scene = _Scene(source, mask, findings, truth, view, window)
    shown = sorted(findings, key=lambda finding: -finding.long_axis_mm)
    main_slice = shown[0].slice_index if shown else _central_slice(scene)
    around = body_crop(volume, body, main_slice, view)
    main_width = WIDTH - 2 * MARGIN - (STRIP_WIDTH + MARGIN if shown else 0)
    width_mm, height_mm = around.size_mm(view)
    height = int(np.clip(main_width * height_mm / width_mm, MIN_HEIGHT, MAX_HEIGHT))
    canvas = Image.new("RGB", (WIDTH, HEADER + height + _footer_height(findings)), BACKGROUND)
    _draw_header(canvas, title, "   ".join(words for words in (details, source.derivation) if words), warning, scene)
    crop = _fitted(around, view, main_width / height)
    canvas.paste(_panel(scene, main_slice, crop, (main_width, height), only=None), (MARGIN, HEADER))
    _draw_strip(canvas, scene, shown[:MAX_CLOSE_UPS], height)
    _draw_footer(canvas, findings, HEADER + height + MARGIN)
    canvas.save(path, format="PNG", compress_level=1)


def _central_slice(scene: _Scene) -> int:
    """Without a lesion: where the truth is largest, else the middle."""
    count: int = scene.volume.array_DHW.shape[0]
    if scene.truth is None or not scene.truth.count:
        return count // 2
    areas = [int((slice_of(scene.truth, scene.volume, index) > 0).sum()) for index in range(count)]
    return areas.index(max(areas))


def _fitted(crop: Crop, view: Hanging, aspect: float) -> Crop:
    """The smallest crop of that width-to-height ratio (in mm) around `crop`."""
    width_mm, height_mm = crop.size_mm(view)
    grow_x = max(0.0, height_mm * aspect - width_mm) / view.pixel_mm[1] / 2
    grow_y = max(0.0, width_mm / aspect - height_mm) / view.pixel_mm[0] / 2
    return Crop(crop.left - grow_x, crop.top - grow_y, crop.right + grow_x, crop.bottom + grow_y)


def _panel(scene: _Scene, slice_index: int, crop: Crop, size: tuple[int, int], *, only: Finding | None) -> Image.Image:
    """One slice with its contours. `only`: a close-up of that lesion, with both its axes; else the whole slice, with
    the long axes' lengths of the lesions that are measured in it."""
    picture = render(scene.volume, slice_index, scene.view, crop, scene.window, size)
    lines = Image.new("RGBA", (size[0] * _FINE, size[1] * _FINE))
    _draw_lines(ImageDraw.Draw(lines), scene, slice_index, _Scale(scene, crop, lines.size), only)
    lines = lines.reduce(_FINE)
    picture.paste(lines, mask=lines)
    pen, scale = ImageDraw.Draw(picture), _Scale(scene, crop, size)
    labels_HW = scene.mask.labels_DHW[slice_index]
    for finding in scene.findings:
        if (labels_HW == finding.number).any():
            is_measured = only is None and finding.slice_index == slice_index
            words = f"{finding.number}  {finding.long_axis_mm:.0f} mm" if is_measured else str(finding.number)
            _draw_name(pen, scale, labels_HW == finding.number, words, lesion_rgb(finding.number), size)
    _draw_marks(pen, scene, slice_index, scale, size, only)
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=PANEL_EDGE)
    return picture


def _draw_lines(pen: ImageDraw.ImageDraw, scene: _Scene, slice_index: int, scale: _Scale, only: Finding | None) -> None:
    labels_HW = scene.mask.labels_DHW[slice_index]
    for finding in scene.findings:
        for outline in _outlines(labels_HW == finding.number):
            _draw_line(pen, scale.from_array(outline), lesion_rgb(finding.number), width=3)
    if scene.truth is not None:
        for outline in _outlines(slice_of(scene.truth, scene.volume, slice_index) > 0):
            _draw_dashed(pen, scale.from_array(outline), TRUTH, width=3)
    if only:
        for ends in (only.long_axis_ends_lps_mm, only.short_axis_ends_lps_mm):
            _draw_axis(pen, scale, ends, lesion_rgb(only.number))


class _Scale:
    """Array indices or patient positions → pixels of a panel."""

    def __init__(self, scene: _Scene, crop: Crop, size: tuple[int, int]) -> None:
        self._scene, self._crop = scene, crop
        self._factor = np.array([size[0] / (crop.right - crop.left), size[1] / (crop.bottom - crop.top)])
        self.pixels_per_mm = float(self._factor[0] / scene.view.pixel_mm[1])

    def from_array(self, points_HW: Float64) -> Float64:
        """(row, column) indices (N, 2) → (x, y)."""
        shown = self._scene.view.to_display(points_HW, self._scene.shape)
        moved: Float64 = (shown - [self._crop.left, self._crop.top]) * self._factor
        return moved

    def from_patient(self, points_lps_mm: Sequence[tuple[float, float, float]]) -> Float64:
        """Patient positions in mm → (x, y)."""
        inverse = np.linalg.inv(self._scene.volume.affine_lps_mm)
        indices = np.array(points_lps_mm) @ inverse[:3, :3].T + inverse[:3, 3]
        return self.from_array(indices[:, 1:])


def _outlines(lesion_HW: Pixels) -> list[Float64]:
    if not lesion_HW.any():
        return []
    padded = np.pad(lesion_HW, 1).astype(np.float32)
    found: list[Float64] = find_contours(padded, 0.5)  # type: ignore[no-untyped-call]  # scikit-image has no types
    return [outline - 1 for outline in found]


def _draw_line(pen: ImageDraw.ImageDraw, points: Float64, colour: Rgb, width: int) -> None:
    flat = [tuple(point) for point in points]
    pen.line(flat, fill=(0, 0, 0), width=width + 2, joint="curve")
    pen.line(flat, fill=colour, width=width, joint="curve")


def _draw_dashed(
    pen: ImageDraw.ImageDraw, points: Float64, colour: Rgb, width: int, dash: float = 14.0, gap: float = 14.0
) -> None:
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    for start in np.arange(0.0, lengths[-1], dash + gap):
        at = np.linspace(start, min(start + dash, lengths[-1]), 6)
        piece = np.stack([np.interp(at, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
        _draw_line(pen, piece, colour, width)


def _draw_axis(
    pen: ImageDraw.ImageDraw, scale: _Scale, ends_lps_mm: Sequence[tuple[float, float, float]], colour: Rgb
) -> None:
    """A caliper: its ends are marked, its line is dotted, so that the lesion is seen through it."""
    a, b = scale.from_patient(ends_lps_mm)
    along = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
    across = np.array([-along[1], along[0]]) * 8
    _draw_dashed(pen, np.stack([a, b]), colour, width=2, dash=3.0, gap=11.0)
    for end in (a, b):
        _draw_line(pen, np.stack([end - across, end + across]), colour, width=3)


def _draw_name(
    pen: ImageDraw.ImageDraw, scale: _Scale, lesion_HW: Pixels, words: str, colour: Rgb, size: tuple[int, int]
) -> None:
    """The lesion's number outside its contour, up and to the right where there is room."""
    points = scale.from_array(np.argwhere(lesion_HW).astype(np.float64))
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if right < 0 or bottom < 0 or left > size[0] or top > size[1]:
        return
    gap, length = 0.5 * scale.pixels_per_mm + 7, _font(20).getlength(words)
    x = right + gap if right + gap + length < size[0] - 30 else left - gap - length
    y = top - gap - 14 if top - gap - 14 > 36 else bottom + gap
    _write(pen, (x, y), words, 20, colour)


def _draw_marks(
    pen: ImageDraw.ImageDraw,
    scene: _Scene,
    slice_index: int,
    scale: _Scale,
    size: tuple[int, int],
    only: Finding | None,
) -> None:
    """Directions at the edges, slice, instance, position, scale bar; of a close-up also the lesion's size."""
    left, right, top, bottom = scene.view.letters
    width, height = size
    letter, small = (20, 16) if only is None else (15, 13)
    _write(pen, (10, height / 2), left, letter, INK, "lm")
    _write(pen, (width - 10, height / 2), right, letter, INK, "rm")
    _write(pen, (width / 2, 8), top, letter, INK, "ma")
    _write(pen, (width / 2, height - 8), bottom, letter, INK, "md")
    named = (
        slice_label(scene.volume, slice_index),
        instance_words(scene.source, slice_index),
        place_label(scene.volume, slice_index),
    )
    lines = [words for words in named if words]
    if only is None:
        _write(pen, (width - 12, height - 10), "   ".join(lines), small, INK, "rd")
    else:
        _write(pen, (12, 10), _size_of(only), 18, lesion_rgb(only.number))
        for row, words in enumerate(lines):
            _write(pen, (width - 10, 11 + 19 * row), words, small, INK, "ra")
    _draw_bar(pen, scale, height - 14, SCALE_BAR_MM if only is None else CLOSE_UP_BAR_MM, small)


def instance_words(source: SourceVolume, slice_index: int) -> str:
    """Instance Number and frame of the source image, by which a viewer finds it; empty where the source tells none."""
    if not source.slices:
        return ""
    slice_ref, first = source.slices[slice_index], source.slices[0]
    root = source.header.root if slice_ref.path == first.path else read_header(slice_ref.path)
    words = [f"image {number:.0f}" for number in FrameHeader(root).numbers("InstanceNumber")[:1]]
    return " ".join([*words, f"frame {slice_ref.frame}"] if slice_ref.frame else words)


def _draw_bar(pen: ImageDraw.ImageDraw, scale: _Scale, y: float, length_mm: int, font: int) -> None:
    left = 14.0
    right = left + length_mm * scale.pixels_per_mm
    for shift, colour in ((1, (0, 0, 0)), (0, INK)):
        pen.line((left + shift, y + shift, right + shift, y + shift), fill=colour, width=3)
        for tick_mm in range(0, length_mm + 1, 10):
            x = left + tick_mm * scale.pixels_per_mm + shift
            pen.line((x, y + shift - (8 if tick_mm in (0, length_mm) else 5), x, y + shift), fill=colour, width=2)
    _write(pen, (right + 10, y + 5), f"{length_mm} mm", font, INK, "ld")


def _draw_strip(canvas: Image.Image, scene: _Scene, close_ups: Sequence[Finding], total_height: int) -> None:
    height = (total_height - (len(close_ups) - 1) * MARGIN) // max(len(close_ups), 1)
    inverse = np.linalg.inv(scene.volume.affine_lps_mm)
    for row, finding in enumerate(close_ups):
        middle = inverse[:3, :3] @ np.mean(finding.long_axis_ends_lps_mm, axis=0) + inverse[:3, 3]
        center = scene.view.to_display(middle[None, 1:], scene.shape)[0]
        side_mm = max(CLOSE_UP_MM, CLOSE_UP_FACTOR * finding.long_axis_mm)
        square = crop_around(center, side_mm, scene.view, scene.shape)
        crop = _fitted(square, scene.view, STRIP_WIDTH / height)
        panel = _panel(scene, finding.slice_index, crop, (STRIP_WIDTH, height), only=finding)
        canvas.paste(panel, (WIDTH - MARGIN - STRIP_WIDTH, HEADER + row * (height + MARGIN)))


def _size_of(finding: Finding) -> str:
    return f"{finding.number}   {finding.long_axis_mm:.1f} x {finding.short_axis_mm:.1f} mm"


def _draw_header(canvas: Image.Image, title: str, details: str, warning: str, scene: _Scene) -> None:
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 14), title, font=_font(28), fill=INK)
    x, y = float(MARGIN), 64
    if details:
        pen.text((x, y), details, font=_font(16), fill=FAINT, anchor="lm")
        x += _font(16).getlength(details) + 32
    if scene.findings:
        x = _draw_key(pen, (x, y), "segmented", lesion_rgb(1), is_dashed=False)
    if scene.truth is not None:
        _draw_key(pen, (x, y), "truth", TRUTH, is_dashed=True)
    window = window_label(scene.window, is_ct=scene.source.modality == "CT")
    pen.text((WIDTH - MARGIN, y), window, font=_font(16), fill=FAINT, anchor="rm")
    if warning:
        right, width = WIDTH - MARGIN, _font(16).getlength(warning)
        pen.rounded_rectangle((right - width - 24, 16, right, 48), 6, outline=AMBER, width=2)
        pen.text((right - 12, 32), warning, font=_font(16), fill=AMBER, anchor="rm")


def _draw_key(pen: ImageDraw.ImageDraw, at: tuple[float, float], words: str, colour: Rgb, *, is_dashed: bool) -> float:
    """A sample of a line and what it means; returns where the next one may stand."""
    x, y = at
    pieces = [(0, 9), (14, 23), (28, 37)] if is_dashed else [(0, 37)]
    for start, end in pieces:
        pen.line((x + start, y, x + end, y), fill=colour, width=3)
    pen.text((x + 46, y), words, font=_font(16), fill=FAINT, anchor="lm")
    return x + 46 + _font(16).getlength(words) + 28


def _footer_height(findings: Sequence[Finding]) -> int:
    rows = -(-min(len(findings), MAX_LISTED) // LISTED_PER_ROW)
    return 2 * MARGIN + LIST_ROW * max(rows, 1)


def _draw_footer(canvas: Image.Image, findings: Sequence[Finding], top: int) -> None:
    """Every lesion with its sizes, four in a row; without any, that none was segmented."""
    pen = ImageDraw.Draw(canvas)
    if not findings:
        pen.text((MARGIN, top), "No lesion was segmented. This does not exclude disease.", font=_font(18), fill=INK)
        return
    cell = (WIDTH - 2 * MARGIN) // LISTED_PER_ROW
    for place, finding in enumerate(findings[:MAX_LISTED]):
        row, column = divmod(place, LISTED_PER_ROW)
        x, y = MARGIN + column * cell, top + row * LIST_ROW
        pen.rounded_rectangle((x, y + 3, x + 16, y + 19), 3, fill=lesion_rgb(finding.number))
        unlisted = len(findings) - MAX_LISTED
        more = f"   + {unlisted}" if place == MAX_LISTED - 1 and unlisted > 0 else ""
        words = f"{_size_of(finding)}   {finding.volume_ml:.2f} ml{more}"
        pen.text((x + 26, y), words, font=_font(18), fill=INK)


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int, colour: Rgb, anchor: str = "la"
) -> None:
    """Text with a dark halo, readable on bright tissue."""
    pen.text(at, words, font=_font(size), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow brings this font along, for ASCII alone: the picture looks the same on every machine
    return ImageFont.load_default(size)
