"""Times that are written as text."""

from __future__ import annotations

import polars as pl

from ihas_jax.errors import InputError

_TIME = (
    r"^(\d{4}-\d{2}-\d{2})(?:[ T](\d{2}:\d{2})(:\d{2})?(?:[.,](\d+))?"
    r"\s?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)
CLOCK = "%Y-%m-%d %H:%M:%S"
"""How times are spelled, in the letters of strftime."""


def read_time(text: pl.Expr) -> pl.Expr:
    """Reads times of ISO 8601, with a blank or a T, in UTC; other text becomes null."""
    day, minute, second, fraction, zone = (text.str.extract(_TIME, n) for n in range(1, 6))
    clock = day + " " + minute.fill_null("00:00") + second.fill_null(":00")
    local = clock.str.to_datetime(CLOCK, time_unit="us", strict=False)
    sign, hours, minutes = (zone.str.extract(r"^([+-])(\d{2}):?(\d{2})?$", n) for n in range(1, 4))
    offset = hours.cast(pl.Int64) * 60 + minutes.fill_null("0").cast(pl.Int64)
    offset = pl.when(sign == "-").then(-offset).otherwise(offset).fill_null(0)
    utc = local - pl.duration(minutes=offset)
    digits = fraction.fill_null("").str.strip_chars_end("0")
    return utc.dt.to_string(CLOCK) + pl.when(digits == "").then(pl.lit("")).otherwise("." + digits)


def parse_times(texts: pl.Series, pattern: str) -> pl.Series:
    """Reads times by a pattern of strftime; text that does not fit becomes null.

    Raises:
      InputError: The pattern cannot be used.
    """
    if "%M" not in pattern and any(hour in pattern for hour in ("%H", "%I")):
        texts, pattern = texts + "|00", f"{pattern}|%M"  # Polars reads no hour without minutes
    try:
        return texts.str.strptime(pl.Datetime("us"), pattern, strict=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--time-format {pattern!r} cannot be used ({reason})") from None
