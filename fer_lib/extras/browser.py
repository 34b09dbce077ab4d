"""What the site's page needs to run the published network in a reader's browser: one script, network.js.

    python -m fer_lib.extras.browser

writes it to reports/browser/: onnxruntime-web, which npm gets from its registry, the network, and the detector of
faces. Where npm cannot get it, no script is written; missing.txt says why, and is empty otherwise.
"""

import base64
import gzip
import hashlib
import re
import shutil
import subprocess
import tarfile
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory

from fer_lib.extras.detect import DETECTOR
from fer_lib.extras.onnx import write_network
from fer_lib.record import runs_folder

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm's lock files have it."""

FILES = {"runtime": "ort.wasm.min.js", "module": "ort-wasm-simd-threaded.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""What of the package is used: the script, and what it would load by itself from beside it."""

NPM = ("--prefer-offline", "--ignore-scripts", "--fetch-retries=0", "--loglevel=error")
"""Options: what npm has got once is taken from its cache."""


class Missing(Exception):
    """The runtime cannot be had; the message says why, as the end of a sentence."""


def fetch_runtime() -> dict[str, bytes]:
    """The contents of `FILES`, by name. Raises Missing."""
    if (npm := shutil.which("npm")) is None:
        raise Missing("npm, which gets it, is not installed")
    with TemporaryDirectory() as folder:
        _call([npm, "view", PACKAGE, "name", *NPM], 20)  # a registry that does not answer is soon given up
        _call([npm, "pack", PACKAGE, "--pack-destination", folder, *NPM], 600)
        (archive,) = Path(folder).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != SHA512:
            raise Missing(f"what npm got is not the published {PACKAGE}")
        with tarfile.open(archive) as files:
            return {name: files.extractfile(f"package/dist/{file}").read() for name, file in FILES.items()}


def _call(command: list[str], seconds: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm's registry did not answer in {seconds} seconds") from None
    if done.returncode:
        code = re.search(r"^npm error code (\w+)$", done.stderr, re.M)
        raise Missing(f"npm could not get it from its registry ({code[1] if code else 'for no stated reason'})")


def write_script(path: Path, runtime: dict[str, bytes], network: bytes) -> None:
    """Write the script: the runtime as it is, then an object NETWORK, whose module, wasm, model and detector are
    gzipped and in base64. A script can be loaded by a page that was opened from a folder; a binary file cannot.

    runtime: of `fetch_runtime`; network: the content of the file that `onnx.write_network` writes."""
    parts = {"module": runtime["module"], "wasm": runtime["wasm"], "model": network, "detector": DETECTOR.read_bytes()}
    packed = {name: base64.b64encode(gzip.compress(part, mtime=0)).decode() for name, part in parts.items()}
    lines = [f'{name}: "{text}",\n' for name, text in packed.items()]
    text = runtime["runtime"].decode().split("\n//# sourceMappingURL=")[0]
    path.write_text(f"{text}\nglobalThis.NETWORK = {{\n{''.join(lines)}}};\n", encoding="utf-8")


def main() -> None:
    reports = runs_folder().parent
    folder, network = reports / "browser", reports / "onnx" / "fer.onnx"
    folder.mkdir(exist_ok=True)
    (folder / "network.js").unlink(missing_ok=True)
    try:
        runtime, missing = fetch_runtime(), ""
        write_network(network)
        write_script(folder / "network.js", runtime, network.read_bytes())
    except Missing as error:
        missing = str(error)
        print(f"The network cannot be tried in the browser: {PACKAGE} is missing; {missing}")
    (folder / "missing.txt").write_text(missing, encoding="utf-8")


if __name__ == "__main__":
    ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    main()
