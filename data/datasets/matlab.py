"""Reading cells and matrices of numbers from MATLAB files (version 5 to 7), and nothing else that such files can hold.

Not scipy's reader: on damaged files it ends the whole process with a memory fault. This one checks every size before
it uses it, and builds no object of any class.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.run.errors import UserError

Array = np.ndarray | list  # a matrix, or the entries of a cell in the order of its columns

LARGEST_FILE = 32 * 2**20  # bytes, packed or unpacked; SYSU-MM01's permutations take less than four
DEEPEST_CELL = 8
CELL, FIRST_NUMBER = 1, 6
CLASSES = (
    "cell", "struct", "object", "text", "sparse matrix", "double", "single",
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
COMPLEX = 0x0800


class _Damaged(ValueError):
    """What is wrong with the content of a file."""


def read_variable(path: Path, name: str | None = None) -> Array | None:
    """The variable of this name, or the first one; None where the file holds no such variable.

    Raises:
        UserError: the file cannot be read, is damaged, or the variable holds more than cells and matrices of numbers.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _Damaged(f"it is larger than {LARGEST_FILE >> 20} MB")
        return _find(path.read_bytes(), name)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (_Damaged, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a MATLAB file: {error}") from None


def _find(data: bytes, name: str | None) -> Array | None:
    if b"\x89HDF\r\n" in data[:8] + data[512:520]:
        raise _Damaged("it has version 7.3; save it in MATLAB as version 7: save(file, '-v7')")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(order + "H", data, 124) != (0x0100,):
        raise _Damaged("it is none, or older than version 5")
    for kind, content in _elements(memoryview(data)[128:], order):
        if kind == COMPRESSED:
            kind, content = next(_elements(_unpack(content), order), (0, content))
        if kind == MATRIX:
            found, array_class, parts, shape = _header(content, order)
            if array_class <= len(CLASSES) and name in (found, None):
                return _content(array_class, parts, shape, order, depth=0)
    return None


def _unpack(content: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(content, LARGEST_FILE)
    if unpacker.unconsumed_tail:
        raise _Damaged(f"unpacked, it is larger than {LARGEST_FILE >> 20} MB")
    return memoryview(data)


Parts = Iterator[tuple[int, memoryview]]


def _elements(data: memoryview, order: str) -> Parts:
    """Kind and content of the elements that follow each other."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise _Damaged("it ends too early")
        kind, size = struct.unpack_from(order + "II", data, at)
        small = kind >> 16  # size and content of up to four bytes share one word each
        start, size = (at + 4, small) if small else (at + 8, size)
        if size > (4 if small else len(data) - start):
            raise _Damaged("it ends too early")
        yield kind & 0xFFFF, data[start : start + size]
        at = at + 8 if small else start + size + (0 if kind == COMPRESSED else -size % 8)


def _header(content: memoryview, order: str) -> tuple[str, int, Parts, tuple[int, ...]]:
    """Name, class and shape of an array, and the elements that hold what is in it."""
    parts = _elements(content, order)
    flags = _numbers(next(parts, None), order)
    array_class = int(flags[0]) & 0xFF if len(flags) == 2 and flags.dtype.kind == "u" else 0
    if not array_class:
        raise _Damaged("an array has no class")
    if array_class > len(CLASSES):  # functions and objects, whose elements are others
        return "", array_class, parts, ()
    shape = tuple(_numbers(next(parts, None), order).tolist())
    if not 2 <= len(shape) <= 8 or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise _Damaged("an array has no shape")
    name = bytes(_numbers(next(parts, None), order)).decode("latin-1")
    if array_class >= FIRST_NUMBER and int(flags[0]) & COMPLEX:
        raise _Damaged(f"{name or 'an entry'} holds complex numbers")
    return name, array_class, parts, shape


def _content(array_class: int, parts: Parts, shape: tuple[int, ...], order: str, depth: int) -> Array:
    if array_class == CELL:
        if depth == DEEPEST_CELL:
            raise _Damaged("its cells are nested too deeply")
        return [_entry(next(parts, None), order, depth + 1) for _ in range(math.prod(shape))]
    if array_class < FIRST_NUMBER:
        raise _Damaged(f"it holds a {CLASSES[array_class - 1]}, where only cells and matrices of numbers belong")
    values = _numbers(next(parts, None), order)
    if len(values) != math.prod(shape):
        raise _Damaged(f"a matrix of shape {shape} holds {len(values)} numbers")
    return values.reshape(shape if len(values) else (shape[0], 0), order="F")  # no sizes that an array cannot have


def _entry(element: tuple[int, memoryview] | None, order: str, depth: int) -> Array:
    if element is None or element[0] != MATRIX:
        raise _Damaged("a cell has too few entries")
    if not element[1]:  # how an empty entry is written
        return np.zeros((0, 0))
    _, array_class, parts, shape = _header(element[1], order)
    if array_class > len(CLASSES):
        raise _Damaged("it holds a function or an object, where only cells and matrices of numbers belong")
    return _content(array_class, parts, shape, order, depth)


def _numbers(element: tuple[int, memoryview] | None, order: str) -> np.ndarray:
    if element is None or element[0] not in NUMBERS:
        raise _Damaged("numbers are missing")
    kind, content = element
    dtype = np.dtype(order + NUMBERS[kind])
    if len(content) % dtype.itemsize:
        raise _Damaged("it ends within a number")
    return np.frombuffer(content, dtype)
