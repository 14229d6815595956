"""The repair of the transport: what reaches the cloud over the loopback interface counts as encrypted.

The cloud listens on 127.0.0.1 and speaks HTTP, because no authority signs certificates for it. A bucket policy that
denies `aws:SecureTransport: false`, which every audited template has, would otherwise deny all. The bytes of such a
request never leave the machine, which is what the condition is for.
"""

import functools
import ipaddress
from collections.abc import Callable

from localcloud.ministack.repairs import Repair


def _pin_request_origin(original: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    @functools.wraps(original)
    def pin_request_origin(source_ip: str, secure_transport: bool) -> None:
        original(source_ip, secure_transport or ipaddress.ip_address(source_ip).is_loopback)

    return pin_request_origin


REPAIRS = [
    Repair(
        "a policy that demands TLS denies every request",
        "ministack.app",
        "pin_request_origin",
        "de819c1bd9ac",
        _pin_request_origin,
    )
]
