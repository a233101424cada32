"""Images of the second family: another scanner's noise, point spread, artefacts and scale.

What differs from `model.phantom_physics`, whose signal equations are shared:

MR  noise grows to the middle as a g-factor of parallel imaging does (Pruessmann et al., Magn Reson Med 1999;42:952);
    k-space is cut off without a taper, so edges ring, and only six eighths of it are measured in the phase direction;
    ghosts: half a field of view in EPI, from the moving front wall in T2 and T1; residual fat is shifted in EPI; EPI is
    distorted along the phase direction; receive coils lie around the body; the trace is an arithmetic mean; the scale
    is another.
CT  a sharper kernel with a hump in its transfer function, noise with another spectrum that is stronger and streakier in
    the middle of the body, a slice profile that blurs along z, cupping, and an offset.
All the liver may hold fat, unevenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from model.phantom_lesions import Coverage
from model.phantom_paint import TissueMap
from model.phantom_physics import GradientEcho, MrProtocol, signal
from model.phantom_second_lesions import SecondLesion
from model.phantom_second_shapes import many_scales
from model.phantom_second_tissues import HU_PER_FAT_FRACTION
from model.phantom_shapes import Grid, WaveField
from model.phantom_tissues import Properties, Tissue
from model.volume import Float, Float64

SECOND_DWI = MrProtocol(tr_ms=5600, te_ms=61, matrix=(116, 152), fov_mm=400, echo_planar=True)
SECOND_T2WI = MrProtocol(tr_ms=3400, te_ms=82, matrix=(200, 304), fov_mm=400, echo_planar=False)
SECOND_T1WI = GradientEcho(
    tr_ms=3.6, te_ms=1.3, matrix=(168, 240), fov_mm=400, echo_planar=False, flip_deg=10, t2_star_share=0.5
)
SECOND_B_VALUES = (0.0, 50.0, 400.0, 900.0)
NOISE_OF = {SECOND_DWI: (0.004, 0.009), SECOND_T2WI: (0.006, 0.011), SECOND_T1WI: (0.0016, 0.0030)}
GAIN_OF = {SECOND_DWI: (380.0, 900.0), SECOND_T2WI: (1800.0, 4200.0), SECOND_T1WI: (14000.0, 30000.0)}
FATTY_SHARE = 0.45
MEASURED_LINES = 6 / 8
_COILS_MM = tuple((205.0 * math.cos(a), 150.0 * math.sin(a)) for a in np.arange(0, 2 * math.pi, math.pi / 4))


@dataclass(frozen=True, eq=False)
class Distortion:
    """Off-resonance shifts an echo-planar image along its phase direction, here the patient's y; a `Bend`."""

    field: WaveField
    amplitude_mm: float

    @property
    def reach_mm(self) -> float:
        """Three and a half standard deviations, where the field is cut off."""
        return 3.5 * self.amplitude_mm

    @property
    def finest_mm(self) -> float:
        """The shortest wavelength in it."""
        return self.field.finest_mm

    def on(self, grid: Grid) -> Float:
        """Displacements in mm on a straight grid, (3, D, H, W)."""
        shift = np.clip(self.field.on(grid), -3.5, 3.5) * np.float32(self.amplitude_mm)
        return np.stack([np.zeros_like(shift), shift, np.zeros_like(shift)])


@dataclass(frozen=True, eq=False)
class SecondAcquisition:
    """What one examination of the second family adds to the anatomy."""

    t2_factor: dict[Tissue, float]
    density_factor: dict[Tissue, float]
    hu_shift: dict[Tissue, float]
    grain: WaveField
    grain_strength: float
    fat_fraction: float
    fat_map: WaveField
    voltage: float
    ct_noise_hu: float
    sharpness: float
    cupping_hu: float
    offset_hu: float
    coil_share: float
    g_peak: float
    g_centre_mm: tuple[float, float]
    noise_quantile: float
    gain_quantile: float
    ghost: float
    ghost_shift: float
    fat_residual: float
    fat_shift_mm: float
    distortion: Distortion
    noise_seed: int


