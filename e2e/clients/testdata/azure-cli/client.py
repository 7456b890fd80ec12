"""Asks for a token for each resource on standard input by the Azure CLI.

Usage: client.py CLIENT SELECTOR [VALUE], or client.py versions. Each line of input
gets one line of JSON: a token or an error. The CLI logs in before its first token,
and then asks by --resource and by --scope in turn.
"""
import json
import sys

from az import VERSION, az

SELECTORS = {
    "system": [],
    "client_id": ["--client-id"],
    "object_id": ["--object-id"],
    "resource_id": ["--resource-id"],
}


def get_token(count, resource, selector, value):
    if count == 0:
        az("login", "--identity", *SELECTORS[selector], *([value] if value else []))
    wanted = ["--scope", resource + "/.default"] if count % 2 else ["--resource", resource]
    return az("account", "get-access-token", *wanted, "--query", "accessToken")


def main(name, selector="", value=""):
    if name == "versions":
        print(json.dumps({"azure-cli": VERSION}))
        return
    for count, line in enumerate(sys.stdin):
        try:
            reply = {"token": get_token(count, line.strip(), selector, value)}
        except RuntimeError as fault:
            reply = {"error": str(fault)}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
