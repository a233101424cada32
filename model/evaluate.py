"""What a demo bundle really does: unseen phantoms through the serving engine, measured on the native grid.

Nothing here is simplified for the measurement: the same engine, thresholds and findings as in the node. Seeds from
900000 on are for evaluation; training draws below 100000 (model/training/cases.py refuses others).
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from model.engine import Engine
from model.findings import find_lesions
from model.phantom import NETWORK_B_VALUE, make_phantom
from model.report import Measured, Report, summarise
from model.scores import Answer, CaseScore, Exam, score
from model.threshold_baseline import ThresholdSweep, scaled_in_body

FIRST_EVALUATION_SEED = 900_000


def evaluate(
    engine: Engine,
    condition: str,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    done: Callable[[CaseScore], None] = lambda _: None,
) -> Report:
    """Measure `engine` on phantoms `seeds` of `condition`; `done` hears of each case. Raises ValueError for no seed,
    or one that training might have seen."""
    if not seeds or min(seeds) < FIRST_EVALUATION_SEED:
        raise ValueError(f"evaluation needs seeds, from {FIRST_EVALUATION_SEED} on: lower ones are training's")
    sweep, cases = ThresholdSweep(), []
    for exam in exams(condition, seeds, workers):
        case = score_case(engine, exam)
        sweep.add(*scaled_in_body(exam.image, exam.labels_DHW > 0, engine.card.input))
        cases.append(case)
        done(case)
    measured = Measured(engine.card.name, engine.card.sha256, engine.card.output)
    test_set = f"{len(seeds)} unseen phantoms of {condition}, seeds {min(seeds)} to {max(seeds)}"
    return summarise(measured, condition, test_set, cases, best_threshold=sweep.best())


def score_case(engine: Engine, exam: Exam) -> CaseScore:
    """The serving path on one series, compared with its truth."""
    segmentation = engine.segment(exam.image)
    mask, findings = find_lesions(segmentation.probability_DHW, exam.image, engine.card.output)
    return score(exam, Answer(segmentation.probability_DHW, mask, findings, sum(segmentation.seconds.values())))


def phantom_case(condition: str, seed: int) -> str:
    """The name of a phantom's series."""
    return f"phantom-{condition}-{seed}"


def exams(condition: str, seeds: Sequence[int], workers: int) -> Iterator[Exam]:
    """Phantoms in the order of `seeds`, drawn ahead by `workers` processes."""
    if workers <= 1:
        yield from (draw_exam(condition, seed) for seed in seeds)
        return
    # spawn: a fork after torch has started its threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[Exam]] = deque()
        for seed in seeds:
            waiting.append(pool.submit(draw_exam, condition, seed))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_exam(condition: str, seed: int) -> Exam:
    """Phantom `seed`, only the volume that the network reads. All conditions of a seed are of one patient."""
    phantom = make_phantom(condition, seed, b_values=(NETWORK_B_VALUE,) if condition.endswith("dwi") else None)
    case = phantom_case(condition, seed)
    return Exam(case, f"phantom-{seed}", phantom.image, phantom.labels_DHW, phantom.liver_DHW)
