"""Provide a bucket for tests: a server on loopback that speaks S3."""

from collections.abc import Generator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Generator[str]:
    """Yield the URL of an S3 server that has a bucket named `files`."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="files")
    yield url
    server.stop()


def name_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set the AWS_ environment variables so that clients use this server."""
    variables = {"ENDPOINT_URL": url, "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    variables |= {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, text in variables.items():
        monkeypatch.setenv(f"AWS_{name}", text)
