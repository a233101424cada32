"""The kinds of values that configuration files hold, each with the sentence that refuses a wrong one."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def matching(pattern: str, rule: str) -> AfterValidator:
    """Text that matches `pattern` whole; else the fault says `rule`, for nobody reads a pattern with pleasure."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"[{value[0]:g}, {value[1]:g}] holds no value; write the lower bound first")
    return value


AeTitle = Annotated[
    str,
    matching(
        r"(?=.{1,16}$)[^\\\x00-\x1f]*[^\\\x00-\x20][^\\\x00-\x1f]*",
        "an AE title has 1 to 16 characters, not all of them spaces, and no backslash",
    ),
]
Name = Annotated[
    str, matching(r"[a-z0-9][a-z0-9-]{0,62}", "a name has lower-case letters, digits and hyphens, 63 at most")
]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[float, float], AfterValidator(_in_order)]
_Days = Annotated[int, Field(ge=0, le=3650)]
Days = Annotated[tuple[_Days, _Days], AfterValidator(_in_order)]
"""From so many days to so many, both counted in; ten years at most."""


class Strict(BaseModel):
    """Frozen, and a key that is not known is an error: a typing slip must not silently mean the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_an_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}; put \\ before a bracket that is meant as text") from error
    return value


Pattern = Annotated[str, AfterValidator(_is_an_expression)]
"""A regular expression, searched for without regard to upper and lower case."""
