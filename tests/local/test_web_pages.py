"""A web page that the user happens to open must not reach the local cloud, whose credentials everybody knows."""

import http.client
import urllib.request
from urllib.parse import urlencode

import pytest

CREDENTIALS = {
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": "test/20261101/us-east-1/iam/aws4_request",
    "X-Amz-SignedHeaders": "host",
    "X-Amz-Signature": "00",
}
CREATE_ROLE = {"Action": "CreateRole", "Version": "2010-05-08", "AssumeRolePolicyDocument": '{"Statement": []}'}


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_changes_nothing_with_what_a_browser_lets_it_send(cloud, session, sent, method):
    """No header of its own, so that no browser asks the cloud beforehand: what it needs is in the query or the body."""
    name = f"of-a-page-{method}"
    asked = urlencode({**CREATE_ROLE, "RoleName": name})
    query, body = (f"&{asked}", None) if method == "GET" else ("", asked)
    status, headers = ask(cloud.port, method, f"/?{urlencode(CREDENTIALS)}{query}", sent, body)
    assert status == 403
    assert not [header for header in headers if header.lower().startswith("access-control-")]
    assert name not in [role["RoleName"] for role in session.client("iam").list_roles()["Roles"]]


@pytest.mark.parametrize("path", ["/_ministack/health", "/_localcloud/faults", "/bucket/key"])
def test_a_page_may_not_even_ask_whether_it_may(cloud, path):
    sent = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    status, headers = ask(cloud.port, "OPTIONS", path, sent)
    assert status == 403
    assert "access-control-allow-origin" not in {header.lower() for header in headers}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_that_a_client_has_signed_works_for_whoever_holds_it(cloud, session, host):
    s3 = session.client("s3", endpoint_url=f"http://{host}:{cloud.port}")
    place = {"Bucket": f"signed-at-{host}", "Key": "a key"}
    s3.create_bucket(Bucket=place["Bucket"])
    upload = urllib.request.Request(s3.generate_presigned_url("put_object", place), b"content", method="PUT")
    with urllib.request.urlopen(upload) as answer:
        assert "access-control-allow-origin" not in answer.headers
    by_hand = urllib.request.Request(s3.generate_presigned_url("get_object", place), headers={"Sec-Fetch-Site": "none"})
    with urllib.request.urlopen(by_hand) as answer:
        assert answer.read() == b"content"


def ask(port: int, method: str, address: str, headers: dict, body: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, address, body, {"Content-Type": "text/plain", **headers})
        response = connection.getresponse()
        return response.status, dict(response.getheaders())
    finally:
        connection.close()
