"""Where a chapter can be started, all of it from one setting.

``repository`` in ``_config.yml`` says where the book lives, and
ZEROHERO_REPOSITORY in the environment says it for a fork. From it come the
launch buttons of a page, the address of the site, and what the first cell
of a downloaded notebook installs.
"""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

ROOT = Path(__file__).resolve().parents[2]
#: The branch that publish.yml fills with the notebooks of the last build:
#: Colab opens notebooks of a GitHub branch, not files of a site.
NOTEBOOK_BRANCH = "notebooks"
#: Folder of the built site that becomes that branch.
NOTEBOOK_FOLDER = "notebooks"


@dataclass(frozen=True)
class Place:
    """A repository on GitHub, and what is reached through it."""

    url: str
    branch: str

    @property
    def slug(self) -> str:
        """owner/name"""
        return "/".join(self.url.rstrip("/").split("/")[-2:])

    @property
    def site(self) -> str:
        """The published book."""
        owner, name = self.slug.split("/")
        return f"https://{owner.lower()}.github.io/{name}/"

    def binder(self, path: str) -> str:
        """A file of the repository, opened in JupyterLab on Binder."""
        return (
            f"https://mybinder.org/v2/gh/{self.slug}/{self.branch}"
            f"?urlpath=lab/tree/{quote(path)}"
        )

    def colab(self, stem: str) -> str:
        """A chapter's notebook in Colab."""
        return (
            f"https://colab.research.google.com/github/{self.slug}"
            f"/blob/{NOTEBOOK_BRANCH}/{stem}.ipynb"
        )

    def codespaces(self) -> str:
        """The whole repository in a Codespace."""
        return f"https://codespaces.new/{self.slug}?quickstart=1"

    def archive(self) -> str:
        """The package as of the built version, for pip."""
        return f"{self.url}/archive/{commit() or self.branch}.zip"


def place() -> Place:
    """The one setting, or the fork that the environment names."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    setting = config["repository"]
    url = os.environ.get("ZEROHERO_REPOSITORY") or setting["url"]
    return Place(url.rstrip("/"), setting["branch"])


@functools.cache
def commit() -> str:
    """The commit that is being built; empty outside a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def configure(app, config) -> None:
    """Give the theme the same repository and site."""
    here = place()
    config.html_theme_options["repository_url"] = here.url
    config.html_theme_options["repository_branch"] = here.branch
    config.html_baseurl = here.site


def buttons(here: Place, docname: str) -> list[dict]:
    """What the rocket of a chapter offers."""
    stem = docname.rpartition("/")[2]
    return [
        {
            "type": "link",
            "text": "Binder",
            "tooltip": "Open this chapter in JupyterLab on Binder",
            "icon": "_static/images/logo_binder.svg",
            "label": "launch-binder",
            "url": here.binder(f"{docname}.md"),
        },
        {
            "type": "link",
            "text": "Colab",
            "tooltip": "Open this chapter in Google Colab",
            "icon": "_static/images/logo_colab.png",
            "label": "launch-colab",
            "url": here.colab(stem),
        },
        {
            "type": "link",
            "text": "Codespaces",
            "tooltip": "Open the whole book in a GitHub Codespace",
            "icon": "fab fa-github",
            "label": "launch-codespaces",
            "url": here.codespaces(),
        },
    ]
