"""The report says what was measured, of which segment, by whose weights, and passes the checks of others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from model.volume import Mask
from node.dicom.check import check_objects
from node.dicom.context import BundleFacts, Predecessor
from node.dicom.seg import encode_seg
from node.dicom.sr import encode_refusal_sr, encode_sr
from node.dicom.volume import read_volume
from node.domain import TimePoint
from node.errors import ObjectError


def items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items(child)


def texts(report: Dataset, code: str) -> list[str]:
    return [i.TextValue for i in items(report) if "TextValue" in i and i.ConceptNameCodeSequence[0].CodeValue == code]


def numbers(group: Dataset) -> dict[tuple[str, str], tuple[float, str]]:
    """(measurement, derivation) → (value, unit) of one group."""
    found = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            modifiers = {
                child.ConceptNameCodeSequence[0].CodeValue: child.ConceptCodeSequence[0].CodeMeaning
                for child in item.get("ContentSequence", ())
            }
            measured = item.MeasuredValueSequence[0]
            key = (item.ConceptNameCodeSequence[0].CodeMeaning, modifiers.get("121401", ""))
            found[key] = (float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue)
    return found


def groups_of(report: Dataset) -> list[Dataset]:
    return [i for i in items(report) if i.get("ConceptNameCodeSequence") and _code(i) == "125007"]


def _code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


@pytest.fixture
def report(
    make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> Callable[..., tuple[Dataset, Any]]:
    """Encodes segmentation and report of a stack's lesions; the written report, and the lesions."""

    def run(stack: Any, *, with_seg: bool = True, **fields: Any) -> tuple[Dataset, Any]:
        lesions, source, context = lesions_on(stack), read_volume(stack.role_input), make_context(**fields)
        given = (lesions.mask, lesions.findings, lesions.tracking)
        seg = encode_seg(context, source, *given, tmp_path / "seg.dcm") if with_seg else None
        encode_sr(context, source, *given, tmp_path / "sr.dcm", seg=seg)
        seg_path = tmp_path / "seg.dcm" if with_seg else None
        check_objects(seg_path, tmp_path / "sr.dcm", context, source, *given)
        return dcmread(tmp_path / "sr.dcm"), lesions

    return run


@pytest.fixture(scope="module")
def plain(
    write_stack: Callable[..., Any],
    make_context: Callable[..., Any],
    lesions_on: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Dataset, Any, Any, Path]:
    """Report, lesions, stack and folder of a CT by demo weights before chemotherapy: for tests that only look."""
    folder, stack = tmp_path_factory.mktemp("plain"), write_stack(file_order=[3, 1, 6, 0, 2, 5, 4])
    lesions, source, context = lesions_on(stack), read_volume(stack.role_input), make_context()
    given = (lesions.mask, lesions.findings, lesions.tracking)
    seg = encode_seg(context, source, *given, folder / "seg.dcm")
    encode_sr(context, source, *given, folder / "sr.dcm", seg=seg)
    check_objects(folder / "seg.dcm", folder / "sr.dcm", context, source, *given)
    return dcmread(folder / "sr.dcm"), lesions, stack, folder


def test_each_lesion_has_its_measurements_with_units(plain: tuple[Any, ...]) -> None:
    document, lesions, *_ = plain
    finding, measured = lesions.findings[0], numbers(groups_of(document)[0])
    assert measured["Long axis", ""] == (round(finding.long_axis_mm, 1), "mm")
    assert measured["Short axis", ""] == (round(finding.short_axis_mm, 1), "mm")
    assert measured["Volume", ""] == (round(finding.volume_ml, 3), "ml")
    for derivation, number in (
        ("Mean", finding.mean),
        ("Standard Deviation", finding.sd),
        ("Minimum", finding.minimum),
        ("Maximum", finding.maximum),
        ("Median", finding.median),
    ):
        assert measured["Attenuation Coefficient", derivation] == (round(number, 1), "[hnsf'U]")


def test_diffusion_has_its_b_value_and_no_hounsfield_units(
    write_enhanced: Callable[..., Any], report: Callable[..., Any]
) -> None:
    document, lesions = report(write_enhanced(), weighting="dwi", condition="post-nact-dwi")
    measured = numbers(groups_of(document)[0])
    assert measured["Source image diffusion b-value", ""] == (1000, "s/mm2")
    assert measured["MR signal intensity", "Mean"] == (round(lesions.findings[0].mean, 1), "1")


