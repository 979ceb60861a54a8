"""A Llama of plain PyTorch, its parameters named as Hugging Face names them."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


@dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 384
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    # So large that 13 of the 32 frequency pairs turn by less than a radian over
    # 131,072 tokens: these match content at any distance.
    rope_theta: float = 1e9
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 139264  # 131,072 and room for the answer


class RMSNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, self.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * c.head_dim, c.hidden_size, bias=False)

    def forward(self, x, cos, sin, temper, tail):
        """Causal attention; with `tail`, only the last `tail` positions ask."""
        split = lambda y: y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        queries = x[:, -tail:] if tail else x
        q = rotate(split(self.q_proj(queries)), cos[:, :, -queries.shape[1] :], sin[:, :, -queries.shape[1] :])
        k, v = rotate(split(self.k_proj(x)), cos, sin), split(self.v_proj(x))
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mask = None
        if tail:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - q.shape[2])
        scale = temper * self.head_dim**-0.5
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, mask, is_causal=not tail, scale=scale)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(c), Attention(c)
        self.post_attention_layernorm, self.mlp = RMSNorm(c), MLP(c)

    def forward(self, x, cos, sin, temper, tail):
        attended = self.self_attn(self.input_layernorm(x), cos, sin, temper, tail)
        x = x[:, -attended.shape[1] :] + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The decoder; embeddings and output weights are tied."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config)
        half = config.head_dim // 2
        inverse = config.rope_theta ** (-torch.arange(half).double() / half)
        self.register_buffer("inverse_frequencies", inverse.float(), persistent=False)
        self.initialize()

    @torch.no_grad()
    def initialize(self):
        """Random weights, except that the first layer starts by looking 1, 2, 3, 4 tokens back.

        Copying needs such heads, and without biases they are slow to form: a query
        that depends on position alone needs a direction all embeddings share. The
        embeddings' mean is that direction; it adds the same to every output logit.
        """
        c, mean, std = self.config, 0.03, 0.05
        for name, p in self.named_parameters():
            if p.ndim == 2:
                # Blocks start near nothing, so that at first the stream carries the tokens themselves.
                nn.init.normal_(p, std=0.005 if "o_proj" in name or "down_proj" in name else std)
        self.embed_tokens.weight += mean

        # A normalized embedding's part along the shared direction, all ones over sqrt(width).
        shared = mean / math.hypot(mean, std) * c.hidden_size**0.5
        frequencies = self.inverse_frequencies[:8]
        logits = torch.tensor([8.0, 6.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])  # of each frequency at its peak
        amplitude = (logits * c.head_dim**0.5).sqrt() / shared / c.hidden_size**0.5
        half = c.head_dim // 2
        attention = self.layers[0].self_attn
        q = attention.q_proj.weight.view(c.num_attention_heads, 2, half, -1).mul_(0.3)
        k = attention.k_proj.weight.view(c.num_key_value_heads, 2, half, -1).mul_(0.3)
        k[:, 0, :8] += amplitude[:, None]
        for head in range(c.num_attention_heads):
            angle = frequencies * (head + 1)
            q[head, 0, :8] += (amplitude * angle.cos())[:, None]
            q[head, 1, :8] -= (amplitude * angle.sin())[:, None]

    def forward(self, ids, positions, temper=1.0, tail=0):
        """Final hidden states (of the last `tail` positions if given).

        temper scales every attention logit: below 1 it flattens attention as a
        longer context would.
        """
        angles = positions[:, None, :, None].float() * self.inverse_frequencies
        cos, sin = angles.cos(), angles.sin()
        x = self.embed_tokens(ids)
        for i, layer in enumerate(self.layers):
            # Only the last layer may skip queries: the others feed its keys.
            x = layer(x, cos, sin, temper, tail if i == len(self.layers) - 1 else 0)
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed_tokens.weight.T


def save_pretrained(model, folder, bos, eos):
    """Writes config.json, generation_config.json and model.safetensors (bf16)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(model.config),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": "bfloat16",
    }
    generation = {"bos_token_id": bos, "eos_token_id": eos, "do_sample": False, "max_new_tokens": 16}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {f"model.{k}": v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_pretrained(folder):
    """The model of save_pretrained, its bf16 weights widened to f32."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    model = Llama(Config(**{k: config[k] for k in Config.__dataclass_fields__}))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in weights.items()})
    return model.eval()
