"""Converters for the options of a dataset specification: from text to a value.

Each raises ValueError with the allowed values as its message: "a whole number from 0".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Converter: TypeAlias = Callable[[str], Any]


def choice(*allowed: str) -> Converter:
    """A converter that accepts only some words.

    >>> choice("keep", "drop")("keep")
    'keep'
    >>> choice("keep", "drop")("sort")
    Traceback (most recent call last):
    ValueError: one of keep, drop
    """

    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return convert


def yes_no(text: str) -> bool:
    """Convert "yes" and "no" to True and False."""
    return bool(choice("yes", "no")(text) == "yes")


def whole_number(text: str) -> int:
    """Convert digits to an integer of 0 or more.

    >>> whole_number("200")
    200
    """
    if not text.isdecimal():
        raise ValueError("a whole number from 0")
    return int(text)


def number(text: str) -> float:
    """Convert a decimal number, "0.2"."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None