def test_t2_intensity_is_called_so(write_stack: Callable[..., Any], report: Callable[..., Any]) -> None:
    document, _ = report(write_stack(modality="MR"), weighting="t2")
    assert ("T2 Weighted MR Signal Intensity", "Mean") in numbers(groups_of(document)[0])


def test_each_group_points_at_its_segment_and_shares_its_tracking_uid(plain: tuple[Any, ...]) -> None:
    folder = plain[-1]
    seg, document = hd.seg.segread(folder / "seg.dcm"), hd.sr.srread(folder / "sr.dcm")
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    for group in groups:
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        description = seg.get_segment_description(int(segment.referenced_segment_numbers[0]))
        assert (description.tracking_uid, description.tracking_id) == (
            group.tracking_uid,
            group.tracking_identifier,
        )
        assert group.finding_type == codes.SCT.Lesion
        assert group.finding_category == codes.SCT.MorphologicallyAbnormalStructure


def test_source_images_of_a_lesion_are_the_slices_in_which_it_lies(plain: tuple[Any, ...]) -> None:
    document, _, stack, _ = plain
    source = read_volume(stack.role_input)
    named = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in groups_of(document)[0].ContentSequence
        if _code(item) == "121233"
    ]
    assert named == [source.slices[index].sop_instance_uid for index in (1, 2, 3)]


def test_source_images_of_a_multi_b_instance_name_the_chosen_frames(
    write_enhanced: Callable[..., Any], report: Callable[..., Any]
) -> None:
    stack = write_enhanced()
    document, _ = report(stack, weighting="dwi")
    for item in items(document):
        if "ReferencedSOPSequence" in item and "ReferencedFrameNumber" in item.ReferencedSOPSequence[0]:
            frames = np.atleast_1d(item.ReferencedSOPSequence[0].ReferencedFrameNumber)
            assert set(frames) <= set(stack.role_input.instances[0].frames)
    lesion = groups_of(document)[0]
    (only,) = [i for i in lesion.ContentSequence if _code(i) == "121233"]
    assert list(only.ReferencedSOPSequence[0].ReferencedFrameNumber) == [6, 9, 12]


def test_the_assessment_counts_and_sums(plain: tuple[Any, ...]) -> None:
    document, lesions, *_ = plain
    last = groups_of(document)[-1]
    measured = numbers(last)
    assert measured["Quantity", ""] == (2, "1")
    assert measured["Volume", "Total"] == (round(sum(f.volume_ml for f in lesions.findings), 3), "ml")
    assert measured["Long axis", "Maximum"] == (round(lesions.findings[0].long_axis_mm, 1), "mm")
    count = next(item for item in last.ContentSequence if _code(item) == "246205007")
    assert str(count.MeasuredValueSequence[0].NumericValue) == "2"


@pytest.mark.parametrize(
    ("time_point", "words", "kind"),
    [
        (TimePoint.PRE, ["before chemotherapy"], "C3539075"),
        (TimePoint.POST, ["after chemotherapy"], "262502001"),
        (TimePoint.UNKNOWN, ["treatment status unknown"], None),
        (TimePoint.NOT_APPLICABLE, [], None),
    ],
)
def test_the_time_point_is_told_where_it_is_known(
    write_stack: Callable[..., Any],
    report: Callable[..., Any],
    time_point: TimePoint,
    words: list[str],
    kind: str | None,
) -> None:
    document, _ = report(write_stack(), time_point=time_point)
    assert texts(document, "C2348792") == words * 3
    types = {i.ConceptCodeSequence[0].CodeValue for i in items(document) if "ConceptCodeSequence" in i}
    assert (kind in types) is (kind is not None)
    # readers list the order of a time point as a measurement
    assert not [i for i in items(document) if _code(i) == "126073"]


