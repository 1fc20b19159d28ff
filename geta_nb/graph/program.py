"""A traced graph as plain JSON and back, so that a file can carry a network without its class and without pickle.

Comes in: an ``fx.Graph`` of functional ATen operators, size arithmetic and activation quantizers. Goes out: JSON; the way back
resolves every name against a whitelist and builds no call that is not on it. Part of stage 1, for the rooms
``subnet`` and ``files``; parameters are not in here.

Form: ``{"nodes": [[op, target, args, kwargs], ...], "signature": [names] | null, "inputs": structure, "outputs": structure}``. In
arguments, null, bool, int, str and list stand for themselves; everything else is ``{tag: value}``, ``{"n": 7}`` being node 7's output.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
import reprlib
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.graph import CodeGen, _PyTreeCodeGen, _PyTreeInfo

from geta_nb.errors import ArtifactError
from geta_nb.graph.records import decode_spec, encode_spec

_DEEPEST = 32
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_")
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs", "lshift", "rshift", "getitem")
_SYMBOLIC = ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum", "sym_sqrt")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _ARITHMETIC + _COMPARISONS},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt", "log2", "gcd")},
    **{f"torch.{name}": getattr(torch, name) for name in _SYMBOLIC if hasattr(torch, name)},
}
_NAMES = {function: name for name, function in FUNCTIONS.items()}

# The only operators without a result that may run: they check, and change nothing.
_CHECKS = {
    "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "_linalg_check_errors", "sym_constrain_range",
    "sym_constrain_range_for_size",
}  # fmt: skip
# Functional by schema, and yet they read a file, write to a stream, or touch what is not theirs.
_DENIED = {"from_file", "_print", "_pin_memory", "pin_memory", "set_data", "record_stream", "initial_seed", "_cudnn_init_dropout_state"}
_RESULTS = {"Tensor", "Optional[Tensor]", "List[Tensor]", "int", "float", "bool", "number", "complex"}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# A component of a path goes into generated code between double quotes.
_PATH_COMPONENT = re.compile(r'[^"\\\x00-\x1f\x7f.]+\Z')


def operator_problem(op: OpOverload) -> str | None:
    """Return why ``op`` may not stand in a file, or None when it may: functional ATen, no randomness of its own, no side effect."""
    schema = op._schema
    name = schema.name.removeprefix("aten::")
    if op.namespace != "aten":
        return f"it is of namespace {op.namespace!r}, not aten"
    if schema.is_mutable:
        return "it changes its arguments in place"
    if name in _DENIED:
        return "it has side effects"
    if not schema.returns and name not in _CHECKS:
        return "it returns nothing"
    if not all(str(result.type) in _RESULTS for result in schema.returns):
        return "it returns neither tensors nor numbers"
    if torch.Tag.nondeterministic_seeded in op.tags and not {argument.name for argument in schema.arguments} & {"train", "dropout_p"}:
        return "it draws random numbers"
    return None


def encode_program(graph: fx.Graph) -> dict[str, Any]:
    """Return ``graph`` as JSON data.

    Raises:
        ArtifactError: a node that a file cannot carry: a higher-order operator, an operator outside the whitelist (the message names
            it), an operator left in training mode, an argument of an unknown kind.
    """
    index: dict[fx.Node, int] = {}
    nodes = []
    for node in graph.nodes:
        args, kwargs = _encode(node.args, index, node), {key: _encode(value, index, node) for key, value in node.kwargs.items()}
        nodes.append([node.op, _encode_target(node), args["t"], kwargs])
        index[node] = len(index)
    # torch keeps the signature of a graph only here
    info = graph._codegen.pytree_info if isinstance(graph._codegen, _PyTreeCodeGen) else None
    if info is None or info.out_spec is None:
        return {"nodes": nodes, "signature": None, "inputs": None, "outputs": None}
    inputs, outputs = encode_spec(info.in_spec, outputs=False), encode_spec(info.out_spec, outputs=True)
    return {"nodes": nodes, "signature": list(info.orig_args), "inputs": inputs, "outputs": outputs}


def _encode_target(node: fx.Node) -> str:
    target = node.target
    if node.op != "call_function":
        return str(target)
    if isinstance(target, OpOverload):
        _check_operator(target, node)
        return f"aten.{target._schema.name.removeprefix('aten::')}.{target._overloadname}"
    if isinstance(target, torch._ops.HigherOrderOperator):
        raise ArtifactError(
            "save: a higher-order operator has no plain form.",
            at=node.name,
            expected="a graph of single operators",
            got=target.name(),
            hint="inline the region before saving (trace_model does), or keep control flow out of the model",
        )
    if callable(target) and target in _NAMES:
        return _NAMES[target]
    raise ArtifactError("save: a function is not on the list of what a file may call.", at=node.name, got=repr(target))


def _check_operator(op: OpOverload, node: fx.Node) -> None:
    problem = operator_problem(op) or _training_problem(op, node)
    if problem is None:
        return
    hint = "model.eval() before tracing" if "training" in problem or "in place" in problem else None
    raise ArtifactError(f"{op}: {problem}, so a file may not call it.", at=node.name, expected="functional ATen operators", hint=hint)


def _training_problem(op: OpOverload, node: fx.Node) -> str | None:
    values = {argument.name: argument.default_value for argument in op._schema.arguments if argument.has_default_value()}
    values |= {argument.name: value for argument, value in zip(op._schema.arguments, node.args, strict=False)} | node.kwargs
    if values.get("dropout_p", 0) != 0 or (values.get("train", False) is not False and values.get("p", values.get("dropout", 1)) != 0):
        return "it drops values at random, as in training"
    return None


def _encode(value: Any, index: dict[fx.Node, int], node: fx.Node) -> Any:
    """Return one argument as JSON; exact types, because a subclass (a SymInt, an enum) means something else."""
    if value is None or type(value) in (bool, str) or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, fx.Node):
        return {"n": index[value]}
    if isinstance(value, list):
        return [_encode(item, index, node) for item in value]
    if isinstance(value, tuple):
        return {"t": [_encode(item, index, node) for item in value]}
    if isinstance(value, slice):
        return {"s": [_encode(item, index, node) for item in (value.start, value.stop, value.step)]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"o": {key: _encode(item, index, node) for key, item in value.items()}}
    if type(value) is float:
        return {"f": value.hex()}
    if type(value) is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if value is Ellipsis:
        return {"e": 0}
    for tag, kind in _CONSTANTS.items():
        if isinstance(value, kind):
            return {tag: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device) and value.type != "meta":
        # a file is loaded on the CPU, wherever it was traced
        return {"v": "cpu"}
    got = f"{type(value).__name__}: {value!r}"[:120]
    raise ArtifactError("save: an argument has no plain form.", at=f"{node.name} = {node.target}", got=got)


_CONSTANTS: dict[str, type] = {"d": torch.dtype, "m": torch.memory_format, "l": torch.layout}


def decode_program(data: Any) -> fx.Graph:
    """Return the graph of :func:`encode_program`'s JSON; nothing of it is run.

    Raises:
        ArtifactError: the JSON is not of that form, or calls what is not on the whitelist (the message names it).
    """
    try:
        graph = _decode_nodes(data["nodes"])
        graph.set_codegen(_decode_signature(data, graph))
        graph.lint()
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError("load: the program is malformed.", got=f"{type(error).__name__}: {error}"[:200]) from None
    return graph


def _decode_nodes(rows: list[Any]) -> fx.Graph:
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    for op, target, args, kwargs in rows:
        arguments = tuple(_decode(item, nodes) for item in args)
        named = {key: _decode(item, nodes) for key, item in kwargs.items() if _check_word(key)}
        if op == "call_function":
            node = graph.call_function(_decode_function(target), arguments, named)
            if isinstance(node.target, OpOverload):
                _check_operator(node.target, node)
        elif op in ("get_attr", "call_module") and check_path(target):
            node = graph.create_node(op, target, arguments, named)
        elif op == "placeholder" and _check_word(target) and not arguments and not named:
            node = graph.placeholder(target)
        elif op == "output" and not named and target == "output":
            node = graph.output(*arguments)
        else:
            raise ArtifactError("load: the program has a node of an unknown kind.", got=reprlib.repr([op, target]))
        nodes.append(node)
    if [node.op for node in nodes].count("output") != 1 or nodes[-1].op != "output":
        raise ArtifactError("load: the program is malformed.", expected="one output, at the end")
    return graph


def _decode_function(name: str) -> Callable[..., Any]:
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    space, _, rest = name.partition(".")
    packet_name, _, overload = rest.partition(".")
    if space == "aten" and _WORD.match(packet_name) and _WORD.match(overload):
        try:
            op = getattr(getattr(torch.ops.aten, packet_name), overload)
        except (AttributeError, RuntimeError):
            op = None
        if isinstance(op, OpOverload):
            return op
    hint = "the file may come from a newer geta-nb or torch" if space == "aten" else None
    raise ArtifactError("load: the program calls an operator that is unknown here.", got=reprlib.repr(name), hint=hint)


def _decode(value: Any, nodes: list[fx.Node], depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ArtifactError("load: the program is malformed.", got=f"arguments nested deeper than {_DEEPEST}")
    if value is None or isinstance(value, bool | str) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, list):
        return [_decode(item, nodes, depth + 1) for item in value]
    if isinstance(value, dict) and len(value) == 1:
        ((tag, item),) = value.items()
        if tag == "n" and type(item) is int and 0 <= item < len(nodes):
            return nodes[item]
        if tag in ("t", "s") and isinstance(item, list) and (tag == "t" or len(item) == 3):
            return (tuple if tag == "t" else _slice)([_decode(part, nodes, depth + 1) for part in item])
        if tag == "o" and isinstance(item, dict):
            return {key: _decode(part, nodes, depth + 1) for key, part in item.items()}
        if tag in ("f", "c"):
            return float.fromhex(item) if tag == "f" else complex(float.fromhex(item[0]), float.fromhex(item[1]))
        if tag in _CONSTANTS and _check_word(item) and isinstance(constant := getattr(torch, item, None), _CONSTANTS[tag]):
            return constant
        if tag in ("e", "v"):
            return Ellipsis if tag == "e" else torch.device("cpu")
    raise ArtifactError("load: the program has an argument of an unknown kind.", got=reprlib.repr(value))


def _slice(parts: list[Any]) -> slice:
    return slice(*parts)


def _decode_signature(data: dict[str, Any], graph: fx.Graph) -> CodeGen:
    names = data["signature"]
    if names is None:
        return CodeGen()
    inputs, outputs = decode_spec(data["inputs"]), decode_spec(data["outputs"])
    children = inputs.children()
    named = len(children) == 2 and children[0].type is tuple and children[1].type is dict and inputs.type is tuple
    expected = children[0].num_children + children[1].num_children if named else len(children)
    keywords = list(children[1].context) if named else []
    results = graph.output_node().args[0]
    counts = (len(names), sum(node.op == "placeholder" for node in graph.nodes), len(results) if isinstance(results, list | tuple) else 1)
    if counts != (expected, inputs.num_leaves, outputs.num_leaves):
        got = f"{counts[0]} names, {counts[1]} inputs, {counts[2]} outputs"
        raise ArtifactError("load: the signature does not fit the program.", got=got)
    for name in [*names, *keywords]:
        _check_word(name)
    return _PyTreeCodeGen(_PyTreeInfo(list(names), inputs, outputs))


def _check_word(word: Any) -> bool:
    """Refuse a name that would not be one plain Python name in generated code."""
    if isinstance(word, str) and _WORD.match(word) and not keyword.iskeyword(word):
        return True
    raise ArtifactError("load: not a plain name.", got=reprlib.repr(word))


def check_path(path: Any) -> bool:
    """Refuse a dotted path that could not be one of a module tree.

    Raises:
        ArtifactError: an empty component, or a quote, backslash or control character in one.
    """
    if isinstance(path, str) and all(_PATH_COMPONENT.match(part) for part in path.split(".")):
        return True
    raise ArtifactError("not the dotted path of a parameter or module.", got=reprlib.repr(path))
