"""A network that returns its input, written byte by byte: proves the way in and out without a style.

Source: onnx/onnx.proto3 (field numbers); protobuf.dev/programming-guides/encoding.
"""

from pathlib import Path
from typing import Final

from stylize.runtime.contract import CONTRACT_KEY, ModelContract

__all__ = ["write_identity"]

_IR_VERSION: Final = 8
_OPSET: Final = 13
_FLOAT: Final = 1  # TensorProto.DataType


def write_identity(path: Path) -> Path:
    """Write an ONNX model with one Identity node and a contract to `path`, and return it."""
    contract = ModelContract(network="identity", style="identity", size_multiple=4)
    node = _text(1, contract.input_name) + _text(2, contract.output_name) + _text(4, "Identity")
    graph = (
        _message(1, node)
        + _text(2, "identity")
        + _message(11, _picture(contract.input_name))
        + _message(12, _picture(contract.output_name))
    )
    model = (
        _number(1, _IR_VERSION)
        + _message(7, graph)
        + _message(8, _text(1, "") + _number(2, _OPSET))
        + _message(14, _text(1, CONTRACT_KEY) + _text(2, contract.to_json()))
    )
    path.write_bytes(model)
    return path


def _picture(name: str) -> bytes:
    """ValueInfoProto of a float (N, 3, H, W) tensor."""
    sizes = (_text(2, "N"), _number(1, 3), _text(2, "H"), _text(2, "W"))
    shape = b"".join(_message(1, size) for size in sizes)
    return _text(1, name) + _message(2, _message(1, _number(1, _FLOAT) + _message(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, content: str) -> bytes:
    return _message(field, content.encode())


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
