"""Small ONNX files written by hand, so that code that loads published models can be tested with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def yunet(path: Path, side: int = 320, seed: int = 0) -> Path:
    """A face detector in the layout of face_detection_yunet_2023mar.onnx: one strided convolution per head."""
    rng = np.random.default_rng(seed)
    nodes, tensors, outputs = [], [], []
    for head, channels in HEADS.items():
        for stride in STRIDES:
            name, cells = f"{head}_{stride}", (side // stride) ** 2
            weights = rng.normal(0, 0.002 / stride, (channels, 3, stride, stride)).astype(np.float32)
            tensors.append(_tensor(f"w_{name}", weights))
            tensors.append(_tensor(f"s_{name}", np.array([1, -1, channels], np.int64)))
            window = _ints("kernel_shape", stride, stride) + _ints("strides", stride, stride)
            nodes.append(_node("Conv", ["input", f"w_{name}"], f"c_{name}", window))
            nodes.append(_node("Transpose", [f"c_{name}"], f"t_{name}", _ints("perm", 0, 2, 3, 1)))
            flat = f"r_{name}" if head in ("cls", "obj") else name
            nodes.append(_node("Reshape", [f"t_{name}", f"s_{name}"], flat))
            if flat != name:
                nodes.append(_node("Sigmoid", [flat], name))
            outputs.append(_value(name, (1, cells, channels)))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"yunet")
    graph += b"".join(_field(5, tensor) for tensor in tensors) + _field(11, _value("input", (1, 3, side, side)))
    graph += b"".join(_field(12, output) for output in outputs)
    opset = _field(1, b"") + _number(2, 11)
    path.write_bytes(_number(1, 7) + _field(7, graph) + _field(8, opset))
    return path


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _ints(name: str, *values: int) -> bytes:
    """An attribute of a node, with its tag."""
    return _field(5, _field(1, name.encode()) + b"".join(_number(8, v) for v in values) + _number(20, 7))


def _node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    return (
        b"".join(_field(1, i.encode()) for i in inputs)
        + _field(2, output.encode())
        + _field(4, kind.encode())
        + attributes
    )


def _tensor(name: str, values: np.ndarray) -> bytes:
    kind = 1 if values.dtype == np.float32 else 7
    return (
        b"".join(_number(1, n) for n in values.shape)
        + _number(2, kind)
        + _field(8, name.encode())
        + _field(9, values.tobytes())
    )


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _number(1, n)) for n in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, dims)))
