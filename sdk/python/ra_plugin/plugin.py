"""What the author of a plugin writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, BinaryIO, Optional, Union

import numpy as np

from . import messages as pb
from .store import Sequence


@dataclass
class Parameter:
    """A setting: ``type`` is "int", "float", "bool" or "string"."""

    name: str
    type: str
    default: Union[int, float, bool, str]
    min: Optional[float] = None
    max: Optional[float] = None
    values: Optional[list[str]] = None
    doc: str = ""

    def parse(self, text: str) -> Any:
        if self.type == "bool":
            return text == "true"
        return {"int": int, "float": float, "string": str}[self.type](text)


@dataclass
class Build:
    """An index to build: one layer of a view, all KV heads.

    ``queries`` are the prefill's queries, float32 [tokens, heads, head_dim].
    They are None without the feature "queries", and when an index is built
    again after a restart. All arrays are valid until the call returns.
    """

    sequence: Sequence
    layer: int
    heads: int  # query heads; heads / kv_heads share a KV head
    queries: Optional[np.ndarray] = None


class Search:
    """A search: ``tokens`` x ``heads`` queries of each sequence.

    ``queries`` is float32 [sequences, tokens, heads, head_dim]; at most
    ``top_k`` hits a query are asked for; ``step`` is the position of the
    first token.
    """

    def __init__(self, message, sequences: list[Sequence]) -> None:
        self.layer: int = message.layer
        self.heads: int = message.heads
        self.tokens: int = message.tokens
        self.top_k: int = message.top_k
        self.step: int = message.step
        self.sequences = sequences
        shape = (len(sequences), self.tokens, self.heads, sequences[0].head_dim)
        self.queries = np.frombuffer(message.queries, "<f4").reshape(shape)
        self.keys_scored = 0  # (query, key) pairs scored, for the host's statistics
        self._ids: list[Optional[np.ndarray]] = [None] * (shape[0] * shape[1] * shape[2])
        self._bias: list[Optional[np.ndarray]] = list(self._ids)

    def group(self, kv_head: int) -> range:
        """Return the query heads that share a KV head."""
        n = self.heads // self.sequences[0].kv_heads
        return range(kv_head * n, (kv_head + 1) * n)

    def emit(self, sequence: int, token: int, head: int, ids, bias=None) -> None:
        """Set the hits of a query: positions of indexed tokens, each once.

        ``bias``, if given, has a finite number for each, which is added to the
        token's logit.
        """
        i = (sequence * self.tokens + token) * self.heads + head
        self._ids[i] = np.ascontiguousarray(ids, "<u4").reshape(-1)
        self._bias[i] = None if bias is None else np.ascontiguousarray(bias, "<f4").reshape(-1)

    def answer(self):
        """Return the answer as a message."""
        ids = [i if i is not None else np.empty(0, "<u4") for i in self._ids]
        answer = pb.SearchResponse(
            counts=[len(i) for i in ids], ids=b"".join(i.tobytes() for i in ids), keys_scored=self.keys_scored
        )
        if any(b is not None for b in self._bias):
            bias = [b if b is not None else np.zeros(len(i), "<f4") for b, i in zip(self._bias, ids)]
            answer.bias = b"".join(b.tobytes() for b in bias)
        return answer


class Plugin:
    """A search plugin. A subclass sets the description and writes ``search``.

    Calls come one at a time, unless ``threads`` is more than 1.
    """

    name: str = ""  # lower-case letters, digits, - and _
    version: str = ""
    doc: str = ""
    features: list[str] = ["keys"]  # what it needs: "keys", "values", "queries"; "export": what it can do
    parameters: list[Parameter] = []
    threads: int = 1

    def configure(self, params: dict[str, Any], seed: int) -> None:
        """Take the parameters, all present and checked, before anything else."""

    def build(self, build: Build) -> None:
        """Prepare the search of one layer of a view."""

    def append(self, layer: int, sequence: Sequence, ranges: list[tuple[int, int]]) -> None:
        """Make the positions of ranges, indexed a moment ago, findable."""

    def search(self, call: Search) -> None:
        """Emit hits for the queries of the call."""
        raise NotImplementedError

    def forget(self, views: list[int]) -> None:
        """Drop what is held for views that are gone."""

    def export(self, view: int, layer: int, file: BinaryIO) -> None:
        """Write the index of a layer of a view; needs the feature "export"."""
        raise NotImplementedError

    def load(self, build: Build, file: BinaryIO) -> None:
        """Read what another process of this plugin exported."""
        raise NotImplementedError

    def description(self) -> str:
        """Return the description as the host reads it."""
        parameters = [
            {k: v for k, v in vars(p).items() if v is not None} for p in self.parameters
        ]
        return json.dumps(
            {
                "name": self.name, "version": self.version, "kind": "search", "doc": self.doc,
                "features": list(self.features), "parameters": parameters,
            }
        )
