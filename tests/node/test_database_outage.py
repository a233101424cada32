"""A database that is away is told of in few words, by whoever meets it first; only the clock is the test's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import OperationalError

from node.database import Database, create_database_engine
from node.database_outage import Outage
from node.jobs_logging import LIBRARY, join_logs

REFUSED = "OperationalError: Connection refused"


@pytest.fixture
def hands() -> list[float]:
    """The clock, in seconds."""
    return [0.0]


@pytest.fixture
def outage(hands: list[float]) -> Outage:
    return Outage(clock=lambda: hands[0])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged so far, of all loggers."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_said_once_then_at_growing_intervals_and_once_when_it_is_over(
    outage: Outage, hands: list[float], said: Callable[[], list[str]]
) -> None:
    moments = []
    for second in range(3000):
        hands[0] = float(second)
        before = len(said())
        outage.note(REFUSED)
        if len(said()) > before:
            moments.append(second)
    assert moments == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]
    assert outage.is_on
    outage.over()
    outage.over()
    assert not outage.is_on
    assert said()[0] == "database does not answer; what is to be written waits for it"
    assert set(said()[1:-1]) == {"database still does not answer"}
    assert said()[-1] == "database answers again"


def test_the_first_sentence_names_the_fault_and_the_last_how_long_it_was(
    outage: Outage, hands: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage.note(REFUSED)
    hands[0] = 42.0
    outage.over()
    first, last = (vars(record)["facts"] for record in caplog.records)
    assert first["reason"] == REFUSED
    assert last == {"was_away_s": 42.0}


def test_the_next_outage_is_said_at_once(outage: Outage, hands: list[float], said: Callable[[], list[str]]) -> None:
    for second in (0.0, 1.0):
        hands[0] = second
        outage.note(REFUSED)
        outage.over()
    assert len(said()) == 4


def test_a_database_that_always_answered_says_nothing(outage: Outage, said: Callable[[], list[str]]) -> None:
    outage.over()
    assert said() == []


def test_whoever_asks_a_server_that_is_not_there_notes_the_outage(free_port: int) -> None:
    database = Database(create_database_engine(f"postgresql+psycopg://crlm@127.0.0.1:{free_port}/crlm"))
    with pytest.raises(OperationalError), database.read():
        pass
    assert database.outage.is_on
    with pytest.raises(OperationalError), database.begin():
        pass
    database.close()


@pytest.fixture
def library(outage: Outage) -> Iterator[logging.Logger]:
    """The logger of the durable-jobs library, joined with ours and left as it was."""
    logger = logging.getLogger(LIBRARY)
    before = (logger.handlers[:], logger.filters[:])
    join_logs(outage)
    yield logger
    logger.handlers, logger.filters = before


def test_the_librarys_records_of_a_lost_database_become_one_sentence(
    library: logging.Logger, outage: Outage, said: Callable[[], list[str]]
) -> None:
    for number in range(50):
        library.warning(
            f"Exception encountered in queue thread for segment@{number}: (psycopg.OperationalError) connection "
            'failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused\n\tIs it running?'
        )
    assert said() == ["database does not answer; what is to be written waits for it"]
    assert outage.is_on


@pytest.mark.parametrize(
    "text",
    ["workflow was recovered", "Database connection failed: (sqlite3.OperationalError) database is locked. Retrying"],
)
def test_what_else_the_library_says_is_said(
    text: str, library: logging.Logger, outage: Outage, said: Callable[[], list[str]]
) -> None:
    library.warning(text)
    assert said() == [text]
    assert not outage.is_on


def test_the_library_is_joined_once_however_often_jobs_are_launched(library: logging.Logger, outage: Outage) -> None:
    join_logs(outage)
    join_logs(outage)
    assert len(library.filters) == 1
