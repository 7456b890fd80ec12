"""Does one task of Azure's MCP server, a program in .NET, for each line on standard input.

Usage: consume.py TASK, or consume.py versions, which are those of Azure.Identity in it.
Each line of input gets one line of JSON: a value or an error. AZURE_CLIENT_ID names the
identity.
"""
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msmcp_azure

PROGRAM = Path(msmcp_azure.__file__).parent / "bin" / "azmcp"
SETTINGS = {"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential", "AZURE_MCP_COLLECT_TELEMETRY": "false"}


def azmcp(*args):
    out = subprocess.run([PROGRAM, *args], env=os.environ | SETTINGS, capture_output=True, text=True)
    _, _, reply = ("\n" + out.stdout).partition("\n{")  # it logs there too, before and after
    try:
        answer, _ = json.JSONDecoder().raw_decode("{" + reply)
    except ValueError:
        raise RuntimeError(f"status {out.returncode}: {out.stdout} {out.stderr}") from None
    if answer["status"] != 200:
        raise RuntimeError(answer["message"])
    return answer["results"]


def list_subscriptions(_):
    return " ".join(found["subscriptionId"] for found in azmcp("subscription", "list")["subscriptions"])


def show_secret(url):
    place = urlsplit(url)
    vault, name = place.hostname.split(".")[0], place.path.split("/")[2]
    subscription = azmcp("subscription", "list")["subscriptions"][0]["subscriptionId"]
    found = azmcp("keyvault", "secret", "get", "--subscription", subscription, "--vault", vault, "--secret", name)
    return found["secret"]["value"]


TASKS = {"azmcp subscription list": list_subscriptions, "azmcp keyvault secret get": show_secret}


def main(name):
    if name == "versions":
        identity = re.search(rb'"Azure\.Identity/([0-9.]+)"', PROGRAM.read_bytes())[1].decode()
        print(json.dumps(dict.fromkeys(TASKS, identity)))
        return
    for line in sys.stdin:
        try:
            reply = {"value": TASKS[name](line.strip())}
        except RuntimeError as fault:
            reply = {"error": str(fault)}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
