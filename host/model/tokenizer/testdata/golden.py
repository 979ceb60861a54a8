#!/usr/bin/env python3
"""Makes the golden files of the tokenizer test with Hugging Face tokenizers.

    python golden.py                                    all files of this folder
    python golden.py --tokenizer FILE --out FILE.ids.json.gz
                                                        the same strings with another tokenizer.json

The reference model's golden file is made, from the root of the repository, by

    python host/model/tokenizer/testdata/golden.py \\
        --tokenizer examples/reference-model/tokenizer.json \\
        --out host/model/tokenizer/testdata/reference.ids.json.gz

Everything is seeded: the same versions give the same bytes. Made with tokenizers 0.23.

strings.json.gz       1,000 strings
NAME.tokenizer.json.gz  a tokenizer
NAME.ids.json.gz      {"tokenizer_sha256", "strings_sha256", "ids", "plain"}: the ids of each string, template applied;
                      and, by the string's number, those that differ where special tokens in the text are plain text
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Words by case, contractions at their end: no scanner knows it, so that it goes to regexp2.
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACES = ["\t", "\n", "\v", "\f", "\r", " ", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u180e", "\u2000", "\u2003", "\u2009",
          "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "\r\n", "\n\r"]
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot|>", "<|eot", "<tool>", "strip-left", "strip-right", "alone", "Caf\u00e9", "Cafe\u0301"]
SENTENCES = [
    "The tide came in before noon, and nobody who'd been on the sand could say how long they'd slept.",
    "I'm sure we've met; you're the one who'll carry the lamp, aren't you? It's late, and he'd better hurry!",
    "I'M SURE WE'VE MET; YOU'RE THE ONE WHO'LL CARRY IT. IT'S LATE, HE'D HURRY, DON'T STOP.",
    "func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(i, i*i)\n\t}\n}\n",
    "Pi is 3.14159265358979, e is 2.71828, and 1,234,567.89 + 0x1F = ?",
    "Der Bär aß in Øresund süße Äpfel, während Zoë naïve Fragen über Façaden stellte.",
    "Ветер гнал листья по пустой улице, и фонари качались.", "Ο άνεμος φυσούσε και η θάλασσα ήταν ήσυχη.",
    "海边的灯塔在夜里亮着，船慢慢地靠岸。", "港の灯りが消えて、カモメだけが鳴いていた。ﾊﾝｶｸ", "바람이 불고 등대의 불빛이 꺼졌다.",
    "كانت السفينة تبحر نحو الميناء ١٢٣٤", "הים היה שקט והסירה חזרה לנמל", "समुद्र के किनारे एक पुराना घर था। १२३", "ทะเลเงียบสงบในยามเช้า ๑๒๓",
    "One of the special magic numbers for harbour is: 4071936.", "What is the special magic number for harbour mentioned in the provided text?",
    "https://example.org/a/b?c=d&e=f#g  user@example.org  C:\\temp\\x.txt", "👩\u200d👩\u200d👧\u200d👦 👍🏽 🏳️\u200d🌈 🇨🇭🇯🇵 ❤️ ☺ \U0001f9d1\u200d🚀",
    "e\u0301 a\u030a o\u0308 n\u0303 \u1100\u1161\u11a8 \u0915\u094d\u0937 q\u0307\u0323", "ﬁne ﬂow \u00bd \u2167 \u2460 \u00b2 \u0969 \u3007 ℌ ℓ K Å",
    "it\u2019s \u2018quoted\u2019 \u201ctext\u201d \u2014 and \u2026 so on", "we'\u017f 'S 's 'ſ 'LL 'Ll 'lL ''ll '' ' 'x 've'VE'Ve're",
]


def words(rng, n):
    """Invented words, common ones more often."""
    syllables = [c + v for c in "b br c ch d dr f fl g gr h j k l m n p pl qu r s sh st t th tr v w y z".split() for v in "a e i o u ai ea oo er an in on".split()]
    stock = ["".join(rng.choices(syllables, k=rng.choice([1, 1, 2, 2, 3]))) for _ in range(3000)]
    weights = [1 / (i + 2) for i in range(len(stock))]
    return rng.choices(stock, weights, k=n)


def prose(rng, n):
    out = []
    for i, w in enumerate(words(rng, n)):
        r = rng.random()
        out.append(w.capitalize() if r < 0.1 else w.upper() if r < 0.13 else str(rng.randrange(10 ** rng.randint(1, 8))) if r < 0.17 else w)
        out.append(rng.choices([" ", ", ", ". ", "'s ", "n't ", "; ", "\n", "\n\n", " - ", "'ll ", " ("], [60, 8, 8, 3, 2, 1, 2, 1, 1, 1, 1])[0])
    return "".join(out)


def make_strings(count=1000):
    rng = random.Random(20260923)
    # Characters of Unicode 3.2: those that every table of every library agrees on.
    assigned = [chr(c) for c in range(0x30000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")]
    blocks = [[c for c in assigned if lo <= ord(c) < hi] for lo, hi in
              [(0, 0x80), (0, 0x250), (0x250, 0x530), (0x530, 0x780), (0x900, 0x1000), (0x1000, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3400),
               (0x4E00, 0xA000), (0xAC00, 0xD7B0), (0xF900, 0x10000), (0x10000, 0x30000)]]
    digits = [c for c in assigned if unicodedata.category(c).startswith("N")]
    marks = [c for c in assigned if unicodedata.category(c).startswith("M")]
    letters = [c for c in assigned if unicodedata.category(c).startswith("L") and ord(c) < 0x3000]
    out = ["", " ", "  ", "\n", "\r\n", "'", "a", " a", "a ", "\t\tx", "0", "007", "12345678901234567890", "a" * 700, " " * 600, "\n" * 300, "9" * 300,
           "ab" * 300, "!" * 300, "-=" * 200, "é" * 200, "漢" * 200, " \n" * 100, "\r\n" * 100, "\t " * 100, "<|eot|>" * 50, "👍🏽" * 40]
    out += SENTENCES + SPECIALS + SPACES
    out += ["x" + s + "y" for s in SPACES] + [s + s + "y" for s in SPACES] + ["x " + s for s in SPACES] + [s + " 1" for s in SPACES]
    out += ["a " + s + " b" for s in SPECIALS] + ["a" + s + "b" for s in SPECIALS] + ["\n\t" + s + " \n." for s in SPECIALS] + [s + s for s in SPECIALS]
    out += ["".join(map(chr, range(i, i + 16))) for i in range(0, 0x100, 16)] + [chr(i) + "a" + chr(i) for i in range(32)]
    # Letters and numbers of Unicode 15.1 and 16; the Go test knows where its regexp2 cannot.
    out += ["a\u1c89b \ua7cb'\ua7da", "\U000105c0\U00010d4a x", "\U00010d40\U00010d41\U00010d42\U00010d43 \U0001ccf0", "\U0002ebf0\U00013460!", "\U0001e5f1\U0001e5f0 \U00016d70\U00016d40"]
    while len(out) < count:
        k = rng.randrange(8)
        if k == 0:
            s = prose(rng, rng.randint(5, 80))
        elif k == 1:
            s = "".join(rng.choices(rng.choice(blocks), k=rng.randint(1, 40)))
        elif k == 2:
            s = "".join(rng.choice(rng.choice(blocks)) for _ in range(rng.randint(1, 60)))
        elif k == 3:
            s = "".join(rng.choice([rng.choice(SPACES), rng.choice(SPACES), "a", "Bc", ".", "'s", "1", "é"]) for _ in range(rng.randint(2, 40)))
        elif k == 4:
            s = "".join(rng.choice(digits) if rng.random() < 0.7 else rng.choice(" ,.a") for _ in range(rng.randint(2, 30)))
        elif k == 5:
            s = "".join(rng.choice(letters) + "".join(rng.choices(marks, k=rng.randint(0, 3))) for _ in range(rng.randint(2, 25)))
        elif k == 6:
            s = "".join(rng.choice([rng.choice(SPECIALS), prose(rng, 2), " ", "\n", "_", "é", "1"]) for _ in range(rng.randint(2, 12)))
        else:
            s = "".join(rng.choice(["'", "'S", "'t", "'RE", "'vE", "'M", "'ll", "'D", "\u2019s", "'\u017f", "w", "X", " ", "3", "\r\n", "!"]) for _ in range(rng.randint(2, 30)))
        out.append(s)
    return out[:count]


def train(pre, corpus, size, special, alphabet, unk=None):
    t = Tokenizer(models.BPE(unk_token=unk, fuse_unk=unk is not None))
    t.pre_tokenizer = pre
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    t.decoder = decoders.ByteLevel()
    return t


def template(t, single):
    names = [w for w in single.split() if not w.startswith("$")]
    return processors.TemplateProcessing(single=single, special_tokens=[(n, t.token_to_id(n)) for n in names])


def dump(obj):
    return json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def save(name, data):
    (HERE / name).write_bytes(gzip.compress(data, 9, mtime=0))


def golden(tokenizer_json, strings, out):
    t = Tokenizer.from_str(tokenizer_json.decode())
    ids = [e.ids for e in t.encode_batch(strings)]
    t.encode_special_tokens = True
    plain = {str(i): e.ids for i, e in enumerate(t.encode_batch(strings)) if e.ids != ids[i]}
    t.encode_special_tokens = False
    out.write_bytes(gzip.compress(dump({
        "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
        "strings_sha256": hashlib.sha256(dump(strings)).hexdigest(),
        "ids": ids,
        "plain": plain,
    }), 9, mtime=0))
    lossy = sum(t.decode(i, skip_special_tokens=False) != s for i, s in zip((e.ids for e in t.encode_batch(strings, add_special_tokens=False)), strings))
    print(f"{out.name}: {sum(map(len, ids))} ids, {len(plain)} strings with special tokens, {lossy} strings do not come back from decode")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tokenizer", type=pathlib.Path)
    ap.add_argument("--out", type=pathlib.Path)
    args = ap.parse_args()
    strings = make_strings()
    if args.tokenizer:
        golden(args.tokenizer.read_bytes(), strings, args.out)
        return
    save("strings.json.gz", dump(strings))
    rng = random.Random(7)
    corpus = [prose(rng, 200) for _ in range(200)] + SENTENCES * 20
    full = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = SPECIALS[:3]

    def llama(digits):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA % digits), "isolated"), byte_level])

    files = {}
    # 1. One digit a token, merges as pairs.
    t = train(llama(""), corpus, 2048, special, full)
    t.post_processor = template(t, "<|begin_of_text|> $A")
    files["digits1"] = t.to_str()
    # 2. Up to three digits, ignore_merges with words that no merge makes, merges as strings, and a vocabulary in which special tokens come last.
    t = train(llama("{1,3}"), corpus, 1600, [], full)
    t.add_special_tokens(special)
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(t, "<|begin_of_text|> $A")])
    js = json.loads(t.to_str())
    used = {p for m in js["model"]["merges"] for p in m}
    js["model"]["merges"] = [" ".join(m) for i, m in enumerate(js["model"]["merges"]) if i % 3 or "".join(m) in used]
    js["model"]["ignore_merges"] = True
    files["digits3"] = dump(js).decode()
    # 3. GPT-2's own pattern with a prefix space, NFC, and added tokens with every flag.
    t = train(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True), corpus, 700, special, full)
    t.normalizer = normalizers.NFC()
    t.post_processor = processors.Sequence([template(t, "<|begin_of_text|> $A <|end_of_text|>")])
    t.add_tokens([AddedToken("strip-left", lstrip=True, normalized=False), AddedToken("strip-right", rstrip=True, normalized=False), AddedToken("alone", single_word=True),
                  AddedToken("Cafe\u0301", normalized=True), AddedToken("<tool>", lstrip=True, rstrip=True, single_word=True, normalized=False)])
    files["gpt2"] = t.to_str()
    # 4. A pattern without scanner, digits apart, unknown bytes.
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CASED), "isolated"), pre_tokenizers.Digits(individual_digits=False), byte_level])
    t = train(pre, corpus[:200], 600, ["<unk>"] + special, [], unk="<unk>")
    files["cased"] = t.to_str()
    for name, js in files.items():
        save(name + ".tokenizer.json.gz", js.encode())
        golden(js.encode(), strings, HERE / (name + ".ids.json.gz"))


if __name__ == "__main__":
    main()
