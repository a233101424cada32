"""Lesion colours: one list for segments and pictures, so that a lesion looks the same wherever it is seen."""

from __future__ import annotations

Rgb = tuple[int, int, int]

# Bright on black, apart from one another also for the colour-blind (after Okabe and Ito, 2008); no grey
LESION_COLOURS: tuple[Rgb, ...] = (
    (255, 176, 0),
    (86, 200, 255),
    (255, 96, 128),
    (64, 224, 160),
    (240, 228, 66),
    (204, 140, 255),
    (255, 128, 64),
    (120, 150, 255),
)


def lesion_rgb(number: int) -> Rgb:
    """Colour of lesion `number` (from 1); they repeat after the last."""
    return LESION_COLOURS[(number - 1) % len(LESION_COLOURS)]
