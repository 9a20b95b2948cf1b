"""A PostgreSQL server with a database in it, and Everpoint's service beside it, in a scratch directory."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from server import Account, PORT, SUPERUSER, Server, programs

START_SECONDS = 60
STOP_SECONDS = 120
VERSION = "2024-05-01-preview"
GROUP, INSTANCE = "default", "one"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def new_cluster(account, data):
    subprocess.run([programs() / "initdb", "-D", data, "-U", SUPERUSER, "--auth=trust", "--no-sync", "--locale=C",
                    "--encoding=UTF8", "--no-instructions"],
                   check=True, cwd="/", stdout=subprocess.DEVNULL, **account.options)
    return data


class Client:
    """One connection to the service, kept open, as somebody who may do everything."""

    def __init__(self, served):
        base = urllib.parse.urlsplit(served.base)
        context = ssl.create_default_context(cafile=served.authority)
        self.connection = http.client.HTTPSConnection(base.hostname, base.port, context=context)
        group = f"/subscriptions/{served.subscription}/resourceGroups/{GROUP}"
        self.instance = f"{group}/providers/Microsoft.Sql/managedInstances/{INSTANCE}"
        form = urllib.parse.urlencode({
            "grant_type": "client_credentials", "client_id": served.client_id, "client_secret": served.secret,
            "scope": f"{served.base}/.default"})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        token = self._answer("POST", f"/{served.tenant}/oauth2/v2.0/token", form, headers)["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, below):
        """What the instance has at a path below it."""
        return self._answer("GET", f"{self.instance}{below}?api-version={VERSION}", None, self.headers)

    def list(self, below):
        """All that a list has, page by page."""
        answer = self.get(below)
        found = answer["value"]
        while "nextLink" in answer:
            path = answer["nextLink"].partition(self.connection.host)[2].partition("/")[2]
            answer = self._answer("GET", f"/{path}", None, self.headers)
            found += answer["value"]
        return found

    def _answer(self, method, path, body, headers):
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)

    def operation(self, name):
        """The state of the first operation of a name; none when there is none."""
        found = [one["properties"] for one in self.get("/operations")["value"]]
        return next((one["state"] for one in found if one["operation"] == name), None)


class Served:
    """Everything that clients are tried against; gone when left."""

    def __init__(self, program, account=None, data=None, directory=None, configuration=""):
        """Of a cluster at `data`, one of its own when not given; `configuration` are tables of the service's file."""
        self.program, self.data = Path(program).absolute(), data
        self.account = account or Account()
        self.directory, self.configuration = directory, configuration
        self.process, self.server = None, None

    def __enter__(self):
        self.root = Path(tempfile.mkdtemp(prefix="everpoint-served-", dir=self.directory))
        os.chown(self.root, self.account.uid, self.account.gid)
        # The server's user may not be able to enter where it was built.
        self.everpoint = self.root / "everpoint"
        shutil.copy(self.program, self.everpoint)
        data = self.data or new_cluster(self.account, self.root / "data")
        self.server = Server(self.account, data, self.root / "socket", {"wal_level": "replica"})
        self.server.__enter__()
        try:
            self._serve()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _command(self, *arguments, **options):
        environment = {**os.environ, "HOME": str(self.root), "EVERPOINT_REPOSITORY": str(self.root / "repository"),
                       "EVERPOINT_KEY_FILE": str(self.root / "key")}
        return subprocess.run([self.everpoint, *arguments], check=True, cwd="/", env=environment,
                              stdin=subprocess.DEVNULL, **self.account.options, **options)

    def _serve(self):
        connection = f"host={self.server.sockets} port={PORT} user={SUPERUSER} dbname=postgres"
        self._command("init", "--generate-key-file", stdout=subprocess.DEVNULL)
        self._command("instance", "add", "one", "--connection", connection, stdout=subprocess.DEVNULL)
        port = free_port()
        self.base = f"https://localhost:{port}"
        config = self.root / "everpoint.toml"
        config.write_text(f"""
listen = "127.0.0.1:{port}"
public_url = "{self.base}"
state_directory = "{self.root}/state"
[repository]
url = "{self.root}/repository"
key_file = "{self.root}/key"
[backups]
log_every = "1s"
{self.configuration}
""")
        self.log = self.root / "serve.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.everpoint, "serve", "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, "HOME": str(self.root)}, start_new_session=True, **self.account.options)
        deadline = time.monotonic() + START_SECONDS
        while "client secret" not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"clients: the service did not start:\n{self.said()}")
            time.sleep(0.1)
        names = {"tenant": "tenant", "subscription": "subscription", "client_id": "client id", "secret": "client secret"}
        for name, label in names.items():
            found = re.search(rf"^\s*{label}\s+(\S+)", self.said(), re.MULTILINE)
            setattr(self, name, found.group(1))
        self.authority = self.root / "state/tls/ca.pem"

    def said(self):
        return self.log.read_text(errors="replace")

    def back_up(self, kind):
        self._command("backup", "one", "--type", kind, stdout=subprocess.DEVNULL)

    def sql(self, text, database="postgres"):
        return self.server.sql(text, database)

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.server.__exit__()
        self.process = None
        shutil.rmtree(self.root, ignore_errors=True)
