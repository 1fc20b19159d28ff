"""Stand-ins with the attribute names of the real objects, for tests of the views: a VGG7 and a transformer of twelve layers.

Views read attributes only; a stand-in keeps their tests fast and independent of what the pipeline computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from geta_nb.cost.preview import Preview
from geta_nb.cost.totals import LayerCost, Totals
from geta_nb.graph.sizes import InputSize, InputSizes
from geta_nb.qasso.allocation import Allocation, AllocationRow, Move
from geta_nb.subnet import WeightFormat

LAYER = object()

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "a\"b'c&d",
    "emoji \U0001f600 \U0001f469\u200d\U0001f680",
    "long." * 60 + "end",
    "new\nline\ttab",
    "nul\x00 bell\x07",
    "\u202etxet desrever",
    "</style><b>",
    "\ud800 lone surrogate",
)


@dataclass
class Entry:
    """A protected parameter or module."""

    path: str
    reason: str
    operator: str


@dataclass
class Net:
    """Layers in order: (name, operator, output channels before, after, input shape words), and whether attention joins them."""

    title: str
    layers: list[dict[str, Any]] = field(default_factory=list)


def vgg7() -> Net:
    """Six convolutions and two linear layers, with costs of a 32 x 32 input."""
    net, channels, size, inside = Net("VGG7"), [128, 128, 256, 256, 512, 512], 32, 3
    for i, out in enumerate(channels):
        if i in (2, 4):
            size //= 2
        kept = [96, 88, 120, 101, 64, 41][i]
        net.layers.append(_layer(f"features.{3 * i}", "conv2d", out, kept, 9 * inside, size * size, 8 - i, f"features.{3 * i}"))
        inside = out
    net.layers.append(_layer("classifier.0", "linear", 1024, 300, 8192, 1, 4, "classifier.0"))
    net.layers.append(_layer("classifier.2", "linear", 10, 10, 1024, 1, 6, "classifier.2"))
    return net


def transformer(depth: int = 12, wide: int = 768) -> Net:
    """Encoder layers of six matrices each, and an embedding."""
    net = Net("Encoder", [_layer("embeddings.word_embeddings", "embedding", wide, wide, 30522, 0, 8, "embeddings")])
    for i in range(depth):
        at = f"encoder.layer.{i}"
        for part, out, inside in (
            ("attention.self.query", wide, wide),
            ("attention.self.key", wide, wide),
            ("attention.self.value", wide, wide),
            ("attention.output.dense", wide, wide),
            ("intermediate.dense", 4 * wide, wide),
            ("output.dense", wide, 4 * wide),
        ):
            kept = out if part.endswith("output.dense") or part == "output.dense" else out * (12 - i % 5) // 16
            net.layers.append(_layer(f"{at}.{part}", "linear", out, kept, inside, 384, 4 + (i + len(part)) % 9, f"{at}.{part}"))
    return net


def _layer(name: str, operator: str, out: int, kept: int, inside: int, places: int, bits: int, module: str) -> dict[str, Any]:
    macs, share = out * inside * places, kept / out
    return {
        "layer": name,
        "module_path": module,
        "operator": operator,
        "channels_before": out,
        "channels_after": kept,
        "bits": bits,
        "activation_bits": None if operator == "embedding" else min(bits + 2, 16),
        "macs_before": macs,
        "macs_after": int(macs * share),
        "bops_before": macs * 1024.0,
        "bops_after": macs * share * bits * min(bits + 2, 16),
        "parameters_before": out * inside,
        "parameters_after": int(out * inside * share),
        "size_bytes_before": out * inside * 4.0,
        "size_bytes_after": out * inside * share * bits / 8,
    }


def costs_of(net: Net, *, assumptions: tuple[str, ...] = ("half of the groups removed, evenly",)) -> Preview:
    """A preview of the layers of ``net`` beside the dense ones."""
    rows = {when: tuple(_layer_cost(row, when) for row in net.layers) for when in ("before", "after")}
    dense_bops = sum(row.bops for row in rows["before"])
    figures = {}
    for when, layers in rows.items():
        sums = {
            key: sum(getattr(row, key) for row in layers) for key in ("macs", "macs_full", "bops", "bops_full", "parameters", "size_bytes")
        }
        share = sums["bops"] / dense_bops
        figures[when] = {**sums, "relative_bops": share, "relative_bops_full": share * 1.25 if when == "after" else 1.0, "layers": layers}
    bits = {row["layer"]: row["bits"] for row in net.layers}
    return Preview(
        **figures["after"],
        dense=Totals(**figures["before"]),
        group_sparsity=0.5,
        bit_widths=bits,
        activation_bit_widths={},
        assumptions=assumptions,
    )


def _layer_cost(row: dict[str, Any], when: str) -> LayerCost:
    figures = {key: row[f"{key}_{when}"] for key in ("channels", "macs", "bops", "parameters", "size_bytes")}
    bits = {"weight_bits": row["bits"], "input_bits": row["activation_bits"]} if when == "after" else {}
    return LayerCost(
        row["layer"], row["module_path"], row["operator"], macs_full=figures["macs"], bops_full=figures["bops"], **figures, **bits
    )


def report_of(net: Net, metrics: dict[str, Any] | None = None) -> Any:
    """A report with the keys of the public contract."""
    costs = costs_of(net)
    pairs = {key: {"dense": getattr(costs.dense, key), "subnet": getattr(costs, key)} for key in ("parameters", "macs", "size_bytes")}
    values = {
        "group_sparsity": 0.5003,
        "target_group_sparsity": 0.5,
        "bit_widths": {row["layer"]: row["bits"] for row in net.layers},
        "activation_bit_widths": {},
        **pairs,
        "relative_bops": costs.relative_bops,
        "relative_bops_full": costs.relative_bops_full,
        "max_abs_difference": 1.2e-6,
        "module_kind": "native",
        "layers": net.layers,
        "metrics": metrics or {},
        "versions": {"geta_nb": "0.1.0", "torch": "2.13"},
    }
    return SimpleNamespace(to_dict=lambda: values)


@dataclass(frozen=True)
class Slice:
    """Indices of one axis of one parameter."""

    parameter: str
    axis: int
    indices: tuple[int, ...]


def group_of(layer: str, following: str, index: int, number: int) -> Any:
    """One filter: its row, bias and norm entry, and the columns that read it."""
    producers = (Slice(f"{layer}.weight", 0, (index,)), Slice(f"{layer}.bias", 0, (index,)))
    consumers = (Slice(f"{following}.weight", 1, (index, index + 1, index + 2, index + 7)),)
    return SimpleNamespace(index=number, family=layer, slices=producers + consumers, producers=producers, consumers=consumers, size=28)


class Groups(list[Any]):
    """Groups with their families."""

    @property
    def families(self) -> list[Any]:
        """Groups of one family name."""
        names = list(dict.fromkeys(group.family for group in self))
        return [
            SimpleNamespace(name=name, module_path=name.rpartition(".")[0], groups=[g for g in self if g.family == name]) for name in names
        ]


def groups_of(net: Net, per_layer: int = 4) -> Groups:
    """A few groups of every layer but the last."""
    pairs = zip(net.layers, net.layers[1:], strict=False)
    layers = [(a["layer"], b["layer"], i) for a, b in pairs for i in range(per_layer)]
    return Groups(group_of(a, b, i, number) for number, (a, b, i) in enumerate(layers))


def quantizer(
    bits: float = 4, clip: float = 1.5, exponent: float = 1.0, *, signed: bool = True, narrow_range: bool = False, channels: int = 1
) -> Any:
    """Parameters of one quantizer; the clip value of channel c is c + 1 times ``clip``."""
    step = clip**exponent / (2 ** (bits - signed) - 1) if math.isfinite(bits) else math.nan
    d, q_m, t = (torch.tensor(value, dtype=torch.float64) for value in (step, clip, exponent))
    if channels > 1:
        q_m = q_m * torch.arange(1.0, channels + 1).view(-1, 1)
        d = q_m**exponent / (2 ** (bits - signed) - 1)
    numbers = {"step_size": d.requires_grad_(), "clip_max": q_m.requires_grad_(), "exponent": t.requires_grad_()}
    return SimpleNamespace(**numbers, signed=signed, narrow_range=narrow_range, bit_width=lambda: torch.tensor(bits, dtype=torch.float64))


def vertex(name: str, operator: str, module: str = "", shape: tuple[int, ...] = (1, 64, 8, 8), **more: Any) -> Any:
    """One vertex of a folded graph; its quantizers are named after its module where they are LAYER."""
    more = {key: module if value is LAYER else value for key, value in more.items()}
    return SimpleNamespace(
        name=name,
        operator=operator,
        module_path=module,
        shape=shape,
        **{"weight_quantizer": None, "input_quantizer": None, "family": None, **more},
    )


def _chain(vertices: list[Any], edges: list[tuple[str, str]], here: str, *steps: Any) -> str:
    for step in steps:
        vertices.append(step)
        edges.append((here, step.name))
        here = step.name
    return here


def vgg7_graph() -> Any:
    """The folded graph of the VGG7."""
    vertices, edges, here = [vertex("x", "placeholder", shape=(1, 3, 32, 32))], [], "x"
    for i, layer in enumerate(vgg7().layers):
        at = layer["layer"]
        quantized = {"weight_quantizer": at, "input_quantizer": at}
        steps = [vertex(f"op{i}", layer["operator"], at, (1, layer["channels_before"], 32, 32), family=at, **quantized)]
        if layer["operator"] == "conv2d":
            steps.append(vertex(f"norm{i}", "batch_norm", at + "_bn"))
        steps.append(vertex(f"relu{i}", "relu", at + "_relu"))
        here = _chain(vertices, edges, here, *steps)
    _chain(vertices, edges, here, vertex("output", "output"))
    return SimpleNamespace(vertices=vertices, edges=edges, branches=_branches(vgg7()))


def transformer_graph(depth: int = 12) -> Any:
    """The folded graph of the encoder: a mask that reaches every layer, attention, residual additions."""
    vertices: list[Any] = [
        vertex("ids", "placeholder"),
        vertex("mask", "placeholder"),
        vertex("emb", "embedding", "embeddings", weight_quantizer=LAYER),
    ]
    edges, here, wide = [("ids", "emb")], "emb", (1, 384, 768)
    for i in range(depth):
        at = f"encoder.layer.{i}"
        heads = []
        for part in ("query", "key", "value"):
            weight = vertex(f"{part}{i}", "linear", f"{at}.attention.self.{part}", wide, weight_quantizer=LAYER, input_quantizer=LAYER)
            heads.append(_chain(vertices, edges, here, weight, vertex(f"{part}_view{i}", "view", f"{at}.attention.self", (1, 12, 384, 64))))
        sdpa = vertex(f"sdpa{i}", "scaled_dot_product_attention", f"{at}.attention.self", (1, 12, 384, 64))
        vertices.append(sdpa)
        edges += [(head, sdpa.name) for head in heads] + [("mask", sdpa.name)]
        out = _chain(vertices, edges, sdpa.name, vertex(f"proj{i}", "linear", f"{at}.attention.output.dense", wide, weight_quantizer=LAYER))
        here = _residual(vertices, edges, out, here, f"a{i}", f"{at}.attention.output")
        out = _chain(
            vertices,
            edges,
            here,
            vertex(f"up{i}", "linear", f"{at}.intermediate.dense", (1, 384, 3072), weight_quantizer=LAYER),
            vertex(f"gelu{i}", "gelu", f"{at}.intermediate"),
            vertex(f"down{i}", "linear", f"{at}.output.dense", wide, weight_quantizer=LAYER),
        )
        here = _residual(vertices, edges, out, here, f"b{i}", f"{at}.output")
    _chain(vertices, edges, here, vertex("output", "output"))
    return SimpleNamespace(vertices=vertices, edges=edges, branches=_branches(transformer(depth)))


def _residual(vertices: list[Any], edges: list[tuple[str, str]], out: str, skip: str, name: str, at: str) -> str:
    joined = vertex(f"add_{name}", "add", at, (1, 384, 768))
    vertices.append(joined)
    edges += [(out, joined.name), (skip, joined.name)]
    return _chain(vertices, edges, joined.name, vertex(f"norm_{name}", "layer_norm", f"{at}.LayerNorm", (1, 384, 768)))


def _branches(net: Net) -> list[Any]:
    return [
        SimpleNamespace(
            name=f"{row['layer']}.weight",
            kind="attached",
            nodes=("p_weight", "abs_1", "pow_1", "div_1", "round_1"),
            entry=f"{row['layer']}.weight",
            exit=f"mul_{i}",
            operator=row["operator"],
        )
        for i, row in enumerate(net.layers)
    ]


def history_of(net: Net, total: int = 1000, every: int = 10, until: float = 1.0) -> list[dict[str, Any]]:
    """Snapshots of a run: bits fall, groups go, the loss does too."""
    snapshots = []
    for step in range(0, int(total * until) + 1, every):
        at = step / total
        fall = min(max((at - 0.01) / 0.19, 0), 1)
        gone = min(max((at - 0.1) / 0.4, 0), 1)
        stage = "warm-up" if at < 0.01 else "projection" if at < 0.1 else "joint" if at < 0.5 else "cool-down"
        snapshots.append(
            {
                "step": step,
                "stage": stage,
                "loss": 2.3 * math.exp(-5 * at) + 0.05 * (1 + math.sin(step)) + (0.3 if 0.1 < at < 0.5 else 0.02),
                "accuracy": 0.1 + 0.88 * (1 - math.exp(-6 * at)),
                "zero_groups": int(50 * gone),
                "fading_groups": 3,
                "n_groups": 100,
                "target": {"relative_bops": 0.03},
                "bit_bound": 16 - 2 * int(6 * fall),
                "bits": {row["layer"]: 16 - (16 - row["bits"]) * fall for row in net.layers},
                "activation_bits": {
                    row["layer"]: 16 - (16 - row["activation_bits"]) * fall for row in net.layers if row["activation_bits"]
                },
                "kept": {row["layer"]: 1 - gone * (1 - row["channels_after"] / row["channels_before"]) for row in net.layers},
            }
        )
    return snapshots


def optimizer_of(net: Net) -> Any:
    """An optimizer at the end of its run."""
    snapshot = history_of(net)[-1]
    rows = tuple(AllocationRow("weight", row["layer"], row["bits"], 16, 0.01, Move(16, row["bits"], 0.01, 0.2), None) for row in net.layers)
    plan = Allocation(120, "relative_bops", 0.02, 0.019, 64, rows)
    return SimpleNamespace(progress=lambda: snapshot, plan=plan)


def trace_of(graph: Any) -> Any:
    """A raw trace with the nodes of a graph."""
    nodes = [
        SimpleNamespace(name=v.name, operator=v.operator, shape=v.shape, dtype="float32", module_path=v.module_path, source="net.py:12")
        for v in graph.vertices
    ]
    return SimpleNamespace(nodes=nodes, dynamic_batch=True)


def subnet_of(net: Net) -> Any:
    """What a subnet says of itself."""
    formats = {f"{row['layer']}.weight": WeightFormat(row["bits"], 0.01, 0.5, 1.02, narrow_range=False) for row in net.layers}
    sizes = InputSizes((InputSize(net.layers[0]["layer"], ("n0", 3, "n1")),), ("n1 > 1",))
    return SimpleNamespace(kind="graph", formats=formats, activation_formats={}, sizes=sizes)


def geta_of(net: Net, graph: Any) -> Any:
    """A façade over the stand-ins."""
    return SimpleNamespace(
        model=SimpleNamespace(),
        groups=groups_of(net),
        families=groups_of(net).families,
        protected=protected_of(net),
        trace=trace_of(graph),
        qadg=graph,
        bit_widths=lambda: {row["layer"]: row["bits"] for row in net.layers},
        activation_bit_widths=dict,
        group_sparsity=lambda: 0.25,
    )


def protected_of(net: Net) -> list[Entry]:
    """The output layer and an unknown operator."""
    return [
        Entry(f"{net.layers[-1]['layer']}.weight", "reaches an output of the model", "linear"),
        Entry("rnn.weight_hh", "no rule for this operator", "lstm"),
    ]
