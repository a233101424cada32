"""When a study is complete: a clock in the hand, real files in the spool, and late slices from all sides."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.assembly import Assembler, SeriesReady, StudyReady
from node.config import AssemblySettings
from node.domain import SeriesKey
from node.spool import Spool
from tests.receiving import ct_slice, keep, new_uid

SETTINGS = AssemblySettings(series_quiet_s=10, study_quiet_s=20, gap_patience_s=300)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A spool, a clock, an assembler, and shorthands for what a test does with them."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool.open(folder)
        self.clock = Clock()
        self.assembler = Assembler(self.spool, SETTINGS, self.clock)
        self.study, self.series = new_uid(), new_uid()
        self.key = SeriesKey(self.study, self.series)

    def arrive(self, *numbers: int, series: str | None = None, **attributes: object) -> list[Dataset]:
        datasets = [ct_slice(self.study, series or self.series, number, **attributes) for number in numbers]
        for dataset in datasets:
            keep(self.spool, dataset)
        return datasets

    def after(self, seconds: float) -> list[StudyReady]:
        """What is ready once so much more time has passed."""
        self.clock.now_s += seconds
        return self.assembler.step()

    def reasons(self) -> list[str]:
        return [one.reason for one in self.assembler.waiting()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "spool")


def only(ready: list[StudyReady]) -> SeriesReady:
    (study,) = ready
    (series,) = study.series
    return series


def numbers_in(series: SeriesReady) -> list[int]:
    return sorted(int(header.InstanceNumber) for header in series.headers.values())


# --- quiet


def test_a_study_is_ready_when_it_has_been_quiet_for_long_enough(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    assert bench.after(0) == []
    assert bench.after(19.9) == []
    assert numbers_in(only(bench.after(0.1))) == list(range(1, 9))


def test_each_new_instance_starts_the_wait_anew(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    bench.arrive(9)
    assert bench.after(19) == []
    assert bench.after(19) == []
    assert len(only(bench.after(1)).files) == 9


def test_an_identical_repeat_does_not(bench: Bench) -> None:
    (dataset, *_) = bench.arrive(*range(1, 9))
    bench.after(0)
    bench.clock.now_s += 15
    keep(bench.spool, dataset)
    assert bench.after(0) == []
    assert len(only(bench.after(5)).files) == 8


def test_a_study_waits_for_the_last_of_its_series(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    bench.clock.now_s += 15
    bench.arrive(*range(1, 9), series=new_uid())
    assert bench.after(0) == []
    assert bench.after(15) == []
    (study,) = bench.after(5)
    assert [len(series.files) for series in study.series] == [8, 8]


def test_one_study_does_not_wait_for_another(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    bench.clock.now_s += 15
    keep(bench.spool, ct_slice())
    (study,) = bench.after(5)
    assert study.study_key == bench.study


def test_a_ready_study_is_told_once(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    assert len(bench.after(20)) == 1
    assert bench.after(20) == []
    assert bench.assembler.waiting() == []


def test_the_headers_are_read_and_need_not_be_read_again(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    series = only(bench.after(20))
    assert tuple(series.headers) == series.files == bench.spool.instances(bench.key)
    assert all(str(header.SeriesInstanceUID) == bench.series for header in series.headers.values())
    assert all("PixelData" not in header for header in series.headers.values())


# --- late slices, restarts


def test_a_late_slice_makes_the_whole_study_ready_again(bench: Bench) -> None:
    other = new_uid()
    bench.arrive(*range(1, 9))
    bench.arrive(*range(1, 9), series=other)
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.done(study)
    bench.arrive(9)
    assert bench.after(0) == []
    (again,) = bench.after(20)
    before, after = ({one.key: one for one in told.series} for told in (study, again))
    assert [len(after[SeriesKey(bench.study, uid)].files) for uid in (bench.series, other)] == [9, 8]
    moved, still = SeriesKey(bench.study, bench.series), SeriesKey(bench.study, other)
    assert after[moved].generation != before[moved].generation
    assert after[still].generation == before[still].generation


def test_a_slice_that_comes_while_the_study_is_decided_is_not_lost(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.arrive(9)
    bench.assembler.done(study)
    assert bench.after(0) == []
    assert len(only(bench.after(20)).files) == 9


def test_a_slice_that_is_claimed_before_the_decision_is_done_is_not_lost_either(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.arrive(9)
    bench.after(0)
    bench.assembler.done(study)
    again = Assembler(bench.spool, SETTINGS, bench.clock)
    again.step()
    bench.clock.now_s += 20
    assert len(only(again.step()).files) == 9


def test_what_was_not_done_is_ready_again_after_a_restart(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    first = only(bench.after(20))
    restarted = Assembler(bench.spool, SETTINGS, bench.clock)
    assert restarted.step() == []
    bench.clock.now_s += 20
    second = only(restarted.step())
    assert second.generation == first.generation


def test_what_was_done_stays_done_after_a_restart(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.done(study)
    restarted = Assembler(bench.spool, SETTINGS, bench.clock)
    restarted.step()
    assert restarted.waiting() == []


def test_what_was_put_back_comes_again_after_a_quiet_period(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.put_back(study)
    assert bench.after(19) == []
    assert len(bench.after(1)) == 1


def test_a_series_marked_by_hand_is_looked_at_again(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.done(study)
    bench.spool.mark_dirty(bench.key)
    bench.after(0)
    assert only(bench.after(20)).generation == study.series[0].generation


WRITERS = 8
STUDIES = 50
WRITE_SLICES = """
import sys
from pathlib import Path
from node.spool import Spool
from tests.receiving import ct_slice, keep
folder, number, *studies = sys.argv[1:]
spool = Spool.open(Path(folder))
slices = [ct_slice(study, study + ".1", int(number), size=8) for study in studies]
print("ready", flush=True)
sys.stdin.readline()
for dataset in slices:
    keep(spool, dataset)
