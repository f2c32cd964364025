"""Writes the Python code of the protos beside them; `--check` fails if the committed code is stale."""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
GENERATOR = "1.81.1"


def generate(out: Path) -> None:
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("ssp/v1/*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    flags = ["--python_out", "--mypy_out", "--grpc_python_out", "--mypy_grpc_out"]
    beside = Path(sys.executable).parent
    plugins = [f"--plugin={beside / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    arguments = ["protoc", f"-I{PROTOS}", f"-I{include}", *plugins, *(f"{flag}={out}" for flag in flags), *sources]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed; its message is above")


def stale(fresh: Path) -> list[str]:
    names = {path.relative_to(root) for root in (fresh, PROTOS) for path in root.glob("ssp/v1/*_pb2*")}
    return sorted(str(name) for name in names if not _same(fresh / name, PROTOS / name))


def _same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.read_bytes() == b.read_bytes()


def main() -> None:
    if version("grpcio-tools") != GENERATOR:
        sys.exit(f"use grpcio-tools {GENERATOR}, not {version('grpcio-tools')}: newer code refuses protobuf 6")
    if "--check" not in sys.argv:
        return generate(PROTOS)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if names := stale(Path(folder)):
            sys.exit(f"generated code is stale, run `make proto`: {', '.join(names)}")
    return None


if __name__ == "__main__":
    main()
