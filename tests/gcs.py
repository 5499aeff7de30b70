"""Google Cloud Storage that is not there: what gcsfs and TensorStore use of its JSON API, from memory, over HTTP."""

import contextlib
import importlib.util
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest


class Google:
    """Objects by their names; every bucket that is asked for is this one."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        """Content and generation."""
        self.times: dict[str, str] = {}
        """When each was written."""
        self.refuse: Callable[[str, str], int | None] = lambda method, name: None
        """What a request is refused with: an HTTP status, or None."""
        self.requests: list[tuple[str, str]] = []
        self.uploads: dict[str, tuple[str, str, dict[str, str], bytearray]] = {}
        """Uploads in pieces that have begun: bucket, name, query, and what has come."""
        self._generations = itertools.count(1)
        self._lock = threading.Lock()
        google = self

        class Handler(_Handler):
            there = google

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """By which gcsfs, TensorStore and Google's own library come here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def names(self, beginning: str = "") -> list[str]:
        return sorted(name for name in list(self.objects) if name.startswith(beginning))

    def text(self, name: str) -> str:
        return self.objects[name][0].decode()

    def put(self, name: str, content: bytes, generation: int | None) -> int | None:
        """The new generation; None where the object is not of the `generation` asked for, 0 being none at all."""
        with self._lock:
            if generation is not None and self.objects.get(name, (b"", 0))[1] != generation:
                return None
            self.times[name] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            self.objects[name] = content, next(self._generations)
            return self.objects[name][1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_) -> None:
        """Who asked has hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer: two would wait for each other
    disable_nagle_algorithm = True
    there: Google

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path in self.there.uploads:
            self._go_on(url.path, body)
            return
        bucket = re.fullmatch(r"(?:/upload|/download)?/storage/v1/b/([^/]+)(/o(?:/(.*))?)?", url.path)
        if bucket is None:
            self._say(404, {"error": {"code": 404, "message": f"no such address: {url.path}"}})
            return
        name = unquote(bucket[3] or "") or query.get("name", "")
        if url.path.startswith("/upload") and query["uploadType"] == "multipart":
            name = json.loads(self._parts(body)[0])["name"]
        self.there.requests.append((self.command, name))
        refused = self.there.refuse(self.command, name or query.get("prefix", ""))
        if refused is not None:
            self._say(refused, {"error": {"code": refused, "message": "refused by the test"}})
        elif url.path.startswith("/upload"):
            self._upload(bucket[1], name, query, body)
        elif bucket[2] is None:
            self._say(200, {"name": bucket[1], "kind": "storage#bucket", "projectNumber": "1", "location": "US"})
        elif not bucket[3]:
            self._list(bucket[1], query)
        elif self.command == "POST":
            source, target = re.fullmatch(r"(.*)/(?:rewriteTo/b/[^/]+|moveTo)/o/(.*)", bucket[3]).groups()
            self._copy(bucket[1], unquote(source), unquote(target))
        elif name not in self.there.objects:
            self._say(404, {"error": {"code": 404, "message": f"No such object: {name}"}})
        elif self.command == "DELETE":
            self._delete(name, query.get("ifGenerationMatch"))
        elif query.get("alt") == "media":
            self._download(name)
        else:
            self._say(200, self._described(bucket[1], name))

    do_GET = do_POST = do_DELETE = do_PUT = _answer

    def _upload(self, bucket: str, name: str, query: dict[str, str], body: bytes) -> None:
        if query["uploadType"] == "resumable":
            place = f"/session/{len(self.there.uploads)}"
            self.there.uploads[place] = bucket, name, query, bytearray()
            self._say(200, headers={"Location": self.there.url + place})
            return
        self._keep(bucket, name, query, self._parts(body)[1] if query["uploadType"] == "multipart" else body)

    def _go_on(self, place: str, body: bytes) -> None:
        bucket, name, query, content = self.there.uploads[place]
        content += body
        if self.headers["Content-Range"].endswith("/*"):
            self._say(308, headers={"Range": f"bytes=0-{len(content) - 1}"})
        else:
            self._keep(bucket, name, query, bytes(content))

    def _keep(self, bucket: str, name: str, query: dict[str, str], content: bytes) -> None:
        wanted = query.get("ifGenerationMatch")
        if self.there.put(name, content, None if wanted is None else int(wanted)) is None:
            self._say(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        else:
            self._say(200, self._described(bucket, name))

    def _delete(self, name: str, wanted: str | None) -> None:
        if wanted not in (None, str(self.there.objects[name][1])):
            self._say(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        del self.there.objects[name]
        self._say(204)

    def _parts(self, body: bytes) -> list[bytes]:
        boundary = b"--" + re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        parts = re.split(rb"\r?\n?" + re.escape(boundary) + rb"(?:--)?\r?\n?", body)[1:-1]
        return [re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts]

    def _copy(self, bucket: str, source: str, target: str) -> None:
        if source not in self.there.objects:
            self._say(404, {"error": {"code": 404, "message": f"No such object: {source}"}})
            return
        self.there.put(target, self.there.objects[source][0], None)
        if "/moveTo/" in self.path:
            del self.there.objects[source]
            self._say(200, self._described(bucket, target))
        else:
            self._say(200, {"done": True, "resource": self._described(bucket, target)})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        beginning, start = query.get("prefix", ""), query.get("startOffset", "")
        end, delimiter = query.get("endOffset"), query.get("delimiter")
        items, folders = [], set()
        for name in self.there.names(beginning):
            head, found, _ = name[len(beginning) :].partition(delimiter) if delimiter else (name, "", "")
            if name < start or (end is not None and name >= end):
                continue
            if found:
                folders.add(beginning + head + found)
            else:
                items.append(self._described(bucket, name))
        self._say(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)})

    def _download(self, name: str) -> None:
        content, generation = self.there.objects[name]
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._say(200, content, {"x-goog-generation": str(generation)})
            return
        first = int(asked[1]) if asked[1] else max(0, len(content) - int(asked[2]))
        last = min(int(asked[2]) if asked[1] and asked[2] else len(content), len(content) - 1)
        if first >= len(content):
            self._say(416, {"error": {"code": 416, "message": "no such range"}})
            return
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "x-goog-generation": str(generation)}
        self._say(206, content[first : last + 1], headers)

    def _described(self, bucket: str, name: str) -> dict[str, str]:
        content, generation = self.there.objects[name]
        time = self.there.times[name]
        return {
            **{"kind": "storage#object", "name": name, "bucket": bucket, "size": str(len(content)), "updated": time},
            **{"generation": str(generation), "metageneration": "1", "timeCreated": time, "storageClass": "STANDARD"},
        }

    def _say(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        with contextlib.suppress(ConnectionError):  # who asked may have heard enough
            self.end_headers()
            self.wfile.write(raw)
            self.wfile.flush()


@pytest.fixture
def google(monkeypatch) -> Iterator[Google]:
    """A bucket, of which this process and those it starts find everything at gs://."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    made = Google()
    for name, value in made.environment.items():  # before gcsfs is imported, which reads one of them then
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture(params=["gs", "memory"])
def bucket_url(request) -> Iterator[str]:
    """A folder in a bucket, empty."""
    if request.param == "gs":
        request.getfixturevalue("google")
        yield "gs://bucket/runs/try"
        return
    memory = fsspec.filesystem("memory")
    yield "memory://runs/try"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
