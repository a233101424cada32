"""Where b-values and directions stand, vendor by vendor, and where they only seem to."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import Dataset

SIEMENS = ("SIEMENS MR HEADER", 0x0019)
GE = ("GEMS_PARM_01", 0x0043)
PHILIPS = ("Philips Imaging DD 001", 0x2001)
UIH = ("Image Private Header", 0x0065)
B = {f"1.2.3.4.{n}": 50 if n <= 20 else 1000 for n in range(1, 41)}


def nominal(dataset: Dataset) -> int:
    return B[dataset.SOPInstanceUID]


def bare(bench: Any, **tags: Any) -> dict[Any, Dataset]:
    """Forty echo-planar slices at twenty positions without any b-value."""
    series = bench.dwi((50, 1000), DiffusionBValue=None, DiffusionDirectionality=None, SeriesDescription="ep", **tags)
    return dict(series)


def found(bench: Any, headers: dict[Any, Dataset]) -> list[int | None]:
    return [volume.b_s_mm2 for volume in bench.facts(headers)]


def test_the_public_element_tells_the_b_value(bench: Any) -> None:
    volumes = bench.facts(bench.dwi((0, 50, 1000)))
    assert [volume.b_s_mm2 for volume in volumes] == [0, 50, 1000]
    assert all(volume.b_values_s_mm2 == (0, 50, 1000) for volume in volumes)


@pytest.mark.parametrize("block", [0x10, 0x11, 0x7A])
@pytest.mark.parametrize(
    ("creator", "offset", "vr", "told"),
    [
        pytest.param(SIEMENS, 0x0C, "IS", nominal, id="siemens"),
        pytest.param(SIEMENS, 0x0C, "OB", lambda d: f"{nominal(d)} ".encode(), id="siemens-as-bytes"),
        pytest.param(PHILIPS, 0x03, "FL", lambda d: float(nominal(d)), id="philips"),
        pytest.param(UIH, 0x0A, "FD", lambda d: float(nominal(d)), id="uih-nominal"),
    ],
)
def test_a_private_element_is_found_by_its_creator_in_any_block(
    bench: Any, private: Callable[..., Any], creator: tuple[str, int], offset: int, vr: str, told: Any, block: int
) -> None:
    headers = private(bare(bench), *creator, offset, vr, told, block)
    assert found(bench, headers) == [50, 1000]
    assert all(volume.is_b_certain for volume in bench.facts(headers))


def test_ge_values_are_taken_modulo_their_offset(bench: Any, private: Callable[..., Any]) -> None:
    headers = private(bare(bench, Manufacturer="GE MEDICAL SYSTEMS"), "GEMS_ACQU_01", 0x0019, 0x9C, "LO", "epi2")
    headers = private(headers, *GE, 0x39, "IS", lambda d: [1_000_000_000 + nominal(d), 8, 0, 0])
    assert found(bench, headers) == [50, 1000]


def test_a_ge_element_on_a_functional_series_is_no_b_value(bench: Any, private: Callable[..., Any]) -> None:
    headers = bare(bench, Manufacturer="GE MEDICAL SYSTEMS", ScanningSequence=["EP", "GR"], EchoTime="30")
    headers = private(headers, "GEMS_ACQU_01", 0x0019, 0x9C, "LO", "epiRT")
    headers = private(headers, *GE, 0x39, "IS", [1000, 8, 0, 0])
    assert {volume.weighting for volume in bench.facts(headers)} == {"other"}


def test_the_nominal_value_of_uih_goes_before_the_actual_one(bench: Any, private: Callable[..., Any]) -> None:
    headers = private(bare(bench), *UIH, 0x09, "FD", lambda d: 929.75 if nominal(d) == 1000 else 46.1)
    headers = private(headers, "", 0x0065, 0x0A, "FD", lambda d: float(nominal(d)))
    assert found(bench, headers) == [50, 1000]


def test_the_actual_value_of_uih_alone_is_brought_to_the_nearest_fifty(bench: Any, private: Callable[..., Any]) -> None:
    headers = private(bare(bench), *UIH, 0x09, "FD", lambda d: 929.75 if nominal(d) == 1000 else 46.1)
    assert found(bench, headers) == [50, 950]


def test_the_csa_header_tells_what_the_tags_do_not(bench: Any, private: Callable[..., Any]) -> None:
    def header(dataset: Dataset) -> bytes:
        return csa({"B_value": str(nominal(dataset)), "DiffusionDirectionality": "ISOTROPIC"})

    headers = private(bare(bench), "SIEMENS CSA HEADER", 0x0029, 0x10, "OB", header)
    assert found(bench, headers) == [50, 1000]
    assert bench.facts(headers)[1].directionality == "isotropic"


@pytest.mark.parametrize("raw", [b"", b"SV10", b"SV10" + b"\xff" * 40, b"SV10\4\3\2\1\xff\xff\xff\x7f" + b"x" * 400])
def test_a_broken_csa_header_tells_nothing_and_stops_nothing(
    bench: Any, private: Callable[..., Any], raw: bytes
) -> None:
    headers = private(bare(bench), "SIEMENS CSA HEADER", 0x0029, 0x10, "OB", raw)
    assert set(found(bench, headers)) == {None}


def test_the_name_of_a_siemens_sequence_tells_b_and_trace(bench: Any) -> None:
    headers = bare(bench)
    for dataset in headers.values():
        dataset.SequenceName = f"*ep_b{nominal(dataset)}t"
    assert found(bench, headers) == [50, 1000]
    assert bench.facts(headers)[1].directionality == "isotropic"


def test_an_element_without_its_creator_counts_only_where_the_sequence_is_a_diffusion_one(
    bench: Any, private: Callable[..., Any]
) -> None:
    lost = private(bare(bench), "", 0x0019, 0x0C, "IS", nominal)
    assert found(bench, lost) == [50, 1000]
    assert not any(volume.is_b_certain for volume in bench.facts(lost))
    spin_echo = private(bare(bench, ScanningSequence="SE"), "", 0x0019, 0x0C, "IS", nominal)
    assert set(found(bench, spin_echo)) == {None}


def test_an_element_without_its_creator_is_sought_in_the_customary_block_only(
    bench: Any, private: Callable[..., Any]
) -> None:
    assert set(found(bench, private(bare(bench), "", 0x0019, 0x0C, "IS", nominal, block=0x42))) == {None}


def test_a_slice_without_a_b_value_beside_weighted_ones_has_none(bench: Any, edit: Callable[..., Any]) -> None:
    headers = bench.dwi((0, 1000))
    for dataset in list(headers.values())[:20]:
        del dataset.DiffusionBValue
    assert found(bench, headers) == [0, 1000]


def test_a_description_does_not_speak_for_slices_beside_those_that_know(bench: Any) -> None:
    headers = bench.dwi((0, 1000), SeriesDescription="DWI b1000")
    for dataset in list(headers.values())[:20]:
        del dataset.DiffusionBValue
    assert found(bench, headers) == [0, 1000]


def test_words_alone_are_an_uncertain_b_value(bench: Any) -> None:
    headers = bench.dwi((1000,), DiffusionBValue=None, SeriesDescription="DWI liver b1000")
    assert found(bench, headers) == [1000]
    assert not bench.fact(headers).is_b_certain


def test_b_zero_everywhere_is_no_diffusion_weighting(bench: Any) -> None:
    assert bench.fact(bench.mr(DiffusionBValue=0.0)).weighting == "t2"


def test_actual_values_that_scatter_are_one_nominal_value(bench: Any) -> None:
    headers = bench.dwi((0, 1000))
    for number, dataset in enumerate(list(headers.values())[20:]):
        dataset.DiffusionBValue = 1000.0 + (0, 5, -5)[number % 3]
    assert found(bench, headers) == [0, 1000]


@pytest.mark.parametrize(("low", "high"), [(0, 20), (20, 50), (800, 1000), (1000, 1200)])
def test_neighbouring_nominal_values_stay_apart(bench: Any, low: int, high: int) -> None:
    assert found(bench, bench.dwi((low, high, 1500))) == [low, high, 1500]


@pytest.mark.parametrize(
    ("creator", "offset", "vr", "told", "directionality"),
    [
        (SIEMENS, 0x0D, "CS", "ISOTROPIC", "isotropic"),
        (SIEMENS, 0x0D, "CS", "DIRECTIONAL", "directional"),
        (SIEMENS, 0x0E, "FD", [0.5, 0.5, 0.7], "directional"),
        (PHILIPS, 0x04, "CS", "I", "isotropic"),
        (PHILIPS, 0x04, "CS", "S", "directional"),
        (GE, 0x30, "SS", 19, "isotropic"),
        (GE, 0x30, "SS", 16, "directional"),
        (("GEMS_RELA_01", 0x0021), 0x5A, "SL", 2, "directional"),
        (("GEMS_RELA_01", 0x0021), 0x5A, "SL", 64, "unknown"),
        (UIH, 0x37, "FD", [0.6, 0.0, -0.8], "directional"),
        (UIH, 0x37, "FD", [0.0, 0.0, 0.0], "isotropic"),
    ],
)
def test_vendors_tell_trace_from_single_directions(
    bench: Any,
    private: Callable[..., Any],
    creator: tuple[str, int],
    offset: int,
    vr: str,
    told: Any,
    directionality: str,
) -> None:
    headers = private(bench.dwi((1000,), DiffusionDirectionality=None), *creator, offset, vr, told)
    assert bench.fact(headers).directionality == directionality


def test_zeros_in_the_public_vector_alone_leave_the_direction_open(bench: Any) -> None:
    headers = bench.dwi((1000,), DiffusionDirectionality=None, DiffusionGradientOrientation=[0.0, 0.0, 0.0])
    assert bench.fact(headers).directionality == "unknown"


def test_zeros_beside_single_directions_of_the_same_b_are_the_trace(bench: Any) -> None:
    trace = bench.dwi((1000,), DiffusionDirectionality=None, DiffusionGradientOrientation=[0.0, 0.0, 0.0])
    one = bench.again(trace, shift=6000, DiffusionGradientOrientation=[1.0, 0.0, 0.0])
    two = bench.again(trace, shift=7000, DiffusionGradientOrientation=[0.0, 1.0, 0.0])
    told = sorted(volume.directionality for volume in bench.facts({**trace, **one, **two}))
    assert told == ["directional", "directional", "isotropic"]


def test_two_signs_that_differ_leave_the_direction_open(bench: Any) -> None:
    headers = bench.dwi((1000,), DiffusionGradientOrientation=[1.0, 0.0, 0.0])
    assert bench.fact(headers).directionality == "unknown"
    assert {sign.says for sign in bench.fact(headers).direction_signs} == {"isotropic", "directional"}


def csa(fields: dict[str, str]) -> bytes:
    """A CSA header of the format SV10 with one item a field."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, told in fields.items():
        text = told.encode() + b"\0"
        out += name.encode().ljust(64, b"\0") + struct.pack("<i4siii", 1, b"IS\0\0", 6, 1, 77)
        out += struct.pack("<4i", len(text), len(text), 77, len(text)) + text.ljust((len(text) + 3) // 4 * 4, b"\0")
    return out
