"""A job is named as lists show it, or by any beginning that is only its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from node.cli_jobs import Room
from node.errors import NodeError

KNOWN = ("6dd5f9667d73aa00-1", "6dd5f9667d73aa00-2", "6dd5ee00aa11bb22-1", "0c0ffee0beef0000-12")


def room() -> Any:
    jobs = SimpleNamespace(list=lambda: [SimpleNamespace(job_id=job_id) for job_id in KNOWN])
    return Room(None, None, None, jobs)  # type: ignore[arg-type]  # only the jobs are asked


@pytest.mark.parametrize(
    ("told", "job_id"),
    [
        ("6dd5f966-1", KNOWN[0]),
        ("6dd5f966-2", KNOWN[1]),
        ("6dd5e", KNOWN[2]),
        ("0c0f-12", KNOWN[3]),
        (KNOWN[1], KNOWN[1]),
    ],
)
def test_the_short_name_of_a_list_and_any_beginning_are_taken(told: str, job_id: str) -> None:
    assert room().job_id(told) == job_id


@pytest.mark.parametrize(("told", "why"), [("6dd5", "3 jobs begin with"), ("6dd5f966", "2 jobs"), ("0c0f-1", "no job")])
def test_a_beginning_of_several_or_none_is_refused(told: str, why: str) -> None:
    with pytest.raises(NodeError, match=why):
        room().job_id(told)
