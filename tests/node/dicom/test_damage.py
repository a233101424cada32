"""Whatever stands in the headers of a series: a result, or a refusal with its reason, never another error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from model.card import OutputSpec
from model.findings import find_lesions
from node.dicom.check import check_objects
from node.dicom.context import Tracking
from node.dicom.header import read_header
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_sr
from node.dicom.uids import mint_tracking_uid
from node.dicom.volume import read_volume
from node.domain import InstanceRef, RoleInput
from node.errors import NodeError

PIXEL_BYTES = 20 * 24 * 2


@pytest.mark.parametrize("seed", range(4))
def test_a_series_with_damaged_headers_is_encoded_or_refused(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path, seed: int
) -> None:
    stack = write_stack((4, 20, 24), edit=lambda dataset, _: setattr(dataset, "PatientName", "Müller^Jürgen"))
    whole = [path.read_bytes() for path in stack.paths]
    generator = random.Random(seed)
    for _ in range(10):
        damage = [
            (generator.randrange(132, len(whole[0]) - PIXEL_BYTES), generator.randrange(256))
            for _ in range(generator.choice([1, 1, 2, 4]))
        ]
        for path, content in zip(stack.paths, whole, strict=True):
            path.write_bytes(_damaged(content, damage) if generator.random() < 0.8 else content)
        try:
            _analyse(stack.paths, make_context(), tmp_path)
        except NodeError as refusal:
            told = str(refusal)
            assert told
            assert "Müller" not in told


def _damaged(content: bytes, damage: list[tuple[int, int]]) -> bytes:
    found = bytearray(content)
    for position, byte in damage:
        found[position] = byte
    return bytes(found)


def _analyse(paths: list[Path], context: Any, folder: Path) -> None:
    headers = [read_header(path) for path in paths]
    refs = (InstanceRef(str(h.SOPInstanceUID), str(h.SOPClassUID), p, "") for h, p in zip(headers, paths, strict=True))
    source = read_volume(RoleInput("", tuple(refs)))
    probability = np.zeros(source.volume.array_DHW.shape, np.float32)
    probability[1:3, :3, :4] = 1
    mask, findings = find_lesions(probability, source.volume, OutputSpec())
    tracking = [Tracking(f"Lesion {finding.number}", mint_tracking_uid()) for finding in findings]
    seg = encode_seg(context, source, mask, findings, tracking, folder / "seg.dcm")
    encode_sr(context, source, mask, findings, tracking, folder / "sr.dcm", seg=seg)
    check_objects(folder / "seg.dcm", folder / "sr.dcm", context, source, mask, findings, tracking)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("OtherPatientIDsSequence", "LO", "text in place of a sequence"),
        ("StudyDescription", "FD", 3.5),
        ("PatientID", "OB", b"\x01\x02"),
        ("PatientBirthDate", "US", 1950),
        ("AccessionNumber", "LO", ["A", "B"]),
        ("StudyTime", "UN", b"101112"),
    ],
)
def test_an_attribute_of_quite_another_kind_does_not_stop_a_result(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path, keyword: str, vr: str, value: Any
) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.pop(keyword, None)
        dataset.add_new(keyword, vr, value)

    _analyse(write_stack((4, 20, 24), edit=edit).paths, make_context(), tmp_path)