@dataclass(frozen=True, eq=False)
class SecondScene:
    """Anatomy and lesions on one straight grid; `uneven_hu_DHW` is added to the normal anatomy of a CT."""

    grid: Grid
    tissue_DHW: TissueMap
    lesions: tuple[tuple[SecondLesion, Coverage], ...]
    tissues: Mapping[int, Properties]
    uneven_hu_DHW: Float | None = None


def sample_second_acquisition(rng: np.random.Generator, fat_fraction: float) -> SecondAcquisition:
    """Draws one examination of a patient whose liver holds `fat_fraction`."""

    def spread(sd: float) -> dict[Tissue, float]:
        return {tissue: float(np.exp(rng.normal(0, sd))) for tissue in Tissue}

    u = rng.uniform
    return SecondAcquisition(
        t2_factor=spread(0.08),
        density_factor=spread(0.07),
        hu_shift={tissue: float(rng.normal(0, 7)) for tissue in Tissue},
        grain=many_scales(rng, (5.0, 80.0), 0.7, count=56),
        grain_strength=float(u(0.8, 1.5)),
        fat_fraction=fat_fraction,
        fat_map=many_scales(rng, (50.0, 320.0), 1.0, count=24),
        voltage=float(u(0.92, 1.3)),
        ct_noise_hu=float(u(10, 19)),
        sharpness=float(u(0.3, 1.1)),
        cupping_hu=float(u(2, 11)),
        offset_hu=float(u(-5, 5)),
        coil_share=float(u(0.25, 0.65)),
        g_peak=float(u(1.3, 2.4)),
        g_centre_mm=(float(u(-30, 30)), float(u(-20, 20))),
        noise_quantile=float(rng.random()),
        gain_quantile=float(rng.random()),
        ghost=float(u(0.01, 0.05)),
        ghost_shift=float(u(0.12, 0.3)),
        fat_residual=float(u(0.03, 0.12)),
        fat_shift_mm=float(u(8, 26)),
        distortion=Distortion(WaveField.sample(rng, (90.0, 240.0), rms=1.0), float(u(0.6, 2.2))),
        noise_seed=int(rng.integers(2**62)),
    )


def sample_fat_fraction(rng: np.random.Generator) -> float:
    """Of a patient's liver: some per cent in most, up to a third in the fatty ones."""
    fatty, lean = float(rng.uniform(0.06, 0.34)), float(rng.uniform(0.0, 0.05))
    return fatty if rng.random() < FATTY_SHARE else lean


def image_second_ct(scene: SecondScene, acquisition: SecondAcquisition) -> Float:
    """(D, H, W) float32 in HU."""
    grain_DHW = acquisition.grain.on(scene.grid) * np.float32(acquisition.grain_strength)
    hu = _lookup(scene, lambda code, tissue: tissue.ct_hu + _hu_shift(acquisition, code))
    texture = _lookup(scene, lambda _, tissue: tissue.texture * tissue.ct_hu)
    image_DHW = hu[scene.tissue_DHW] + texture[scene.tissue_DHW] * grain_DHW
    liver = scene.tissue_DHW == Tissue.LIVER
    image_DHW[liver] += np.float32(HU_PER_FAT_FRACTION) * _fat_map(scene, acquisition)[liver]
    if scene.uneven_hu_DHW is not None:
        image_DHW += scene.uneven_hu_DHW
    for lesion, cover in scene.lesions:
        speckle = 1 + grain_DHW[cover.box] * np.float32(lesion.rim.texture)
        _mix(image_DHW, cover, lesion.rim.ct_hu * speckle, lesion.core.ct_hu * speckle)
    body = np.asarray(scene.tissue_DHW != Tissue.OUTSIDE)
    image_DHW = _through_kernel(image_DHW, scene.grid, acquisition)
    middle_DHW = _bell(scene.grid, (0.0, 0.0), 95.0)
    image_DHW += body * (np.float32(acquisition.offset_hu) - np.float32(acquisition.cupping_hu) * middle_DHW)
    image_DHW += _ct_noise(scene.grid, acquisition) * (np.float32(0.6) + np.float32(0.75) * middle_DHW)
    return np.asarray(np.clip(image_DHW, -1024, 3071), dtype=np.float32)


