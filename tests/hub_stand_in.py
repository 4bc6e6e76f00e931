"""A local stand-in for the Hugging Face hub, which speaks its HTTP protocol as huggingface_hub uses it, without Xet.

Repositories with commits, the LFS batch API (single and multi-part uploads, verified), commits as NDJSON, listings in
pages, and downloads: a small file from the repository, a large one after a redirect to another host, with ranges.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, sha

TOKEN = "hf_" + "StandIn" * 5
PAGE = 5  # entries of a listing
LARGE = (".h5", ".safetensors")  # endings of files that LFS stores
REPOSITORY = r"(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"


@dataclass(frozen=True)
class Blob:
    """A file of a commit; a large one is stored by its SHA-256."""

    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return str(sha.git_hash(pointer.encode() if self.is_large else self.content))


@dataclass
class Repository:
    """`commits`: commit -> path -> file. `branches`: name -> commit."""

    private: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, Blob], branch: str = "main") -> str:
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """The contents of main."""
        return {path: blob.content for path, blob in self.commits[self.branches["main"]].items()}


@dataclass
class Hub:
    """The state of the stand-in, and what a test sets.

    `served`: path -> bytes that a download gets instead. `failures`: (part of "METHOD path", status), each for all
    such requests. `received`, `sent`: bytes of large files in each direction. `requests`: "METHOD path" of all.
    `part_size`: larger files are uploaded in parts. `ignored`: paths that a .gitignore of the repository excludes.
    `before_commit`: is called before a commit is made. `storage_tokens`: the tokens that reached the storage.
    """

    url: str = ""
    storage_url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)  # "datasets/lab/toy"
    large_files: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    failures: list[tuple[str, int]] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    requests: list[str] = field(default_factory=list)
    part_size: int = 10**9
    ignored: set[str] = field(default_factory=set)
    before_commit: Callable[[], object] = lambda: None
    storage_tokens: list[str] = field(default_factory=list)

    def put(self, name: str, files: dict[str, bytes]) -> Repository:
        """Make the repository `name` with one commit of `files`."""
        repository = self.repositories[name] = Repository()
        repository.commit({path: Blob(content, path.endswith(LARGE)) for path, content in files.items()})
        for content in files.values():
            self.large_files[hashlib.sha256(content).hexdigest()] = content
        return repository


Answer = tuple[int, Any, dict[str, str]]


class Refused(Exception):
    """A request is answered with an error, as the hub words it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.answer: Answer = (status, {"error": message or code}, {k: v for k, v in headers.items() if v})


