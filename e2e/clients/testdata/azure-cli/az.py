"""Runs the Azure CLI as a person does: each command is a process of its own."""
import os
import shutil
import subprocess
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
CONFIG = tempfile.mkdtemp(dir=os.environ["HOME"])
SETTINGS = {"AZURE_CONFIG_DIR": CONFIG, "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_NO_COLOR": "yes"}
ENVIRONMENTS = {"azure-cli": "venv", "azure-cli before 2.73": "venv-2.72"}


def program(client, name):
    """A file of the virtual environment of a client or of a variant of it."""
    return os.path.join(FOLDER, ENVIRONMENTS[client.split(",")[0]], "bin", name)


def version(client):
    show = "from importlib.metadata import version; print(version('azure-cli'))"
    return subprocess.run([program(client, "python"), "-c", show], capture_output=True, text=True, check=True).stdout.strip()


def trusted():
    """The file of the certificates that the CLI trusts: the stand-ins' beside those of the environment."""
    path = os.path.join(CONFIG, "trusted.pem")
    with open(path, "w") as bundle:
        for name in ("CLOUD_CA_FILE", "REQUESTS_CA_BUNDLE"):
            if os.environ.get(name):
                with open(os.environ[name]) as certificates:
                    bundle.write(certificates.read())
    return path


def share_index(client):
    """Keeps the list of commands, which an older CLI makes anew wherever it has none: that takes seconds."""
    mine, shared = os.path.join(CONFIG, "commandIndex.json"), program(client, "commandIndex.json")
    if not os.path.exists(mine) and os.path.exists(shared):
        shutil.copy(shared, mine)
    elif os.path.exists(mine) and not os.path.exists(shared):
        whole = f"{shared}.{os.getpid()}"
        shutil.copy(mine, whole)
        os.replace(whole, shared)


def az(*arguments, client="azure-cli"):
    """What a command prints; a command that fails is an error with what it complained of."""
    share_index(client)
    done = subprocess.run([program(client, "az"), *arguments, "--output", "tsv"], capture_output=True, text=True,
                          env=os.environ | SETTINGS | {"REQUESTS_CA_BUNDLE": trusted()})
    share_index(client)
    if done.returncode != 0:
        raise RuntimeError(f"az {arguments[0]}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()
