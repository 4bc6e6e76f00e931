"""Makes bad inputs from valid ones: bytes, JSON values and tables, each a function of a seed and a number."""

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

MakeInput = Callable[[int], bytes]

# Pieces that readers of text are often not prepared for.
TOKENS = (
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n\n", b"\t", b"\x1b[31m",
    b"\x0c", "\u2028".encode(), "\u202e".encode(), "\u0130".encode(), "\U0010ffff".encode(), "e\u0301\u0301".encode(),
    "\u0664\u0662".encode(), b"\\ud800", b"\\u0000", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b": ", b"-",
    b"|", b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ", b"!!binary ", b"!!timestamp ", b"%YAML 9\n---\n",
    b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"0x", b"1_000", b"12:30:45", b"2026-13-45",
    b"9" * 30, b"9" * 5000, b"1e-400", b"-1", b"0", b"../../x", b"/dev/null", b"a/b", b".", b"..", b"%s", b"{split}",
    b"-->", b"00:00:99.999 --> 00:00:00.000", b"WEBVTT", b"<b>", b"&amp;", b"clip_order", b"hypothesis", b"__class__",
)  # fmt: skip
# Values that a JSON or YAML file may hold in any place.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e308, 1e-320, float("nan"), float("inf"),
    float("-inf"), "", " ", "\n", "a\nb", "\x00", "\ud800", "\udfff\ud800", "\u202e", "\u2028", "é", "e\u0301",
    "None", "nan", "1", "1e9", "x" * 300, "a/b", "/", "..", "../../etc", "~", "~nobody/x", "%d", "{split}", "{",
    "{0.__class__}", [], [[]], [None], ["a", "a"], [1, "a"], {}, {"": None}, {"a": {}}, {"clip_order": []},
    {"clip_order": ["a"], "a": 1},
)  # fmt: skip
NUMBERS = (b"-1", b"0", b"1e308", b"NaN", b"9" * 25, b"0.0000001", b"2147483648", b"-9223372036854775809")
DEPTH = 100_000  # of nested brackets: more than any parser's stack


