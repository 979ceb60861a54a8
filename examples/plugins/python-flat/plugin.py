"""Exact search in Python: every indexed key is scored."""

import numpy as np

from ra_plugin import Plugin, Search, serve


class Flat(Plugin):
    name, version, doc = "python-flat", "1.0.0", "exact search with numpy"

    def search(self, call: Search) -> None:
        for s, sequence in enumerate(call.sequences):
            for head in range(sequence.kv_heads):
                group = call.group(head)
                queries = call.queries[s][:, group.start : group.stop].reshape(-1, sequence.head_dim)
                stretches = list(sequence.indexed_keys(head))
                if not stretches:
                    continue  # nothing is indexed
                scores = np.concatenate([queries @ rows.f32().T for rows in stretches], axis=1)
                ids = np.concatenate([rows.ids() for rows in stretches])
                call.keys_scored += scores.size
                k = min(call.top_k, len(ids))
                best = ids[np.argpartition(-scores, k - 1, axis=1)[:, :k]]
                for i, hits in enumerate(best):
                    call.emit(s, i // len(group), group[i % len(group)], hits)


if __name__ == "__main__":
    serve(Flat())
