"""Networks in files: a program of ``torch.export``, or ONNX; what they are is told inside."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.pipelines.export.networks import Trained
from ccnn_irregular.pipelines.train.reports import whole
from ccnn_irregular.shiftwise import DepthwiseConv, GridConv

__all__ = ["METADATA", "OUTPUT", "SUFFIXES", "read_onnx", "require_packages", "write"]

SUFFIXES = {"torch": (".pt2",), "onnx": (".onnx",), "shiftwise": (".pt2", ".onnx")}
OUTPUT = "logits"
METADATA = "metadata.json"  # its name in a .pt2 file
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_packages(path: Path) -> None:
    """Say before any work what is missing to write a file.

    Raises:
        ImportError: with the line to type.
    """
    for name in _NEEDED if path.suffix == ".onnx" else ():
        import_optional(name, "ccnn export --format onnx", "export")


def write(path: Path, network: Trained, metadata: Mapping[str, Any]) -> None:
    """Write a network with what is to be known about it; the file is there whole or not at all.

    Args:
        path: ends in ``.pt2`` or ``.onnx``.
        network: its form for a file.
        metadata: plain values. In ONNX each is an entry of ``metadata_props``, in JSON; in ``.pt2`` they are an extra
            file, ``torch.export.load(path, extra_files={METADATA: ""})``.
    """
    content = _onnx(network, metadata) if path.suffix == ".onnx" else _saved(network, metadata)
    with whole(path) as temporary:
        temporary.write_bytes(content)


def _program(network: Trained) -> torch.export.ExportedProgram:
    """For any batch: one that the network would fix is an error here, and not a file for two samples."""
    inputs = network.noise(2)
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        return torch.export.export(network.after, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))


def _saved(network: Trained, metadata: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.export.save(_program(network), stream, extra_files={METADATA: json.dumps(metadata)})
    return stream.getvalue()


def _onnx(network: Trained, metadata: Mapping[str, Any]) -> bytes:
    program = _program(dataclasses.replace(network, after=_contiguous(network.after)))
    said = logging.getLogger("torch.onnx")
    before = said.level
    said.setLevel(logging.ERROR)  # packages of operators that are not there, and are not needed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            names: dict[str, Any] = {"input_names": list(network.shapes), "output_names": [OUTPUT]}
            written = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    finally:
        said.setLevel(before)
    assert written is not None
    model = written.model_proto
    for name, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    content: bytes = model.SerializeToString()
    return content


def _contiguous(network: nn.Module) -> nn.Module:
    """A copy without changes of layout, which are PyTorch's own."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, GridConv):
            layer.channels_last = False
        elif isinstance(layer, DepthwiseConv):
            layer.way = "direct"
    return network


def read_onnx(path: Path, threads: int) -> Callable[..., Tensor]:
    """An ONNX file as a function of its inputs, run by onnxruntime on the CPU.

    Raises:
        ImportError: onnxruntime is missing.
    """
    runtime = import_optional("onnxruntime", "running an ONNX file", "export")
    require(path.is_file(), "path", "be an ONNX file", path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run([OUTPUT], given)[0])

    return run