def mutate_bytes(content: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """`content` after one to four random changes; parts of `others` are spliced in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        kind, start = rng.randrange(12), rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((1, 2, 8, 64, 512)))
        if kind == 0 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            data[start:start] = data[start:end]
        elif kind == 4 and others:
            other = rng.choice(others)
            data[start:] = other[rng.randint(0, len(other)) :]
        elif kind == 5:
            _swap_lines(data, rng)
        elif kind == 6:
            _replace_number(data, rng)
        elif kind == 7:
            data[start:end] = bytes(rng.randrange(256) for _ in range(rng.randint(0, 8)))
        else:
            data[start:end] = rng.choice(TOKENS) if kind < 10 else b""
            if kind >= 10:
                data[start:start] = rng.choice(TOKENS)
    return bytes(data)


def _swap_lines(data: bytearray, rng: random.Random) -> None:
    lines = bytes(data).splitlines(keepends=True)
    if lines:
        first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[first], lines[second] = lines[second], lines[first]
        if rng.random() < 0.3:
            lines.insert(first, lines[second])
        data[:] = b"".join(lines)


def _replace_number(data: bytearray, rng: random.Random) -> None:
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data)))
    if numbers:
        number = rng.choice(numbers)
        new = rng.choice(
            (b"-1", b"0", b"1e308", b"NaN", b"9" * 25, b"0.0000001", b"2147483648", b"-92233720368547758099")
        )
        data[number.start() : number.end()] = new


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value in which one to three values, keys or orders have changed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        value = _mutate_at_random(value, rng)
    return value


def _mutate_at_random(value: Any, rng: random.Random) -> Any:
    """Go down to a random value, and change it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        choice = rng.random()
        if choice < 0.08:
            del value[key]
        elif choice < 0.16:
            value[rng.choice([text for text in VALUES if isinstance(text, str)])] = value.pop(key)
        elif choice < 0.22:
            value[f"{key}2"] = value[key]
        else:
            value[key] = _mutate_at_random(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        index, choice = rng.randrange(len(value)), rng.random()
        if choice < 0.1:
            del value[index]
        elif choice < 0.2:
            value.append(value[index])
        elif choice < 0.3:
            rng.shuffle(value)
        else:
            value[index] = _mutate_at_random(value[index], rng)
        return value
    return copy.deepcopy(rng.choice(VALUES))


def mutate_cells(content: bytes, separator: str, rng: random.Random) -> bytes:
    """A table after changes of one to three cells, columns or rows."""
    rows = [line.split(separator) for line in content.decode().splitlines()]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        if not row:
            continue
        cell, kind = rng.randrange(len(row)), rng.randrange(6)
        if kind == 0:
            row[cell] = str(rng.choice(VALUES))
        elif kind == 1:
            row[cell] = rng.choice(TOKENS).decode(errors="surrogateescape")
        elif kind == 2:
            del row[cell]
        elif kind == 3:
            row.insert(cell, row[cell])
        elif kind == 4:
            rows.append(list(row))
        else:
            row[cell] = rng.choice(rng.choice(rows) or [""])
    end = rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    return end.join(separator.join(row) for row in rows).encode(
        errors="surrogatepass" if rng.random() < 0.5 else "replace"
    )


def bytes_inputs(seeds: Sequence[bytes], seed: int = 0) -> MakeInput:
    """Mutations of the bytes of `seeds`."""

    def make(number: int) -> bytes:
        rng = _rng(seed, number)
        return _recode(mutate_bytes(rng.choice(seeds), rng, seeds), rng)

    return make


def json_inputs(seeds: Sequence[bytes], seed: int = 0) -> MakeInput:
    """Mutations of the values of JSON files, and of their bytes."""
    values = [json.loads(content) for content in seeds]

    def make(number: int) -> bytes:
        rng = _rng(seed, number)
        if rng.random() < 0.3:
            return _recode(mutate_bytes(rng.choice(seeds), rng, seeds), rng)
        text = json.dumps(mutate_value(rng.choice(values), rng), ensure_ascii=rng.random() < 0.5)
        return _recode(text.encode(errors="surrogatepass"), rng)

    return make


def lines_inputs(seeds: Sequence[bytes], seed: int = 0) -> MakeInput:
    """Mutations of files with a JSON object per line."""

    def make(number: int) -> bytes:
        rng = _rng(seed, number)
        content = rng.choice(seeds)
        if rng.random() < 0.3:
            return _recode(mutate_bytes(content, rng, seeds), rng)
        lines = [json.loads(line) for line in content.splitlines()]
        index = rng.randrange(len(lines))
        lines[index] = mutate_value(lines[index], rng)
        text = "\n".join(json.dumps(line, ensure_ascii=rng.random() < 0.5) for line in lines)
        return _recode((text + "\n").encode(errors="surrogatepass"), rng)

    return make


def yaml_inputs(seeds: Sequence[bytes], seed: int = 0) -> MakeInput:
    """Mutations of the values of YAML files, and of their bytes."""
    values = [yaml.safe_load(content) for content in seeds]

    def make(number: int) -> bytes:
        rng = _rng(seed, number)
        if rng.random() < 0.4:
            return _recode(mutate_bytes(rng.choice(seeds), rng, seeds), rng)
        value = mutate_value(rng.choice(values), rng)
        return _recode(json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass"), rng)

    return make


def table_inputs(seeds: Sequence[bytes], separator: str, seed: int = 0) -> MakeInput:
    """Mutations of the cells of tables, and of their bytes."""

    def make(number: int) -> bytes:
        rng = _rng(seed, number)
        if rng.random() < 0.4:
            return _recode(mutate_bytes(rng.choice(seeds), rng, seeds), rng)
        return _recode(mutate_cells(rng.choice(seeds), separator, rng), rng)

    return make


def _rng(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed}/{number}")


def _recode(content: bytes, rng: random.Random) -> bytes:
    """A few inputs in another encoding or with other line ends."""
    choice = rng.randrange(60)
    if choice == 0:
        return content.decode(errors="replace").encode(rng.choice(("utf-16", "utf-32-le", "utf-16-be")))
    if choice == 1:
        return b"\xef\xbb\xbf" + content
    if choice == 2:
        return content.replace(b"\n", b"\r")
    return content


def large_inputs() -> list[bytes]:
    """Inputs that cost much time or memory in a careless reader: long lines, deep nesting, aliases, huge numbers."""
    aliases = "\n".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9) if level else '1'}]" for level in range(12)
    )
    return [
        b"",
        b"x" * 10_000_000,
        b'{"a": "' + b"x" * 10_000_000 + b'"}',
        b"[" * DEPTH,
        b'{"a":' * DEPTH,
        b"[" * DEPTH + b"]" * DEPTH,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"- " * 2_000,
        b'{"a": ' + b"9" * 1_000_000 + b"}",
        b"a: " + b"9" * 1_000_000,
        b"a,b,c\n" + b"," * 1_000_000,
        b'uid,text\n"' + b"\n" * 1_000_000,
        b"\n" * 1_000_000,
        b"\r" * 1_000_000,
        b"\x00" * 1_000_000,
        b"{" + b'"a": 1, ' * 100_000 + b'"a": 1}',
        aliases.encode(),
        b"a: &a [*a]\n",
        b"? &a {? *a : 1} : 1\n",
    ]
