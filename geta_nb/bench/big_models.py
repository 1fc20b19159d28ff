"""Networks of billions of weights without the weights: ``make bench-big-models`` prints what their analysis takes beside what is wanted.

In: nothing; the transformers come from ``transformers``, built from published configurations on the meta device. Out: a line for each
network and way to quantize, each measured in a process of its own: seconds of one core, and the most memory it held.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.speed_nets import imported

MODES = {"plain": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True)}
WANTED_SECONDS, WANTED_BYTES = 60.0, 1.5e9
WANTED_OF_70B = 90.0, 2.5e9


def llama(layers: int = 32) -> nn.Module:
    """Llama 2 7B, of any depth, on the meta device."""
    hf = imported("transformers")
    config = hf.LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers, num_attention_heads=32, vocab_size=32000, use_cache=False
    )
    with torch.device("meta"):
        model: nn.Module = hf.LlamaForCausalLM(config).eval()
    return model


def phi(layers: int = 32) -> nn.Module:
    """Phi 2, 2.7B, of any depth, on the meta device."""
    hf = imported("transformers")
    config = hf.PhiConfig(
        hidden_size=2560, intermediate_size=10240, num_hidden_layers=layers, num_attention_heads=32, partial_rotary_factor=0.4,
        vocab_size=51200, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model: nn.Module = hf.PhiForCausalLM(config).eval()
    return model


def llama_70b(layers: int = 80, vocabulary: int = 32000) -> nn.Module:
    """Llama 2 70B, of any depth, on the meta device: 64 heads that share 8 keys and values."""
    hf = imported("transformers")
    config = hf.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=layers, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=vocabulary, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model: nn.Module = hf.LlamaForCausalLM(config).eval()
    return model


def llama_3_70b(layers: int = 80) -> nn.Module:
    """Llama 3 70B, of any depth, on the meta device: the same with a vocabulary four times as large."""
    return llama_70b(layers, 128256)


NETS = {"llama": llama, "phi": phi}
LARGE = {"llama_70b": llama_70b, "llama_3_70b": llama_3_70b}
WIDTHS = {"llama": 11008, "phi": 10240}
"""Units of the feed-forward layers."""


def analysed(net: str, mode: str, layers: int | None = None, *, device: str = "meta") -> gt.GETA:
    """Return the analysis of a network of ``layers`` layers; None: all that it has."""
    build = {**NETS, **LARGE}[net]
    model = build() if layers is None else build(layers)
    return gt.GETA(model, torch.zeros(1, 16, dtype=torch.long, device=device), quantize=MODES[mode])


def peak_bytes() -> int:
    """Return the most memory this process has held; 0 where the system does not say."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def measure(net: str, mode: str) -> str:
    """Analyse a whole network and return a line about it."""
    most_seconds, most_bytes = WANTED_OF_70B if net in LARGE else (WANTED_SECONDS, WANTED_BYTES)
    torch.set_num_threads(1)
    imported("transformers")
    begin = time.process_time()
    geta = analysed(net, mode)
    share = geta.preview(gt.Budget(group_sparsity=0.5)).relative_bops
    seconds = time.process_time() - begin
    facts = f"{len(geta.groups)} groups, half of them away: {share:.2%} of the BOPs"
    return f"{net}, {mode}: {seconds:.1f} s of {most_seconds:.0f}, {peak_bytes() / 1e9:.2f} GB of {most_bytes / 1e9:.1f}; {facts}\n"


def main() -> int:
    """Print one line each, or the line of what is named: ``llama both``."""
    if len(sys.argv) == 3:
        sys.stdout.write(measure(sys.argv[1], sys.argv[2]))
        return 0
    commands = [[sys.executable, "-m", "geta_nb.bench.big_models", net, mode] for net in (*NETS, *LARGE) for mode in MODES]
    return max(subprocess.run(command, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
