"""Makes bad binary files from valid ones: flipped bits, truncation, and headers that lie. All from a number."""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence

from mutations import MakeInput, mutate_value

# Sizes and offsets that readers are often not prepared for.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
SIZES = (1, 2, 4, 8)


def mutate_binary(content: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """`content` after 1 to 16 random changes; parts of `others` are spliced in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        start, kind = rng.randrange(len(data) + 1), rng.randrange(10)
        if kind <= 2:
            data[start : start + 1] = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[start : start + 1])
        elif kind == 3:
            data[start : start + 1] = bytes([rng.randrange(256)])
        elif kind <= 5:
            size = rng.choice(SIZES)
            number = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
            data[start : start + size] = number.to_bytes(size, rng.choice(("little", "little", "big")))
        elif kind == 6 and rng.random() < 0.4:
            del data[start:]
        elif kind == 7:
            size, source = rng.choice((1, 4, 8, 64, 512)), rng.randrange(len(data) + 1)
            data[start : start + size] = data[source : source + size]
        elif kind == 8:
            del data[start : start + rng.choice((1, 4, 8, 64))]
        elif kind == 9 and others:
            other = rng.choice(others)
            place = rng.randrange(len(other) + 1)
            data[start : start + 64] = other[place : place + rng.choice((8, 64, 512))]
    return bytes(data)


def binary_inputs(
    seeds: Sequence[bytes], lie: Callable[[bytes, random.Random], bytes] | None = None, seed: int = 0
) -> MakeInput:
    """Mutations of the bytes of `seeds`; of every second one, `lie` changes the header."""

    def make(number: int) -> bytes:
        rng = random.Random(f"{seed}/{number}")
        content = rng.choice(seeds)
        if lie is not None and rng.random() < 0.5:
            content = lie(content, rng)
            if rng.random() < 0.7:
                return content
        return mutate_binary(content, rng, seeds)

    return make


def lie_in_npy(content: bytes, rng: random.Random) -> bytes:
    """A `.npy` file with another header of the right length."""
    shape = tuple(
        rng.choice((0, -1, 1, 3, 10, 2**16, 2**31, 2**40, 2**62, 2**63, 2**70)) for _ in range(rng.randrange(5))
    )
    descr = rng.choice(("<f2", "<f8", ">i4", "|O", "<U9999999", "|V0", "<M8[s]", "<c16", "|b1", "x", "<f2,<f4"))
    shape_text = rng.choice((repr(shape), repr(list(shape)), "(1e9, 4)", "(10,) * 9", "10", "None", "(True, 4)"))
    descr_text = rng.choice((repr(descr), repr(descr), "('<f4', (9999999, 9999))", "[('a', '<f4', (99999,))]", "1"))
    header = f"{{'descr': {descr_text}, 'fortran_order': {rng.choice((True, False, 1))}, 'shape': {shape_text}, }}"
    header = rng.choice((header, header, header[:-2], "(" * 500, f"{header[:-1]} 'x': 1}}", "-" * 9000 + "1"))
    length = rng.choice((len(header) + 1, len(header) + 1, len(header) + 1, 0, 65535, 4))
    numbers = content[10 + struct.unpack("<H", content[8:10])[0] :]
    if rng.random() < 0.3:
        return content[:6] + bytes([rng.choice((2, 3, 9)), 0]) + struct.pack("<I", length) + _text(header) + numbers
    return content[:8] + struct.pack("<H", min(length, 65535)) + _text(header) + numbers


def _text(header: str) -> bytes:
    return header.encode("latin1") + b"\n"


def lie_in_safetensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header: wrong offsets, shapes, types, names, lengths."""
    size = struct.unpack("<Q", content[:8])[0]
    text, numbers = content[8 : 8 + size], content[8 + size :]
    choice = rng.randrange(6)
    if choice <= 2:
        header = json.dumps(mutate_value(json.loads(text), rng)).encode(errors="surrogatepass")
    elif choice == 3:
        header = re.sub(
            rb"\d+", lambda match: rng.choice((match[0], b"0", b"99999999999", b"18446744073709551615")), text
        )
    elif choice == 4:
        header = re.sub(
            rb'"(F32|BF16)"', lambda _: f'"{rng.choice(("F64", "F16", "BOOL", "F8_E4M3", "F4"))}"'.encode(), text
        )
    else:
        header = text.replace(b'{"', b'{"frames":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"', 1)
    length = rng.choice(
        (len(header), len(header), len(header), 2**63, 100_000_001, 0, len(header) + len(numbers) + 1)
    )
    return struct.pack("<Q", length) + header + numbers


def lie_in_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip file in which sizes, checksums, methods or names of its entries are wrong."""
    data = bytearray(content)
    for signature, fields in (
        (b"PK\x03\x04", (6, 8, 14, 18, 22, 26, 28)),
        (b"PK\x01\x02", (8, 10, 16, 20, 24, 28, 30, 42)),
    ):
        for match in re.finditer(re.escape(signature), content):
            if rng.random() < 0.6:
                field = match.start() + rng.choice(fields)
                struct.pack_into("<H", data, field, rng.choice(NUMBERS) & 0xFFFF)
                if rng.random() < 0.3:
                    struct.pack_into("<H", data, field + 2, rng.choice(NUMBERS) & 0xFFFF)
    return bytes(data)


def lie_in_boxes(content: bytes, rng: random.Random) -> bytes:
    """An MP4 file in which numbers in its boxes are wrong: sizes, counts, dimensions, times."""
    data = bytearray(content)
    names = (
        b"mvhd",
        b"tkhd",
        b"mdhd",
        b"stsd",
        b"avc1",
        b"avcC",
        b"stts",
        b"ctts",
        b"stsc",
        b"stsz",
        b"stco",
        b"elst",
        b"moov",
    )
    for _ in range(rng.randint(1, 3)):
        start = content.find(rng.choice(names))
        if start >= 4:
            place = start + rng.choice((-4, 4, 8, 12, 16, 20, 24, 28, 32, 80, 84))
            number = rng.choice((*NUMBERS[:10], 10_000, 16_384, 65_000)) & 0xFFFFFFFF
            data[place : place + 4] = number.to_bytes(4, "big")
    return bytes(data)
