"""Start JupyterLab with the chapters opening as notebooks (`make lab`)."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "binder" / "overrides.json"

if __name__ == "__main__":
    share = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings"
    share.mkdir(parents=True, exist_ok=True)
    (share / "overrides.json").write_bytes(SETTINGS.read_bytes())
    lab = [sys.executable, "-m", "jupyterlab", *sys.argv[1:]]
    start = "lab/tree/book/tensors.md"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # the tabs of other projects would come back in front of the chapter
    env["JUPYTERLAB_WORKSPACES_DIR"] = str(share.parent / "workspaces")
    sys.exit(
        subprocess.run(
            [*lab, f"--LabApp.default_url=/{start}"], cwd=ROOT, env=env
        ).returncode
    )
