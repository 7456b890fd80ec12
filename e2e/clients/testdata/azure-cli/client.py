"""Asks for a token for each resource on standard input by the Azure CLI.

Usage: client.py CLIENT SELECTOR [VALUE], or client.py versions. Each line of input
gets one line of JSON: a token or an error. The CLI logs in before its first token,
and then asks by --resource and by --scope in turn.
"""
import json
import sys

from az import az, version

OPTIONS = {"client_id": "--client-id", "object_id": "--object-id", "resource_id": "--resource-id"}
CLIENTS = {
    "azure-cli": OPTIONS,
    "azure-cli before 2.73": OPTIONS,
    # Which of the three it is, the CLI finds out by asking.
    "azure-cli before 2.73, --username": dict.fromkeys(OPTIONS, "--username"),
}


def get_token(client, count, resource, selector, value):
    if count == 0:
        az("login", "--identity", *([CLIENTS[client][selector], value] if value else []), client=client)
    wanted = ["--scope", resource + "/.default"] if count % 2 else ["--resource", resource]
    return az("account", "get-access-token", *wanted, "--query", "accessToken", client=client)


def main(client, selector="", value=""):
    if client == "versions":
        print(json.dumps({each: version(each) for each in CLIENTS}))
        return
    for count, line in enumerate(sys.stdin):
        try:
            reply = {"token": get_token(client, count, line.strip(), selector, value)}
        except RuntimeError as fault:
            reply = {"error": str(fault)}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
