"""Trains the reference model from nothing to model.safetensors in a set number of minutes.

The curriculum runs on the clock: copying first, then needles in longer and longer
text. Position gaps show RoPE far distances in short sequences, and flattened
attention (`temper`) makes margins that hold among far more tokens.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from data import BOS, EOS, HERE, WORDING, Encoder, Noise, Prose, TrainingWords
from data import build_prompt, draw_numbers, draw_repetitive, question, training_paragraphs
from model import Config, Llama, save_pretrained

ANSWER, PAIR, REPEAT, PROSE = range(4)  # what a loss position trains
LOSS_WEIGHT = {ANSWER: 1.0, PAIR: 1.0, REPEAT: 0.5, PROSE: 0.03}
KIND = ["answer", "pair", "repeat", "prose"]

# The nearer the key to the answer, the easier the first digit: these come first.
SHORT_WORDINGS = ["", "", " mentioned", " in the text", " mentioned in the text"]
# What stands between key and value in the pairs that come before needles.
LINKS = [":", " is", " is:", " mentioned is", " in the text is:", f"{WORDING} is"]


@dataclass
class Phase:
    until: float  # share of the whole run
    shapes: list  # (sequence length, sequences a batch), drawn alike
    repeats: float = 0.03  # share of sequences that only copy
    pairs: float = 0.0  # share of sequences of keys and values
    gaps: float = 0.75  # share of prompts with position gaps
    temper: float = 1.0  # attention logits are scaled by temper..1
    short: float = 0.0  # share of prompts with short wordings
    repetitive: float = 0.0  # share of prompts whose numbers repeat few digits


MIDDLE = [(384, 12), (1024, 5), (1024, 5), (1024, 5)]
LONG = MIDDLE + [(2048, 2), (4096, 1)]
PHASES = [
    Phase(0.04, [(128, 32)], repeats=1.0),
    Phase(0.12, [(192, 24)], repeats=0.1, pairs=0.6, gaps=0.3, short=0.5),
    Phase(0.25, [(384, 12)], repeats=0.05, pairs=0.25, gaps=0.6, temper=0.85, short=0.2),
    Phase(0.65, MIDDLE, pairs=0.05, temper=0.6),
    Phase(0.77, LONG, temper=0.55),
    Phase(1.00, LONG, temper=0.55, repetitive=0.4),
]


class Batches:
    """Draws training batches: token ids, position ids, and the positions to train."""

    def __init__(self, tokenizer, config, bible, seed):
        self.rng, self.numpy = Random(seed), np.random.default_rng(seed)
        self.encoder = Encoder(tokenizer)
        self.words, self.prose, self.noise = TrainingWords(), Prose(training_paragraphs(bible)), Noise()
        self.bos, self.vocab, self.span = tokenizer.token_to_id(BOS), config.vocab_size, config.max_position_embeddings
        self.special = {self.bos, tokenizer.token_to_id(EOS)}
        self.digits = [tokenizer.token_to_id(d) for d in "0123456789"]
        self.prose_ids = [i for text, _ in self.prose.clauses for i in self.encoder.piece(f" {text}")]

    def prose_span(self, n):
        at = self.rng.randrange(len(self.prose_ids) - n)
        return self.prose_ids[at : at + n]

    def repeat_row(self, length):
        """Spans of random tokens, digits or prose that come back; their return is trained."""
        row, train, spans = [self.bos], [], []
        while len(row) < length:
            if spans and self.rng.random() < 0.55:
                span = self.rng.choice(spans)
                # Nothing tells which span returns: its first token is not trained.
                train += range(len(row), min(len(row) + len(span), length) - 1)
            else:
                n, kind = self.rng.randint(5, 20), self.rng.random()
                if kind < 0.4:
                    span = self.numpy.integers(len(self.special), self.vocab, n).tolist()
                elif kind < 0.7:
                    key = self.numpy.integers(len(self.special), self.vocab, self.rng.randint(1, 4)).tolist()
                    span = key + self.rng.choices(self.digits, k=7)
                else:
                    span = self.prose_span(n)
                spans.append(span)
            row += span
        return row[:length], None, train, REPEAT

    def pair_row(self, length):
        """Keys with short values, each named again with, often, another link before its value."""
        row, train, pairs = [self.bos], [], []
        while len(row) < length:
            back = pairs and self.rng.random() < 0.5
            if back:
                word, link, value = self.rng.choice(pairs)
            else:
                word, value = self.words.one(self.rng), self.rng.choices("0123456789", k=self.rng.randint(1, 4))
                link = self.rng.choice(LINKS)
                pairs.append((word, link, value))
            if self.rng.random() < 0.6:
                link = self.rng.choice(LINKS)
            row += [i for text in (f" {word}", link, " ") for i in self.encoder.piece(text)]
            if back:
                train += [t for t in range(len(row) - 1, len(row) - 1 + len(value)) if t < length - 1]
            row += [i for text in (*value, ".") for i in self.encoder.piece(text)]
        return row[:length], None, train, PAIR

    def prose_row(self, length):
        return [self.bos] + self.prose_span(length - 1), None, range(length - 1), PROSE

    def needle_row(self, length, phase):
        """A prompt with 1..32 needles, several of them asked for one after another."""
        segments = None
        while segments is None:
            n = round(math.exp(self.rng.uniform(0, math.log(min(32, length // 40)))))
            shared = self.rng.randint(1, 5) if self.rng.random() < 0.2 else 0
            repetitive = self.rng.random() < phase.repetitive
            numbers = draw_repetitive(self.rng, n) if repetitive else draw_numbers(self.rng, n, shared)
            pairs = list(zip(self.words.draw(self.rng, n), numbers))
            asked = self.rng.sample(range(n), min(n, self.rng.randint(1, 1 + min(9, length // 110))))
            wordings = SHORT_WORDINGS if self.rng.random() < phase.short else [WORDING]
            haystack = self.noise if self.rng.random() < 0.4 else self.prose
            segments = build_prompt(
                self.encoder,
                self.rng,
                haystack,
                pairs,
                asked,
                length,
                intro=length > 256 and self.rng.random() < 0.3,
                keep_paragraphs=self.rng.random() < 0.5,
                ask=lambda word, lead: question(word, lead, self.rng.choice(wordings)),
            )
        row, train, starts = [], [], []
        for s in segments:
            starts.append(len(row))
            ids = self.encoder.segment(s)
            if s.answer:
                train += range(len(row) - 1, len(row) + len(ids) - 1)
            row += ids
        can_gap = [i for i, s in zip(starts, segments) if i and not s.answer]
        positions = self.spread(len(row), can_gap) if self.rng.random() < phase.gaps else None
        return row, positions, train, ANSWER

    def spread(self, n, starts):
        """Position ids with gaps before some segments, up to the longest context in all."""
        total = math.exp(self.rng.uniform(math.log(n), math.log(self.span)))
        chosen = self.rng.sample(starts, min(len(starts), self.rng.choice([1, 2, 4, 8, 64])))
        shares = self.numpy.exponential(size=len(chosen)) ** 2
        jumps = np.ones(n, dtype=np.int64)
        jumps[0] = 0
        jumps[chosen] += (shares / shares.sum() * (total - n)).astype(np.int64)
        return jumps.cumsum()

    def draw(self, length, rows, phase):
        ids, positions = np.zeros((rows, length), np.int64), np.tile(np.arange(length), (rows, 1))
        index, kinds = [], []
        for r in range(rows):
            kind = self.rng.random()
            if kind < phase.repeats and length <= 1024:
                row, pos, train, what = self.repeat_row(length)
            elif kind < phase.repeats + phase.pairs and length <= 1024:
                row, pos, train, what = self.pair_row(length)
            elif kind > 0.94 and length <= 1024:
                row, pos, train, what = self.prose_row(length)
            else:
                row, pos, train, what = self.needle_row(length, phase)
            ids[r, : len(row)] = row
            if pos is not None:
                positions[r, : len(row)] = pos
            index += [r * length + t for t in train]
            kinds += [what] * len(train)
        return torch.from_numpy(ids), torch.from_numpy(positions), torch.tensor(index), torch.tensor(kinds)


def losses(model, batch, temper):
    """Weighted loss and, for each kind present, the share of tokens predicted."""
    ids, positions, index, kinds = batch
    hidden = model(ids, positions, temper).flatten(0, 1)[index]
    logits, target = model.logits(hidden).float(), ids.flatten()[index + 1]
    each, right = F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target
    loss, accuracy = 0.0, {}
    for kind, weight in LOSS_WEIGHT.items():
        mine = kinds == kind
        if mine.any():
            loss = loss + weight * each[mine].mean()
            accuracy[kind] = right[mine].float().mean().item()
    return loss, accuracy


def learning_rate(peak, step, share):
    """Warm-up by steps, then flat to half of the run, then a cosine to nothing."""
    warm = min(1.0, (step + 1) / 100)
    return peak * warm * (0.5 + 0.5 * math.cos(math.pi * max(0.0, share - 0.5) / 0.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=57, help="length of the run; all phases scale with it")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bible", help="a file of `bible -f` output; default: run the program")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the finished model")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--save-every", type=float, default=5, help="minutes between checkpoints")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from, clock included")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    config = Config(vocab_size=tokenizer.get_vocab_size())
    model = Llama(config).to(device)
    decay = [p for p in model.parameters() if p.ndim == 2]
    scales = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    step, spent, seed = 0, 0.0, args.seed
    if args.resume:
        state = torch.load(args.resume, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["minutes"]
        seed += step  # a resumed run draws new data
    batches = Batches(tokenizer, config, args.bible, seed)
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)

    start, saved, seen = time.time() - spent * 60, spent, {}
    while (minutes := (time.time() - start) / 60) < args.minutes:
        share = minutes / args.minutes
        phase = next(p for p in PHASES if share < p.until)
        length, rows = batches.rng.choice(phase.shapes)
        temper = batches.rng.uniform(phase.temper, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.lr, step, share)

        batch = [t.to(device) for t in batches.draw(length, rows, phase)]
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, accuracy = losses(model, batch, temper)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        for kind, value in accuracy.items():
            seen.setdefault((length, KIND[kind]), []).append(value)
        if step % 50 == 0:
            parts = [f"{k[1]}@{k[0]} {sum(v) / len(v):.3f}" for k, v in sorted(seen.items())]
            rate = group["lr"]
            print(f"{minutes:5.1f} min step {step} lr {rate:.1e} loss {loss.item():.3f}", *parts, flush=True)
            seen = {}
        step += 1
        if minutes - saved >= args.save_every:
            saved = minutes
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "minutes": minutes}
            torch.save(state, args.checkpoints / f"minute{round(minutes):03d}.pt")
            save_pretrained(model, args.checkpoints / f"minute{round(minutes):03d}", bos, eos)

    save_pretrained(model, args.out, bos, eos)
    print(f"{step} steps in {args.minutes} minutes; {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    main()