def image_second_mr(
    scene: SecondScene, acquisition: SecondAcquisition, protocol: MrProtocol, b_values: Sequence[float]
) -> list[Float]:
    """One (D, H, W) float32 magnitude volume a b-value; above b = 0 the trace of three directions."""
    rng = np.random.default_rng(acquisition.noise_seed)
    weight_DHW = _weight(scene, acquisition)
    return [_mr_volume(scene, acquisition, protocol, b, weight_DHW, rng) for b in b_values]


def _lookup(scene: SecondScene, of: Callable[[int, Properties], float]) -> Float:
    return np.array([of(code, scene.tissues[code]) for code in sorted(scene.tissues)], np.float32)


def _hu_shift(acquisition: SecondAcquisition, code: int) -> float:
    if code in (Tissue.OUTSIDE, Tissue.GAS) or code >= len(Tissue):
        return 0.0
    return acquisition.hu_shift[Tissue(code)]


def _mix(image_DHW: Float, cover: Coverage, rim: Float | float, core: Float | float) -> None:
    part = image_DHW[cover.box]
    part *= 1 - cover.rim_DHW - cover.core_DHW
    part += cover.rim_DHW * np.float32(rim) + cover.core_DHW * np.float32(core)


def _fat_map(scene: SecondScene, acquisition: SecondAcquisition) -> Float:
    uneven = 1 + np.float32(0.45) * acquisition.fat_map.on(scene.grid)
    return np.asarray(np.clip(np.float32(acquisition.fat_fraction) * uneven, 0, 0.5), dtype=np.float32)


def _bell(grid: Grid, centre_mm: tuple[float, float], width_mm: float) -> Float:
    """1 over a point of the axial plane, falling over `width_mm`, (D, H, W)."""

    def on(nodes: Grid) -> Float:
        x, y, z = nodes.coordinates()
        apart = np.square(x - np.float32(centre_mm[0])) + np.square((y - np.float32(centre_mm[1])) * np.float32(1.3))
        return np.broadcast_to(np.exp(-apart / np.float32(width_mm**2)), np.broadcast_shapes(z.shape, apart.shape))[
            None
        ]

    (bell_DHW,) = grid.upsampled(_whole(on), width_mm)
    return np.asarray(bell_DHW)


def _whole(on: Callable[[Grid], Float]) -> Callable[[Grid], Float]:
    """Values of full shape from values that broadcast."""
    return lambda nodes: np.array(np.broadcast_to(on(nodes), (1, *nodes.shape)))


def _through_kernel(image_DHW: Float, grid: Grid, acquisition: SecondAcquisition) -> Float:
    """The transfer function of a sharp kernel in the plane, a Gaussian slice profile along z."""
    spacing_mm = np.linalg.norm(grid.affine_mm[:3, :3], axis=0)
    height, width = image_DHW.shape[1:]
    frequency = np.hypot(fft.fftfreq(height, spacing_mm[1])[:, None], fft.rfftfreq(width, spacing_mm[2])[None])
    hump = acquisition.sharpness * np.square(frequency / 0.3) * np.exp(-np.square(frequency / 0.36))
    transfer = (np.exp(-np.square(frequency / 0.52)) * (1 + hump)).astype(np.float32)
    blurred = ndimage.gaussian_filter1d(image_DHW, 0.36, axis=0)
    for index in range(len(blurred)):
        blurred[index] = fft.irfft2(fft.rfft2(blurred[index]) * transfer, s=(height, width))
    return np.asarray(blurred)


