"""Asks a program of this machine whether it lives or is ready: the health check of a container.

`python -m routines_cli.probe PATH [PORT]` exits with 0 if the answer is 200. Without a port it asks the API. It imports
as little as possible, since it is run every few seconds.
"""

import os
import socket
import sys

SECONDS = 4.0
"""How long the answer may take."""


def main(path: str, port: str = "") -> int:
    """Return 0 if the program on this port of loopback answers 200, otherwise 1 with the answer on stderr."""
    number = int(port or os.environ.get("ROUTINES_PORT") or "8080")
    try:
        with socket.create_connection(("127.0.0.1", number), SECONDS) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("ascii"))
            answer = bytearray()
            while some := connection.recv(4096):
                answer += some
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    if answer.split(b" ", 2)[1:2] == [b"200"]:
        return 0
    print(answer.decode("utf-8", "replace"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
