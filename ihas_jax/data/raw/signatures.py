"""Recognises files that are not text by their first bytes, and names a command to convert them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

HEAD_BYTES = 1 << 9

_PACKED = (
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", "unzip -p {path} > {text}"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "compressed with bzip2", "bunzip2 -k {path}"),
    (rb"\xfd7zXZ\x00", "compressed with xz", "unxz -k {path}"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd {path}"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4", "unlz4 {path}"),
    (rb"\x1f\x9d", "compressed with compress", "uncompress -k {path}"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {path}"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unrar x {path}"),
    (rb"(?s).{257}ustar", "a tar archive", "tar -xf {path}"),
)
_ENCODINGS = (
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "UTF-32"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16"),
    # without a mark the zeros of two letters tell
    (rb"[^\0]\0\0\0[^\0]\0\0\0", "UTF-32LE"),
    (rb"\0\0\0[^\0]\0\0\0[^\0]", "UTF-32BE"),
    (rb"[^\0]\0[^\0]\0", "UTF-16LE"),
    (rb"\0[^\0]\0[^\0]", "UTF-16BE"),
)
_BINARY = ((b"PAR1", "Parquet"), (b"ARROW1\0", "an Arrow file"), (b"Obj\x01", "an Avro file"))


def explain_foreign(path: Path, head: bytes) -> str | None:
    """Says what a file is and how to convert it to text; None if it may be text.

    Args:
      path: The file, for the command.
      head: The first `HEAD_BYTES` bytes of the file.
    """
    names = {"path": shlex.quote(str(path)), "text": shlex.quote(str(path.with_suffix(".txt")))}
    for pattern, what, command in _PACKED:
        if re.match(pattern, head):
            if path.suffix == ".xlsx":
                return f"{path} is a workbook, not text; save the sheet as CSV in UTF-8"
            return f"{path} is {what}, which is not read; unpack it: {command.format(**names)}"
    for magic, what in _BINARY:
        if head.startswith(magic):
            remedy = "write it as CSV or Parquet"
            if what == "Parquet":
                remedy = "`prepare.py table` reads it, if all files of the log are Parquet"
            return f"{path} is {what}, not text; {remedy}"
    encoding = next((name for mark, name in _ENCODINGS if re.match(mark, head)), None)
    if encoding is None:
        return None
    command = "iconv -f {encoding} -t UTF-8 {path} > {text}".format(encoding=encoding, **names)
    return f"{path} is {encoding} text, not UTF-8; convert it: {command}"
