"""The ids of a row by the vocabulary beside this file, in plain Python.

    encode = Encoder("vocabulary.json")
    encode({"site": "a1b2", "hour": "2014-10-21 23:00", "age": "31.0", "item": None})  # [17, ...]

Values are text as it stands in a file, or None where there is none. It gets the ids that `ihas_jax`
gives; a value without an id has that of all other values. A value is refused (ValueError) where
`ihas_jax` refuses it, which is text in a field of numbers and a number of 2^53 or more, written
with a point or an exponent, in a field of whole numbers; and beyond that a time of the year 0,
or one whose zone moves it out of the years 1 to 9999, and -2^63 or less in a numeric field.
"""

from __future__ import annotations

import csv
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

WORDS = {"", "nan", "na", "n/a", "<na>", "none", "nat", "null"}  # no number, in lower case
TRUTHS = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"(-?(?:0|[1-9]\d{0,14}))\.0+")
TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:[.,](\d+))?"
    r"[^\S\x1c-\x1f]?(Z|z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


def read_number(text: str) -> float | None:
    """A finite number; true and false are 1 and 0."""
    number = TRUTHS.get(text, float(text) if NUMBER.fullmatch(text) else math.inf)
    return number if math.isfinite(number) else None


def read_time(text: str) -> str | None:
    """A time of ISO 8601 in UTC."""
    if not (found := TIME.fullmatch(text)):
        return None
    day, minute, second, fraction, zone = found.groups()
    year, month, date = map(int, day.split("-"))
    hour, minutes = map(int, (minute or "00:00").split(":"))
    if not year:
        raise ValueError(f"{text!r} is a time of the year 0")
    try:
        time = datetime(year, month, date, hour, minutes)
    except ValueError:  # such as 30 February
        return None
    if (seconds := int((second or ":00")[1:])) > 60:
        return None
    shift = timedelta()
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "") + "00"
        shift = int(zone[0] + "1") * timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]))
    try:
        time += timedelta(seconds=seconds) - shift
    except OverflowError:
        raise ValueError(f"{text!r} in UTC is not in the years 1 to 9999") from None
    digits = (fraction or "").rstrip("0")
    return time.isoformat(" ") + ("." + digits if digits else "")


def spell_text(text: str) -> str:
    """Whole numbers and truth values in one spelling."""
    whole = WHOLE.fullmatch(text)
    spelled = text.lower() if text in TRUTHS else whole[1] if whole else text
    return "0" if spelled == "-0" else spelled


def spell_integer(text: str, number: float | None) -> str:
    """A whole number without a plus, leading zeros, a point or an exponent."""
    if re.fullmatch(r"[+-]?\d+", text):
        digits = text.lstrip("+-").lstrip("0") or "0"
        return "-" + digits if text[0] == "-" and digits != "0" else digits
    if number is None or number % 1:
        return text
    if abs(number) < 2**53:
        return str(int(number))
    raise ValueError(f"{text!r} is too large to tell the whole number")


def log_square(number: float) -> str:
    """The code of a number in a numeric field."""
    if number <= -(2.0**63):
        raise ValueError(f"{number} is -2^63 or below")
    whole = int(number)
    return str(int(math.log(whole) ** 2) if number >= 3 else whole - 2)


READ: dict[str, Any] = {"text": spell_text, "time": read_time}  # the others read numbers


class Encoder:
    """Encodes rows by a vocabulary."""

    def __init__(self, path: str | Path) -> None:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        self.fields, self.missing = content["fields"], set(content["missing"])
        for field in self.fields:
            read = READ.get(field["kind"], read_number)
            field["lost"] = {read(word) for word in self.missing} - {None}
            field["numbers"] = dict(map(tuple, field["numbers"]))

    def __call__(self, row: dict[str, str | None]) -> list[int]:
        """The ids of a row, in the order of the fields; other columns are ignored."""
        ids = []
        for field in self.fields:
            try:
                ids.append(self.find(field, row[field["name"]]))
            except ValueError as error:
                raise ValueError(f"{field['name']}: {error}") from None
        return ids

    def read(self, path: str | Path) -> Iterator[list[int]]:
        """The ids of the rows of a CSV file with a header, whose columns may have any order."""
        line = 1
        with Path(path).open("rb") as file:
            file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)  # a byte-order mark
            rows = csv.reader((text.decode() for text in file), strict=True)
            try:
                header = next(rows, [])
                for name in (field["name"] for field in self.fields):
                    if (times := header.count(name)) != 1:
                        raise ValueError(
                            f"has {times} columns {name!r}, not 1: {', '.join(header)}"
                        )
                line = rows.line_num + 1
                for row in rows:
                    if row and len(row) != len(header):
                        raise ValueError(f"has {len(row)} columns, not {len(header)}")
                    if row:
                        yield self(dict(zip(header, row, strict=True)))
                    line = rows.line_num + 1
            except (ValueError, csv.Error) as error:
                raise ValueError(f"{path}, line {line}: {error}") from None

    def find(self, field: dict[str, Any], text: str | None) -> int:
        """The id of a value of a field."""
        if not isinstance(text := "" if text is None else text, str):
            raise TypeError(f"{field['name']} is {text!r}; values are text or None")
        kind, ids, other = field["kind"], field["ids"], field["other"]
        if text in ids and kind not in ("numeric", "quantile"):
            return ids[text]
        value: Any = READ.get(kind, read_number)(text)
        words = {""} if kind == "text" else WORDS
        word = text if kind == "text" else text.lower()
        if word in words or text in self.missing or value in field["lost"]:
            return ids.get("NULL" if kind in ("numeric", "quantile") else "", other)
        if kind in ("numeric", "quantile") and value is None:
            raise ValueError(f"{text!r} is not a number")
        if kind == "quantile":
            return field["bins"][bisect_right(field["edges"], value)]
        if kind == "float":
            return field["numbers"].get(value, other)
        if kind == "numeric":
            return ids.get(log_square(value), other)
        if kind == "integer":
            return ids.get(spell_integer(text, value), other)
        if kind == "boolean":
            return ids.get({1: "true", 0: "false"}.get(value, text), other)
        return ids.get(text if value is None else value, other)
