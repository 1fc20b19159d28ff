"""Print which nets of the zoo go through ``gt.export_onnx`` and how exact both runtimes are: ``make onnx-table``.

Comes in: the zoo. Goes out: ``docs/onnx.md``, and an exit status, 1 where fewer than 25 nets are within 1e-3. Each net's result is kept,
so a killed run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geta_nb as gt
from geta_nb.bench.jobs import Job, run_jobs, write_json
from geta_nb.onnx.processor import adds_bytes_exactly
from tests.onnx.checks import OPENERS, ZOO, half_cut, noise, worst

ROOT = Path(__file__).resolve().parents[2]

NETS = """\
vgg7 resnet20 resnet_basic resnet_bottleneck resnet_pad_shortcut resnext densenet mobilenet_v2 unet shufflenet squeeze_excite
flatten_linear batch_norm batch_norm_plain group_norm layer_norm_like instance_norm grouped_conv depthwise_multiplier conv1d conv3d
shared_conv tied_linear tied_autoencoder mlp mlp_gelu_norm mlp_sigmoid glu_chunk bare_parameter many_inputs attention multihead_attention
encoder_layer encoder_layer_pre_norm lstm bert_sdpa vit_sdpa gpt2_sdpa llama_sdpa phi_sdpa t5_eager roberta distilbert albert electra
deberta opt bloom mistral gemma2 qwen2 qwen3 mixtral mamba deit beit dinov2 swin
"""
BATCHES, LIMIT = (2, 5), 1e-3
MODES = {"weights": False, "weights and inputs": True}


def measure(name: str, version: str) -> dict[str, Any]:
    """Return errors of both runtimes in both modes, or what went wrong."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return {mode: _mode(name, inputs) for mode, inputs in MODES.items()}


def _mode(name: str, inputs: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"errors": {}, "why": ""}
        try:
            subnet = half_cut(name, inputs=inputs)
            args, kwargs = ZOO[name].inputs(2), ZOO[name].kwargs(2)
            path = gt.export_onnx(subnet, Path(folder) / "net.onnx", args, example_kwargs=kwargs)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines()]
            return found | {"why": " ".join([lines[0], *(line for line in lines if line.startswith("got:"))])[:240]}
        found |= {"kind": subnet.geta_info.kind, "bytes": path.stat().st_size, "float": sum(p.numel() for p in subnet.parameters()) * 4}
        for runtime, opener in OPENERS.items():
            try:
                found["errors"][runtime] = worst(opener(path), subnet, path, name, BATCHES)
            except Exception as error:
                found["why"] += f"{runtime}: {type(error).__name__}: {' '.join(str(error).split())[:160]} "
        try:
            found["noise"] = noise(subnet, name, BATCHES)
        except Exception:
            found["noise"] = None
        return found