"""


def writer(spool: Spool, number: int, studies: list[str]) -> subprocess.Popen[str]:
    """A process that will write its slice of each study, one after the other, once it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITE_SLICES, str(spool.path), str(number), *studies],
        cwd=Path(__file__).resolve().parents[2],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_of_400_slices_written_under_an_eager_assembler_none_is_lost(tmp_path: Path) -> None:
    """No quiet at all: a study is claimed, told and done between any two steps of those who write it."""
    spool, studies = Spool.open(tmp_path / "spool"), [new_uid() for _ in range(STUDIES)]
    assembler = Assembler(spool, AssemblySettings(series_quiet_s=0, study_quiet_s=0, gap_patience_s=0))
    # two processes, and six threads that keep this one's assembler company
    processes = [writer(spool, number, studies) for number in range(2)]
    own = [[ct_slice(study, f"{study}.1", number, size=8) for study in studies] for number in range(2, WRITERS)]
    threads = [threading.Thread(target=lambda slices: [keep(spool, one) for one in slices], args=(one,)) for one in own]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for thread in threads:
        thread.start()
    told: dict[str, list[int]] = {study: [] for study in studies}
    is_writing = True
    while is_writing:
        # looked at first: what is written before the last step must be in it
        is_writing = any(process.poll() is None for process in processes) or any(one.is_alive() for one in threads)
        for ready in assembler.step():
            told[ready.study_key].append(len(ready.series[0].files))
            assembler.done(ready)
    for process in processes:
        process.communicate()
    assert {counts[-1] for counts in told.values()} == {WRITERS}


# --- bad files


