"""A faiss HNSW graph for each KV head, searched by inner product."""

import faiss
import numpy as np

from ra_plugin import Build, Parameter, Plugin, Search, Sequence, serve


class Faiss(Plugin):
    name, version, doc = "python-faiss", "1.0.0", "HNSW graphs of faiss over the keys"
    features = ["keys", "export"]
    parameters = [
        Parameter("m", "int", 32, min=4, max=128, doc="links a node"),
        Parameter("ef_construction", "int", 100, min=8, max=2000, doc="breadth of the search that finds them"),
        Parameter("ef_search", "int", 256, min=8, max=10000, doc="breadth of a search"),
    ]

    def __init__(self) -> None:
        self.graphs: dict[tuple[int, int], list] = {}  # by view and layer: (positions, graph) a KV head
        self.tails: dict[tuple[int, int], list[tuple[int, int]]] = {}  # appended since, scanned exactly

    def configure(self, params, seed: int) -> None:
        self.m, self.ef, self.ef_search = params["m"], params["ef_construction"], params["ef_search"]

    def build(self, b: Build) -> None:
        heads = []
        for head in range(b.sequence.kv_heads):
            graph = faiss.IndexHNSWFlat(b.sequence.head_dim, self.m, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = self.ef
            graph.hnsw.efSearch = self.ef_search
            stretches = list(b.sequence.indexed_keys(head))
            for rows in stretches:
                graph.add(rows.f32())
            ids = [np.empty(0, np.uint32), *(rows.ids() for rows in stretches)]
            heads.append((np.concatenate(ids), graph))
        self.graphs[b.sequence.view, b.layer] = heads
        self.tails[b.sequence.view, b.layer] = []

    def append(self, layer: int, sequence: Sequence, ranges) -> None:
        self.tails.setdefault((sequence.view, layer), []).extend(ranges)

    def search(self, call: Search) -> None:
        for s, sequence in enumerate(call.sequences):
            # A fork of a view reads the graphs of its parent and adds a tail.
            own, parent = (sequence.view, call.layer), (sequence.parent, call.layer)
            graphs = self.graphs[own if own in self.graphs else parent]
            tail = [np.arange(lo, hi) for lo, hi in self.tails.get(own, [])]
            tail = np.concatenate(tail) if tail else np.empty(0, int)
            for head, (ids, graph) in enumerate(graphs):
                group = call.group(head)
                queries = call.queries[s][:, group.start : group.stop].reshape(-1, sequence.head_dim)
                k = max(min(call.top_k, len(ids)), 1)  # faiss takes no 0
                scores, found = graph.search(np.ascontiguousarray(queries), k)
                scores = np.where(found < 0, -np.inf, scores)  # fewer than asked for
                scores = np.concatenate([scores, queries @ sequence.take_keys(head, tail).T], axis=1)
                found = np.concatenate([np.append(ids, 0)[found], np.broadcast_to(tail, (len(queries), len(tail)))], axis=1)
                for i in range(len(queries)):
                    best = np.argsort(-scores[i])[: call.top_k]
                    best = best[np.isfinite(scores[i][best])]
                    call.emit(s, i // len(group), group[i % len(group)], found[i][best])
                call.keys_scored += len(queries) * (self.ef_search + len(tail))  # about

    def forget(self, views) -> None:
        for key in [k for k in {**self.graphs, **self.tails} if k[0] in views]:
            self.graphs.pop(key, None)
            self.tails.pop(key, None)

    def export(self, view: int, layer: int, file) -> None:
        arrays = {}
        for head, (ids, graph) in enumerate(self.graphs[view, layer]):
            arrays[f"ids{head}"], arrays[f"graph{head}"] = ids, faiss.serialize_index(graph)
        np.savez(file, **arrays)

    def load(self, b: Build, file) -> None:
        with np.load(file) as arrays:
            self.graphs[b.sequence.view, b.layer] = [
                (arrays[f"ids{head}"], faiss.deserialize_index(arrays[f"graph{head}"]))
                for head in range(b.sequence.kv_heads)
            ]
        self.tails[b.sequence.view, b.layer] = []


if __name__ == "__main__":
    serve(Faiss())