HEAD = """# ONNX files, measured

Made by `make onnx-table`: nets of the zoo (tiny, random weights), every second group cut, exported by `gt.export_onnx`, run at batch
sizes {batches} in ONNX Runtime and OpenVINO. A figure is the largest difference to the torch subnet over its largest output. *Weights*: 2
to 12 bits, inputs in float32. *Weights and inputs*: 8 bits each. Nets with both runtimes within {limit:g}: **{weights} of {all}** with
quantized weights, **{both} of {all}** with quantized weights and inputs, {either} in both modes.

{notes}
| net | module | weights: ORT | OpenVINO | weights and inputs: ORT | OpenVINO | torch itself |
|---|---|---:|---:|---:|---:|---:|
"""
NOTES = """\
*Torch itself*: the same torch subnet in float32 against float64, with quantized inputs. A quantized network has jumps: where a sum lies
within rounding error of the middle between two codes, another order of summation takes the other code, and one code in 255 of one
activation shows in a net with 8 channels. Both runtimes compute gpt2 exactly with other masks; deberta in ONNX Runtime is such a case too.

**Biases.** The table is of files as they are by default: biases are written apart from convolutions and plain products, and both
runtimes are exact but for the cases above. With `integer_biases=True` ONNX Runtime, too, runs convolutions in integers, and rounds
each bias to a multiple of input step times weight step (the format of `QLinearConv` asks for it). That moves some sums over the middle
that OpenVINO, which keeps the bias in float32, leaves where they were: vgg7, resnet20, mobilenet_v2, unet, grouped_conv and
shared_conv were then off by 3e-3 to 2e-2 in ONNX Runtime (this table as it was made before, with that option set). It is faster: 7.4
instead of 20.6 ms on a half-cut VGG7; OpenVINO keeps its integers and its speed either way (3.8 and 3.9 ms; these four on a processor
with VNNI).

**Processors.** x86 processors without VNNI (Intel before Cascade Lake and Ice Lake, AMD before Zen 4) add products of bytes two at a time
in 16 bits. What does not fit saturates in silence, in both runtimes: 8-bit weights beside 8-bit inputs were off by up to 27 % here.
`gt.export_onnx(..., any_processor=True)` keeps layers whose sums may not fit out of integer kernels; others, of weights of up to 6 bits
or so, stay in them. Left out, it is as the exporting processor needs, and the file's metadata say which it was: ship
`any_processor=True` to processors that you do not know. This table was made on a processor {processor} VNNI.

**Batch.** The first axis of a file is open where network and ONNX allow it. Kernels of each sample (StyleGAN2, CondConv: one convolution
with as many groups as samples) do not: ONNX wants the number of groups in the file. Such a file is for the batch of the example inputs, as
`torch.onnx.export` writes it; a warning names inputs, axis and reason, and so do the file's metadata: `dynamic_batch` is "false", and
`fixed_batch` says why.

**Other sizes.** So are all other axes (lengths, sides of images) where that is safe: a file checks no condition on sizes, so an axis along
which it would run where the network does not (another way in the network's code for another size) is bound to the example. `sizes` in the
file's metadata says what it takes; `dynamic=False` leaves the batch open alone. Python's division of sizes below zero is written out:
torch's own translation cuts off towards zero there.

**Operators in parts.** A trace keeps what the groups have a rule for. Where torch's exporter does not know such an operator by that name
(products of three as in `nn.Bilinear`, `torch.cdist`, pools of volumes, determinants), it is written in parts that it knows. It has no form
for medians, orders and running extremes (`median`, `kthvalue`, `mode`, `cummax`, `searchsorted`): `gt.save` writes those.
"""


def _within(row: Mapping[str, Any]) -> bool:
    return len(row["errors"]) == len(OPENERS) and max(row["errors"].values()) <= LIMIT


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown, with the reasons of what did not work under it."""
    lines, reasons = [], []
    for net, modes in results.items():
        kind = modes["weights"].get("kind") or modes["weights and inputs"].get("kind") or "-"
        cells = [_cell(modes[mode]["errors"].get(runtime)) for mode in MODES for runtime in OPENERS]
        lines.append(f"| {net} | {kind} | {' | '.join(cells)} | {_cell(modes['weights and inputs'].get('noise'))} |")
        reasons += [f"- {net}, {mode}: {row['why'].strip()}" for mode, row in modes.items() if row["why"]]
    counts = [[_within(modes[mode]) for modes in results.values()] for mode in MODES]
    head = HEAD.format(
        batches=" and ".join(map(str, BATCHES)), limit=LIMIT, weights=sum(counts[0]), both=sum(counts[1]), all=len(results),
        either=sum(map(all, zip(*counts, strict=True))), notes=NOTES.format(processor="with" if adds_bytes_exactly() else "without"),
    )  # fmt: skip
    return head + "\n".join(lines) + "\n" + ("\n## Why not\n\n" + "\n".join(reasons) + "\n" if reasons else "")


def _cell(error: float | None) -> str:
    if error is None:
        return "-"
    return f"**{error:.0e}**" if error > LIMIT else f"{error:.0e}"


def main() -> int:
    """Run what is not kept yet and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "onnx", help="folder of the kept results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "onnx.md")
    parser.add_argument("--only", nargs="*", default=None, help="names of nets; the page is not written then")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ROOT / "tests" / "zoo").glob("*.py")))).hexdigest()[:16]
    jobs = {name: Job(measure, {"name": name, "version": version}) for name in options.only or NETS.split()}
    results = run_jobs(jobs, options.output, workers=options.workers, title="onnx")
    text = page(results)
    if options.only is None:
        options.page.write_text(text)
        write_json(options.output / "onnx.json", results)
    sys.stdout.write(text)
    return int(sum(_within(modes["weights and inputs"]) for modes in results.values()) < 25)


if __name__ == "__main__":
    sys.exit(main())
