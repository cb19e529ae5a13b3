#!/usr/bin/env python3.12
"""Writes printable.rs beside this file: which characters Python 3.12 prints as they are.

Run it by hand with a Python whose Unicode tables are of version 15.0 (3.12 is), from anywhere; it refuses any other,
because the table would then be another Python's. The flags on nodes that the reference agent kept were named under 3.12.
"""

import pathlib
import sys
import unicodedata

VERSION = "15.0.0"
TARGET = pathlib.Path(__file__).with_name("printable.rs")
PER_LINE = 12

HEAD = f"""\
//! Which characters are printable by `str.isprintable`: Unicode {VERSION}, as in Python 3.12. Written by make_table.py.

/// Where printable and unprintable take turns, ascending; everything before the first is unprintable.
#[rustfmt::skip]
pub(super) const TURNS: [u32; COUNT] = [
"""


def main() -> int:
    if unicodedata.unidata_version != VERSION:
        print(f"make_table: found Unicode {unicodedata.unidata_version}, expected {VERSION}", file=sys.stderr)
        return 1
    turns = []
    printable = False
    for point in range(sys.maxunicode + 1):
        if chr(point).isprintable() != printable:
            printable = not printable
            turns.append(point)
    rows = (turns[at : at + PER_LINE] for at in range(0, len(turns), PER_LINE))
    body = "".join("    " + " ".join(f"0x{turn:x}," for turn in row) + "\n" for row in rows)
    TARGET.write_text(HEAD.replace("COUNT", str(len(turns))) + body + "];\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
