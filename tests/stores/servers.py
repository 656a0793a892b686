"""Object stores on this machine: an emulator of gs:// and one of s3://, as processes of their own.

Each has one bucket, "runs". The emulator of gs:// from PyPI leaves out what stunet, TensorStore and
ArrayRecord need, and the real store has: preconditions (`ifGenerationMatch`), the header with an
object's generation, and ranges of an object's last bytes. They are added here.

`python servers.py gs PORT FAULTS FOLDER` serves until it is stopped. FAULTS is a file. While it
holds a number N, every N-th request is answered with 503; while it holds "slow", each one takes
half a second more; while it holds "no read", "no write" or "no login", such requests are refused as
the real stores refuse them. FOLDER keeps the objects of gs:// over restarts; with "" they are in
memory.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

BUCKET = "runs"


@contextlib.contextmanager
def running(scheme: str, faults: str = "") -> Iterator[dict[str, str]]:
    """Context manager in which a store answers. Yields the environment of programs that use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server(scheme, port, faults):
        yield environment(scheme, port)


def environment(scheme: str, port: int) -> dict[str, str]:
    """Returns what points gcsfs, TensorStore, ArrayRecord and s3fs at a store of this machine."""
    url = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        # Without the last two, gcsfs looks for credentials on Google's machines first.
        return {
            "STORAGE_EMULATOR_HOST": url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    return {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **keys}


def forget() -> None:
    """Lets this process look for stores anew. fsspec keeps what it has opened."""
    import fsspec

    from stunet.stores import objects

    objects._file_system.cache_clear()
    for scheme in ("gs", "s3"):
        fsspec.get_filesystem_class(scheme).clear_instance_cache()


@contextlib.contextmanager
def server(scheme: str, port: int, faults: str = "", folder: str = "") -> Iterator[None]:
    """Context manager in which a store answers at a port. With `folder`, it keeps its objects."""
    command = [sys.executable, __file__, scheme, str(port), faults or os.devnull, folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the server has ended"
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


# Status -> name and words of the error.
_WORDS = {
    401: ("ExpiredToken", "The provided token has expired"),
    403: ("AccessDenied", "somebody does not have access to the bucket"),
}


def _refusal(mode: str, method: str, count: int) -> int:
    """Returns the status with which request number `count` is refused; 0 to answer it."""
    if mode.isdecimal():
        return 0 if count % int(mode) else 503
    kind = "read" if method in ("GET", "HEAD") else "write"
    return 401 if mode == "no login" else 403 if mode == f"no {kind}" else 0


def _serve_gs(port: int, faults: pathlib.Path, folder: str) -> None:
    from functools import partial
    from http.server import ThreadingHTTPServer

    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    storage = Storage(use_memory_fs=not folder, data_dir=folder or None)
    with contextlib.suppress(Exception):  # It is there already, in a folder.
        buckets.create_bucket(BUCKET, storage)
    lock, count = threading.RLock(), [0]

    def generation(bucket: str, name: str) -> str:
        try:
            return storage.get_file_obj(bucket, name)["generation"]
        except NotFound:
            return "0"

    class Handler(RequestHandler):
        tag = ""

        def log_message(self, *_) -> None:
            pass

        def handle_one_request(self) -> None:
            with lock:
                super().handle_one_request()

        def end_headers(self) -> None:
            if self.tag:
                self.send_header("x-goog-generation", self.tag)
            super().end_headers()

        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            mode, self.tag = faults.read_text().strip(), ""
            count[0] += 1
            if mode == "slow":
                time.sleep(0.5)
            if status := _refusal(mode, self.command, count[0]):
                return self._refused(status)
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            parts = [urllib.parse.unquote(part) for part in url.path.split("/")]
            bucket = parts[parts.index("b") + 1] if "b" in parts[:-1] else ""
            is_named = "o" in parts[:-1] and bucket
            name = parts[parts.index("o") + 1] if is_named else query.get("name", "")
            if query.get("alt") == "media" and is_named:
                self.tag = generation(bucket, name)
                self.tag = self.tag if self.tag != "0" else ""
            last = re.fullmatch(r"bytes=-(\d+)", self.headers.get("Range", ""))
            if last and is_named:
                size = len(storage.get_file(bucket, name)) if generation(bucket, name) != "0" else 0
                self.headers.replace_header("Range", f"bytes={max(0, size - int(last[1]))}-")
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and name and wanted != generation(bucket, name):
                return self._refused(412)
            return True

        def _refused(self, status: int) -> bool:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.tag = ""
            words = _WORDS.get(status, ("", ""))[1]
            body = json.dumps({"error": {"code": status, "message": words}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return False

    ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, storage)).serve_forever()


def _serve_s3(port: int, faults: pathlib.Path, folder: str) -> None:
    import moto.server
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from werkzeug.serving import run_simple

    app = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
    # moto compares and replaces in two steps, which the real store does in one.
    lock, count = threading.Lock(), [0]

    def answer(environ, start_response):
        mode = faults.read_text().strip()
        count[0] += 1
        if mode == "slow":
            time.sleep(0.5)
        if status := _refusal(mode, environ["REQUEST_METHOD"], count[0]):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            code, words = _WORDS.get(status, ("SlowDown", "Slow down"))
            body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
            # S3 has no status 401.
            shown = {401: "400 Bad Request"}.get(status, f"{status} Refused")
            start_response(shown, [("Content-Length", str(len(body)))])
            return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]
        with lock:
            return app(environ, start_response)

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, "us-east-1")
    run_simple("127.0.0.1", port, answer, threaded=True)


if __name__ == "__main__":
    scheme, port, faults, folder = sys.argv[1:]
    serve = {"gs": _serve_gs, "s3": _serve_s3}[scheme]
    serve(int(port), pathlib.Path(faults), folder)
