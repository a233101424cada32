"""From tissues to images: diffusion-weighted EPI, fat-suppressed T2 fast spin echo, T1 gradient echo, CT.

MR signal of a spin echo (Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 2004, eq. 14.37 with TE ≪ TR)
    S = PD · (1 − e^(−TR/T1)) · e^(−TE/T2) · [f·e^(−b·D*) + (1 − f)·e^(−b·ADC)]
with the two-compartment diffusion of Le Bihan et al., Radiology 1988;168:497, and of a spoiled gradient echo with
flip angle α (Ernst & Anderson, Rev Sci Instrum 1966;37:93)
    S = PD · sin α · (1 − e^(−TR/T1)) / (1 − cos α · e^(−TR/T1)) · e^(−TE/T2*).
The image is that signal through the
acquired part of k-space, with complex Gaussian noise, as a magnitude (Rician: Gudbjartsson & Patz, Magn Reson Med
1995;34:910). CT is attenuation in HU through a Gaussian point spread, with noise of a filtered back-projection
spectrum (NPS ∝ f·e^(−(f/f₀)²): Riederer et al., Phys Med Biol 1978;23:446).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import fft, ndimage

from model.phantom_lesions import Coverage, FocalLesion
from model.phantom_paint import TissueMap
from model.phantom_shapes import Grid, WaveField
from model.phantom_tissues import TISSUES, Properties, Tissue
from model.volume import Float, Float64

FAST_DIFFUSION = 60.0  # D* of the liver, 10⁻³ mm²/s [L08]


@dataclass(frozen=True)
class MrProtocol:
    """A spin-echo protocol; the acquired matrix is (phase = rows, frequency = columns) over `fov_mm`."""

    tr_ms: float
    te_ms: float
    matrix: tuple[int, int]
    fov_mm: float
    echo_planar: bool


@dataclass(frozen=True)
class GradientEcho(MrProtocol):
    """A spoiled gradient echo; `t2_star_share` is T2*/T2, one number for all tissues."""

    flip_deg: float
    t2_star_share: float


DWI = MrProtocol(tr_ms=4000, te_ms=80, matrix=(90, 128), fov_mm=380, echo_planar=True)
T2WI = MrProtocol(tr_ms=12630, te_ms=70, matrix=(224, 288), fov_mm=380, echo_planar=False)


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What one examination adds to the anatomy: this patient's tissue values, gain, noise, inhomogeneities."""

    t2_factor: dict[Tissue, float]
    adc_factor: dict[Tissue, float]
    density_factor: dict[Tissue, float]
    ct_shift_hu: dict[Tissue, float]
    texture: WaveField
    bias: WaveField
    fat_failure: WaveField
    fat_residual: float
    gain: float
    noise: float  # of one excitation, in units of the signal equation
    ct_noise_hu: float
    ghost: float
    noise_seed: int


