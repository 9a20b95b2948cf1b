"""Drives the service with az and with Azure's SDK for JavaScript, as their registries have them."""

import os
import subprocess
import sys
from pathlib import Path

import az

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from served import Client, Served  # noqa: E402


def main():
    tools = Path(os.environ["TOOLS"])
    chosen = sys.argv[1:] or ["az", "js"]
    with Served(os.environ["EVERPOINT_PROGRAM"]) as served:
        served.sql("CREATE DATABASE app")
        served.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a", "app")
        client = Client(served)
        az.eventually("a full backup", lambda: client.operation("FullBackup") == "Succeeded", 180)
        names = ["app", "postgres"]
        az.eventually("the databases", lambda: [one["name"] for one in client.get("/databases")["value"]] == names)
        if "az" in chosen:
            print("clients: az", flush=True)
            az.drive(served, tools / "azure-cli/bin/az")
        if "js" in chosen:
            print("clients: @azure/arm-sql", flush=True)
            environment = {
                **os.environ, "PACKAGES": str(tools / "azure-js"), "BASE": served.base, "TENANT": served.tenant,
                "SUBSCRIPTION": served.subscription, "CLIENT_ID": served.client_id, "CLIENT_SECRET": served.secret,
                "NODE_EXTRA_CA_CERTS": str(served.authority),
            }
            script = Path(__file__).with_name("arm-sql.mjs")
            done = subprocess.run(["node", script], env=environment, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise SystemExit(f"clients: the SDK for JavaScript failed. The service said:\n{served.said()[-3000:]}")
    print("clients: all are served")


if __name__ == "__main__":
    main()
