"""Who the phantom patient is: names, numbers and UIDs, all derived from the seed, none of a real person."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

_NAMESPACE = uuid.UUID("6f2f2f0a-61c5-5a0e-9a39-6a1c61b1d0c4")
_STUDY_DATES = {"pre": "20240311", "post": "20240715", "ct": "20240304", "t1": "20240311"}


def uid(*parts: object) -> str:
    """A UID that depends on nothing but its parts: 2.25 and a name-based UUID (PS3.5 B.2, RFC 9562)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, repr(parts)).int}"


@dataclass(frozen=True)
class StudyIdentity:
    """Patient and study as they stand in every header. `character_set` is (0008,0005); names are Unicode here."""

    patient_name: str
    patient_id: str
    study_instance_uid: str
    study_date: str
    issuer_of_patient_id: str = "CRLM-SIM"
    patient_birth_date: str = "19550101"
    patient_sex: str = "O"
    patient_age: str = "069Y"
    study_time: str = "101500"
    study_id: str = "1"
    accession_number: str = ""
    study_description: str = "PHANTOM ABDOMEN"
    referring_physician: str = "PHANTOM^REFERRER"
    institution: str = "CRLM PHANTOM HOSPITAL"
    character_set: str | tuple[str, ...] = "ISO_IR 192"

    def with_(self, **changes: Any) -> StudyIdentity:
        """The same study with other values."""
        return replace(self, **changes)

    def put_on(self, dataset: Dataset) -> None:
        """Writes the patient and study modules."""
        charset = self.character_set
        dataset.SpecificCharacterSet = charset if isinstance(charset, str) else list(charset)
        dataset.PatientName = self.patient_name
        dataset.PatientID = self.patient_id
        dataset.IssuerOfPatientID = self.issuer_of_patient_id
        dataset.PatientBirthDate = self.patient_birth_date
        dataset.PatientSex = self.patient_sex
        dataset.PatientAge = self.patient_age
        dataset.StudyInstanceUID = self.study_instance_uid
        dataset.StudyDate = self.study_date
        dataset.StudyTime = self.study_time
        dataset.StudyID = self.study_id
        dataset.AccessionNumber = self.accession_number
        dataset.StudyDescription = self.study_description
        dataset.ReferringPhysicianName = self.referring_physician
        dataset.InstitutionName = self.institution


def study_of(condition: str, seed: int) -> StudyIdentity:
    """The study of a phantom: one patient a seed, one study a condition, dates before and after chemotherapy."""
    return StudyIdentity(
        patient_name=f"PHANTOM^CRLM {seed:06d}",
        patient_id=f"CRLM-PHANTOM-{seed:06d}",
        study_instance_uid=uid("study", condition, seed),
        study_date=_STUDY_DATES[condition.split("-", 1)[0]],
        accession_number=f"PH{seed % 10**10:010d}",
    )
