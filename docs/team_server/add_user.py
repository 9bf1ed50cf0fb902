"""A user of the team's server that runs on this machine: `python docs/team_server/add_user.py NAME`.

Makes a password, and prints what the user has to export. Settings as for start.sh beside it.
"""

import base64
import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from pathlib import Path

FOLDER = Path(os.environ.get("SERVER_FOLDER", "mlruns/server"))
PORT = os.environ.get("SERVER_PORT", "5000")
NAME = os.environ.get("SERVER_NAME", "127.0.0.1")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/team_server/add_user.py NAME")
    user, password = sys.argv[1], secrets.token_urlsafe(18)
    try:
        create(user, password, (FOLDER / "secrets" / "admin_password").read_text().strip())
    except urllib.error.HTTPError as error:
        sys.exit(f"{user!r} was not added: {reason(error)}")
    except OSError as error:
        sys.exit(
            f"{user!r} was not added: {error}; is `make server` running, with this SERVER_FOLDER "
            f"({FOLDER}) and SERVER_PORT ({PORT})?"
        )
    print(
        f"export MLFLOW_TRACKING_URI=http://{NAME}:{PORT}\n"
        f"export MLFLOW_TRACKING_USERNAME={user} MLFLOW_TRACKING_PASSWORD={password}"
    )


def reason(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.loads(error.read())["message"])
    except (ValueError, LookupError, TypeError):
        return str(error)
    return message.partition(". Error: ")[0].splitlines()[0]


def create(user: str, password: str, admin_password: str) -> None:
    login = base64.b64encode(f"admin:{admin_password}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/api/2.0/mlflow/users/create",
        json.dumps({"username": user, "password": password}).encode(),
        {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()


if __name__ == "__main__":
    main()
