"""Runs the Azure CLI as a person does: each command is a process of its own."""
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

VERSION = version("azure-cli")
NEVER_SEEN = {  # what the CLI keeps, and what it would send home
    "AZURE_CONFIG_DIR": tempfile.mkdtemp(dir=os.environ["HOME"]),
    "AZURE_CORE_COLLECT_TELEMETRY": "no",
    "AZURE_CORE_NO_COLOR": "yes",
}


def trusted():
    """The file of the certificates that the CLI trusts: the stand-ins' beside those of the environment."""
    files = [os.environ[name] for name in ("CLOUD_CA_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)]
    path = os.path.join(NEVER_SEEN["AZURE_CONFIG_DIR"], "trusted.pem")
    with open(path, "w") as bundle:
        for name in files:
            with open(name) as certificates:
                bundle.write(certificates.read())
    return path


def az(*arguments):
    """What a command prints; a command that fails is an error with what it complained of."""
    done = subprocess.run(
        [os.path.join(sys.prefix, "bin", "az"), *arguments, "--output", "tsv"], capture_output=True, text=True,
        env=os.environ | NEVER_SEEN | {"REQUESTS_CA_BUNDLE": trusted()})
    if done.returncode != 0:
        raise RuntimeError(f"az {arguments[0]}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()
