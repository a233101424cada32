"""What a bundle really does: unseen cases through the serving engine, measured on the native grid.

Nothing here is simplified for the measurement: the same engine, thresholds and findings as in the node, for networks
of several images and of several sequences too. What cannot be measured is named in the report, never passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from model.case_sets import CaseSet, UnseenPhantom, condition_of
from model.cases import LESION, Case
from model.engine import Engine, Fed, VolumeProblem
from model.findings import find_lesions
from model.problems import ReportProblem
from model.report import Measured, Report, summarise
from model.samples import Sample, cases_ahead, samples_ahead
from model.scores import Answer, CaseScore, Exam, score
from model.threshold_baseline import ThresholdSweep, scaled_in_body

_LIVER = "liver"


@dataclass
class _Measured:
    """The answers of one condition."""

    cases: list[CaseScore] = field(default_factory=list)
    sweep: ThresholdSweep = field(default_factory=ThresholdSweep)


def evaluate(
    engine: Engine,
    cases: CaseSet,
    *,
    workers: int = 1,
    done: Callable[[CaseScore], None] = lambda _: None,
) -> tuple[Report, ...]:
    """Measure `engine` on whatever its bundle reads of `cases`: one report a condition. `done` hears of each answer.

    Raises CaseProblem for a case that cannot be read, ReportProblem where there is nothing to measure.
    """
    of_condition: dict[str, _Measured] = defaultdict(_Measured)
    left_out: dict[str, str] = {}
    for sample in samples_ahead(cases.sources, engine.card.inputs, workers):
        try:
            answer = score_sample(engine, sample)
        except VolumeProblem as problem:
            left_out[sample.case] = str(problem)
            continue
        measured = of_condition[cases.condition or condition_of(sample)]
        measured.cases.append(answer)
        spec, image = sample.primary
        measured.sweep.add(*scaled_in_body(image.volume, image.labels[LESION] > 0, spec))
        done(answer)
    if not of_condition:
        raise ReportProblem(_nothing_measured(engine, cases, left_out))
    weights = Measured(engine.card.name, engine.card.sha256, engine.card.output)
    return tuple(
        summarise(weights, name, cases.words, of.cases, best_threshold=of.sweep.best(), left_out=left_out)
        for name, of in of_condition.items()
    )


def score_sample(engine: Engine, sample: Sample) -> CaseScore:
    """The serving path on one sample, compared with its truth. Raises VolumeProblem for images that the engine
    refuses, or that nobody has outlined."""
    return score_case(engine, exam_of(sample), sample.fed)


def score_case(engine: Engine, exam: Exam, images: Mapping[str, Fed] | None = None) -> CaseScore:
    """The same for an exam; `images` are what the engine is given where that is more than the exam's own image."""
    segmentation = engine.segment(exam.image if images is None else images)
    mask, findings = find_lesions(segmentation.probability_DHW, exam.image, engine.card.output)
    seconds = sum(segmentation.seconds.values())
    return score(exam, Answer(segmentation.probability_DHW, mask, findings, seconds, remarks=segmentation.remarks))


def exam_of(sample: Sample) -> Exam:
    """The sample's primary image with its truth. Raises VolumeProblem where lesions were not annotated."""
    _, image = sample.primary
    if LESION not in image.labels:
        raise VolumeProblem(f"it has no label {LESION!r}: where nobody looked for lesions, nothing can be measured")
    liver_DHW = image.labels[_LIVER] > 0 if _LIVER in image.labels else None
    return Exam(sample.case, sample.patient, image.volume, image.labels[LESION], liver_DHW)


def exams(condition: str, seeds: Sequence[int], workers: int) -> Iterator[Exam]:
    """Phantoms in the order of `seeds`, drawn ahead by `workers` processes."""
    return (_sole_exam(case) for case in cases_ahead([UnseenPhantom(condition, seed) for seed in seeds], workers))


def draw_exam(condition: str, seed: int) -> Exam:
    """Phantom `seed`, only the volume that the network reads. All conditions of a seed are of one patient."""
    return _sole_exam(UnseenPhantom(condition, seed).read())


def _sole_exam(case: Case) -> Exam:
    ((name, image),) = case.images.items()
    return Exam(f"{case.case}/{name}", case.patient, image.volume, image.labels[LESION], image.labels[_LIVER] > 0)


def _nothing_measured(engine: Engine, cases: CaseSet, left_out: Mapping[str, str]) -> str:
    kinds = ", ".join(
        " ".join(word for word in (spec.modality, spec.weighting, spec.phase) if word) for spec in engine.card.inputs
    )
    why = next((f"; {case}: {reason}" for case, reason in left_out.items()), "")
    return f"{engine.card.name} reads {kinds}, of which it can be measured on none in {cases.words}{why}"
