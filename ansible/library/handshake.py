#!/usr/bin/python
"""See whether one of several servers takes a client's certificate, or tell why none does."""

import socket
import ssl

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: handshake
short_description: Check that a gRPC server accepts a client's certificate
description:
  - Makes a TLS handshake with one server after the other until one accepts the certificate.
  - Fails when none does, with the error of each server.
options:
  endpoints:
    description: Servers, as https://host:port.
    type: list
    elements: str
    required: true
  ca:
    description: File with the authorities to trust.
    type: path
    required: true
  cert:
    description: File with the client's certificate.
    type: path
    required: true
  key:
    description: File with its key.
    type: path
    required: true
author: Xebec
"""

RETURN = r"""
endpoint:
  description: The server that accepts the certificate.
  type: str
  returned: success
"""

EXAMPLES = r"""
- handshake:
    endpoints: ["https://192.0.2.31:2379"]
    ca: /etc/xebec/apiserver/etcd-ca.crt
    cert: /etc/xebec/apiserver/etcd.crt
    key: /etc/xebec/apiserver/etcd.key
"""


def shake(context, endpoint):
    """Make a handshake; OSError says what is wrong."""
    host, port = endpoint.split("://", 1)[1].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5) as connection:
        connection.settimeout(60)  # a busy host accepts a connection immediately and signs much later
        with context.wrap_socket(connection, server_hostname=host) as session:
            # Only now does a client learn that its certificate is refused. A server that accepts it sends data or waits for data.
            session.settimeout(2)
            try:
                if not session.recv(1):
                    raise OSError("the server closes the connection after the handshake")
            except socket.timeout:
                pass


def main():
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "ca": {"type": "path", "required": True},
            "cert": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    wrong = []
    try:
        context = ssl.create_default_context(cafile=module.params["ca"])
        context.load_cert_chain(module.params["cert"], module.params["key"])
        context.set_alpn_protocols(["h2"])
    except OSError as error:
        module.fail_json(msg="ca, cert and key do not fit: %s" % error)
    for endpoint in module.params["endpoints"]:
        try:
            shake(context, endpoint)
            module.exit_json(changed=False, endpoint=endpoint)
        except OSError as error:
            wrong.append("%s: %s" % (endpoint, error))
    module.fail_json(msg="etcd can't be used with these certificates: %s" % "; ".join(wrong))


if __name__ == "__main__":
    main()
