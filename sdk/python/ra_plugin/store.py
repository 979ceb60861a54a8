"""Views of the vectors that the host shares."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from . import messages as pb

_ELEMENTS = {
    pb.DTYPE_F32: ("f32", np.dtype("<f4")),
    pb.DTYPE_BF16: ("bf16", np.dtype("<u2")),
    pb.DTYPE_F16: ("f16", np.dtype("<f2")),
}


def widen(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return the elements as float32: a copy, unless they are float32."""
    if dtype == "bf16":  # the upper half of a float32; numpy has no such type
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


class Share:
    """An inherited file and its mapping."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._lock = threading.Lock()
        self._map: Optional[mmap.mmap] = None
        self._bytes = np.empty(0, np.uint8)

    def array(self, offset: int, dtype: np.dtype, rows: int, columns: int) -> np.ndarray:
        """Return rows x columns elements from offset on, read-only."""
        end = offset + rows * columns * dtype.itemsize
        with self._lock:
            if end > len(self._bytes):
                # The file grew. Arrays that are in use keep the old mapping.
                size = os.fstat(self._fd).st_size
                if end > size:
                    raise ValueError(f"[{offset}, {end}) lies beyond the {size} bytes that are shared")
                self._map = mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
                self._bytes = np.frombuffer(self._map, np.uint8)
            return self._bytes[offset:end].view(dtype).reshape(rows, columns)


@dataclass
class Rows:
    """Vectors of consecutive tokens of one KV head.

    ``array`` has a row a token, in the stored type (bf16 as uint16), and is
    valid until the call returns.
    """

    start: int  # position of the first row
    array: np.ndarray
    dtype: str  # "f32", "bf16" or "f16"

    def __len__(self) -> int:
        return len(self.array)

    def f32(self) -> np.ndarray:
        """Return the rows as float32."""
        return widen(self.array, self.dtype)

    def ids(self) -> np.ndarray:
        """Return the positions of the rows."""
        return np.arange(self.start, self.start + len(self.array), dtype=np.uint32)


class Sequence:
    """One layer of one view of a token sequence.

    ``view`` is the view's number, ``parent`` that of the view it was forked
    from (0: none), ``tokens`` the number of positions, ``indexed`` the ranges
    [lo, hi) of those that a search may return.
    """

    def __init__(self, message, keys: Optional[Share], values: Optional[Share]) -> None:
        self.view: int = message.view
        self.parent: int = message.parent
        self.tokens: int = message.tokens
        self.kv_heads: int = message.kv_heads
        self.head_dim: int = message.head_dim
        self.dtype, self._element = _ELEMENTS[message.dtype]
        self.indexed: list[tuple[int, int]] = [(r.lo, r.hi) for r in message.indexed]
        self._segments = list(message.segments)
        self._keys, self._values = keys, values

    def keys(self, head: int) -> Iterator[Rows]:
        """Yield the keys of all positions of a KV head, stretch by stretch."""
        return self._rows(head, self._keys, "keys")

    def values(self, head: int) -> Iterator[Rows]:
        """Yield the values of all positions of a KV head, stretch by stretch."""
        return self._rows(head, self._values, "values")

    def indexed_keys(self, head: int) -> Iterator[Rows]:
        """Yield the keys of the indexed positions of a KV head."""
        for rows in self.keys(head):
            for lo, hi in self.indexed:
                lo, hi = max(lo, rows.start), min(hi, rows.start + len(rows))
                if lo < hi:
                    yield Rows(lo, rows.array[lo - rows.start : hi - rows.start], self.dtype)

    def take_keys(self, head: int, ids: np.ndarray) -> np.ndarray:
        """Return the keys at the given positions as float32."""
        out = np.empty((len(ids), self.head_dim), np.float32)
        for rows in self.keys(head):
            mine = (ids >= rows.start) & (ids < rows.start + len(rows))
            out[mine] = widen(rows.array[ids[mine] - rows.start], self.dtype)
        return out

    def _rows(self, head: int, share: Optional[Share], what: str) -> Iterator[Rows]:
        if share is None:
            raise PermissionError(f'the plugin may not read {what}: list "{what}" in its features and in grants')
        for s in self._segments:
            offset = (s.keys if what == "keys" else s.values) + head * s.head_stride
            yield Rows(s.start, share.array(offset, self._element, s.rows, self.head_dim), self.dtype)
