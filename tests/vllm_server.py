"""A real vLLM server with a tiny model, on loopback: started, killed and started again by tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from captioners import serve

MODEL, OTHER = "tiny", "tiny-large"
"""Two names of the same model, for mixes of models."""


class TinyServer:
    """Serves what `tests/tiny_vlm.py` makes, from the environment of `make vllm`. more: arguments of `vllm serve`."""

    def __init__(self, folder: Path, more: tuple[str, ...] = ()):
        vllm = serve.find()
        self.model, self._log = folder / "model", folder / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        python = Path(vllm).with_name("python")
        made = [str(python), str(Path(__file__).with_name("tiny_vlm.py")), str(self.model)]
        subprocess.run(made, check=True, capture_output=True, timeout=300)
        settings = serve.Serving(str(self.model), MODEL, port=self.port, context=2048, at_once=8, memory_mb=128)
        self._command = serve.command(settings, vllm, gpu=False, more=("--served-model-name", MODEL, OTHER, *more))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; `wait` until it answers."""
        environment = serve.environment(offline=True, gpu=False) | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float = 300.0) -> None:
        assert self._process is not None
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            assert self._process.poll() is None, f"the server ended:\n{self._log.read_text()[-3000:]}"
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.25)
        raise AssertionError(f"the server did not start in {seconds} s:\n{self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Without a word of warning, all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
