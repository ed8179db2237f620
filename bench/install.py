"""What peers need, put once into the user's cache folder and never into the source tree."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_MANIFESTS = ("package.json", "package-lock.json", ".npmrc")


def node_program(folder: Path, program: str) -> list[str]:
    """The command that runs a program of a folder, with the packages of its lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SystemExit("bench: Node is a peer of the benchmark, and there is no node or npm on the PATH")
    digest = hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in _MANIFESTS)).hexdigest()[:12]
    installed = _cache() / f"bench-node-{digest}"
    if not (installed / ".done").exists():
        installed.mkdir(exist_ok=True)
        for name in _MANIFESTS:
            shutil.copyfile(folder / name, installed / name)
        _install(f"packages of {folder.name}", installed, ["npm", "ci"])
    # Node looks for packages beside the script.
    shutil.copyfile(folder / program, installed / program)
    return ["node", str(installed / program)]


def python_peer(module: str, *requirements: str) -> list[str]:
    """The command that runs a module in a virtual environment of its own, with the given packages."""
    key = "\0".join((sys.version, *requirements))
    first = requirements[0].partition("=")[0].partition("[")[0]
    installed = _cache() / f"bench-{first}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = str(installed / "bin" / "python")
    if not (installed / ".done").exists():
        _install("virtual environment", installed, [sys.executable, "-m", "venv", "--clear", str(installed)])
        _install(" ".join(requirements), installed, [python, "-m", "pip", "install", "--quiet", *requirements])
    return [python, "-m", module]


@functools.cache
def rust_program(name: str, profile: str = "release") -> str:
    """The path of an example program of the engine, built if need be."""
    if shutil.which("cargo") is None:
        raise SystemExit(f"bench: {name} is a Rust program, and there is no cargo on the PATH")
    # Of the whole workspace, so that what `cargo test` has built of it serves.
    command = ["cargo", "build", "--workspace", "--example", name, "--message-format", "json"]
    done = subprocess.run(
        [*command, "--profile", "dev" if profile == "debug" else profile],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    built = (json.loads(line).get("executable") for line in done.stdout.splitlines() if line.startswith("{"))
    return str(next(path for path in built if path))


def _install(what: str, folder: Path, command: list[str]) -> None:
    print(f"bench: {what} -> {folder} (once)", file=sys.stderr)
    (folder / ".done").unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)} failed:\n{done.stdout[-2000:]}")
    (folder / ".done").touch()


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toromq"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
