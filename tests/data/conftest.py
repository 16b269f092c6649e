from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def read():
    """`read(log)`: all usable rows as (label, *texts), and what was left out."""

    def texts(chunk):
        return zip(*(v.gather(codes).to_list() for codes, v in chunk.columns), strict=True)

    def read(log):
        chunks = list(log.chunks())
        rows = [
            (label, *row[: len(log.fields)])
            for chunk in chunks
            for label, row in zip(chunk.labels.tolist(), texts(chunk), strict=True)
        ]
        complaints = [chunk.complaint for chunk in chunks if chunk.complaint]
        return rows, sum(len(chunk.bad) for chunk in chunks), complaints[:1]

    return read


@pytest.fixture(scope="session")
def write():
    """`write(path, text)`: the path, with a file of that text or these bytes."""

    def write(path, text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
