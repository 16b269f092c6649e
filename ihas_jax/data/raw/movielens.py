"""MovieLens-1M as a click log: a rating above 3 is a click."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ihas_jax.data.raw.logs import START, Log, Position, Rows
from ihas_jax.data.raw.records import Complaint
from ihas_jax.errors import InputError

MOVIELENS_FIELDS = (
    *("user", "movie", "gender", "age", "occupation", "zip"),
    *("year", "genres", "genre", "hour", "month"),
)
MOVIELENS_COLUMNS = ("liked", *MOVIELENS_FIELDS, "rating", "time")


@dataclass(frozen=True)
class MovieLensLog(Log):
    """MovieLens-1M as published, a zip of ratings, users and movies, which is read as one chunk."""

    def read(
        self, names: Sequence[str], start: Position = START, stop: Position | None = None
    ) -> Iterator[Rows]:
        """Reads the log, see `Log.read`; a rating above 3 is a click, and times are in UTC."""
        if start != START:
            return
        ratings, bad, complaint = self._member("ratings.dat", ("user", "movie", "rating", "time"))
        users = self._lookup("users.dat", ("user", "gender", "age", "occupation", "zip"))
        movies = self._lookup("movies.dat", ("movie", "title", "genres")).select(
            "movie",
            "genres",
            genre=pl.col("genres").str.split("|").list.first(),
            year=pl.col("title").str.extract(r"\((\d{4})\)\s*$").fill_null(""),
        )
        stars = pl.col("rating").cast(pl.Int8, strict=False)
        time = pl.from_epoch(pl.col("time").cast(pl.Int64, strict=False))
        rows = (
            ratings.join(users, on="user", how="left", maintain_order="left")
            .join(movies, on="movie", how="left", maintain_order="left")
            .with_columns(
                liked=(stars > 3).cast(pl.UInt8),
                hour=time.dt.hour().cast(pl.String),
                month=time.dt.month().cast(pl.String),
                reason=pl.when(stars.is_between(1, 5).not_() | stars.is_null())
                .then(pl.lit("the rating is not 1 to 5"))
                .when(time.is_null())
                .then(pl.lit("the time is not in seconds"))
                .when(pl.col("gender").is_null())
                .then(pl.lit("the user is not in users.dat"))
                .when(pl.col("genre").is_null())
                .then(pl.lit("the movie is not in movies.dat")),
            )
        )
        wrong = rows.filter(pl.col("reason").is_not_null()).select("line", "reason")
        if wrong.height:
            first = Complaint(*wrong.row(0))
            complaint = min(complaint, first) if complaint else first
        places = np.sort(np.concatenate([bad, wrong["line"].to_numpy()]))
        rows = rows.filter(pl.col("reason").is_null())
        file = self._name("ratings.dat")
        frame, lines = rows.select(names), rows["line"].to_numpy()
        yield Rows(frame, lines, places, complaint, 1.0, Position(0, 1, 1), file)

    def _lookup(self, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
        """Reads users.dat or movies.dat, in which a bad line is always an error."""
        frame, _, complaint = self._member(name, columns)
        if complaint:
            raise InputError(f"{self._name(name)}, line {complaint.line}: {complaint.reason}")
        if frame[columns[0]].is_duplicated().any():
            raise InputError(f"{name} in {self.paths[0]} lists a {columns[0]} twice")
        return frame.drop("line")

    def _member(
        self, name: str, columns: tuple[str, ...]
    ) -> tuple[pl.DataFrame, np.ndarray, Complaint | None]:
        """The well-formed lines of a file as columns, the numbers of the bad lines, a complaint."""
        try:
            with zipfile.ZipFile(self.paths[0]) as archive:
                paths = [path for path in archive.namelist() if Path(path).name == name]
                if len(paths) != 1:
                    raise InputError(
                        f"{self.paths[0]} does not hold one {name}; it holds "
                        f"{', '.join(archive.namelist())}. Give ml-1m.zip as it was published"
                    )
                content = archive.read(paths[0])
        except FileNotFoundError:
            raise InputError(f"{self.paths[0]}: no such file") from None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{self.paths[0]} is no zip file, or a damaged one ({error}); fetch it again"
            ) from None
        text = io.BytesIO(content.decode("latin-1").encode())
        lines = (
            pl.read_lines(text, name="text", row_index_name="line", row_index_offset=1)
            .with_columns(pl.col("text").str.strip_chars_end("\r"))
            .filter(pl.col("text") != "")
            .with_columns(parts=pl.col("text").str.split("::"))
            .with_columns(found=pl.col("parts").list.len())
        )
        wrong = lines.filter(pl.col("found") != len(columns))
        complaint = None
        if wrong.height:
            reason = f"has {wrong['found'][0]} columns, not {len(columns)}"
            complaint = Complaint(wrong["line"][0], reason)
        frame = lines.filter(pl.col("found") == len(columns)).select(
            "line", *(pl.col("parts").list.get(i).alias(c) for i, c in enumerate(columns))
        )
        return frame, wrong["line"].to_numpy(), complaint

    def _name(self, name: str) -> str:
        return f"{name} in {self.paths[0]}"
