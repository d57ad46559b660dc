"""A JupyterLab on one core, and a reader in Chromium who runs a chapter."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import FLAGS, chromium  # noqa: E402

#: The state of the open notebook, as JupyterLab itself sees it.
STATE = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  const notebook = panel?.content, model = notebook?.model;
  if (!model?.cells) return {kind: panel?.content?.constructor?.name ?? ""};
  const out = {kind: "notebook", code: 0, done: 0, trouble: [],
               kernel: panel.sessionContext?.session?.kernel?.status ?? "",
               path: panel.context?.path ?? ""};
  for (let i = 0; i < model.cells.length; i++) {
    const cell = model.cells.get(i);
    if (cell.type !== "code" || !cell.sharedModel.getSource().trim())
      continue;
    out.code += 1;
    if (cell.executionCount !== null) out.done += 1;
    for (let k = 0; k < cell.outputs.length; k++) {
      const o = cell.outputs.get(k).toJSON();
      if (o.output_type === "error" || o.name === "stderr")
        out.trouble.push((o.ename ?? "stderr") + ": " +
                         String(o.evalue ?? o.text).slice(0, 300));
    }
  }
  return out;
}"""


@contextmanager
def browser():
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS
        )
        yield window
        window.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _small(memory: int | None) -> None:
    """In the new process: one core, and no more memory than this."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if memory:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


class Lab:
    """A running JupyterLab of a folder, given up with `stop`."""

    def __init__(
        self,
        command: list,
        folder: Path,
        env: dict,
        memory: int | None = None,
        log: Path | None = None,
    ):
        self.port, self.token = free_port(), "zero"
        options = [
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            f"--IdentityProvider.token={self.token}",
            "--ServerApp.allow_root=True",
            "--ServerApp.open_browser=False",
            "--LabApp.expose_app_in_browser=True",
        ]
        self.log = open(log or os.devnull, "w")  # noqa: SIM115
        self.process = psutil.Popen(
            [*map(str, command), *options],
            cwd=folder,
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: _small(memory),
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def wait(self, seconds: float = 120) -> float:
        """Seconds until the server answers."""
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            if self.process.poll() is not None:
                raise RuntimeError("JupyterLab ended while it started")
            try:
                self.api("api/status")
                return time.perf_counter() - start
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not answer for {seconds} s")

    def api(self, path: str, method: str = "GET"):
        request = urllib.request.Request(
            f"{self.url}/{path}",
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def end_sessions(self) -> None:
        """As for the next reader: no kernel, no tab to open again."""
        for session in self.api("api/sessions"):
            self.api(f"api/sessions/{session['id']}", "DELETE")
        for name in self.api("lab/api/workspaces")["workspaces"]["ids"]:
            self.api(f"lab/api/workspaces/{name}", "DELETE")

    def stop(self) -> None:
        family = [self.process, *self.process.children(recursive=True)]
        for p in family:
            try:
                p.terminate()
            except psutil.Error:
                pass
        _, alive = psutil.wait_procs(family, timeout=10)
        for p in alive:
            p.kill()
        self.log.close()


class Memory(threading.Thread):
    """Peak resident memory (MB) of the kernel, and of kernel and server."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.done = process, threading.Event()
        self.kernel = self.all = 0.0

    def run(self) -> None:
        while not self.done.wait(0.2):
            total = kernel = 0
            try:
                family = self.process.children(recursive=True)
                for p in [self.process, *family]:
                    size = p.memory_info().rss
                    total += size
                    if "ipykernel_launcher" in " ".join(p.cmdline()):
                        kernel = max(kernel, size)
            except psutil.Error:
                continue
            self.kernel = max(self.kernel, kernel / 2**20)
            self.all = max(self.all, total / 2**20)


def run_chapter(
    lab: Lab,
    window,
    path: str,
    limit: float = 900,
    picture: Path = None,
    run: bool = True,
) -> dict:
    """Open `path` of the server as a reader does, Run All, report."""
    memory = Memory(lab.process)
    memory.start()
    context = window.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"{lab.url}/{path}?token={lab.token}", timeout=60_000)
    row: dict = {"path": path, "trouble": []}
    try:
        state = _until(
            page,
            lambda s: s.get("kind") == "notebook" and s["kernel"] == "idle",
            120,
        )
        row["launch"] = time.perf_counter() - start
        row["cells"] = state["code"]
        row["opened"] = state["path"]
        if run:
            start = time.perf_counter()
            row["trouble"] = _run_all(page, limit)
            row["run"] = time.perf_counter() - start
    except TimeoutError as error:
        row["trouble"] = [str(error)]
    if picture:
        page.wait_for_timeout(2000)
        page.screenshot(path=str(picture))
    memory.done.set()
    memory.join()
    context.close()
    lab.end_sessions()
    return {**row, "kernel_mb": memory.kernel, "all_mb": memory.all}


def _run_all(page, limit: float) -> list[str]:
    page.wait_for_timeout(500)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    state = _until(
        page,
        lambda s: (s["done"] == s["code"] and s["kernel"] == "idle")
        or s["trouble"],
        limit,
    )
    return state["trouble"]


def _until(page, enough, seconds: float) -> dict:
    end, state = time.perf_counter() + seconds, {}
    while time.perf_counter() < end:
        state = page.evaluate(STATE)
        if enough(state):
            return state
        page.wait_for_timeout(200)
    raise TimeoutError(f"after {seconds:.0f} s: {state}")