def test_the_report_is_complete_and_nobody_has_verified_it(plain: tuple[Any, ...]) -> None:
    document, _, *_ = plain
    assert (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert document.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (document.Modality, document.SeriesNumber) == ("SR", 90002)


def test_weights_and_warning_are_named_where_a_reader_looks(plain: tuple[Any, ...]) -> None:
    document, _, *_ = plain
    assert document.SeriesDescription == "AI SR ct-portal-venous (RESEARCH, DEMO WEIGHTS)"
    assert document.ContentQualification == "RESEARCH"
    assert "DEMO WEIGHTS" in texts(document, "121013")[0]
    assert "DEMO WEIGHTS" in texts(document, "121106")[0]
    assert set(texts(document, "111001")) == {"demo-ct-portal-venous"}
    assert set(texts(document, "111002")) == {"weights sha256 " + "ab" * 32}


def test_weights_for_clinical_use_carry_no_research_wording(
    write_stack: Callable[..., Any], report: Callable[..., Any]
) -> None:
    bundle = BundleFacts("liver", "2.0.0", "cd" * 32, is_demo=False, is_for_clinical_use=True)
    document, _ = report(write_stack(), bundle=bundle)
    assert document.SeriesDescription == "AI SR ct-portal-venous"
    assert document.ContentQualification == "PRODUCT"
    assert texts(document, "121106") == []


def test_all_images_and_the_segmentation_are_evidence(plain: tuple[Any, ...]) -> None:
    document, _, stack, _ = plain
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    by_series = {s.SeriesInstanceUID: len(s.ReferencedSOPSequence) for s in study.ReferencedSeriesSequence}
    assert by_series[stack.role_input.series_uid] == 7
    assert sorted(by_series.values()) == [1, 7]


def test_the_image_library_lists_every_image_once(plain: tuple[Any, ...]) -> None:
    document, _, stack, _ = plain
    (library,) = [item for item in document.ContentSequence if _code(item) == "111028"]
    images = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in items(library)
        if "ReferencedSOPSequence" in item
    ]
    assert sorted(images) == sorted(i.sop_instance_uid for i in stack.role_input.instances)
    assert _code(document.ContentSequence[-1]) == "126010"


def test_a_study_without_a_lesion_gets_a_report_that_claims_no_health(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path
) -> None:
    source = read_volume(write_stack().role_input)
    empty = Mask(np.zeros(source.volume.array_DHW.shape, np.uint16), source.volume.affine_lps_mm)
    encode_sr(make_context(), source, empty, (), (), tmp_path / "sr.dcm", seg=None)
    check_objects(None, tmp_path / "sr.dcm", make_context(), source, empty, (), ())
    document = dcmread(tmp_path / "sr.dcm")
    (group,) = groups_of(document)
    assert numbers(group) == {("Quantity", ""): (0, "1")}
    assert texts(document, "121106")[0].startswith("No lesion was segmented. This does not exclude disease.")


