"""The part of the Hugging Face hub's HTTP that pushing and fetching models needs, on this machine.

Repositories are made, files are committed (regular and through git LFS), listed and resolved, with the hub's status
codes and `X-Error-Code`s. `token` may write; without it only public repositories are seen.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml
from webserver import listening

LICENCES = ("apache-2.0", "mit", "cc-by-4.0")
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        listing = "".join(f"{name} {hashlib.sha1(data).hexdigest()}" for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.messages)} {branch} {listing}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Hub:
    user: str = "me"
    token: str = "hf_secret"
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


def is_lfs(path: str) -> bool:
    return path.endswith(".safetensors")


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class RefusedError(Exception):
    def __init__(self, status: int, code: str | None = None, message: str = "refused", **said: str) -> None:
        super().__init__(message)
        self.status, self.code, self.said = status, code, said


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self) -> None:
        self.body = self.read_body()
        path, _, self.query = self.path.partition("?")
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        try:
            for method, pattern, name in ROUTES:
                if self.command in method.split() and (found := re.fullmatch(pattern, unquote(path))):
                    getattr(self, name)(**found.groupdict())
                    return
            raise RefusedError(404, message=f"no route {self.command} {path}")
        except RefusedError as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            self.send(
                refused.status, {"error": str(refused), **refused.said}, {**headers, "X-Error-Message": str(refused)}
            )

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def trusted(self) -> bool:
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.hub.token}":
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return given is not None

    def seen(self, repo: str) -> Repository:
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not self.trusted):
            raise RefusedError(404 if self.trusted else 401, "RepoNotFound", "Repository not found")
        return found

    def writable(self, repo: str) -> Repository:
        if not self.trusted:
            raise RefusedError(401, message="Invalid username or password.")
        if repo.partition("/")[0] != self.hub.user:
            raise RefusedError(403, message="You don't have the rights to write under this namespace")
        return self.seen(repo)

    @staticmethod
    def at(repository: Repository, revision: str) -> str:
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    # -- what is asked -----------------------------------------------------------------------------------------

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['organization'] or self.hub.user}/{asked['name']}"
        if not self.trusted:
            raise RefusedError(401, message="Invalid username or password.")
        if repo.partition("/")[0] != self.hub.user:
            raise RefusedError(403, message="You don't have the rights to create a model under this namespace")
        if repo in self.hub.repositories:
            raise RefusedError(409, message="You already created this model repo", url=f"{self.hub.url}/{repo}")
        made = self.hub.repositories[repo] = Repository(asked.get("visibility") == "private")
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.send(200, {"url": f"{self.hub.url}/{repo}"})

    def info(self, repo: str, revision: str | None = None) -> None:
        repository = self.seen(repo)
        sha = self.at(repository, revision or "main")
        siblings = [{"rfilename": name} for name in sorted(repository.commits[sha])]
        about = {"_id": "0", "id": repo, "modelId": repo, "sha": sha, "private": repository.private}
        self.send(200, {**about, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    def branch(self, repo: str, branch: str) -> None:
        repository = self.writable(repo)
        if branch in repository.branches:
            raise RefusedError(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self.send(201, {})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        data = yaml.safe_load(content.split("---")[1])
        licence = data.get("license")
        if licence is not None and licence not in LICENCES:
            self.send(
                400, {"errors": [{"message": f'"license" must be one of [{", ".join(LICENCES)}]'}], "warnings": []}
            )
        else:
            self.send(200, {"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        present = repository.files(self.at(repository, revision))
        files = []
        for file in json.loads(self.body)["files"]:
            path, old = file["path"], present.get(file["path"])
            mode = "lfs" if is_lfs(path) else "regular"
            oid = None if old is None else hashlib.sha256(old).hexdigest() if is_lfs(path) else blob_id(old)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": files})

    def batch(self, repo: str) -> None:
        self.writable(repo)
        objects = []
        for item in json.loads(self.body)["objects"]:
            action = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}
            objects.append({**item, **({} if item["oid"] in self.hub.objects else {"actions": action})})
        self.send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, message="hash mismatch")
        self.hub.objects[oid] = self.body
        self.send(200, {})

    def commit(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        lines = [json.loads(line) for line in self.body.splitlines()]
        head = lines[0]["value"]
        if head.get("parentCommit", repository.branches[revision]) != repository.branches[revision]:
            raise RefusedError(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.files(revision))
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
            else:
                raise RefusedError(400, message=f"no operation {kind}")
        sha = repository.commit(revision, files, head["summary"])
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})

    def tree(self, repo: str, revision: str) -> None:
        repository = self.seen(repo)
        entries: list[dict[str, Any]] = []
        for path, data in sorted(repository.files(self.at(repository, revision)).items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
            if is_lfs(path):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self.send(200, entries)

    def resolve(self, repo: str, revision: str, path: str) -> None:
        repository = self.seen(repo)
        sha = self.at(repository, revision)
        if path not in repository.commits[sha]:
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        data = repository.commits[sha][path]
        tag = hashlib.sha256(data).hexdigest() if is_lfs(path) else blob_id(data)
        self.send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": sha})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


ROUTES = (
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", rf"/api/models/{_REPO}", "info"),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>.+)", "info"),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>.+)", "branch"),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", "commit"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "store"),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub at `hub.url` until the block ends."""
    hub = Hub()
    with listening(type("HubHandler", (Handler,), {"hub": hub})) as hub.url:
        yield hub