class Handler(BaseHTTPRequestHandler):
    """Answers each request by the first of ROUTES that fits."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {unquote(urlsplit(self.path).path)}"
        self.query = parse_qs(urlsplit(self.path).query)
        with self.server.lock:  # type: ignore[attr-defined]
            self.hub.requests.append(request)
            try:
                status, content, headers = self.respond(request)
            except Refused as refused:
                status, content, headers = refused.answer
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def respond(self, request: str) -> Answer:
        for part, status in self.hub.failures:
            if part in request:
                raise Refused(status, message=f"Internal Error for {self.headers.get('Authorization')}")
        for pattern, route in ROUTES:
            if match := re.fullmatch(pattern, request):
                return route(self, match)
        raise Refused(404, message="no such route")

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def user_may(self, right: str, repository: Repository | None) -> None:
        """Raise the error of the hub unless the token of the request has the right `read` or `write`."""
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {TOKEN}"):
            raise Refused(401, message="Invalid credentials in Authorization header")
        if authorization is None and (right == "write" or repository is None or repository.private):
            raise Refused(401, "RepoNotFound", "Repository not found")
        if repository is None:
            raise Refused(404, "RepoNotFound", "Repository not found")

    def repository(self, match: re.Match[str], right: str = "read") -> Repository:
        kind = (match["kind"] or "models").strip("/")
        repository = self.hub.repositories.get(f"{kind}/{match['id']}")
        self.user_may(right, repository)
        assert repository is not None
        return repository

    def commit_of(self, match: re.Match[str], right: str = "read") -> tuple[Repository, str]:
        repository = self.repository(match, right)
        commit = repository.find(match["revision"])
        if commit is None:
            raise Refused(404, "RevisionNotFound", "Invalid rev id")
        return repository, commit

    # --- uploads ---

    def create(self, _: re.Match[str]) -> Answer:
        asked = json.loads(self.body)
        self.user_may("write", Repository())
        if asked["organization"] != "lab":
            raise Refused(403, message="You don't have the rights to create a repository under this namespace")
        name = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
        is_new = name not in self.hub.repositories
        if is_new:
            repository = self.hub.put(name, {".gitattributes": b"*.h5 filter=lfs\n"})
            repository.private = asked.get("visibility") == "private"
        url = f"{self.hub.url}/{name.removeprefix('models/')}"
        return (200 if is_new else 409), {"url": url, "error": "You already created this repo"}, {}

    def branch(self, match: re.Match[str]) -> Answer:
        repository = self.repository(match, "write")
        if match["revision"] in repository.branches:
            raise Refused(409, message="Reference already exists")
        repository.branches[match["revision"]] = repository.branches["main"]
        return 200, {}, {}

    def validate(self, _: re.Match[str]) -> Answer:
        header = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        fields = yaml.safe_load(header[1]) if header else {}
        errors = [] if fields.get("license") != "no-such-license" else [{"message": '"license" must be one of [...]'}]
        return (400 if errors else 200), {"errors": errors, "warnings": []}, {}

    def preupload(self, match: re.Match[str]) -> Answer:
        repository, commit = self.commit_of(match, "write")
        files = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(LARGE)
            blob = repository.commits[commit].get(file["path"])
            oid = blob and (blob.sha256 if blob.is_large else blob.oid)
            mode = "lfs" if is_large else "regular"
            is_ignored = file["path"] in self.hub.ignored
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": is_ignored, "oid": oid})
        return 200, {"files": files}, {}

    def batch(self, match: re.Match[str]) -> Answer:
        self.repository(match, "write")
        asked = json.loads(self.body)
        assert asked["operation"] == "upload"
        return 200, {"transfer": "basic", "objects": [self.upload_actions(each) for each in asked["objects"]]}, {}

    def upload_actions(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size, part_size = wanted["oid"], wanted["size"], self.hub.part_size
        if oid in self.hub.large_files:
            return wanted
        upload: dict[str, Any] = {"href": f"{self.hub.storage_url}/large/{oid}"}
        if size > part_size:
            numbers = range(1, -(-size // part_size) + 1)
            upload["href"] = f"{self.hub.url}/complete/{oid}"
            upload["header"] = {"chunk_size": str(part_size)}
            upload["header"] |= {f"{n:05}": f"{self.hub.storage_url}/large/{oid}/{n}" for n in numbers}
        return {**wanted, "actions": {"upload": upload, "verify": {"href": f"{self.hub.url}/verify"}}}

    def store(self, match: re.Match[str]) -> Answer:
        self.note_token()
        self.hub.received += len(self.body)
        if match["part"]:
            self.hub.parts.setdefault(match["oid"], {})[int(match["part"])] = self.body
        else:
            self.keep(match["oid"], self.body)
        return 200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'}

    def complete(self, match: re.Match[str]) -> Answer:
        parts = self.hub.parts.pop(match["oid"])
        assert [part["partNumber"] for part in json.loads(self.body)["parts"]] == sorted(parts)
        self.keep(match["oid"], b"".join(parts[number] for number in sorted(parts)))
        return 200, {}, {}

    def keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, message="the content has another hash")
        self.hub.large_files[oid] = content

    def verify(self, _: re.Match[str]) -> Answer:
        asked = json.loads(self.body)
        if len(self.hub.large_files.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, message="the file was not uploaded")
        return 200, {}, {}

    def add_commit(self, match: re.Match[str]) -> Answer:
        self.hub.before_commit()
        repository, commit = self.commit_of(match, "write")
        files = dict(repository.commits[commit])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", commit) != commit:
                raise Refused(412, message="A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), is_large=False)
            if line["key"] == "lfsFile":
                if value["oid"] not in self.hub.large_files:
                    raise Refused(400, message="the LFS object was not uploaded")
                files[value["path"]] = Blob(self.hub.large_files[value["oid"]], is_large=True)
        name = repository.commit(files, match["revision"])
        url = f"{self.hub.url}/{match['kind']}/{match['id']}/commit/{name}"
        return 200, {"success": True, "commitOid": name, "commitUrl": url}, {}

    # --- downloads ---

    def info(self, match: re.Match[str]) -> Answer:
        repository = self.repository(match)
        commit = repository.find(match["revision"] or "main")
        if commit is None:
            raise Refused(404, "RevisionNotFound", "Invalid rev id")
        card = repository.commits[commit].get("README.md")
        header = card and re.match(rb"---\n(.*?)\n---\n", card.content, re.DOTALL)
        answer: dict[str, Any] = {"id": match["id"], "sha": commit, "private": repository.private, "siblings": []}
        return 200, answer | ({"cardData": yaml.safe_load(header[1])} if header else {}), {}

    def tree(self, match: re.Match[str]) -> Answer:
        repository, commit = self.commit_of(match)
        files = sorted(repository.commits[commit].items())
        start = int(self.query.get("cursor", ["0"])[0])
        following = start + PAGE
        url = f"{self.hub.url}{urlsplit(self.path).path}?recursive=True&cursor={following}"
        headers = {"Link": f'<{url}>; rel="next"'} if following < len(files) else {}
        return 200, [self.entry(path, blob) for path, blob in files[start:following]], headers

    def entry(self, path: str, blob: Blob) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
        if blob.is_large:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
        return entry

    def resolve(self, match: re.Match[str]) -> Answer:
        repository, commit = self.commit_of(match)
        blob = repository.commits[commit].get(match["path"])
        headers = {"X-Repo-Commit": commit}
        if blob is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        if not blob.is_large:
            content = self.hub.served.get(match["path"], blob.content)
            return 200, content, {**headers, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.sha256}"'}
        return 302, b"", {**headers, "Location": f"{self.hub.storage_url}/{match['path']}?oid={blob.sha256}"}

    def large_file(self, match: re.Match[str]) -> Answer:
        if "oid" not in self.query:
            raise Refused(404, message="no such route")
        self.note_token()
        content = self.hub.served.get(match["path"], self.hub.large_files[self.query["oid"][0]])
        headers, status = {"Accept-Ranges": "bytes", "ETag": '"of-the-storage"'}, 200
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            first, size, status = int(asked[1]), len(content), 206
            content, headers["Content-Range"] = content[first:], f"bytes {first}-{size - 1}/{size}"
        self.hub.sent += len(content)
        return status, content, headers

    def note_token(self) -> None:
        if token := self.headers.get("Authorization"):
            self.hub.storage_tokens.append(token)


Route = Callable[[Handler, re.Match[str]], Answer]
ROUTES: list[tuple[str, Route]] = [
    ("POST /api/repos/create", Handler.create),
    ("POST /api/validate-yaml", Handler.validate),
    (f"POST /api/{REPOSITORY}/branch/(?P<revision>.+)", Handler.branch),
    (f"POST /api/{REPOSITORY}/preupload/(?P<revision>.+)", Handler.preupload),
    (r"POST /(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /large/(?P<oid>\w{64})(/(?P<part>\d+))?", Handler.store),
    (r"POST /complete/(?P<oid>\w{64})", Handler.complete),
    ("POST /verify", Handler.verify),
    (f"POST /api/{REPOSITORY}/commit/(?P<revision>.+)", Handler.add_commit),
    (f"GET /api/{REPOSITORY}(/revision/(?P<revision>.+))?", Handler.info),
    (f"GET /api/{REPOSITORY}/tree/(?P<revision>.+)", Handler.tree),
    (
        r"(GET|HEAD) /(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.resolve,
    ),
    ("GET /(?P<path>.+)", Handler.large_file),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running stand-in, which this process and its children use as the hub; the user is logged in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_port
    state = Hub(url=f"http://127.0.0.1:{port}", storage_url=f"http://localhost:{port}")
    server.hub, server.lock = state, threading.Lock()  # type: ignore[attr-defined]
    home = tmp_path_factory.mktemp("hub_home")
    variables = {"HF_ENDPOINT": state.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    for name, value in {**variables, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    # what huggingface_hub has read from the variables when it was imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    template = f"{state.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    disable_progress_bars()  # as the command does
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()
