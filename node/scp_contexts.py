"""What we accept in an association: SOP classes, and per class the transfer syntaxes.

One refused presentation context makes some senders abort the whole study (dcmtk's storescu does, on a scanner's
protocol report). So every standard storage class is accepted, and the private ones that vendors' scanners put
among their images; what no route could ever use is answered with success, counted and dropped. Other private
classes are refused: accepting what we do not know by name would make us a sink for anything.
"""

from __future__ import annotations

from functools import cache

from pydicom import uid
from pydicom._uid_dict import UID_dictionary
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

_VERIFICATION = "1.2.840.10008.1.1"
_STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
_ROOT = "1.2.840.10008.5.1.4.1.1."
_STRUCTURED_REPORTS = _ROOT + "88."
"""All structured reports, radiation dose and key object selection among them."""
_IMAGES = frozenset(
    {
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
    }
)
_SEGMENTATIONS = frozenset({uid.SegmentationStorage, _ROOT + "66.7"})
"""66.7 is Label Map Segmentation, which pydicom's dictionary does not know yet."""

_COMPANIONS = frozenset(
    {
        "1.3.12.2.1107.5.9.1",  # Siemens CSA Non-Image
        "1.3.46.670589.11.0.0.12.1",  # Philips MR Spectrum
        "1.3.46.670589.11.0.0.12.2",  # Philips MR Series Data
        "1.3.46.670589.11.0.0.12.3",  # Philips MR Color Image
        "1.3.46.670589.11.0.0.12.4",  # Philips MR Examcard
    }
)
"""Private storage classes that scanners send along inside MR and CT studies."""

READABLE_SYNTAXES = (
    # in the order of our preference, where a sender leaves us the choice
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.ExplicitVRBigEndian,
)
"""What our decoders read. Neither JPIP, whose pixels are elsewhere, nor video."""


@cache
def storage_classes() -> frozenset[str]:
    """What is accepted: every storage class of the Standard, retired ones included, and the vendors' companions."""
    named = {
        number
        for number, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and number.startswith("1.2.840.10008.5.1.4.")
    }
    return frozenset(named | _COMPANIONS | {str(context.abstract_syntax) for context in AllStoragePresentationContexts})


def is_kept(sop_class_uid: str) -> bool:
    """Whether instances of this class are stored; those of other storage classes are dropped."""
    return sop_class_uid in _IMAGES or sop_class_uid in _SEGMENTATIONS or sop_class_uid.startswith(_STRUCTURED_REPORTS)


@cache
def storage_contexts() -> tuple[PresentationContext, ...]:
    """For peers that may send. Shared between associations, which only read them."""
    return tuple(
        build_context(number, list(READABLE_SYNTAXES if is_kept(number) else ALL_TRANSFER_SYNTAXES))
        for number in sorted(storage_classes())
    )


@cache
def service_contexts() -> tuple[PresentationContext, ...]:
    """For every peer: the echo, and storage commitment with us as its user, to whom the report comes."""
    commitment = build_context(_STORAGE_COMMITMENT)
    commitment.scu_role = True
    commitment.scp_role = True
    return (build_context(_VERIFICATION), commitment)