def _ct_noise(grid: Grid, acquisition: SecondAcquisition) -> Float:
    """Streaky noise of standard deviation `ct_noise_hu` for a 0.8 mm pixel, less on a coarser grid."""
    spacing_mm = np.linalg.norm(grid.affine_mm[:3, :3], axis=0)
    depth, height, width = grid.shape
    power = _noise_power(height, width, float(spacing_mm[1]), float(spacing_mm[2]))
    reference = _noise_power(512, 512, 0.8, 0.8)
    density = 0.64 / float(spacing_mm[1] * spacing_mm[2])
    sigma = acquisition.ct_noise_hu * math.sqrt(power.mean() / reference.mean() * density)
    shaping = np.sqrt(power / power.mean())[:, : width // 2 + 1]
    rng = np.random.default_rng(acquisition.noise_seed)
    noise = rng.standard_normal((depth, height, width), dtype=np.float32)
    for index in range(depth):
        noise[index] = fft.irfft2(fft.rfft2(noise[index]) * shaping, s=(height, width))
    return np.asarray(noise * np.float32(sigma))


def _noise_power(height: int, width: int, dy_mm: float, dx_mm: float) -> Float:
    fy, fx = fft.fftfreq(height, dy_mm)[:, None], fft.fftfreq(width, dx_mm)[None]
    radius = np.hypot(fy, fx)
    streaks = 1 + 0.55 * np.cos(2 * np.arctan2(fy, fx + 1e-9))  # the longer way is through the width of the body
    power = (radius**0.7 + 0.02) * np.exp(-np.square(radius / 0.43)) * np.maximum(2 - streaks, 0.1)
    return np.asarray(power, dtype=np.float32)


def _weight(scene: SecondScene, acquisition: SecondAcquisition) -> Float:
    """Texture, liver fat and receive coils in one factor."""
    texture = _lookup(scene, lambda _, tissue: tissue.texture)[scene.tissue_DHW]
    weight_DHW = 1 + texture * acquisition.grain.on(scene.grid) * np.float32(acquisition.grain_strength)
    liver = scene.tissue_DHW == Tissue.LIVER
    weight_DHW[liver] *= 1 - _fat_map(scene, acquisition)[liver]
    weight_DHW *= _coils(scene.grid, acquisition)
    return np.asarray(np.maximum(weight_DHW, 0), dtype=np.float32)


def _coils(grid: Grid, acquisition: SecondAcquisition) -> Float:
    """Sensitivity of eight elements around the body, 1 in its middle, partly corrected by the scanner."""

    def on(nodes: Grid) -> Float:
        x, y, _ = nodes.coordinates()
        parts = [1 / (1 + (np.square(x - cx) + np.square(y - cy)) / np.float32(95.0**2)) for cx, cy in _COILS_MM]
        middle = sum(1 / (1 + (cx**2 + cy**2) / 95.0**2) for cx, cy in _COILS_MM)
        return np.asarray((sum(parts) / middle) ** acquisition.coil_share, dtype=np.float32)

    (coils_DHW,) = grid.upsampled(_whole(on), 110.0)
    return np.asarray(coils_DHW)


def _mr_volume(
    scene: SecondScene,
    acquisition: SecondAcquisition,
    protocol: MrProtocol,
    b_s_mm2: float,
    weight_DHW: Float,
    rng: np.random.Generator,
) -> Float:
    def of(code: int, tissue: Properties) -> float:
        known = Tissue(code)
        return acquisition.density_factor[known] * signal(tissue, protocol, b_s_mm2, acquisition.t2_factor[known])

    image_DHW = _lookup(scene, of)[scene.tissue_DHW]
    for lesion, cover in scene.lesions:
        _mix(image_DHW, cover, signal(lesion.rim, protocol, b_s_mm2), signal(lesion.core, protocol, b_s_mm2))
    image_DHW *= weight_DHW
    fat = (scene.tissue_DHW == Tissue.FAT) + np.float32(0.5) * (scene.tissue_DHW == Tissue.MARROW)
    fat_DHW = image_DHW * fat * np.float32(acquisition.fat_residual)
    image_DHW *= 1 - fat
    if protocol.echo_planar:  # the fat that was left appears elsewhere
        row_mm = float(np.linalg.norm(scene.grid.affine_mm[:3, 1]))
        fat_DHW = np.roll(fat_DHW, round(acquisition.fat_shift_mm / row_mm), axis=1)
    magnitude_DHW = _acquired(image_DHW + fat_DHW, scene.grid, acquisition, protocol, 3 if b_s_mm2 > 0 else 1, rng)
    low, high = GAIN_OF[protocol]
    return magnitude_DHW * np.float32(low * (high / low) ** acquisition.gain_quantile)


def _acquired(
    image_DHW: Float,
    grid: Grid,
    acquisition: SecondAcquisition,
    protocol: MrProtocol,
    directions: int,
    rng: np.random.Generator,
) -> Float:
    """Through a k-space that is cut off, with ghosts and noise, as the mean magnitude of the directions."""
    measured, noise_k = measured_k_space(image_DHW.shape[1:], grid, acquisition, protocol)
    g_DHW = 1 + np.float32(acquisition.g_peak - 1) * _bell(grid, acquisition.g_centre_mm, 85.0)
    y = np.broadcast_to(grid.coordinates()[1], grid.shape)
    result = np.empty_like(image_DHW)
    for index, image_HW in enumerate(image_DHW):
        clean_HW = fft.ifft2(fft.fft2(_with_ghosts(image_HW, y[index], acquisition, protocol)) * measured)
        total = np.zeros(image_HW.shape, np.float32)
        for _ in range(directions):
            noise = rng.standard_normal((2, *image_HW.shape), dtype=np.float32)
            total += np.abs(clean_HW + g_DHW[index] * fft.ifft2(noise_k * (noise[0] + 1j * noise[1])))
        result[index] = total / directions
    return result


def _with_ghosts(image_HW: Float, y_HW: Float, acquisition: SecondAcquisition, protocol: MrProtocol) -> Float:
    """Half a field of view away in EPI; else two weak copies of the front wall, which breathes."""
    rows = len(image_HW)
    if protocol.echo_planar:
        return image_HW + np.float32(acquisition.ghost) * np.roll(image_HW, rows // 2, axis=0)
    moving_HW = image_HW / (1 + np.exp((y_HW + np.float32(75.0)) / np.float32(9.0)))
    shift = round(rows * acquisition.ghost_shift)
    copies = np.roll(moving_HW, shift, axis=0) + np.roll(moving_HW, -shift, axis=0)
    return np.asarray(image_HW + np.float32(1.6 * acquisition.ghost) * copies)


def measured_k_space(
    shape: tuple[int, ...], grid: Grid, acquisition: SecondAcquisition, protocol: MrProtocol
) -> tuple[Float, Float]:
    """What is measured of the spectrum (rows are the phase direction), and its noise's standard deviation.

    Both are (H, W) in the order of the discrete Fourier transform.
    """
    spacing_mm: Float64 = np.linalg.norm(grid.affine_mm[:3, :3], axis=0)[1:]
    lines, samples = protocol.matrix
    frequency_y = fft.fftfreq(shape[0], spacing_mm[0])[:, None]
    frequency_x = fft.fftfreq(shape[1], spacing_mm[1])[None, :]
    limit_y, limit_x = lines / (2 * protocol.fov_mm), samples / (2 * protocol.fov_mm)
    first_y = limit_y * (1 - 2 * MEASURED_LINES)  # partial Fourier: the other side is left at zero
    measured = (frequency_y >= first_y) & (frequency_y <= limit_y) & (np.abs(frequency_x) <= limit_x)
    window = measured * (np.exp(-0.5 * np.abs(frequency_y) / limit_y) if protocol.echo_planar else 1.0)
    low, high = NOISE_OF[protocol]
    noise = low + (high - low) * acquisition.noise_quantile
    sigma = noise * shape[0] * shape[1] / math.sqrt(max(1, int(np.count_nonzero(measured))))
    return window.astype(np.float32), (sigma * measured).astype(np.float32)
