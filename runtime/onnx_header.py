"""Reads what an ONNX file says about itself, without loading it.

Only the outline of the protobuf is walked: metadata, names and shapes of inputs and outputs. That takes
no backend, works the same for all of them, and finds a truncated or foreign file before one is loaded.
Source: onnx/onnx.proto3 (field numbers); protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OnnxHeader", "TensorInfo", "read_onnx_header"]

# ModelProto
_IR_VERSION, _GRAPH, _METADATA_PROPS = 1, 7, 14
# GraphProto
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12
_TENSOR_NAME = 8  # TensorProto.name
_VALUE_NAME, _VALUE_TYPE = 1, 2  # ValueInfoProto
_TENSOR_TYPE, _ELEM_TYPE, _SHAPE = 1, 1, 2  # TypeProto and TypeProto.Tensor
_DIM, _DIM_VALUE = 1, 1  # TensorShapeProto and its Dimension


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a graph."""

    name: str
    elem_type: int
    """TensorProto.DataType: 1 is float32, 2 uint8, 10 float16."""
    shape: tuple[int | None, ...]
    """None where the size is chosen at run time."""


@dataclass(frozen=True)
class OnnxHeader:
    """The outside of a model: everything but its nodes and weights."""

    metadata: dict[str, str]
    inputs: tuple[TensorInfo, ...]
    """Without initializers, which old files list among the inputs."""
    outputs: tuple[TensorInfo, ...]


def read_onnx_header(path: Path) -> OnnxHeader:
    """Read the outside of the model at `path`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not ONNX, or is cut off.
    """
    model = memoryview(path.read_bytes())
    metadata: dict[str, str] = {}
    graph: memoryview | None = None
    has_ir_version = False
    for field, value in _fields(model):
        if field == _IR_VERSION and isinstance(value, int):
            has_ir_version = True
        elif field == _GRAPH and isinstance(value, memoryview):
            graph = value
        elif field == _METADATA_PROPS and isinstance(value, memoryview):
            entry = dict(_fields(value))
            metadata[_text(entry.get(1))] = _text(entry.get(2))
    if graph is None or not has_ir_version:
        raise ValueError("no ONNX graph inside")
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    initializers: set[str] = set()
    for field, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if field == _INITIALIZER:
            initializers.add(next((_text(name) for number, name in _fields(value) if number == _TENSOR_NAME), ""))
        elif field == _INPUT:
            inputs.append(_tensor_info(value))
        elif field == _OUTPUT:
            outputs.append(_tensor_info(value))
    return OnnxHeader(metadata, tuple(info for info in inputs if info.name not in initializers), tuple(outputs))


def _tensor_info(message: memoryview) -> TensorInfo:
    value_info = dict(_fields(message))
    tensor = _message(_message(value_info.get(_VALUE_TYPE)).get(_TENSOR_TYPE))
    elem_type = tensor.get(_ELEM_TYPE, 0)
    shape = tensor.get(_SHAPE, memoryview(b""))
    dims: list[int | None] = []
    for field, dim in _fields(shape) if isinstance(shape, memoryview) else ():
        if field == _DIM:
            size = _message(dim).get(_DIM_VALUE)
            dims.append(size if isinstance(size, int) and size > 0 else None)
    return TensorInfo(_text(value_info.get(_VALUE_NAME)), elem_type if isinstance(elem_type, int) else 0, tuple(dims))


def _message(value: int | memoryview | None) -> dict[int, int | memoryview]:
    return dict(_fields(value)) if isinstance(value, memoryview) else {}


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, memoryview) else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): an int for varints, a view of the bytes for everything else.

    Raises:
        ValueError: the bytes are no protobuf, or end within a field.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        match key & 7:
            case 0:
                number, position = _varint(message, position)
                yield key >> 3, number
                continue
            case 1:
                size = 8
            case 2:
                size, position = _varint(message, position)
            case 5:
                size = 4
            case wire_type:
                raise ValueError(f"not ONNX: wire type {wire_type} at byte {position}")
        if key >> 3 == 0:
            raise ValueError(f"not ONNX: field 0 at byte {position}")
        if position + size > len(message):
            raise ValueError(f"cut off: {position + size - len(message)} more bytes were announced")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:  # a varint has at most 10 bytes of 7 bits
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"not ONNX or cut off: no number at byte {position}")
