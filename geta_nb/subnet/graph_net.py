"""A network that is its graph: an ``fx.GraphModule`` that copies, pickles and saves as any module does.

Comes in: a graph (traced, or read from a file) and named tensors. Goes out: a module with the same dotted names in its state dict.
A plain GraphModule loses unused parameters, non-persistent buffers and attributes when it is copied; this one keeps them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx import _pytree as fx_pytree
from torch.fx.graph import PythonCode, _PyTreeCodeGen
from torch.utils import _pytree as pytree

from geta_nb.errors import ArtifactError, RunStateError
from geta_nb.graph import InputSizes, check_path, decode_program, encode_program, owner_of
from geta_nb.quantizers import ActivationQuantizer, canonical_name

PARAMETER, BUFFER, SCRATCH = "parameter", "buffer", "scratch"


class Entry(NamedTuple):
    """One named tensor of a network; ``kind`` is "parameter", "buffer", or "scratch" for a buffer outside the state dict."""

    name: str
    kind: str
    tensor: Tensor


class GraphNet(fx.GraphModule):
    """A graph with its parameters, buffers and activation quantizers on nested modules under their original dotted names.

    It knows which sizes of its inputs it is for, and refuses others with an :class:`~geta_nb.errors.InputError`. It computes what the
    network computes in evaluation, and refuses ``train()`` where that is something else in training.
    """

    _input_sizes: InputSizes | None = None
    _differs: str = ""
    _seen_shapes: frozenset[object] = frozenset()
    _written_for: Mapping[str, torch.dtype] = {}

    @classmethod
    def build(
        cls, graph: fx.Graph, entries: Iterable[Entry], quantizers: dict[str, ActivationQuantizer], sizes: InputSizes | None = None
    ) -> GraphNet:
        """Return the network that runs ``graph`` on ``entries``.

        Args:
            graph: its get_attr nodes name entries, its call_module nodes name quantizers; it is taken over, not copied.
            entries: named tensors, in the order of the state dict; two names of one Parameter stay tied.
            quantizers: dotted path -> module; entries below such a path belong to it and are skipped.
            sizes: which sizes of inputs it is for; None: nobody knows, and none is refused.

        Raises:
            ArtifactError: a name that cannot stand in a module tree, or the graph names what is not there.
        """
        net = cls(nn.Module(), fx.Graph())
        placed: set[str] = set()
        rows = list(entries)
        net._written_for = {entry.name: entry.tensor.dtype for entry in rows}
        for entry in rows:
            owner = entry.name.rpartition(".")[0]
            if owner not in quantizers:
                _place(net, entry.name, entry.tensor, entry.kind)
                placed.add(entry.name)
            elif owner not in placed:
                _place(net, owner, quantizers[owner])
                placed.add(owner)
        for node in graph.nodes:
            if node.op not in ("get_attr", "call_module"):
                continue
            if node.target not in placed or (node.op == "call_module") != (node.target in quantizers):
                raise ArtifactError("the program uses what is not in the network.", at=node.target, got=f"a {node.op} node")
        net.graph = graph
        net._input_sizes = sizes
        return net.eval()

    @classmethod
    def of(cls, module: fx.GraphModule, values: nn.Module | None = None) -> GraphNet:
        """Return ``module`` as a GraphNet that shares its tensors and quantizers.

        Args:
            module: a GraphModule whose get_attr nodes name tensors and whose call_module nodes name activation quantizers.
            values: take what it has under the same name from here instead, and everything else it has too.

        Raises:
            ArtifactError: a call_module node that is no activation quantizer, or two shapes under one name.
        """
        graph = copy_graph(module.graph)
        sources = [values, module] if values is not None else [module]
        quantizers = {}
        for path in sorted({str(node.target) for node in graph.nodes if node.op == "call_module"}):
            quantizer = next((found for source in sources if (found := find_module(source, path)) is not None), None)
            if not isinstance(quantizer, ActivationQuantizer):
                got = type(quantizer).__name__
                raise ArtifactError("a module is called that is no activation quantizer.", at=path, expected="ActivationQuantizer", got=got)
            quantizers[path] = quantizer
        table: dict[str, Entry] = {}
        for owner, entry in ((source, entry) for source in sources for entry in list_entries(source)):
            own = canonical_name(owner, entry.name)  # in a graph, what a parametrization of others stands on has its plain name
            first = table.setdefault(own, entry._replace(name=own))
            if first.tensor.shape != entry.tensor.shape:
                shapes = tuple(first.tensor.shape), tuple(entry.tensor.shape)
                raise ArtifactError("network and graph disagree on a shape.", at=entry.name, expected=shapes[1], got=shapes[0])
        written: Mapping[str, torch.dtype] = getattr(module, "_written_for", {})
        changed = _casts({name: (written.get(name, entry.tensor.dtype), entry.tensor.dtype) for name, entry in table.items()})
        if changed:  # ``values`` were cast since: the graph's own casts follow, and tensors that it has alone
            follow_dtypes(graph, changed)
            given = {canonical_name(values, entry.name) for entry in list_entries(values)} if values is not None else set()
            for name, entry in table.items():
                new = changed.get(entry.tensor.dtype)
                table[name] = entry._replace(tensor=entry.tensor.to(new)) if new is not None and name not in given else entry
        net = cls.build(graph, table.values(), quantizers, getattr(module, "_input_sizes", None))
        net._differs = getattr(module, "_differs", "")
        return net

    def __repr__(self) -> str:
        """Return one line: what it is made of, and which sizes it takes."""
        count = sum(parameter.numel() for parameter in self.parameters())
        takes = f", takes {self._input_sizes.words}" if self._input_sizes is not None else ""
        return f"<GraphNet of {len(self.graph.nodes)} nodes, {count} parameters{takes}>"

    def __str__(self) -> str:
        """Return the same line; ``print(net.code)`` shows the program."""
        return repr(self)

    def train(self, mode: bool = True) -> GraphNet:
        """Set the mode, as any module does.

        Raises:
            RunStateError: training mode, of a network that computes something else in it.
        """
        if mode and self._differs:
            raise RunStateError(
                "train: this graph computes what the network computes in evaluation.", expected="a network that is the same in both modes",
                got=f"another one in training: {self._differs}",
                hint="train geta.model and cut again; or leave the graph in eval mode, where its parameters train and statistics stay",
            )
        super().train(mode)
        return self

    def recompile(self) -> PythonCode:
        """Make the forward of the present graph; before it runs, the sizes of inputs are checked."""
        code = super().recompile()
        kind: Any = type(self)  # every GraphModule has a class of its own
        generated = kind.forward

        @functools.wraps(generated)
        def forward(net: GraphNet, *args: Any, **kwargs: Any) -> Any:
            net._check_sizes(args, kwargs)
            return generated(net, *args, **kwargs)

        kind.forward = forward
        return code

    def _check_sizes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse inputs of sizes that the graph is not for; shapes that were seen before pass without a look."""
        sizes = self._input_sizes
        if sizes is None or torch.compiler.is_compiling():
            return
        leaves = self._flat(args, kwargs)
        if leaves is None or len(leaves) != len(sizes.inputs):
            return  # the generated forward says of its arguments what torch says
        shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves]
        if any(isinstance(size, torch.SymInt) for shape in shapes for size in shape):
            return  # a trace, which has its own way with sizes
        key = str(shapes)
        if key not in self._seen_shapes:
            sizes.read(leaves)
            self._seen_shapes = frozenset([*(self._seen_shapes if len(self._seen_shapes) < 64 else ()), key])

    def _flat(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        """Return inputs in the order of the graph's placeholders; None where they are not those of its signature."""
        codegen = self.graph._codegen
        info = codegen.pytree_info if isinstance(codegen, _PyTreeCodeGen) else None
        if info is None:
            return list(args) if not kwargs else None
        given = dict(zip(info.orig_args, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(given) or given.keys() != set(info.orig_args):
            return None
        positional, named = info.in_spec.children()
        rows = [given[name] for name in info.orig_args[: positional.num_children]], {name: given[name] for name in named.context}
        try:
            return list(fx_pytree.tree_flatten_spec(rows, info.in_spec))  # as the generated forward does
        except (TypeError, ValueError, KeyError, AttributeError):
            return None

    def _apply(self, fn: Any, recurse: bool = True) -> GraphNet:
        """Move or cast as any module does; the graph's own casts, and what it makes where its tensors were, follow them."""
        before = {entry.name: (entry.tensor.dtype, entry.tensor.device) for entry in list_entries(self)}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = {entry.name: entry.tensor for entry in list_entries(self)}
        self._written_for = {name: tensor.dtype for name, tensor in after.items()}
        changed = _casts({name: (dtype, self._written_for[name]) for name, (dtype, _) in before.items()})
        devices = {device: after[name].device for name, (_, device) in before.items() if device != after[name].device}
        if changed or devices:
            follow_dtypes(self.graph, changed, devices)
            self.recompile()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphNet:
        net = GraphNet(nn.Module(), fx.Graph())
        memo[id(self)] = net
        _restore(net, copy.deepcopy(_contents(self), memo))
        net.graph = copy_graph(self.graph)
        return net

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (encode_program(self.graph),), _contents(self), None, None, _restore


def _casts(pairs: Mapping[str, tuple[torch.dtype, torch.dtype]]) -> dict[torch.dtype, torch.dtype]:
    """Return old -> new dtype of the real tensors that were cast, of name -> (old, new)."""
    return {old: new for old, new in pairs.values() if old != new and old.is_floating_point}


def input_sizes(net: GraphNet) -> InputSizes | None:
    """Return which sizes of inputs a graph is for; None: nobody knows."""
    return net._input_sizes


def probe_inputs(net: GraphNet) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs that a graph takes, of the sizes of its example, the same at every call.

    Raises:
        ArtifactError: nobody knows which it takes.
    """
    codegen, sizes = net.graph._codegen, net._input_sizes
    if sizes is None or not isinstance(codegen, _PyTreeCodeGen):
        raise ArtifactError("a probe of a graph of whose inputs nothing is known.")
    args, kwargs = pytree.tree_unflatten(sizes.probe(), codegen.pytree_info.in_spec)
    return tuple(args), dict(kwargs)


def note_modes(net: GraphNet, differs: str) -> None:
    """Let a graph know what its network computes in another way in training; "": nothing."""
    net._differs = differs


def modes_of(net: GraphNet) -> str:
    """Return what the network of a graph computes in another way in training; "" where nothing."""
    return net._differs


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """Return a copy of ``graph`` with its signature; node metadata is shared, as fx does."""
    new = fx.Graph()
    output = new.graph_copy(graph, {})
    new.output(output)
    # fx copies the signature only by a deepcopy that warns about torch's own classes; it is never changed in place
    new.set_codegen(graph._codegen)
    return new


def follow_dtypes(
    graph: fx.Graph, changed: Mapping[torch.dtype, torch.dtype], devices: Mapping[torch.device, torch.device] | None = None
) -> None:
    """Let casts to an old dtype be casts to the new one, and a limit of its range (what a mask is filled with) the limit of the other's.

    ``devices``: what an operator makes on an old one is made on the new one.
    """
    places = {torch.device(old.type): new for old, new in (devices or {}).items()} | dict(devices or {})  # "cuda" is where cuda:0 was
    pairs = [(torch.finfo(old), torch.finfo(new)) for old, new in changed.items() if new.is_floating_point]
    limits = {getattr(old, end): getattr(new, end) for old, new in pairs for end in ("min", "max")}

    def change(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return changed.get(value, value)
        if isinstance(value, torch.device):
            return places.get(value, value)
        return limits.get(value, value) if type(value) is float else value

    for node in graph.nodes:
        if node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(change, (node.args, dict(node.kwargs)))


def follow_model(net: GraphNet, traced: fx.GraphModule, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Let a graph compute where its model is now, in the type that it has now: a model may be moved or cast after it was traced.

    Args:
        net: the graph; its own casts, and constants that nothing of the model holds, follow.
        traced: the trace that it came from, which knows how the model's tensors were.
        names: get_attr target -> own name.
        tensors: own name -> tensor of the model.
    """
    read = [node for node in traced.graph.find_nodes(op="get_attr") if str(node.target) in names]
    pairs = [(node.meta["val"], tensors[names[str(node.target)]]) for node in read]
    dtypes = {old.dtype: new.dtype for old, new in pairs if old.dtype != new.dtype and old.is_floating_point()}
    devices = {old.device: new.device for old, new in pairs if old.device != new.device}
    if not dtypes and not devices:
        return
    follow_dtypes(net.graph, dtypes, devices)
    for owner in net.modules():
        for name in owner._non_persistent_buffers_set:
            value = owner._buffers[name]
            if value is not None:
                owner._buffers[name] = value.to(device=devices.get(value.device), dtype=dtypes.get(value.dtype))
    net.recompile()


def find_module(root: nn.Module, path: str) -> nn.Module | None:
    """Return the submodule at ``path``, or None."""
    found: object = root
    for name in path.split("."):
        found = found._modules.get(name) if isinstance(found, nn.Module) else None
    return found if isinstance(found, nn.Module) else None


def list_entries(module: nn.Module) -> Iterator[Entry]:
    """Yield every named tensor of ``module`` as its state dict orders them, then the loose constants its graph names; ties show twice."""
    seen = set()
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = path + "." if path else ""
        scratch = owner._non_persistent_buffers_set
        rows = [(name, PARAMETER, tensor) for name, tensor in owner._parameters.items()]
        rows += [(name, SCRATCH if name in scratch else BUFFER, tensor) for name, tensor in owner._buffers.items()]
        for name, kind, tensor in rows:
            if tensor is not None:
                seen.add(prefix + name)
                yield Entry(prefix + name, kind, tensor)
    for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
        if node.op == "get_attr" and node.target not in seen:
            seen.add(node.target)
            owner_path, _, name = node.target.rpartition(".")
            tensor = getattr(find_module(module, owner_path) if owner_path else module, name, None)
            if not isinstance(tensor, Tensor):
                raise ArtifactError("the graph names something that is no tensor.", at=node.target, got=type(tensor).__name__)
            yield Entry(node.target, SCRATCH, tensor)


def _place(root: nn.Module, path: str, value: Tensor | nn.Module, kind: str = "") -> None:
    check_path(path)
    try:
        root, name = owner_of(root, path)
        if isinstance(value, nn.Module):
            root.add_module(name, value)
        elif kind == PARAMETER:
            root.register_parameter(name, value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False))
        else:
            root.register_buffer(name, value.detach() if isinstance(value, nn.Parameter) else value, persistent=kind == BUFFER)
    except KeyError as error:
        raise ArtifactError("a name cannot stand in a module tree.", at=path, got=error.args[0]) from None


def _contents(net: GraphNet) -> dict[str, Any]:
    """Return everything that a net is besides its graph: tensors, submodules, and attributes that were set on it."""
    fresh = GraphNet(nn.Module(), fx.Graph()).__dict__
    kept = {"_parameters", "_buffers", "_non_persistent_buffers_set", "_modules", "training"}
    derived = {"_in_spec", "_out_spec"}
    return {key: value for key, value in net.__dict__.items() if key in kept or key not in fresh.keys() | derived}


def _rebuild(program: dict[str, Any]) -> GraphNet:
    net = GraphNet(nn.Module(), fx.Graph())
    net.graph = decode_program(program)
    return net


def _restore(net: GraphNet, contents: dict[str, Any]) -> None:
    for key, value in contents.items():
        object.__setattr__(net, key, value)
