"""What a file is by its first bytes, and the command that makes text of what is none."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

HEAD_BYTES = 1 << 12

_NUL_SHARE = 0.1
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
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BINARY = ((b"PAR1", "Parquet"), (b"ARROW1\0", "an Arrow file"), (b"Obj\x01", "an Avro file"))


def explain_foreign(path: Path, head: bytes) -> str | None:
    """Says what a file is and what makes text of it; None where it may be text.

    Args:
      path: The file, for the command.
      head: Its first bytes, `HEAD_BYTES` of them where there are as many.
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
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    encoding = encoding or _unmarked_encoding(head)
    if encoding is None:
        return None
    if not encoding:
        return f"{path} holds bytes of zero; it is no text file"
    command = "iconv -f {encoding} -t UTF-8 {path} > {text}".format(encoding=encoding, **names)
    return f"{path} is {encoding} text, not UTF-8; convert it: {command}"


def _unmarked_encoding(head: bytes) -> str | None:
    """The encoding that many bytes of zero tell of, "" where they tell of none."""
    if head.count(0) <= _NUL_SHARE * len(head):
        return None
    zeros = [head[place::4].count(0) for place in range(4)]
    if min(zeros[:3]) > 0 or min(zeros[1:]) > 0:
        wide = {0: "UTF-32LE", 3: "UTF-32BE"}
        return next((name for place, name in wide.items() if not zeros[place]), "")
    if not zeros[0] + zeros[2]:
        return "UTF-16LE"
    return "UTF-16BE" if not zeros[1] + zeros[3] else ""
