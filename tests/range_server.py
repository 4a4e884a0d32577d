"""A server of http that gives parts of files, as GDAL reads them, in a process of its own.

In a process of its own, as rasterio opens files without letting other threads run.
``python tests/range_server.py FOLDER PORT`` is it; port 0 is any that is free.
"""

import http.server
import re
import signal
import subprocess
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """GET with ``Range``, HEAD, ``Last-Modified``; 404 for what is not there, folders too."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.give(b"")

    def do_GET(self):
        self.give(None)

    def give(self, body):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(part if body is None else body)

    def log_message(self, *words):
        pass


class RangeServer:
    """The server, started; a context manager. ``address`` is ``http://127.0.0.1:PORT``."""

    def __init__(self, folder):
        self.folder, self.port = folder, 0
        self.start()

    def start(self):
        """Start it, at the port it had before if there was one."""
        self.process = subprocess.Popen(
            [sys.executable, "-S", __file__, str(self.folder), str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self):
        """End it: whoever asks is refused."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def freeze(self):
        """Let it answer no more, while it still takes connections."""
        self.process.send_signal(signal.SIGSTOP)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


if __name__ == "__main__":
    where, port = sys.argv[1:]
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(port)),
        lambda *words: Handler(*words, directory=where),
    ) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
