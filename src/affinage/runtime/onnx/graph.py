"""An ONNX graph that grows operator by operator: every tensor of the model is stored once, under its own name."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 17
MICROSOFT = "com.microsoft"
"""the domain of ONNX Runtime's own operators"""
_IR_VERSION = 8  # read by every ONNX Runtime since 1.12

Array = NDArray[Any]


class Graph:
    """Operators in the order in which they are computed, and the constants that they use."""

    def __init__(self, model: nn.Module, *, opset: int = OPSET, prefix: str = "") -> None:
        """`prefix`: of the names of values, where they are added to operators that have names already."""
        self._opset, self._prefix = opset, prefix
        named = itertools.chain(model.named_parameters(), model.named_buffers())
        self._names: dict[int, str] = {}
        for name, tensor in named:
            self._names.setdefault(tensor.data_ptr(), name)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._stored: dict[tuple[Any, ...], str] = {}
        self._alive: list[Tensor] = []  # an address means a tensor only as long as that lives
        self._made: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._asides = itertools.count()
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[str | int], kind: int = TensorProto.INT64) -> str:
        """Declare an input; sizes that vary have a name."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[str | int]) -> None:
        """Declare a value as the output `name`, float32."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add an operator; the name of its output, or a tuple of names where there are several. "": no such input."""
        names = tuple(
            f"{self._prefix}{kind}_{len(self._nodes)}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)
        )
        self._nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
        return names if outputs > 1 else names[0]

    def largest(self, x: str, axis: int) -> str:
        """The largest number along an axis, which is gone then. Since opset 18 the axis is an input."""
        if self._opset >= 18:
            return str(self.op("ReduceMax", x, self.constant([axis]), keepdims=0))
        return str(self.op("ReduceMax", x, axes=(axis,), keepdims=0))

    def fused(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """`op`, for one of ONNX Runtime's own operators."""
        return self.op(kind, *inputs, outputs=outputs, domain=MICROSOFT, **attributes)

    def aside(self, kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
        """One of ONNX Runtime's own operators for a branch of `either`."""
        return helper.make_node(kind, inputs, [f"{kind}_{next(self._asides)}_aside"], domain=MICROSOFT, **attributes)

    def either(self, condition: str, then: onnx.NodeProto, otherwise: onnx.NodeProto) -> str:
        """The output of one of two operators, float32: of `then` where `condition` (), bool, is true."""
        branches = {
            name: helper.make_graph(
                [node], name, [], [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
            )
            for name, node in (("then_branch", then), ("else_branch", otherwise))
        }
        return str(self.op("If", condition, **branches))

    def once(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """`op`; where the same operator with the same inputs is there already, its outputs."""
        key = (kind, inputs, tuple(sorted(attributes.items())))
        if key not in self._made:
            made = self.op(kind, *inputs, outputs=outputs, domain=domain, **attributes)
            self._made[key] = made if outputs > 1 else (made,)
        return self._made[key] if outputs > 1 else self._made[key][0]

    def weight(
        self, tensor: Tensor, form: str = "", made: Callable[..., Array] | None = None, *, others: Sequence[Tensor] = ()
    ) -> str:
        """A tensor of the model as a constant; `form` and `made`: something made of it and `others`, and its name."""
        key = (*map(_identity, (tensor, *others)), form)
        if not tensor.numel() or key not in self._stored:
            self._alive += [tensor, *others]
            arrays = [one.detach().cpu().numpy() for one in (tensor, *others)]
            name = self._names.get(tensor.data_ptr(), "constant")
            self._stored[key] = self._store(
                made(*arrays) if made else arrays[0], ".".join(filter(None, (name, form))), tensor.numel() > 0
            )
        return self._stored[key]

    def constant(self, value: Array | Sequence[int]) -> str:
        """Numbers of no tensor; whole ones are int64. Equal ones are stored once."""
        array = np.asarray(value)
        key = (array.shape, array.dtype, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self._store(array, "constant", False)
        return self._stored[key]

    def _store(self, array: Array, name: str, named: bool) -> str:
        taken = name in self._constants or not named
        unique = f"{name}.{len(self._constants)}" if taken else name
        self._constants[unique] = numpy_helper.from_array(np.asarray(array, order="C"), unique)
        return unique

    def put(self, node: onnx.NodeProto) -> None:
        """Add an operator that is made already, names and all."""
        self._nodes.append(node)

    def replace_(self, graph: onnx.GraphProto) -> None:
        """Put these operators in the place of a graph's own, and add these constants to those of its own in use."""
        used = {name for node in self._nodes for name in node.input}
        kept = [one for one in graph.initializer if one.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*kept, *self._constants.values()])

    def model(self, producer: str) -> onnx.ModelProto:
        """The finished graph. `producer`: who made it."""
        graph = helper.make_graph(
            self._nodes, "encoder", self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, producer_name=producer, opset_imports=opsets, ir_version=_IR_VERSION)


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same numbers in the same place."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
