"""What all result objects have in common: when and by whom they were made, and how they come to the disk."""

from __future__ import annotations

import hashlib
import io
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import ContributingEquipment
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM

from node.dicom.context import EncodeContext, Kind
from node.dicom.header import text
from node.dicom.part10 import IMPLEMENTATION_CLASS_UID
from node.dicom.subject import UNICODE, copy_subject, drop_needless_charset
from node.dicom.terms import private_schemes
from node.domain import ResultObject
from node.durable import place

MAX_VERSION_NAME = 16


def warm_up() -> None:
    """Have the library read its tables of the standard now, and not while the first study waits: it does so when it
    makes its first object, of whatever kind."""
    uid = "2.25.1"
    SCImage(
        pixel_array=np.zeros((1, 1), np.uint8),
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=uid,
        series_instance_uid=uid,
        series_number=1,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="none",
        patient_orientation=("L", "P"),
    )


def shared_arguments(context: EncodeContext, source: Dataset, kind: Kind) -> dict[str, Any]:
    """Arguments that the library's constructors of all result objects take."""
    when = content_datetime(context, source)
    equipment = context.equipment
    return {
        "series_instance_uid": context.series_uid(kind),
        "series_number": context.number_of_series(kind),
        "sop_instance_uid": context.instance_uid(kind),
        "instance_number": 1,
        "manufacturer": equipment.manufacturer,
        "manufacturer_model_name": equipment.model,
        "software_versions": equipment.software_version,
        "device_serial_number": equipment.serial,
        "institution_name": equipment.institution or None,
        "series_description": context.series_description(kind),
        "content_qualification": context.content_qualification,
        "series_date": when.date(),
        "series_time": when.time(),
        "content_date": when.date(),
        "content_time": when.time(),
        "specific_character_set": UNICODE,
        "contributing_equipment": [algorithm_equipment(context, when)],
        "coding_schemes": [
            CodingSchemeIdentificationItem(scheme, responsible_organization=equipment.institution or None)
            for scheme in private_schemes(context.terms)
        ]
        or None,
    }


def content_datetime(context: EncodeContext, source: Dataset) -> datetime:
    """When, on the clock of the object: the site's, or the source's where it states an offset from UTC.

    (0008,0201) applies to every time of an object, the copied ones included, so it is kept where the source has it
    and never added; our own times must then be on that clock too.
    """
    offset = _offset(text(source, "TimezoneOffsetFromUTC"))
    when = context.content_datetime if offset is None else context.content_datetime.astimezone(timezone(offset))
    return when.replace(microsecond=0)


def _offset(told: str) -> timedelta | None:
    """An offset such as +0130; None where there is none that is valid."""
    if len(told) != 5 or told[0] not in "+-" or not told[1:].isdigit():
        return None
    offset = timedelta(hours=int(told[1:3]), minutes=int(told[3:]))
    return (-offset if told[0] == "-" else offset) if offset <= timedelta(hours=14) else None


def algorithm_equipment(context: EncodeContext, when: datetime) -> ContributingEquipment:
    """The weights as processing equipment with a Device UID of their own (IHE AIR; PS3.3 C.12.1.1.5)."""
    bundle = context.bundle
    item = ContributingEquipment(
        manufacturer=context.equipment.manufacturer,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=bundle.name,
        software_versions=[bundle.version, bundle.sha256],
        contribution_datetime=when,
        contribution_description=context.warning or "Segmentation of lesions",
    )
    item.DeviceUID = context.device_uid
    return item


def finish(dataset: Dataset, context: EncodeContext, source: Dataset) -> None:
    """Patient and study of the source, and the same bytes whenever the job is encoded again."""
    copy_subject(source, dataset)
    when = content_datetime(context, source)
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(when.date()), TM(when.time())
    for item in dataset.ContributingEquipmentSequence:
        if text(item, "ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = DT(when)
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = f"CRLM {context.equipment.software_version}"[:MAX_VERSION_NAME]


def write_object(dataset: Dataset, path: Path, kind: Kind) -> ResultObject:
    """The object as a file at `path`, durable and whole when this returns; an older one is replaced."""
    drop_needless_charset(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    place(part, path)
    digest = hashlib.sha256(content).hexdigest()
    return ResultObject(kind, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), path, digest)
