#!/usr/bin/env python3
"""Makes small random models in Hugging Face layout and the logits that transformers computes for them.

    python golden.py                          the models of this folder, each with its golden.safetensors
    python golden.py --model DIR --out FILE   the golden file of another model, on a prompt with a needle

The reference model's golden file is made, from the root of the repository, by

    python host/model/testdata/golden.py --model examples/reference-model \\
        --out host/model/testdata/reference.golden.safetensors

Weights are upcast to float32 and everything is computed in float32 with eager attention.
Seeded: the weights come out the same again, the logits up to rounding. Made with transformers 5.23 and torch 2.15.

golden.safetensors (all F32):
    tokens     [n]                  token ids
    positions  [p]                  indices of tokens
    logits     [p, vocabulary]      logits at those positions, each given all tokens up to it
    inv_freq   [head dimension / 2] rotary frequencies, radians per position
    greedy     [g]                  the most likely continuation of tokens; may be missing
"""
import argparse
import json
import os
import pathlib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
VOCAB = 264  # the 256 bytes, three special tokens, and five rows that no token uses
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def tokenizer_json():
    """A tokenizer of single bytes."""
    printable = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    rest = [b for b in range(256) if b not in printable]
    char = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}
    special = [{"id": 256 + i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, c in enumerate(["<bos>", "<eos>", "<eot>"])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None, "pre_tokenizer": level,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [256], "tokens": ["<bos>"]}}},
        "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {char[b]: b for b in range(256)}, "merges": []},
    }