def sample_acquisition(rng: np.random.Generator, *, treated: bool, echo_planar: bool) -> Acquisition:
    """Draws one examination; `treated` livers are a little brighter and more uneven after chemotherapy."""

    def spread(sd: float) -> dict[Tissue, float]:
        return {tissue: float(np.exp(rng.normal(0, sd))) for tissue in Tissue}

    t2, adc = spread(0.05), spread(0.06)
    if treated:  # sinusoidal injury and steatohepatitis: T2 up by some per cent
        t2[Tissue.LIVER] *= float(rng.uniform(1.02, 1.10))
    return Acquisition(
        t2_factor=t2,
        adc_factor=adc,
        density_factor=spread(0.04),
        ct_shift_hu={tissue: float(rng.normal(0, 5)) for tissue in Tissue},
        texture=WaveField.sample(rng, (9.0, 45.0), rms=1.0, count=32),
        bias=WaveField.sample(rng, (260.0, 700.0), rms=0.12),
        fat_failure=WaveField.sample(rng, (90.0, 260.0), rms=1.0),
        fat_residual=float(rng.uniform(0.03, 0.08) if echo_planar else rng.uniform(0.06, 0.14)),
        gain=float(rng.uniform(2600, 4200) if echo_planar else rng.uniform(900, 1500)),
        noise=float(rng.uniform(0.0055, 0.0085) if echo_planar else rng.uniform(0.008, 0.013)),
        ct_noise_hu=float(rng.uniform(9.0, 14.0)),
        ghost=float(rng.uniform(0.0, 0.025)),
        noise_seed=int(rng.integers(2**62)),
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """Anatomy and lesions on one grid, ready to be imaged. Coverages are painted in their order.

    `tissues` are the properties of the map's codes, 0 upwards without a gap; those beyond `Tissue` are the caller's.
    `uneven_hu_DHW` is added to the normal anatomy of a CT, under the lesions.
    """

    grid: Grid
    tissue_DHW: TissueMap
    lesions: tuple[tuple[FocalLesion, Coverage], ...]
    tissues: Mapping[int, Properties] = field(default_factory=lambda: {int(t): of for t, of in TISSUES.items()})
    uneven_hu_DHW: Float | None = None

    def lookup(self, of: Callable[[int, Properties], float]) -> Float:
        """A value for each code of the map."""
        return np.array([of(code, self.tissues[code]) for code in sorted(self.tissues)], np.float32)


def image_mr(scene: Scene, acquisition: Acquisition, protocol: MrProtocol, b_values: Sequence[float]) -> list[Float]:
    """One (D, H, W) float32 magnitude volume a b-value; above b = 0 the trace of three directions."""
    rng = np.random.default_rng(acquisition.noise_seed)
    weight_DHW = _coil_and_fat(scene, acquisition)
    return [_mr_volume(scene, acquisition, protocol, b, weight_DHW, rng) for b in b_values]


def image_ct(scene: Scene, acquisition: Acquisition) -> Float:
    """(D, H, W) float32 in HU."""
    hu = scene.lookup(lambda code, tissue: tissue.ct_hu + _ct_shift(acquisition, code))
    texture = scene.lookup(lambda _, tissue: tissue.texture * tissue.ct_hu)
    grain_DHW = acquisition.texture.on(scene.grid)
    image_DHW = hu[scene.tissue_DHW] + texture[scene.tissue_DHW] * grain_DHW
    if scene.uneven_hu_DHW is not None:
        image_DHW += scene.uneven_hu_DHW
    for lesion, cover in scene.lesions:
        speckle = 1 + np.float32(lesion.rim.texture) * grain_DHW[cover.box]
        _mix(image_DHW, cover, lesion.rim.ct_hu * speckle, lesion.core.ct_hu * speckle)
    spacing_mm = np.linalg.norm(scene.grid.affine_mm[:3, :3], axis=0)
    sigma = [max(0.75, 0.42 * spacing) / spacing for spacing in spacing_mm[1:]]
    image_DHW = ndimage.gaussian_filter(image_DHW, (0.0, *sigma))
    image_DHW += _ct_noise(scene, acquisition, spacing_mm)
    return np.asarray(np.clip(image_DHW, -1024, 3071), dtype=np.float32)


def signal(
    tissue: Properties, protocol: MrProtocol, b_s_mm2: float, t2_factor: float = 1, adc_factor: float = 1
) -> float:
    """The signal equation for one tissue, relative to fully relaxed water."""
    if isinstance(protocol, GradientEcho):
        return _spoiled(tissue, protocol)
    relaxed = 1 - math.exp(-protocol.tr_ms / tissue.t1_ms)
    echo = math.exp(-protocol.te_ms / (tissue.t2_ms * t2_factor))
    fast = tissue.perfusion * math.exp(-b_s_mm2 * FAST_DIFFUSION * 1e-3)
    slow = (1 - tissue.perfusion) * math.exp(-b_s_mm2 * tissue.adc * adc_factor * 1e-3)
    flow_void = 0.25 if tissue.perfusion > 0.5 and not protocol.echo_planar else 1.0  # spins leave between pulses
    return tissue.density * relaxed * echo * (fast + slow) * flow_void


def _spoiled(tissue: Properties, protocol: GradientEcho) -> float:
    flip, left = math.radians(protocol.flip_deg), math.exp(-protocol.tr_ms / tissue.t1_ms)
    steady = math.sin(flip) * (1 - left) / (1 - math.cos(flip) * left)
    return tissue.density * steady * math.exp(-protocol.te_ms / (tissue.t2_ms * protocol.t2_star_share))


def _mr_volume(
    scene: Scene,
    acquisition: Acquisition,
    protocol: MrProtocol,
    b_s_mm2: float,
    weight_DHW: Float,
    rng: np.random.Generator,
) -> Float:
    table = scene.lookup(lambda code, tissue: _tissue_signal(acquisition, code, tissue, protocol, b_s_mm2))
    image_DHW = table[scene.tissue_DHW]
    for lesion, cover in scene.lesions:
        _mix(image_DHW, cover, signal(lesion.rim, protocol, b_s_mm2), signal(lesion.core, protocol, b_s_mm2))
    image_DHW *= weight_DHW
    directions = 3 if b_s_mm2 > 0 else 1
    magnitude = _magnitude(image_DHW, scene.grid, acquisition, protocol, directions, rng)
    return magnitude * np.float32(acquisition.gain)


def _tissue_signal(
    acquisition: Acquisition, code: int, tissue: Properties, protocol: MrProtocol, b_s_mm2: float
) -> float:
    known = Tissue(code)
    factor = acquisition.density_factor[known]
    return factor * signal(tissue, protocol, b_s_mm2, acquisition.t2_factor[known], acquisition.adc_factor[known])


def _coil_and_fat(scene: Scene, acquisition: Acquisition) -> Float:
    """Coil sensitivity, tissue texture and fat suppression (with its failures at the body's edge) in one factor."""
    texture = scene.lookup(lambda _, tissue: tissue.texture)
    weight_DHW = 1 + texture[scene.tissue_DHW] * acquisition.texture.on(scene.grid)
    weight_DHW *= np.exp(acquisition.bias.on(scene.grid))
    x, y, _ = scene.grid.coordinates()
    far_out = np.minimum((np.square(x) + np.square(y)) / np.float32(140.0**2), 1) ** 2
    failed = 0.25 * far_out * np.clip(acquisition.fat_failure.on(scene.grid) - 1.0, 0, 1)
    fat = scene.tissue_DHW == Tissue.FAT
    weight_DHW[fat] *= np.float32(acquisition.fat_residual) + failed[fat]
    weight_DHW[scene.tissue_DHW == Tissue.MARROW] *= np.float32(0.55)  # about half of adult marrow is fat
    return np.asarray(np.maximum(weight_DHW, 0), dtype=np.float32)


def _mix(image_DHW: Float, cover: Coverage, rim: Float | float, core: Float | float) -> None:
    part = image_DHW[cover.box]
    part *= 1 - cover.rim_DHW - cover.core_DHW
    part += cover.rim_DHW * np.float32(rim) + cover.core_DHW * np.float32(core)


def _magnitude(
    image_DHW: Float,
    grid: Grid,
    acquisition: Acquisition,
    protocol: MrProtocol,
    directions: int,
    rng: np.random.Generator,
) -> Float:
    """Through the acquired k-space with noise; several directions are averaged geometrically (the trace image)."""
    spacing_mm = np.linalg.norm(grid.affine_mm[:3, :3], axis=0)[1:]
    window_HW, noise_k = _k_space(image_DHW.shape[1:], spacing_mm, acquisition, protocol)
    result = np.empty_like(image_DHW)
    for index, image_HW in enumerate(image_DHW):  # a slice at a time fits the cache
        spectrum = fft.fft2(image_HW) * window_HW
        log_sum = np.zeros(image_HW.shape, np.float32)
        for _ in range(directions):
            noise = rng.standard_normal((2, *image_HW.shape), dtype=np.float32)
            measured = fft.ifft2(spectrum + noise_k * (noise[0] + 1j * noise[1]))
            log_sum += np.log(np.abs(measured) + np.float32(1e-9))
        result[index] = np.exp(log_sum / directions)
    return result


def _k_space(
    shape: tuple[int, ...], spacing_mm: Float64, acquisition: Acquisition, protocol: MrProtocol
) -> tuple[Float, Float]:
    """Window over the spectrum (rows are the phase direction) and the standard deviation of its noise."""
    lines, samples = protocol.matrix
    frequency_y = fft.fftfreq(shape[0], spacing_mm[0])[:, None]
    frequency_x = fft.fftfreq(shape[1], spacing_mm[1])[None, :]
    limit_y, limit_x = lines / (2 * protocol.fov_mm), samples / (2 * protocol.fov_mm)
    measured = (np.abs(frequency_y) <= limit_y) & (np.abs(frequency_x) <= limit_x)
    taper = np.cos(0.42 * np.pi * np.minimum(np.abs(frequency_y) / limit_y, 1))
    taper = taper * np.cos(0.42 * np.pi * np.minimum(np.abs(frequency_x) / limit_x, 1))
    if protocol.echo_planar:  # T2* decay over the echo train blurs along the phase direction; odd echoes ghost
        taper = taper * np.exp(-0.9 * np.abs(frequency_y) / limit_y)
        odd = np.arange(shape[0])[:, None] % 2
        taper = taper * (1 - 2 * acquisition.ghost * odd)
    window = (measured * taper).astype(np.float32)
    area_mm2 = shape[0] * spacing_mm[0] * shape[1] * spacing_mm[1]
    samples_in_window = 4 * limit_x * limit_y * area_mm2
    sigma = acquisition.noise * shape[0] * shape[1] / math.sqrt(samples_in_window)
    return window, (sigma * measured).astype(np.float32)


def _ct_shift(acquisition: Acquisition, code: int) -> float:
    """This patient's deviation; codes beyond `Tissue` have none."""
    if code in (Tissue.OUTSIDE, Tissue.GAS) or code >= len(Tissue):
        return 0.0
    return acquisition.ct_shift_hu[Tissue(code)]


def _ct_noise(scene: Scene, acquisition: Acquisition, spacing_mm: Float64) -> Float:
    """Correlated noise; less of it on a coarse grid, because the finer frequencies are not in it."""
    rng = np.random.default_rng(acquisition.noise_seed)
    depth, height, width = scene.grid.shape
    power = _noise_power(height, width, float(spacing_mm[1]), float(spacing_mm[2]))
    reference = _noise_power(512, 512, 0.8, 0.8)
    sigma = acquisition.ct_noise_hu * math.sqrt(power.mean() / reference.mean() * _density(spacing_mm))
    shaping = np.sqrt(power / power.mean())
    noise = rng.standard_normal((depth, height, width), dtype=np.float32)
    for index in range(depth):
        noise[index] = fft.irfft2(fft.rfft2(noise[index]) * shaping[:, : width // 2 + 1], s=(height, width))
    return np.asarray(noise * np.float32(sigma), dtype=np.float32)


def _noise_power(height: int, width: int, dy_mm: float, dx_mm: float) -> Float:
    radius = np.hypot(fft.fftfreq(height, dy_mm)[:, None], fft.fftfreq(width, dx_mm)[None, :])
    return np.asarray(radius * np.exp(-np.square(radius / 0.33)), dtype=np.float32)


def _density(spacing_mm: Float64) -> float:
    """Share of the frequency plane that this grid holds, relative to 0.8 mm pixels."""
    return float(0.64 / (spacing_mm[1] * spacing_mm[2]))
