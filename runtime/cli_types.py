"""How the values of `stylize-run`'s options are written."""

from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from typing import Generic, TypeVar

import click

from stylize.runtime.selection import seconds_from_text

__all__ = ["ASSIGNMENT", "NUMBERS", "RATE", "SIZE", "TIME", "VALUE_RANGE", "ChoiceOf", "Parsed"]

ValueT = TypeVar("ValueT")
EnumT = TypeVar("EnumT", bound=StrEnum)


class Parsed(click.ParamType[ValueT], Generic[ValueT]):
    """A type that is read from text by a function whose ValueError the user sees."""

    def __init__(self, name: str, parse: Callable[[str], ValueT]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ValueT:
        """Parse the text of the option."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ChoiceOf(click.ParamType[EnumT], Generic[EnumT]):
    """One member of an enum, written by its value."""

    name = "choice"

    def __init__(self, members: type[EnumT]) -> None:
        self._members = members
        self._values = click.Choice([member.value for member in members])

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The values, as the help shows them."""
        return self._values.get_metavar(param, ctx)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> EnumT:
        """The member of that value."""
        return self._members(self._values.convert(str(value), param, ctx))


def _value_range(text: str) -> tuple[float, float]:
    black, dots, white = text.partition("..")
    try:
        limits = float(black), float(white)
    except ValueError as error:
        raise ValueError(f"{text!r} is not of the form 0..255") from error
    if not dots or not limits[0] < limits[1]:
        raise ValueError(f"{text!r} is not black..white with black below white")
    return limits


def _size(text: str) -> tuple[int | None, int | None]:
    width, _, height = text.partition("x")
    try:
        sides = tuple(None if side == "-1" else int(side) for side in (width, height))
    except ValueError as error:
        raise ValueError(f"{text!r} is not of the form 1280x720, 1280x-1 or -1x720") from error
    if sides == (None, None):
        raise ValueError(f"{text!r} leaves both sides open: give one")
    return sides[0], sides[1]


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a rate: write 25, 29.97 or 30000/1001") from error


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(",") if part.strip().isdecimal())
    if len(numbers) != text.count(",") + 1 or len({*numbers}) != len(numbers):
        raise ValueError(f"{text!r} is not of the form 0,1: different numbers")
    return numbers


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} is not of the form key=value")
    return key, value


VALUE_RANGE = Parsed("BLACK..WHITE", _value_range)
"""`0..255`: two numbers."""
SIZE = Parsed("WxH", _size)
"""`1280x720`, or with -1 for a side that keeps the proportions: two integers or None."""
RATE = Parsed("FPS", _rate)
"""`25` or `30000/1001`: an exact fraction."""
TIME = Parsed("TIME", seconds_from_text)
"""`12.5` or `1:02:30.5`: exact seconds."""
NUMBERS = Parsed("N,N", _numbers)
"""`0,1`: different integers from 0 on."""
ASSIGNMENT = Parsed("KEY=VALUE", _assignment)
"""`key=value`: two strings."""
