"""Compares exact search with faiss on the same data, in turns.

Both sides answer top-k inner-product searches over the keys of several heads,
four queries of one head a call, as a group of query heads asks. Each side runs
in a process of its own and waits while the other works; a figure is the median
over the turns. Recall is against exact scores in float64.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np

GROUP = 4  # queries a call: query heads that share a KV head


def write_fbin(path, rows):
    """Rows as big-ann-benchmarks has them: two uint32 (rows, dimension), then f32, little-endian."""
    part = path.with_suffix(".part")
    with open(part, "wb") as f:
        np.array(rows.shape, dtype="<u4").tofile(f)
        rows.astype("<f4", copy=False).tofile(f)
    part.rename(path)


def read_fbin(path):
    n, dim = np.fromfile(path, dtype="<u4", count=2)
    return np.memmap(path, dtype="<f4", mode="r", offset=8, shape=(int(n), int(dim)))


def make_data(folder, o, stored):
    """Keys around centres that neighbours share, some of high norm; queries of another distribution, as in attention."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "queries.fbin").exists():
        print(f"making {o.heads * o.keys * o.dim * 4 >> 20} MiB of data in {folder}", file=sys.stderr)
        r = np.random.default_rng(o.seed)
        keys = np.empty((o.heads * o.keys, o.dim), dtype=np.float32)
        queries = np.empty((o.heads * stored, o.dim), dtype=np.float32)
        for h in range(o.heads):
            centres = r.standard_normal((256, o.dim), dtype=np.float32)
            k = keys[h * o.keys : (h + 1) * o.keys]
            k[:] = centres[np.repeat(r.integers(256, size=-(-o.keys // 32)), 32)[: o.keys]]
            k += 0.7 * r.standard_normal(k.shape, dtype=np.float32)
            k[r.random(o.keys) < 1e-3] *= 2
            # A query points to a few centres at once, from away of the keys.
            q = queries[h * stored : (h + 1) * stored]
            q[:] = r.standard_normal(q.shape, dtype=np.float32) + r.standard_normal(o.dim, dtype=np.float32)
            for i in range(stored):
                q[i] += 0.5 * centres[r.integers(256, size=3)].sum(axis=0)
        write_fbin(folder / "keys.fbin", keys)
        write_fbin(folder / "queries.fbin", queries)
    return (
        read_fbin(folder / "keys.fbin").reshape(o.heads, o.keys, o.dim),
        np.array(read_fbin(folder / "queries.fbin")).reshape(o.heads, stored, o.dim),
    )


class Ours:
    """The Go side: a process that answers one JSON line with another (bench/peers/ours)."""

    def __init__(self, program, folder, o):
        self.shapes = {
            "search": {"heads": o.heads, "queries": o.queries, "k": o.k},
            "knn": {"heads": o.knn_heads, "queries": o.knn_queries, "k": o.knn_k},
        }
        self.process = subprocess.Popen(
            [program, "-data", str(folder), "-heads", str(o.heads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.about = self.receive()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the Go side ended with exit code {self.process.wait()}")
        return json.loads(line)

    def call(self, case, kind, threads, results=False):
        self.process.stdin.write(json.dumps({"case": case, "threads": threads, "results": results, **self.shapes[kind]}) + "\n")
        self.process.stdin.flush()
        answer = self.receive()
        if "error" in answer:
            sys.exit(f"ours, {case}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Faiss:
    """The faiss side: a function from (head, queries) to ids for each case."""

    def __init__(self, keys, k, knn_k):
        self.keys, self.k, self.knn_k = keys, k, knn_k
        self.indexes = {}

    def index(self, kind):
        if kind not in self.indexes:
            self.indexes[kind] = []
            for head in self.keys:
                if kind == "flat":
                    index = faiss.IndexFlatIP(head.shape[1])
                else:
                    index = faiss.IndexScalarQuantizer(head.shape[1], faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT)
                    index.train(head)
                index.add(head)
                self.indexes[kind].append(index)
        return self.indexes[kind]

    def flat(self, head, queries):
        return self.index("flat")[head].search(queries, self.k)[1]

    def bf16(self, head, queries):
        return self.index("bf16")[head].search(queries, self.k)[1]

    def knn(self, head, queries):
        return faiss.knn(queries, np.asarray(self.keys[head]), self.knn_k, metric=faiss.METRIC_INNER_PRODUCT)[1]


# The cases: name, task, key type, side, name on that side, and the least
# number of queries that faiss gives to BLAS (None: its default). Those that
# the Go side does not have are left out.
CASES = [
    ("ra flat", "search", "bf16", "ours", "flat-bf16", None),
    ("ra flat", "search", "f32", "ours", "flat-f32", None),
    ("faiss IndexFlatIP", "search", "f32", "faiss", "flat", None),
    ("faiss IndexFlatIP, BLAS", "search", "f32", "faiss", "flat", 1),
    ("faiss IndexScalarQuantizer", "search", "bf16", "faiss", "bf16", None),
    ("ra codes, two stages", "search", "2 bit + bf16", "ours", "codes", None),
    ("ra knn", "knn", "bf16", "ours", "knn-bf16", None),
    ("ra knn", "knn", "f32", "ours", "knn-f32", None),
    ("ra knn, rounded", "knn", "bf16", "ours", "knn-rounded", None),
    ("faiss.knn, BLAS", "knn", "f32", "faiss", "knn", 1),
    ("faiss.knn", "knn", "f32", "faiss", "knn", None),
]


def search(peer, case, queries, o, threads, default):
    """One turn of faiss: seconds, and the ids of each head in the queries' order."""
    _, kind, _, _, name, blas = case
    faiss.cvar.distance_compute_blas_threshold = default if blas is None else blas
    f = getattr(peer, name)

    def run(h):
        if kind == "knn":
            return f(h, queries[h][: o.knn_queries])
        return np.concatenate([f(h, queries[h][lo : lo + GROUP]) for lo in range(0, o.queries, GROUP)])

    if kind == "knn":
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        ids = [run(h) for h in range(o.knn_heads)]
        return time.perf_counter() - start, ids
    # Heads run side by side, as on our side: faster than OpenMP within calls of few queries.
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        list(pool.map(time.sleep, [0.001] * threads))  # the threads are there
        start = time.perf_counter()
        ids = list(pool.map(run, range(o.heads)))
        return time.perf_counter() - start, ids


def oracle(keys, queries, k):
    """The k best keys of each query by exact scores."""
    best = []
    for h, q in zip(keys, queries):
        scores = q.astype(np.float64) @ h.T.astype(np.float64)
        best.append(np.argpartition(-scores, k - 1, axis=1)[:, :k])
    return best


def recall(best, ids):
    hits = sum(len(set(b) & set(i)) for bs, rows in zip(best, ids) for b, i in zip(bs, rows))
    return hits / sum(b.size for b in best[: len(ids)])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True, help="the program built from bench/peers/ours")
    p.add_argument("--data", type=Path, default=Path(".cache/peers"), help="folder for the data files (default: %(default)s)")
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--keys", type=int, default=131072, help="keys of a head (default: %(default)s)")
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--queries", type=int, default=8, help="queries of a head, a multiple of %d (default: %%(default)s)" % GROUP)
    p.add_argument("--k", type=int, default=100)
    p.add_argument("--knn-queries", type=int, default=256, help="queries of a call of exact kNN (default: %(default)s)")
    p.add_argument("--knn-heads", type=int, default=1, help="heads of a turn of exact kNN (default: %(default)s)")
    p.add_argument("--knn-k", type=int, default=32)
    p.add_argument("--threads", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}))
    p.add_argument("--repeats", type=int, default=7)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    o = p.parse_args()
    for n in (o.queries, o.knn_queries):
        if n % GROUP or n < GROUP:
            p.error(f"--queries and --knn-queries must be positive multiples of {GROUP}, not {n}")
    stored = max(o.queries, o.knn_queries)  # queries of a head in the file
    folder = o.data / f"{o.heads}x{o.keys}x{o.dim}-{stored}-seed{o.seed}"
    keys, queries = make_data(folder, o, stored)
    ours, peer = Ours(o.ours, folder, o), Faiss(keys, o.k, o.knn_k)
    default = faiss.cvar.distance_compute_blas_threshold
    cases = [c for c in CASES if c[3] == "faiss" or c[4] in ours.about["cases"]]
    # A side alone has nothing to be compared with.
    cases = [c for c in cases if any(d[1] == c[1] and d[3] != c[3] for d in cases)]
    best = {"search": oracle(keys, queries[:, : o.queries], o.k)}
    if any(c[1] == "knn" for c in cases):
        best["knn"] = oracle(keys[: o.knn_heads], queries[: o.knn_heads, : o.knn_queries], o.knn_k)

    def turn(case, threads, results=False):
        if case[3] == "faiss":
            return search(peer, case, queries, o, threads, default)
        answer = ours.call(case[4], case[1], threads, results)
        return answer["seconds"], answer.get("ids")

    rows = []
    for threads in o.threads:
        times = [[] for _ in cases]
        recalls = []
        for case in cases:  # the first turn warms up and is checked
            recalls.append(recall(best[case[1]], turn(case, threads, results=True)[1]))
        for i in range(o.repeats):
            for case, t in zip(cases, times):
                t.append(turn(case, threads)[0])
                time.sleep(0.02)  # threads that spin for more work give up
            print(f"{threads} threads: {i + 1} of {o.repeats} turns", file=sys.stderr)
        for case, t, found in zip(cases, times, recalls):
            n = o.heads * o.queries if case[1] == "search" else o.knn_heads * o.knn_queries
            q1, median, q3 = statistics.quantiles(t, n=4, method="inclusive") if len(t) > 1 else t * 3
            rows.append({
                "system": case[0], "task": case[1], "keys": case[2], "threads": threads, "repeats": len(t),
                "us_per_query": {"median": median / n * 1e6, "q1": q1 / n * 1e6, "q3": q3 / n * 1e6}, "recall": found,
            })
    ours.close()

    about = {
        "ra": ours.about["machine"], "faiss": faiss.__version__, "faiss_compile_options": faiss.get_compile_options().strip(),
        "numpy": np.__version__, "python": platform.python_version(), "heads": o.heads, "keys_per_head": o.keys, "dim": o.dim,
        "queries_per_call": GROUP, "k": o.k, "knn_queries_per_call": o.knn_queries, "knn_k": o.knn_k, "seed": o.seed,
    }
    m = about["ra"]
    print(f"{m['cpu']}, {m['threads']} threads; ra: kernels {m['kernel_level']}, {m['go']}; "
          f"faiss {about['faiss']} ({about['faiss_compile_options']}), numpy {about['numpy']}, Python {about['python']}")
    for task, title in (
        ("search", f"top-{o.k} of {o.keys} keys x {o.dim}, {o.heads} heads in turn, {GROUP} queries a call"),
        ("knn", f"top-{o.knn_k} of {o.keys} keys x {o.dim}, {o.knn_queries} queries a call"),
    ):
        of = [r for r in rows if r["task"] == task]
        if not of:
            continue
        print(f"\n{title}\n{'system':28}{'keys':>14}{'threads':>9}{'us/query':>10}{'±':>7}{'recall':>8}{'x ra':>7}")
        for r in of:
            first = next(x for x in of if x["threads"] == r["threads"])  # ours in bf16
            t = r["us_per_query"]
            print(f"{r['system']:28}{r['keys']:>14}{r['threads']:>9}{t['median']:>10.0f}{(t['q3'] - t['q1']) / 2 / t['median']:>7.0%}"
                  f"{r['recall']:>8.4f}{t['median'] / first['us_per_query']['median']:>7.2f}")
    if o.out:
        o.out.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
