"""Drives the service with the unmodified `az` command."""

import json
import os
import subprocess
import time
from datetime import datetime, timezone

GROUP, INSTANCE = "default", "one"


class Az:
    def __init__(self, served, program):
        self.served, self.program = served, program
        self.directory = served.root / "azure"
        self.directory.mkdir()
        self.environment = {
            **os.environ, "AZURE_CONFIG_DIR": str(self.directory), "REQUESTS_CA_BUNDLE": str(served.authority),
            "AZURE_CORE_INSTANCE_DISCOVERY": "false", "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "AZURE_CORE_ONLY_SHOW_ERRORS": "true", "AZURE_CORE_NO_COLOR": "true",
        }

    def run(self, *arguments):
        print("  $ az", *(word if word != self.served.secret else "…" for word in arguments), flush=True)
        return subprocess.run([self.program, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)

    def __call__(self, *arguments):
        """What a command prints, which must succeed."""
        done = self.run(*arguments, "--output", "json")
        if done.returncode != 0:
            raise SystemExit(f"clients: az {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}\n"
                             f"the service said:\n{self.served.said()[-3000:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def refused(self, text, *arguments):
        done = self.run(*arguments, "--output", "json")
        assert done.returncode != 0, f"{arguments} was not refused"
        assert text in done.stderr, f"{text} is not in: {done.stderr}"

    def database(self, *arguments):
        return self("sql", "midb", *arguments, "-g", GROUP, "--mi", INSTANCE)


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def eventually(what, done, seconds=90):
    deadline = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.5)


def drive(served, program):
    az = Az(served, program)
    az("cloud", "register", "-n", "Everpoint", "--endpoint-resource-manager", f"{served.base}/")
    az("cloud", "set", "-n", "Everpoint")
    az("login", "--service-principal", "-u", served.client_id, "-p", served.secret, "--tenant", served.tenant)

    names = [found["name"] for found in az("sql", "mi", "list")]
    assert names == [INSTANCE], names
    assert az("sql", "mi", "show", "-g", GROUP, "-n", INSTANCE)["state"] == "Ready"
    names = [found["name"] for found in az.database("list")]
    assert names == ["app", "postgres"], names
    assert az.database("show", "-n", "app")["status"] == "Online"

    assert az.database("create", "-n", "fresh", "--tags", "env=test")["tags"] == {"env": "test"}
    assert az.database("update", "-n", "fresh", "--tags", "env=prod", "by=me")["tags"] == {"env": "prod", "by": "me"}
    assert az.database("show", "-n", "fresh")["tags"] == {"env": "prod", "by": "me"}
    assert served.sql("SELECT count(*) FROM pg_database WHERE datname = 'fresh'") == "1"
    az.database("delete", "-n", "fresh", "--yes")
    assert served.sql("SELECT count(*) FROM pg_database WHERE datname = 'fresh'") == "0"

    # As of before the mistake.
    rows = served.sql("SELECT count(*), sum(a) FROM t", "app")
    before = now()
    time.sleep(0.2)
    served.sql("DELETE FROM t", "app")

    # Whatever of the log is not stored yet is, because somebody asks for it.
    restored = az.database("restore", "-n", "app", "--dest-name", "app_back", "--time", before)
    assert restored["status"] == "Online", restored
    assert served.sql("SELECT count(*), sum(a) FROM t", "app_back") == rows
    az.refused("ManagedDatabaseNameInUse", "sql", "midb", "restore", "-g", GROUP, "--mi", INSTANCE, "-n", "app",
               "--dest-name", "app_back", "--time", before)

    # A deleted database, back to its last transaction.
    served.sql("INSERT INTO t SELECT generate_series(1, 7)", "app_back")
    last = served.sql("SELECT count(*), sum(a) FROM t", "app_back")
    az.database("delete", "-n", "app_back", "--yes")
    deleted = eventually("the deleted database", lambda: [
        found for found in az.database("list-deleted") if found["databaseName"] == "app_back"])
    time_of_deletion = deleted[0]["deletionDate"]
    az.database("short-term-retention-policy", "set", "-n", "app_back", "--deleted-time", time_of_deletion,
                "--retention-days", "3")
    az.database("restore", "-n", "app_back", "--deleted-time", time_of_deletion, "--dest-name", "again",
                "--time", time_of_deletion)
    assert served.sql("SELECT count(*), sum(a) FROM t", "again") == last

    az.database("short-term-retention-policy", "set", "-n", "app", "--retention-days", "14")
    assert az.database("short-term-retention-policy", "show", "-n", "app")["retentionDays"] == 14
    az.database("ltr-policy", "set", "-n", "app", "--weekly-retention", "P2W", "--monthly-retention", "P1Y",
                "--yearly-retention", "P10Y", "--week-of-year", "5")
    assert az.database("ltr-policy", "show", "-n", "app")["yearlyRetention"] == "P10Y"
    long_term(az, served)
    roles(az, served)


def long_term(az, served):
    """Long-term backups: one is made of the first full backup that ends behind the policy."""
    served.sql("INSERT INTO t VALUES (42)", "app")
    served.back_up("full")
    location = az("sql", "mi", "show", "-g", GROUP, "-n", INSTANCE)["location"]

    def kept():
        return [found for found in az("sql", "midb", "ltr-backup", "list", "-l", location, "--mi", INSTANCE, "-d", "app")]
    backup = eventually("a long-term backup", kept, 180)[0]
    az("sql", "midb", "ltr-backup", "show", "-l", location, "--mi", INSTANCE, "-d", "app", "-n", backup["name"])
    az("sql", "midb", "ltr-backup", "restore", "--dest-database", "from_long_term", "--dest-mi", INSTANCE,
       "--dest-resource-group", GROUP, "--backup-id", backup["id"])
    assert served.sql("SELECT a FROM t", "from_long_term") == "42"
    # Held, it stays. `az sql` has no command for that.
    def immutability(which):
        return az("rest", "--method", "post", "--url",
                  f"{served.base}{backup['id']}/{which}LegalHoldImmutability?api-version=2025-02-01-preview")
    assert immutability("set")["properties"]["legalHoldImmutability"] == "Enabled"
    az.refused("LongTermBackupHeld", "sql", "midb", "ltr-backup", "delete", "-l", location, "--mi", INSTANCE, "-d", "app",
               "-n", backup["name"], "--yes")
    assert immutability("remove")["properties"]["legalHoldImmutability"] == "Disabled"
    az("sql", "midb", "ltr-backup", "delete", "-l", location, "--mi", INSTANCE, "-d", "app", "-n", backup["name"], "--yes")
    assert backup["name"] not in [found["name"] for found in kept()]


def roles(az, served):
    scope = f"/subscriptions/{served.subscription}/resourceGroups/{GROUP}"
    listed = az("role", "assignment", "list", "--scope", f"/subscriptions/{served.subscription}")
    owner = next(found for found in listed if found["roleDefinitionName"] == "Owner")
    made = az("role", "assignment", "create", "--assignee-object-id", owner["principalId"],
              "--assignee-principal-type", "ServicePrincipal", "--role", "Reader", "--scope", scope)
    assert made["principalId"] == owner["principalId"], made
    listed = az("role", "assignment", "list", "--scope", scope, "--role", "Reader")
    assert made["name"] in [found["name"] for found in listed], listed
