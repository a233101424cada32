"""Pixels are the same in every transfer syntax, and what cannot be decoded says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.dicom.header import read_instance
from node.dicom.pixels import pixel_sha256, stored_frames
from node.errors import UnreadableInstance


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_the_digest_survives_compression(write_stack: Callable[..., Any], tmp_path: Path, syntax: str) -> None:
    path = write_stack((3, 64, 72)).paths[1]
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    compressed = tmp_path / "compressed.dcm"
    dcmwrite(compressed, dataset)
    assert compressed.read_bytes() != path.read_bytes()
    assert pixel_sha256(compressed) == pixel_sha256(path)


def test_the_digest_survives_a_corrected_header(write_stack: Callable[..., Any], tmp_path: Path) -> None:
    path = write_stack().paths[0]
    dataset = dcmread(path)
    dataset.PatientName, dataset.AccessionNumber = "Corrected^Name", "A-2"
    corrected = tmp_path / "corrected.dcm"
    dcmwrite(corrected, dataset)
    assert pixel_sha256(corrected) == pixel_sha256(path)


def test_other_pixels_or_another_shape_have_another_digest(write_stack: Callable[..., Any], tmp_path: Path) -> None:
    path = write_stack().paths[0]
    dataset = dcmread(path)
    dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows
    reshaped = tmp_path / "reshaped.dcm"
    dcmwrite(reshaped, dataset)
    one_bit = tmp_path / "one-bit.dcm"
    one_bit.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    assert len({pixel_sha256(path), pixel_sha256(reshaped), pixel_sha256(one_bit)}) == 3


def test_an_instance_without_pixels_has_no_digest(shared_data: Path) -> None:
    assert pixel_sha256(next((shared_data / "negatives/siemens-phoenix-sr").iterdir())) is None


def test_every_real_encoding_of_one_image_has_the_same_digest(shared_data: Path) -> None:
    twins = sorted((shared_data / "malformed/transfer-syntaxes").glob("CT1_UNC*"))
    assert len(twins) == 5
    assert len({pixel_sha256(path) for path in twins}) == 1


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
        "MR_small_expb.dcm",
    ],
)
def test_real_encodings_decode_to_the_same_values(shared_data: Path, name: str) -> None:
    folder = shared_data / "malformed/pydicom-test_files"
    assert pixel_sha256(folder / name) == pixel_sha256(folder / "MR_small.dcm")


@pytest.mark.parametrize(
    "name", ["J2K_pixelrep_mismatch.dcm", "SC_rgb_jpeg_gdcm.dcm", "image_dfl.dcm", "rtdose_rle.dcm"]
)
def test_unusual_encodings_are_decoded(shared_data: Path, name: str) -> None:
    assert pixel_sha256(shared_data / "malformed/pydicom-test_files" / name)


@pytest.mark.parametrize("name", ["MR_truncated.dcm", "JPEG-lossy.dcm", "badVR.dcm"])
def test_what_cannot_be_decoded_is_refused_by_file_name_and_syntax(shared_data: Path, name: str) -> None:
    with pytest.raises(UnreadableInstance, match=rf"{name}: pixel data cannot be decoded \(.+\)"):
        pixel_sha256(shared_data / "malformed/pydicom-test_files" / name)


def test_frames_are_given_in_the_order_that_was_asked_for(write_enhanced: Callable[..., Any]) -> None:
    stack = write_enhanced(slope=1.0)
    dataset = read_instance(stack.paths[0])
    chosen = list(reversed(stack.role_input.instances[0].frames))
    found = np.stack(list(stored_frames(dataset, chosen, name="x")))
    np.testing.assert_array_equal(found, stack.array_DHW[::-1])


def test_a_decoder_that_panics_is_a_refusal_and_no_crash(write_stack: Callable[..., Any], tmp_path: Path) -> None:
    dataset = dcmread(write_stack((3, 64, 72)).paths[0])
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.Rows = 32
    short = tmp_path / "short.dcm"
    dcmwrite(short, dataset)
    with pytest.raises(UnreadableInstance, match=r"short.dcm: pixel data cannot be decoded \(RLE Lossless\)"):
        pixel_sha256(short)
