"""Asks for a token for each resource on standard input by one client of Python's.

Usage: client.py CLIENT SELECTOR [VALUE], or client.py versions. Each line of input
gets one line of JSON: a token or an error. Status 3: the client has no such selector.
"""
import json
import sys
from importlib.metadata import version


def azure_identity(selector, value):
    from azure.identity import ManagedIdentityCredential
    options = {
        "system": {},
        "client_id": {"client_id": value},
        "object_id": {"identity_config": {"object_id": value}},
        "resource_id": {"identity_config": {"resource_id": value}},
    }[selector]
    credential = ManagedIdentityCredential(**options)
    return lambda resource: credential.get_token(resource + "/.default").token


def default_azure_credential(selector, value):
    from azure.identity import DefaultAzureCredential
    options = {"system": {}, "client_id": {"managed_identity_client_id": value}}[selector]
    credential = DefaultAzureCredential(**options)
    return lambda resource: credential.get_token(resource + "/.default").token


def msal(selector, value):
    import msal as library
    import requests
    identity = library.SystemAssignedManagedIdentity()
    if selector != "system":
        identity = library.UserAssignedManagedIdentity(**{selector: value})
    client = library.ManagedIdentityClient(identity, http_client=requests.Session())

    def ask(resource):
        result = client.acquire_token_for_client(resource=resource)
        if "access_token" not in result:
            raise RuntimeError(json.dumps(result))
        return result["access_token"]
    return ask


def msrestazure(selector, value):
    import random
    random.seed(407)  # it draws its waits, which would differ from run to run by minutes
    from msrestazure.azure_active_directory import MSIAuthentication
    name = {"resource_id": "msi_res_id"}.get(selector, selector)
    options = {} if selector == "system" else {name: value}
    credentials = {}

    def ask(resource):
        if resource not in credentials:
            credentials[resource] = MSIAuthentication(resource=resource, **options)  # asks already
        else:
            credentials[resource].set_token()  # as before each request of an app
        return credentials[resource].token["access_token"]
    return ask


CLIENTS = {
    "azure-identity": azure_identity,
    "azure-identity, DefaultAzureCredential": default_azure_credential,
    "msal": msal,
    "msrestazure": msrestazure,
}


def main(name, selector="", value=""):
    if name == "versions":
        print(json.dumps({client: version(client.split(",")[0]) for client in CLIENTS}))
        return
    try:
        ask = CLIENTS[name](selector, value)
    except KeyError:
        sys.exit(3)
    except Exception as refusal:  # by the constructor, for each that asks
        fault = f"{type(refusal).__name__}: {refusal}"

        def ask(_):
            raise RuntimeError(fault)
    for line in sys.stdin:
        try:
            reply = {"token": ask(line.strip())}
        except Exception as fault:  # whatever an app would see
            reply = {"error": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
