"""Gets the secret of each URL on standard input by the Key Vault client of Python.

Usage: consume.py CONSUMER, or consume.py versions. Each line of input gets one line
of JSON: a value or an error.
"""
import json
import sys
from importlib.metadata import version
from urllib.parse import urlsplit

from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient


def secret(line):
    url = urlsplit(line)
    with SecretClient(f"https://{url.netloc}", ManagedIdentityCredential()) as client:
        return client.get_secret(url.path.split("/")[2]).value


def main(name):
    if name == "versions":
        print(json.dumps({"azure-keyvault-secrets": version("azure-keyvault-secrets")}))
        return
    for line in sys.stdin:
        try:
            reply = {"value": secret(line.strip())}
        except Exception as fault:  # whatever an app would see
            reply = {"error": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