def config(heads, kv, dim, layers, hidden, mlp, tied, dtype, rope, old_style, arch="LlamaForCausalLM", model_type="llama", **more):
    c = {
        "architectures": [arch], "model_type": model_type, "vocab_size": VOCAB, "hidden_size": hidden, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "hidden_act": "silu",
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": tied, "bos_token_id": 256, "eos_token_id": 257,
    }
    if model_type == "llama":
        c |= {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
    if old_style:  # as transformers 4 writes it
        c["rope_theta"] = rope["rope_theta"]
        scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
        c["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        c["torch_dtype"] = dtype
    else:
        c["rope_parameters"] = rope
        c["dtype"] = dtype
    return c | more


def random_weights(c, seed):
    """Weights of a size at which attention is neither flat nor a single token."""
    gen = torch.Generator().manual_seed(seed)
    h, m, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d

    def matrix(rows, cols, gain=1.0):
        return torch.randn(rows, cols, generator=gen) * gain * cols**-0.5

    def norm():
        return 0.5 + torch.rand(h, generator=gen)

    w = {"model.embed_tokens.weight": torch.randn(VOCAB, h, generator=gen) * (0.5 if c["tie_word_embeddings"] else 1.0)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        w |= {
            p + "input_layernorm.weight": norm(), p + "post_attention_layernorm.weight": norm(),
            p + "self_attn.q_proj.weight": matrix(q, h, 1.5), p + "self_attn.k_proj.weight": matrix(kv, h, 1.5),
            p + "self_attn.v_proj.weight": matrix(kv, h), p + "self_attn.o_proj.weight": matrix(h, q, 2.0),
            p + "mlp.gate_proj.weight": matrix(m, h), p + "mlp.up_proj.weight": matrix(m, h), p + "mlp.down_proj.weight": matrix(h, m),
        }
    w["model.norm.weight"] = norm()
    if not c["tie_word_embeddings"]:
        w["lm_head.weight"] = matrix(VOCAB, h, 2.0)
    return {k: v.to(DTYPES[c.get("dtype") or c["torch_dtype"]]).contiguous() for k, v in w.items()}


def write_model(folder, c, seed, generation, shards):
    folder.mkdir(exist_ok=True)
    for name, obj in [("config.json", c), ("generation_config.json", generation), ("tokenizer.json", tokenizer_json())]:
        if obj is not None:
            indent = None if name == "tokenizer.json" else 2
            (folder / name).write_text(json.dumps(obj, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    w = random_weights(c, seed)
    if shards == 1:
        save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(w)
    weight_map = {}
    for i in range(shards):
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file({n: w[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= {n: file for n in part}
    total = sum(t.numel() * t.element_size() for t in w.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")


@torch.no_grad()
def golden(folder, tokens, positions, out, new_tokens=0):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rope = model.model.rotary_emb
    assert rope.attention_scaling == 1.0
    ids = torch.tensor([tokens])
    logits = model(ids, use_cache=False).logits[0].float()
    tensors = {
        "tokens": torch.tensor(tokens, dtype=torch.float32), "positions": torch.tensor(positions, dtype=torch.float32),
        "logits": logits[positions].contiguous(), "inv_freq": rope.inv_freq.float().clone(),
    }
    greedy = []
    for _ in range(new_tokens):
        greedy.append(int(model(torch.tensor([tokens + greedy]), use_cache=False).logits[0, -1].argmax()))
    if greedy:
        tensors["greedy"] = torch.tensor(greedy, dtype=torch.float32)
    save_file(tensors, out, metadata={"transformers": transformers.__version__, "dtype": "float32", "attention": "eager"})
    probs = logits.softmax(-1)
    print(f"{out}: {len(tokens)} tokens, logits of std {logits.std():.2f}, mean largest probability {probs.max(-1).values.mean():.2f}, greedy {greedy}")


def needle_prompt(tokenizer, target=300):
    noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
    needle = "One of the special magic numbers for harbour is: 4071936.\n"
    question = ("What is the special magic number for harbour mentioned in the provided text? "
                "The special magic number for harbour mentioned in the provided text is")
    best = None
    for n in range(1, 200):
        text = noise * (n // 3) + needle + noise * (n - n // 3) + question
        ids = tokenizer.encode(text).ids
        if best is not None and len(ids) > target:
            break
        best = ids
    return best


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=pathlib.Path)
    ap.add_argument("--out", type=pathlib.Path)
    args = ap.parse_args()
    torch.set_num_threads(1)  # the order of summation, and so the bytes, depend on it
    if args.model:
        tok = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        ids = needle_prompt(tok)
        n = len(ids)
        golden(args.model, ids, [0, 1, n // 4, n // 2, n - 4, n - 3, n - 2, n - 1], args.out, new_tokens=8)
        return
    llama3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    models = {
        "gqa1-d64-f32-untied-default": (config(2, 2, 64, 2, 32, 48, False, "float32", {"rope_type": "default", "rope_theta": 500000.0}, False), None, 1),
        "gqa2-d64-bf16-tied-linear": (config(4, 2, 64, 3, 32, 64, True, "bfloat16", linear, True), {"eos_token_id": 257, "bos_token_id": 256}, 1),
        "gqa4-d128-f16-untied-llama3": (config(8, 2, 128, 2, 32, 48, False, "float16", llama3, False), None, 1),
        "gqa8-d64-bf16-tied-llama3-sharded": (config(8, 1, 64, 3, 32, 64, True, "bfloat16", llama3, True),
                                              {"bos_token_id": 256, "eos_token_id": [257, 258], "do_sample": True, "temperature": 0.6, "top_p": 0.9}, 3),
        "mistral-gqa2-d64-bf16": (config(4, 2, 64, 2, 32, 32, False, "bfloat16", {"rope_type": "default", "rope_theta": 1000000.0}, True,
                                         arch="MistralForCausalLM", model_type="mistral", sliding_window=None), None, 1),
    }
    for seed, (name, (c, generation, shards)) in enumerate(models.items(), start=1):
        folder = HERE / name
        write_model(folder, c, seed, generation, shards)
        gen = torch.Generator().manual_seed(100 + seed)
        n = 150 - 11 * seed
        tokens = [256] + torch.randint(0, 256, (n - 1,), generator=gen).tolist()
        golden(folder, tokens, [0, 1, 7, 31, 32, 63, n - 10, n - 2, n - 1], folder / "golden.safetensors")


if __name__ == "__main__":
    main()
