"""The interface of TensorRT as the installed Python module itself states it, and what our sources ask of it.

NVIDIA's bindings need its libraries, gigabytes that come from elsewhere, before they can be imported; to be asked for
their names and signatures they need only something that loads under those libraries' names.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import pytest

Api = dict[str, dict[str, str]]
"""Docstring by class and attribute; the module's own names are under the class ""."""

_DUMP = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
api = {name: {one: str(getattr(kind, one).__doc__) for one in dir(kind)} for name, kind in kinds.items()}
api[""] = {one: "" for one in dir(module)}
json.dump(api, sys.stdout)
"""

# What the bindings link to. Nothing of it is called while they are imported.
_FUNCTIONS = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL createNvOnnxParser_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry getPluginRegistry getNvOnnxParserVersion "
    "initLibNvInferPlugins"
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


@dataclass(frozen=True, order=True)
class Use:
    """One name of TensorRT's in a source, called with so many arguments, some of them by name; None is not counted."""

    owner: str
    name: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()


def uses_in(source: Path, classes: dict[str, str]) -> list[Use]:
    """Everything of TensorRT's that a source reads or calls.

    Args:
        source: a Python file.
        classes: which class of TensorRT a variable of it holds; `trt` stands for the module.
    """
    tree = ast.parse(source.read_text())
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return sorted(set(_uses(tree, calls, classes)), key=repr)


def _uses(tree: ast.AST, calls: dict[int, ast.Call], classes: dict[str, str]) -> Iterator[Use]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        path = _path(node)
        if len(path) < 2 or path[0] not in classes:
            continue
        name = path[-1]
        owner = (
            classes[path[0]] if len(path) == 2 else path[-2]
        )  # trt.Class.NAME: the module's classes are known by name
        call = calls.get(id(node))
        if call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
            yield Use(owner, name)  # read, or called with a number of arguments that the source does not show
        else:
            keywords = tuple(str(keyword.arg) for keyword in call.keywords)
            yield Use(owner, name, len(call.args) + len(keywords), keywords)


def _path(node: ast.expr) -> list[str]:
    """`self._trt.DataType.HALF` as ["trt", "DataType", "HALF"]; empty for what is no chain of names."""
    if isinstance(node, ast.Name):
        return [] if node.id == "self" else [node.id]
    if isinstance(node, ast.Attribute):
        owners = _path(node.value)
        is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
        return [node.attr.removeprefix("_")] if is_own else [*owners, node.attr] if owners else []
    return []


def complaint(api: Api, use: Use) -> str:
    """Why TensorRT would refuse a use, by the signatures in its docstrings; empty where it would not."""
    if use.owner not in api or use.name not in api[use.owner]:
        return f"{use.owner}.{use.name} does not exist"
    if use.arguments is None:
        return ""
    is_class = not use.owner and use.name in api
    documented = api[use.name]["__init__"] if is_class else api[use.owner][use.name]
    signatures = re.findall(r"\w+\(self[^,)]*(?:, ([^)]*))?\) ->", documented)
    for signature in signatures:
        parameters = re.findall(r"(\w+): ([^:]+?)(?=, \w+: |$)", signature)
        least = sum(" = " not in kind for _, kind in parameters)
        names = {name for name, _ in parameters}
        if least <= use.arguments <= len(parameters) and names.issuperset(use.keywords):
            return ""
    return f"{use.owner}.{use.name} takes {signatures or documented}, not {use.arguments} {use.keywords}"


def rtx_api() -> Api:
    """That of TensorRT-RTX, whose libraries are with it."""
    pytest.importorskip("tensorrt_rtx")
    return _dumped("tensorrt_rtx", {})


def tensorrt_api(folder: Path) -> Api:
    """That of TensorRT, its libraries replaced by empty ones, which are compiled into `folder`."""
    if util.find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt_bindings is not installed")
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here: TensorRT's names are checked where there is one")
    found = next(iter(metadata.packages_distributions()["tensorrt_bindings"]))
    major = metadata.version(found).split(".")[0]
    (folder / "empty.c").write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS.split()))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "empty.c"]
        subprocess.run(command, cwd=folder, check=True)
    return _dumped("tensorrt_bindings", {"LD_LIBRARY_PATH": str(folder)})


def _dumped(module: str, environment: dict[str, str]) -> Api:
    """In a process of its own: both modules register the same C++ classes, which one process does not take twice."""
    command = [sys.executable, "-c", _DUMP, module]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api: Api = json.loads(done.stdout)
    return api
