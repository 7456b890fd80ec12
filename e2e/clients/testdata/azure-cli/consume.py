"""Does one task of the Azure CLI's for each line on standard input.

Usage: consume.py TASK, or consume.py versions. Each line of input gets one line of
JSON: a value or an error.
"""
import json
import sys

from az import az, version


def log_in():
    az("login", "--identity")


def show_account(_):
    """The subscription that login has found."""
    log_in()
    return az("account", "show", "--query", "id")


def show_secret(url):
    log_in()
    return az("keyvault", "secret", "show", "--id", url, "--query", "value")


def show_group(group):
    """The tag of the resource group with that id, which the subscription must list."""
    log_in()
    _, _, subscription, _, name = group.split("/")
    listed = az("group", "list", "--subscription", subscription, "--query", "[].id")
    if listed != group:
        raise RuntimeError(f"az group list: {listed}")
    return az("group", "show", "--subscription", subscription, "--name", name, "--query", "tags.tenant")


def log_in_without_subscription(client_id):
    """The account that an identity without any role gets."""
    try:
        az("login", "--identity", "--client-id", client_id)
    except RuntimeError as fault:
        if "no subscriptions were found" not in str(fault):
            raise
    else:
        raise RuntimeError("az login: there is a subscription")
    az("login", "--identity", "--client-id", client_id, "--allow-no-subscriptions")
    return az("account", "show", "--query", "join(' ', [name, tenantId])")


TASKS = {
    "az account show": show_account,
    "az keyvault secret show": show_secret,
    "az group show": show_group,
    "az login --allow-no-subscriptions": log_in_without_subscription,
}


def main(name):
    if name == "versions":
        print(json.dumps(dict.fromkeys(TASKS, version("azure-cli"))))
        return
    for line in sys.stdin:
        try:
            reply = {"value": TASKS[name](line.strip())}
        except RuntimeError as fault:
            reply = {"error": str(fault)}
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
