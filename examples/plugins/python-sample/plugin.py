"""A search strategy in one file: it scores a sample of the keys, then all keys
around the best of the sample, for neighbours in the sequence are often alike."""

import numpy as np

from ra_plugin import Parameter, Plugin, Search, serve


class Sample(Plugin):
    name, version = "python-sample", "1.0.0"
    doc = "scores every stride-th key, then the keys around the best of them"
    parameters = [
        Parameter("stride", "int", 8, min=1, max=1024, doc="every how many keys one is sampled"),
        Parameter("best", "int", 64, min=1, max=4096, doc="sampled keys whose neighbours are scored"),
    ]

    def configure(self, params, seed) -> None:
        self.stride, self.best = params["stride"], params["best"]

    def search(self, call: Search) -> None:
        for s, sequence in enumerate(call.sequences):
            for head in range(sequence.kv_heads):
                stretches = list(sequence.indexed_keys(head))
                if not stretches:
                    continue  # nothing is indexed
                ids = np.concatenate([rows.ids() for rows in stretches])
                keys = np.concatenate([rows.f32() for rows in stretches])
                for token in range(call.tokens):
                    for h in call.group(head):
                        best = self.find(call, call.queries[s, token, h], keys)
                        call.emit(s, token, h, ids[best])

    def find(self, call: Search, query: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the rows of keys that answer one query."""
        sampled = np.arange(0, len(keys), self.stride)
        near = np.zeros(len(keys), bool)
        for i in keep_best(sampled, keys[sampled] @ query, self.best):
            near[max(0, i - self.stride) : i + self.stride + 1] = True
        around = np.flatnonzero(near)
        call.keys_scored += len(sampled) + len(around)
        return keep_best(around, keys[around] @ query, call.top_k)


def keep_best(rows: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Return the k rows with the best scores, the best first."""
    return rows[np.argsort(-scores, kind="stable")[:k]]


if __name__ == "__main__":
    serve(Sample())