def test_an_unreadable_instance_is_quarantined_and_the_rest_goes_on(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    broken = ct_slice(bench.study, bench.series)
    keep(bench.spool, broken, data=b"\x08\x00\x05\x00UI" + b"\xff" * 30)
    bench.after(0)
    assert len(only(bench.after(20)).files) == 8
    assert len(bench.spool.quarantined()) == 1


def test_a_study_of_which_nothing_is_usable_ends_quietly(bench: Bench) -> None:
    keep(bench.spool, ct_slice(bench.study, bench.series), data=b"\x08\x00\x05\x00UI" + b"\xff" * 30)
    bench.after(0)
    assert bench.after(20) == []
    assert bench.assembler.waiting() == []
    assert list((bench.spool.path / "claimed").iterdir()) == []


# --- waiting, with the reason


def test_what_waits_says_for_what(bench: Bench) -> None:
    bench.arrive(*range(1, 9))
    bench.after(0)
    bench.after(4)
    assert bench.reasons() == ["quiet for 4 of 10 s"]
    bench.after(8)
    assert bench.reasons() == ["study quiet for 12 of 20 s"]
    (waiting,) = bench.assembler.waiting()
    assert (waiting.key, waiting.instance_count) == (bench.key, 8)


def test_a_series_with_a_gap_waits_and_then_goes_on_and_says_so(bench: Bench) -> None:
    bench.arrive(*range(1, 9), *range(11, 17))
    bench.after(0)
    assert bench.after(20) == []
    assert bench.reasons() == ["gap of 2 slices between 40 and 55 mm; waits for 20 of 300 s"]
    assert bench.after(279) == []
    assert only(bench.after(1)).incomplete == "gap of 2 slices between 40 and 55 mm"


def test_a_gap_that_is_filled_ends_the_wait(bench: Bench) -> None:
    bench.arrive(*range(1, 9), *range(11, 17))
    bench.after(0)
    bench.after(100)
    bench.arrive(9, 10)
    bench.after(0)
    series = only(bench.after(20))
    assert (len(series.files), series.incomplete) == (16, None)


def test_a_sibling_says_for_whom_it_waits(bench: Bench) -> None:
    bench.arrive(*range(1, 9), *range(11, 17))
    bench.arrive(*range(1, 9), series=new_uid())
    bench.after(0)
    bench.after(25)
    assert sorted(bench.reasons()) == [
        "gap of 2 slices between 40 and 55 mm; waits for 25 of 300 s",
        "waits for another series of its study",
    ]


# --- repeats


def test_a_corrected_header_replaces_the_older_one(bench: Bench) -> None:
    datasets = bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.done(study)
    datasets[3].AccessionNumber = "CORRECTED"
    keep(bench.spool, datasets[3])
    bench.after(0)
    series = only(bench.after(20))
    assert [str(header.AccessionNumber) for header in series.headers.values()].count("CORRECTED") == 1
    assert series.generation != study.series[0].generation
    assert series.held is None


def test_a_study_sent_again_to_another_title_carries_that_title(bench: Bench) -> None:
    datasets = bench.arrive(*range(1, 9))
    bench.after(0)
    (study,) = bench.after(20)
    bench.assembler.done(study)
    for dataset in datasets:
        keep(bench.spool, dataset, called_ae="CRLM-PRE")
    bench.after(0)
    series = only(bench.after(20))
    assert {header.file_meta.ReceivingApplicationEntityTitle for header in series.headers.values()} == {"CRLM-PRE"}


def test_two_images_under_one_uid_hold_the_series(bench: Bench) -> None:
    datasets = bench.arrive(*range(1, 9))
    first = bytes(datasets[3].PixelData)
    datasets[3].PixelData = b"\1\2" * (len(first) // 2)
    keep(bench.spool, datasets[3])
    bench.after(0)
    series = only(bench.after(20))
    assert series.held == "two images under one SOP Instance UID (1 of the series' instances)"
    (kept,) = [path for path in series.files if path.stem == datasets[3].SOPInstanceUID]
    assert dcmread(kept).PixelData == first
    assert len(bench.spool.aside(bench.key)) == 1


def test_the_hold_outlives_a_restart(bench: Bench) -> None:
    datasets = bench.arrive(*range(1, 9))
    datasets[3].PixelData = b"\1\2" * (len(datasets[3].PixelData) // 2)
    keep(bench.spool, datasets[3])
    bench.after(0)
    bench.assembler.done(bench.after(20)[0])
    restarted = Assembler(bench.spool, SETTINGS, bench.clock)
    bench.spool.mark_dirty(bench.key)
    restarted.step()
    bench.clock.now_s += 20
    assert only(restarted.step()).held is not None


def test_judging_repeats_does_not_start_the_wait_anew(bench: Bench) -> None:
    datasets = bench.arrive(*range(1, 9))
    datasets[0].AccessionNumber = "CORRECTED"
    keep(bench.spool, datasets[0])
    bench.after(0)
    assert len(bench.after(20)) == 1
