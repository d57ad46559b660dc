"""What a first visit of each page transfers, compressed, figures apart.

    python tests/browser/weigh.py        after `make book`: prints the table
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import FLAGS, PREFIX, SITE, chromium  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from serve import serving  # noqa: E402

KINDS = {".html": "page", ".css": "style", ".js": "script", ".woff2": "fonts"}


def weigh(browser, address: str) -> tuple[dict[str, int], list[str]]:
    """Bytes by kind of one first visit, and requests to other hosts."""
    context = browser.new_context(viewport={"width": 412, "height": 823})
    page, answers = context.new_page(), []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(address, wait_until="networkidle")
    home = "/".join(address.split("/")[:3])
    kinds = [*KINDS.values(), "figures", "other"]
    weights, foreign = dict.fromkeys(kinds, 0), []
    for answer in answers:
        if answer.url.startswith("data:"):
            continue
        if not answer.url.startswith(home):
            foreign.append(answer.url)
            continue
        size = int(answer.all_headers().get("content-length", 0))
        name = answer.url.split("?")[0]
        kind = KINDS.get(Path(name).suffix, "other")
        kind = "figures" if "/_images/" in name else kind
        weights[kind] += size
    context.close()
    return weights, foreign


def main() -> None:
    pages = sorted(SITE.glob("book/*.html"))
    print(f"{'KB compressed':16}{'all but figures':>16}", end="")
    print("".join(f"{k:>9}" for k in [*KINDS.values(), "other", "figures"]))
    with sync_playwright() as playwright, serving(SITE, PREFIX) as url:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS
        )
        for path in pages:
            w, foreign = weigh(browser, f"{url}/book/{path.name}")
            total = sum(w.values()) - w["figures"]
            print(f"{path.stem:16}{total / 1000:16.1f}", end="")
            for kind in [*KINDS.values(), "other", "figures"]:
                print(f"{w[kind] / 1000:9.1f}", end="")
            print("  asks " + ", ".join(foreign) if foreign else "")
        browser.close()


if __name__ == "__main__":
    main()
