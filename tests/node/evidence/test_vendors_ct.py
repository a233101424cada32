"""CT headers as the vendors' scanners and the sites write them: portal-venous in many tongues, and what looks alike."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.domain import Decision
from node.evidence_phases import phases_in
from node.evidence_regions import regions_in

SIEMENS: dict[str, Any] = {
    "Manufacturer": "SIEMENS",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "ConvolutionKernel": ["I30f", "3"],
    "ContrastBolusAgent": "APPLIED",
    "ContrastBolusRoute": None,
}
ARTERIAL_START = "101040"
UNSIGNED = {"RescaleSlope": "1", "BitsStored": 12, "PixelRepresentation": 0}


def against(item: Any) -> str:
    return "; ".join(reason.what for reason in item.reasons if not reason.is_for)


@pytest.mark.parametrize(
    "tags",
    [
        {**SIEMENS, "SeriesDescription": "Abdomen PV  5.0  I30f  3"},
        {**SIEMENS, "ConvolutionKernel": ["Br40d", "3"], "SeriesDescription": "Leber portalvenös 3.0 Br40d"},
        {"Manufacturer": "Philips", "ConvolutionKernel": "B", "SeriesDescription": "PV ABD 3mm"},
        {"Manufacturer": "TOSHIBA", "ConvolutionKernel": "FC08", "SeriesDescription": "PV 5.0"},
        {"Manufacturer": "UIH", "ConvolutionKernel": "B_SOFT_B", "SeriesDescription": "Abdomen PV 1.5"},
        {"ContrastBolusRoute": "EV", "SeriesDescription": "Addome fase portale"},
        {"ContrastBolusRoute": "ENDOVENOSA", "SeriesDescription": "Abdomen fase portal"},
        {"ContrastBolusRoute": "RIGHT ANTECUBITAL"},
        {"ContrastBolusAgent": "IV & ORAL", "ContrastBolusRoute": None},
        {"ContrastBolusAgent": "NON-IONIC", "ContrastBolusRoute": None},
        {"SeriesDescription": "Hydro-CT Abdomen PV"},
        {"SeriesDescription": "Abdomen PV 120kV"},
        {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM7 SPI DUAL"],
            "SeriesDescription": "DE_Abdomen PV 1.5 M_0.6",
        },
        {"BodyPartExamined": "CHEST", "SeriesDescription": "CAP PV 70s 5.0"},
        {"BodyPartExamined": None, "SeriesDescription": "ThoraxAbdomen PV 5.0"},
        {"BodyPartExamined": None, "SeriesDescription": "TAP temps portal"},
        {"BodyPartExamined": None, "SeriesDescription": "胸腹部門脈相"},
        {"BodyPartExamined": None, "SeriesDescription": "上腹部增强门静脉期"},
        {"BodyPartExamined": None, "SeriesDescription": "복부CT 문맥기"},
        {"BodyPartExamined": None, "SeriesDescription": "ＬＩＶＥＲ　ＰＶ"},
        {"BodyPartExamined": None, "SeriesDescription": "Abdomen veno\u0308s"},
    ],
    ids=lambda tags: str(tags.get("SeriesDescription") or tags),
)
def test_a_portal_venous_ct_is_accepted_however_vendor_and_site_write_it(bench: Any, tags: dict[str, Any]) -> None:
    best = bench.best(bench.ct(**tags))
    assert best.decision is Decision.ACCEPT, against(best)
    assert best.condition == "ct-portal-venous"


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"SeriesDescription": "Abdomen VNC PV 3.0"}, "one taken out"),
        ({"SeriesDescription": "PV virtual unenhanced"}, "one taken out"),
        ({"SeriesDescription": "GSI MD: Iodine(Water) PV"}, "map of one material"),
        ({"SeriesDescription": "PV Jod-Overlay"}, "map of one material"),
        ({"SeriesDescription": "PV Z Effective"}, "map of one material"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, "map of one material"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "SPI DUAL VNC"]}, "one taken out"),
        ({"RescaleType": "MGML", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "no Hounsfield units"),
        ({"RescaleType": "MGML", "RescaleIntercept": "0", **UNSIGNED}, "no Hounsfield units"),
        ({"RescaleType": "HU_MOD", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "no Hounsfield units"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"], "SeriesDescription": "PV MIP 10mm"}, "projection"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "Topogramm T20s"}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"], "SeriesDescription": "Dose Report"}, "screenshot"),
        ({"SeriesDescription": "CTA Abdomen", "ContrastBolusStartTime": ARTERIAL_START}, "arterial"),
        ({"SeriesDescription": "Abdomen art 5.0 B60s", "ContrastBolusStartTime": ARTERIAL_START}, "arterial"),
        ({"SeriesDescription": "Addome fase arteriale", "ContrastBolusStartTime": ARTERIAL_START}, "arterial"),
        ({"SeriesDescription": "上腹部增强动脉期", "ContrastBolusStartTime": ARTERIAL_START}, "arterial"),
        ({"SeriesDescription": "Oberbauch spätvenös", "ContrastBolusStartTime": "100810"}, "delayed"),
        ({"SeriesDescription": "Abdomen late venous", "ContrastBolusStartTime": "100610"}, "delayed"),
        ({"ConvolutionKernel": "BONEPLUS"}, "sharp kernel"),
        ({"Manufacturer": "Philips", "ConvolutionKernel": "YB"}, "sharp kernel"),
        ({"Manufacturer": "TOSHIBA", "ConvolutionKernel": "FC52"}, "sharp kernel"),
        ({"ConvolutionKernel": ["Bl57d", "3"], "SeriesDescription": "Thorax Abdomen PV Lunge 1.5"}, "sharp kernel"),
        ({"ContrastBolusAgent": "OMNIPAQUE ORAL", "ContrastBolusRoute": None}, "no contrast agent for a vein"),
        ({"ContrastBolusAgent": "NO IV CONTRAST", "ContrastBolusRoute": None}, "no contrast agent for a vein"),
        ({"ContrastBolusAgent": "ohne KM", "ContrastBolusRoute": None}, "no contrast agent for a vein"),
        ({"ContrastBolusAgent": None, "ContrastBolusRoute": "PER OS"}, "another way than into a vein"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Thorax PV"}, "chest"),
    ],
    ids=lambda told: str(told.get("SeriesDescription") or told) if isinstance(told, dict) else told,
)
def test_what_looks_like_a_portal_venous_ct_is_refused_for_what_it_is(
    bench: Any, tags: dict[str, Any], why: str
) -> None:
    best = bench.best(bench.ct(**tags))
    assert best.decision is Decision.REFUSE
    assert why in against(best)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"RescaleType": "MGML"}, "no Hounsfield units"),
        ({"RescaleIntercept": "0", **UNSIGNED}, "those of air lie at -1000"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "not told how"),
        ({"MultienergyCTAcquisition": "YES"}, "multi-energy"),
        ({"SeriesDescription": "PV MonoE 40 keV"}, "monoenergetic"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]}, "monoenergetic"),
        ({"ConvolutionKernel": "QQ7"}, "unknown name"),
        ({**SIEMENS, "ConvolutionKernel": ["T20f"]}, "another body part"),
        ({**SIEMENS, "ConvolutionKernel": ["H31s"]}, "another body part"),
        ({"SeriesDescription": "Biopsy liver PV"}, "an intervention"),
        ({"SeriesDescription": "CT intervention ablation liver PV"}, "an intervention"),
        ({"SeriesDescription": "CTAC Abd PV"}, "attenuation correction"),
        ({"SeriesDescription": "Attenuation correction CT PV"}, "attenuation correction"),
        ({"SeriesDescription": "DE_Abdomen PV 1.5 Q30f A_80kV"}, "one tube"),
        ({"SeriesDescription": "DE_Abdomen PV 1.5 Q30f B_Sn140kV"}, "one tube"),
        ({"SeriesDescription": "Abdomen PV 80kV"}, "one tube"),
        ({"SeriesDescription": "Abdomen PV Sn140"}, "one tube"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM7 SPI DUAL"]}, "dual energy"),
        ({"SeriesDescription": "Abdomen 5.0 B70s"}, "one vote"),
        ({"SeriesDescription": "PV", "ContrastBolusStartTime": ""}, "one vote"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Thorax PV", "ProtocolName": "TAP"}, "chest"),
    ],
)
def test_what_a_radiographer_would_ask_about_is_asked_about(bench: Any, tags: dict[str, Any], why: str) -> None:
    best = bench.best(bench.ct(**tags))
    assert best.decision is Decision.CONFIRM
    assert why in against(best)


def test_the_mixed_image_of_a_dual_energy_ct_goes_before_those_of_its_tubes(bench: Any) -> None:
    mixed = bench.ct(SeriesDescription="DE_Abdomen PV M_0.6")
    tubes = [
        bench.again(
            mixed,
            shift=n * 1000,
            SeriesInstanceUID=f"1.2.3.{n}",
            SeriesNumber=n,
            SeriesDescription=f"DE_Abdomen PV {tube}",
        )
        for n, tube in ((5, "A_80kV"), (6, "B_Sn140kV"))
    ]
    taken = [item for item in bench.decide(mixed, *tubes).volumes if item.condition]
    assert [(item.volume.series_uid, item.decision) for item in taken] == [("1.2.3.4", Decision.ACCEPT)]


PHASE_WORDS = {
    "portal-venous": "Portal venous|PVP|portal venöse Phase|temps portal veineux|phase veineuse|fase porto-venosa|"
    "fase venosa portale|portoveneuze fase|portaal veneus|faza żylna|faza wrotna|portální fáze|venózní fáze|門脈相|"
    "肝門脈相|门静脉期|增强门脉期|腹部静脉期|문맥기|복부 정맥기|"
    "venøs fase|portovenøs|portvenös fas|venfas|Портальная фаза|венозная фаза|PV70s|ABD_70SEC|70秒|1 min",
    "arterial": "late arterial|Liver ART|spätarteriell|artériel tardif|fase arterial|fase arteriale|arteriële fase|"
    "artärfas|faza tętnicza|arteriální fáze|肝動脈優位相|动脉期|增强动脉晚期|동맥기|артериальная фаза|HAP|CTA|Aorta",
    "delayed": "equilibrium|Spätphase|spätvenös|phase tardive|fase tardía|tardiva|laat|faza opóźniona|pozdní fáze|"
    "late venous|fase venosa tardía|phase veineuse tardive|venös spät|"
    "平衡相|遅延相|後期相|延迟期|지연기|отсроченная фаза|3 min|5min delay|nephrographic|excretory",
    "non-contrast": "nativ|ohne KM|non contrast|NECT|w/o|sans IV|C-|CE(-)|sin contraste|S/C|sem contraste|senza mdc|"
    "basale|zonder contrast|blanco|bez kontrastu|natywna|nativní|単純|造影前|平扫|조영전|нативная|SPC",
}


@pytest.mark.parametrize(("phase", "words"), [(p, w) for p, told in PHASE_WORDS.items() for w in told.split("|")])
def test_a_phase_is_known_in_the_languages_of_the_sites(phase: str, words: str) -> None:
    assert phases_in([words]) == (phase,)


@pytest.mark.parametrize("words", ["late portal venous", "porto-venous late", "portal venös spät"])
def test_a_late_portal_venous_phase_is_two_phases(words: str) -> None:
    assert phases_in([words]) == ("portal-venous", "delayed")


@pytest.mark.parametrize(
    "words",
    [
        "Abdomen 5.0 B70s",
        "Abdomen 5.0 B60s",
        "Thorax 1.0 B31s",
        "Abd I70s 3",
        "Br40s",
        "Br40 S3",
        "TC del abdomen",
        "C+",
        "avec injection",
        "造影後",
    ],
)
def test_kernels_and_contrast_alone_name_no_phase(words: str) -> None:
    assert phases_in([words]) == ()


@pytest.mark.parametrize(
    "words",
    [
        "ABDPEL",
        "AbdPelvis",
        "ABDOPELVIS",
        "thoracoabdominal",
        "CT C/A/P",
        "Ganzbauch",
        "toraco-addome",
        "abdômen",
        "jama brzuszna",
        "břicho",
        "胸腹部",
        "全腹",
        "상복부",
        "брюшная полость",
        "CTCAP",
    ],
)
def test_the_abdomen_is_known_in_words_glued_and_foreign(words: str) -> None:
    assert "abdomen" in regions_in(words)


@pytest.mark.parametrize("words", ["játra", "造影肝", "肝脏MRI", "간 MRI", "wątroby", "hépatique", "MRI_LIVER_DWI"])
def test_the_liver_is_known_in_words_glued_and_foreign(words: str) -> None:
    assert "liver" in regions_in(words)


def test_a_coded_route_tells_contrast_into_a_vein(bench: Any) -> None:
    route, agent = Dataset(), Dataset()
    route.CodeMeaning, agent.CodeMeaning = "Intravenous route", "Iohexol"
    agent.ContrastBolusAdministrationRouteSequence = [route]
    untold = {"ContrastBolusAgent": None, "ContrastBolusRoute": None}
    volume = bench.fact(bench.ct(**untold, ContrastBolusAgentSequence=[agent]))
    assert volume.contrast_given is True
    assert [sign.where for sign in volume.contrast_signs] == ["(0018,1040)", "(0018,0010)"]
