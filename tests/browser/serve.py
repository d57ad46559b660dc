"""The built site as GitHub Pages serves it: compressed, below a prefix."""

import gzip
import http.server
import mimetypes
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

TEXT = {".html", ".css", ".js", ".svg", ".xml", ".json", ".txt", ".md"}


@cache
def _packed(path: Path, stamp: float) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site, prefix = Path(), "/"

    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802
        address = unquote(urlsplit(self.path).path)
        path, status = None, 404
        if address.startswith(self.prefix):
            path = self.site / address[len(self.prefix) :]
            path = path / "index.html" if path.is_dir() else path
            status = 200 if path.is_file() else 404
        if status == 404:
            path = self.site / "404.html"
        body = path.read_bytes()
        self.send_response(status)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or path.suffix == ".js":
            kind += "; charset=utf-8"
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "max-age=600")
        if path.suffix in TEXT:
            body = _packed(path, path.stat().st_mtime)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(site: Path, prefix: str = "/"):
    """Address of a server of ``site``, for as long as the block lasts."""
    handler = type("Handler", (Pages,), {"site": site, "prefix": prefix})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix.rstrip('/')}"
    finally:
        server.shutdown()
        server.server_close()
