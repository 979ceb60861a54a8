"""Measures needle retrieval on held-out prose and words, and dumps such documents.

Exact attention in f32. One pass over document, question and right answer tells
whether greedy decoding gives that answer: it does if every answer token is the
most likely one after those before it.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from data import BOS, HERE, Encoder, HeldoutWords, Noise, Prose, build_prompt, draw_numbers, heldout_paragraphs
from model import load_pretrained

KEYS = {"single": 1, "multi-key": 8}
DOCUMENTS = "1024:100,2048:100,4096:100,8192:100,16384:100,32768:20,65536:6,131072:2"


class Documents:
    """Held-out prompts; the i-th of a cell is the same on every run."""

    def __init__(self, tokenizer):
        self.encoder, self.words = Encoder(tokenizer), HeldoutWords()
        self.haystacks = {"prose": Prose(heldout_paragraphs()), "noise": Noise()}

    def make(self, length, keys, i, seed):
        """One prompt of at most `length` tokens: prose and noise in turn, every fourth with the intro."""
        rng = Random(f"{seed} {length} {keys} {i}")
        haystack = ("prose", "noise")[i % 2]
        pairs = list(zip(self.words.draw(rng, keys), draw_numbers(rng, keys)))
        segments = build_prompt(
            self.encoder,
            rng,
            self.haystacks[haystack],
            pairs,
            [0],
            length,
            intro=i % 4 == 3,
            keep_paragraphs=rng.random() < 0.5,
        )
        return haystack, segments


@torch.inference_mode()
def answers_right(model, encoder, segments):
    """Whether greedy decoding answers ' 1234567.' and ends."""
    ids = torch.tensor([[i for s in segments for i in encoder.segment(s)]])
    n = len(encoder.segment(segments[-1]))
    positions = torch.arange(ids.shape[1])[None]
    hidden = model(ids, positions, tail=n + 1)
    predicted = model.logits(hidden[0, :-1]).argmax(-1)
    return bool((predicted == ids[0, -n:]).all())


def measure(model, documents, length, kind, count, seed):
    """One cell of the table."""
    right = {"prose": [], "noise": []}
    start = time.time()
    for i in range(count):
        haystack, segments = documents.make(length, KEYS[kind], i, seed)
        right[haystack].append(answers_right(model, documents.encoder, segments))
    cell = {"kind": kind, "tokens": length, "documents": count, "right": sum(map(sum, right.values()))}
    for haystack, results in right.items():
        cell[haystack] = {"documents": len(results), "right": sum(results)}
    return cell | {"seconds_per_document": round((time.time() - start) / count, 2)}


def record(path, digest, cell):
    """Puts a cell into the JSON file, in place of an earlier one; cells of another model go."""
    table = json.loads(path.read_text()) if path.exists() else {}
    cells = table["cells"] if table.get("model_sha256") == digest else []
    same = lambda c: (c["kind"], c["tokens"]) == (cell["kind"], cell["tokens"])
    cells = [c for c in cells if not same(c)] + [cell]
    cells.sort(key=lambda c: (c["kind"] != "single", c["tokens"]))
    path.write_text(json.dumps({"model_sha256": digest, "cells": cells}, indent=2) + "\n")
    return cells


def markdown(cells):
    rows = ["| needles | tokens | right | prose | noise |", "| --- | ---: | ---: | ---: | ---: |"]
    for c in cells:
        part = [f"{c[h]['right']} of {c[h]['documents']}" for h in ("prose", "noise")]
        rows.append(f"| {c['kind']} | {c['tokens']:,} | {c['right']} of {c['documents']} | {part[0]} | {part[1]} |")
    return "\n".join(rows)


def dump(documents, count, length, folder, seed):
    """Writes NN.txt, the document, and NN.json, its question and the expected answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        kind = list(KEYS)[i // 2 % 2]
        haystack, segments = documents.make(length, KEYS[kind], i, seed)
        text = "".join(p for s in segments[:-2] for p in s.pieces).removeprefix(BOS)
        about = {
            "kind": kind,
            "haystack": haystack,
            "question": "".join(segments[-2].pieces),
            "answer": "".join(segments[-1].pieces[:-1]),
            "prompt_tokens": sum(len(documents.encoder.segment(s)) for s in segments[:-1]),
        }
        (folder / f"{i:02d}.txt").write_text(text)
        (folder / f"{i:02d}.json").write_text(json.dumps(about, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--documents", default=DOCUMENTS, help="tokens:documents for each row of the table")
    parser.add_argument("--kinds", default=",".join(KEYS))
    parser.add_argument(
        "--out", type=Path, default=HERE / "eval.json", help="JSON table to add to; Markdown goes to the terminal"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dump", nargs=2, metavar=("N", "DIR"), help="write N documents to DIR and stop")
    parser.add_argument("--tokens", type=int, default=4096, help="length of dumped documents, question included")
    args = parser.parse_args()

    documents = Documents(Tokenizer.from_file(str(HERE / "tokenizer.json")))
    if args.dump:
        dump(documents, int(args.dump[0]), args.tokens, Path(args.dump[1]), args.seed)
        return

    torch.set_num_threads(args.threads)
    model = load_pretrained(args.model)
    digest = hashlib.sha256((args.model / "model.safetensors").read_bytes()).hexdigest()
    for row in args.documents.split(","):
        length, count = map(int, row.split(":"))
        for kind in args.kinds.split(","):
            cell = measure(model, documents, length, kind, count, args.seed)
            print(json.dumps(cell), flush=True)
            cells = record(args.out, digest, cell)  # after every cell: the last rows take long
    print(markdown(cells))


if __name__ == "__main__":
    main()
