"""A lossless WebP of as many code tables as there can be, each of few bits (WebP lossless bitstream, 5 and 6)."""

from __future__ import annotations

import struct

SIDE, BLOCK_BITS = 1024, 2
GROUPS = (SIDE >> BLOCK_BITS) ** 2  # 65,536


class _Bits:
    def __init__(self) -> None:
        self.bits: list[str] = []

    def write(self, value: int, count: int) -> None:
        self.bits.append(format(value, f"0{count}b")[::-1])

    def to_bytes(self) -> bytes:
        text = "".join(self.bits)
        return int(text[::-1], 2).to_bytes(-(-len(text) // 8), "little")


def webp_of_tables() -> bytes:
    """A black picture of 1024 x 1024, each block of 4 x 4 with codes of its own."""
    bits = _Bits()
    for value, count in ((0x2F, 8), (SIDE - 1, 14), (SIDE - 1, 14), (0, 1), (0, 3)):
        bits.write(value, count)
    bits.write(0, 1)  # no transform
    bits.write(0, 1)  # no colour cache
    bits.write(1, 1)  # codes by block
    bits.write(BLOCK_BITS - 2, 3)
    bits.write(0, 1)  # of the picture of codes: no colour cache
    _bytes_as_they_are(bits, 280)  # green, the low byte of the code's number
    _bytes_as_they_are(bits, 256)  # red, the high one
    for _ in range(3):  # blue, alpha, distance
        _always_0(bits)
    for number in range(GROUPS):
        for byte in (number & 255, number >> 8):
            bits.write(int(format(byte, "08b")[::-1], 2), 8)  # codes begin with their highest bit
    for _ in range(5 * GROUPS):
        _always_0(bits)
    data = bits.to_bytes() + bytes(8)
    data += b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def _always_0(bits: _Bits) -> None:
    bits.write(0b0001, 4)  # a simple code, of one symbol, of one bit, which is 0


def _bytes_as_they_are(bits: _Bits, alphabet: int) -> None:
    """A code of 8 bits for each byte, none for the rest: lengths 8 and 0, coded in a bit each."""
    bits.write(0, 1)  # not simple
    order = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8)
    bits.write(len(order) - 4, 4)
    for symbol in order:
        bits.write(symbol in (0, 8), 3)
    bits.write(0, 1)  # lengths of all symbols follow
    for symbol in range(alphabet):
        bits.write(symbol < 256, 1)
