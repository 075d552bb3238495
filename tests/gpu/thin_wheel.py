"""Makes a wheel of CUDA code small enough for a narrow link to a machine without a network: 256 MB become 32.

    python tests/gpu/thin_wheel.py onnxruntime_gpu-....whl 9.0 FOLDER

In every library of the wheel the machine code for other GPUs is overwritten with zeros, which compress to nothing, and
so are the kernels of language models, found by the names in them. What is left has its place and its size, so that
the driver, which loads a kernel when it is first called, finds it. Needs the command `zstd`.
"""

import base64
import hashlib
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

# A fat binary, as nvcc embeds it: a header, then entries of a header and code for one architecture each.
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)
ENTRY = struct.Struct("<HHIQIIHHI")  # _, _, bytes of header, code and code compressed, _, _, _, architecture
ZSTD = b"\x28\xb5\x2f\xfd"
FOREIGN = re.compile(
    rb"cutlass|flash|fmha|moe|paged|fpA_intB|MatMulNBits|Rotary|[Aa]ttention|beam|kv_cache|[Ll]ongformer"
)
LEFT_OUT = re.compile(r"libonnxruntime\.so|libonnxruntime_providers_tensorrt")  # for programs in C, and for TensorRT


def main(wheel: Path, compute_capability: str, folder: Path) -> None:
    architecture = int(compute_capability.replace(".", ""))
    records = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if LEFT_OUT.search(name):
                continue
            content = source.read(name)
            if name.endswith(".dist-info/RECORD"):
                record = name
                continue
            if b".nv_fatbin\0" in content:
                content = thinned(content, architecture)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(content)}\n")
            target.writestr(name, content)
        target.writestr(record, "".join([*records, f"{record},,\n"]))
    print(f"{folder / wheel.name}: {(folder / wheel.name).stat().st_size / 1e6:.0f} MB")


def thinned(library: bytes, architecture: int) -> bytes:
    """The library without code for other GPUs and of other kinds of networks."""
    content = bytearray(library)
    for found, begin, end, compressed_bytes in entries(library):
        code = library[begin : begin + (compressed_bytes or end - begin)]
        if found != architecture or FOREIGN.search(unpacked(code)):
            content[begin:end] = bytes(end - begin)
    return bytes(content)


def entries(library: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Architecture, begin, end and compressed bytes of every piece of code."""
    at = 0
    while (at := library.find(MAGIC, at)) >= 0:
        end = at + 16 + struct.unpack_from("<Q", library, at + 8)[0]
        at += 16
        while at + ENTRY.size <= end <= len(library):
            _, _, header_bytes, code_bytes, compressed_bytes, _, _, _, architecture = ENTRY.unpack_from(library, at)
            at += header_bytes + code_bytes
            yield architecture, at - code_bytes, at, compressed_bytes


def unpacked(code: bytes) -> bytes:
    if not code.startswith(ZSTD):
        return code
    return subprocess.run(["zstd", "-dc"], input=code, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