def test_a_series_that_could_not_be_analysed_gets_a_report_with_the_reason(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_stack()
    encode_refusal_sr(make_context(), stack.role_input.instances, "the slices are not parallel", tmp_path / "sr.dcm")
    document = dcmread(tmp_path / "sr.dcm")
    assert texts(document, "121106")[0].startswith("Not analysed: the slices are not parallel.")
    assert "111225" in {i.ConceptCodeSequence[0].CodeValue for i in items(document) if "ConceptCodeSequence" in i}
    assert not [item for item in items(document) if item.ValueType == "NUM"]
    assert hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()


def test_without_a_segmentation_lesions_name_their_images(
    write_stack: Callable[..., Any], report: Callable[..., Any]
) -> None:
    document, lesions = report(write_stack(), with_seg=False)
    first = groups_of(document)[0]
    assert first.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert numbers(first)["Volume", ""] == (round(lesions.findings[0].volume_ml, 3), "ml")
    assert not [item for item in items(document) if _code(item) == "121191"]


def test_a_new_run_names_the_report_it_replaces(write_stack: Callable[..., Any], report: Callable[..., Any]) -> None:
    document, _ = report(write_stack(), run=3, predecessor=Predecessor(1, "1.2.3.4", "1.2.3.5"))
    (study,) = document.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert (series.SeriesInstanceUID, series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) == (
        "1.2.3.4",
        "1.2.3.5",
    )
    assert document.SeriesDescription.endswith("v3 replaces v1")


def test_the_order_that_the_report_answers_is_named(
    write_stack: Callable[..., Any], report: Callable[..., Any]
) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        request = Dataset()
        request.RequestedProcedureID, request.RequestedProcedureDescription = "RP-7", "Liver CT"
        dataset.RequestAttributesSequence = [request]

    document, _ = report(write_stack(edit=edit))
    (request,) = document.ReferencedRequestSequence
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("A-1", "RP-7")
    bare, _ = report(write_stack(edit=lambda dataset, _: setattr(dataset, "AccessionNumber", "")))
    assert "ReferencedRequestSequence" not in bare


def test_encoding_a_report_again_gives_the_same_bytes(
    write_stack: Callable[..., Any],
    report: Callable[..., Any],
    tmp_path: Path,
    lesions_on: Callable[..., Any],
    make_context: Callable[..., Any],
) -> None:
    stack = write_stack()
    lesions, source = lesions_on(stack), read_volume(stack.role_input)
    for name in ("a.dcm", "b.dcm"):
        encode_sr(make_context(), source, lesions.mask, lesions.findings, lesions.tracking, tmp_path / name, seg=None)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_findings_that_do_not_belong_to_the_mask_are_refused(
    write_stack: Callable[..., Any], make_context: Callable[..., Any], lesions_on: Callable[..., Any], tmp_path: Path
) -> None:
    stack = write_stack()
    lesions, source = lesions_on(stack), read_volume(stack.role_input)
    with pytest.raises(ObjectError, match="2 labels, 2 findings and 1 tracking"):
        encode_sr(
            make_context(), source, lesions.mask, lesions.findings, lesions.tracking[:1], tmp_path / "s", seg=None
        )


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["CT", "MR", "enhanced", "no lesion", "not analysed", "without segmentation"])
def test_others_validators_find_no_error(
    write_stack: Callable[..., Any],
    write_enhanced: Callable[..., Any],
    report: Callable[..., Any],
    make_context: Callable[..., Any],
    require_peer: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
) -> None:
    dciodvfy, dsrdump = require_peer("/usr/bin/dciodvfy"), require_peer("/usr/bin/dsrdump")
    path = tmp_path / "sr.dcm"
    stack = write_enhanced() if kind == "enhanced" else write_stack(modality="MR" if kind == "MR" else "CT")
    if kind == "no lesion":
        source = read_volume(stack.role_input)
        empty = Mask(np.zeros(source.volume.array_DHW.shape, np.uint16), source.volume.affine_lps_mm)
        encode_sr(make_context(), source, empty, (), (), path, seg=None)
    elif kind == "not analysed":
        encode_refusal_sr(make_context(), stack.role_input.instances, "a gap of 10 mm", path)
    else:
        report(stack, with_seg=kind != "without segmentation", run=2, predecessor=Predecessor(1, "1.2.3", "1.2.4"))
    verified = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    warnings = [line for line in verified.stderr.splitlines() if line.startswith("Warning")]
    assert all("DeviceUID" in line for line in warnings), warnings
    dumped = subprocess.run([dsrdump, path], capture_output=True, text=True, check=False)
    assert dumped.returncode == 0, dumped.stderr
    assert set(dumped.stderr.splitlines()) <= {"W: Check for template constraints not yet supported"}
    assert "Imaging Measurement Report" in dumped.stdout


@pytest.mark.peers
def test_results_and_images_agree_on_patient_and_study(
    write_stack: Callable[..., Any], report: Callable[..., Any], require_peer: Callable[[str], Path], tmp_path: Path
) -> None:
    dcentvfy = require_peer("/usr/bin/dcentvfy")

    def edit(dataset: Dataset, _: int) -> None:
        dataset.StudyDescription, dataset.PatientAge, dataset.PatientWeight = "Liver CT", "061Y", "70"
        dataset.AdditionalPatientHistory, dataset.IssuerOfPatientID = "none", "Hospital"

    stack = write_stack(edit=edit)
    report(stack)
    done = subprocess.run(
        [dcentvfy, tmp_path / "seg.dcm", tmp_path / "sr.dcm", *stack.paths], capture_output=True, text=True, check=False
    )
    remarks = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    # an SR has its accession number in the study, an image in the series: the Standard's own difference
    assert all("AccessionNumber" in line and "different information entities" in line.lower() for line in remarks), (
        remarks
    )


def test_a_real_ct_is_reported(real_ct: Callable[..., Any], make_context: Callable[..., Any], tmp_path: Path) -> None:
    source, mask, findings, tracking = real_ct()
    context = make_context()
    seg = encode_seg(context, source, mask, findings, tracking, tmp_path / "seg.dcm")
    encode_sr(context, source, mask, findings, tracking, tmp_path / "sr.dcm", seg=seg)
    check_objects(tmp_path / "seg.dcm", tmp_path / "sr.dcm", context, source, mask, findings, tracking)
    document = dcmread(tmp_path / "sr.dcm")
    assert document.PatientID == "CRLM-CT-1004"
    assert numbers(groups_of(document)[-1])["Quantity", ""] == (2, "1")
