"""go-plugin's side of the conversation: handshake, TLS, health, the end."""

from __future__ import annotations

import base64
import datetime
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from concurrent import futures

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import messages as pb
from .plugin import Build, Plugin, Search
from .store import Sequence, Share

CORE_PROTOCOL = 1  # go-plugin's
PROTOCOL = 1  # the contract's
COOKIE = ("RA_PLUGIN", "ra.process.v1")
LIFELINE = "RA_PLUGIN_LIFELINE"
MAX_MESSAGE = 64 << 20
MAX_CHUNK = 1 << 20


def serve(plugin: Plugin) -> None:
    """Run the plugin until the host ends it. It does not return."""
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        print("This is a plugin of ra: ra starts it. Name it in raconfig.toml.", file=sys.stderr)
        sys.exit(1)
    _watch()
    _log()
    # Standard output belongs to the handshake: what the plugin prints goes to
    # the host's log.
    out, sys.stdout = sys.stdout, sys.stderr
    certificate, credentials = _credentials(os.environ["PLUGIN_CLIENT_CERT"].encode())
    server = grpc.server(
        futures.ThreadPoolExecutor(max(plugin.threads, 1)),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)],
    )
    over = threading.Event()
    server.add_generic_rpc_handlers((_search(plugin), _health(), _controller(over)))
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.mkdtemp()
    socket = os.path.join(folder, "plugin.sock")
    if server.add_secure_port("unix:" + socket, credentials) == 0:
        sys.exit(f"cannot listen on {socket}")
    server.start()
    print(f"{CORE_PROTOCOL}|{PROTOCOL}|unix|{socket}|grpc|{certificate}", file=out, flush=True)
    over.wait()
    server.stop(1).wait()
    os._exit(0)


def _watch() -> None:
    """End this process and those that it started when the host ends."""
    fd = int(os.environ[LIFELINE])
    os.set_inheritable(fd, False)

    def wait() -> None:
        while os.read(fd, 1):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


class _Lines(logging.Handler):
    """Writes records in the form in which the host reads their level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = {"WARNING": "warn", "CRITICAL": "error"}.get(record.levelname, record.levelname.lower())
        line = {"@level": level, "@message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["trace"] = "".join(traceback.format_exception(*record.exc_info))
        print(json.dumps(line), file=sys.__stderr__, flush=True)


def _log() -> None:
    root = logging.getLogger()
    root.addHandler(_Lines())
    root.setLevel(logging.INFO)


def _credentials(client: bytes) -> tuple[str, grpc.ServerCredentials]:
    """Make a certificate for this process; the client must show the host's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=365 * 30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    credentials = grpc.ssl_server_credentials(
        [(secret, certificate.public_bytes(serialization.Encoding.PEM))],
        root_certificates=client,
        require_client_auth=True,
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode().rstrip("="), credentials


def _unary(function, request, response):
    """Serve a call; an exception becomes its error, and a trace in the log."""

    def run(message, context):
        try:
            return function(message)
        except Exception as error:
            logging.exception("%s failed", function.__name__)
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    return grpc.unary_unary_rpc_method_handler(run, request.FromString, response.SerializeToString)


def _search(plugin: Plugin) -> grpc.GenericRpcHandler:
    shares: dict[int, Share] = {}

    def sequence(message) -> Sequence:
        return Sequence(message, shares.get(pb.SHARE_KIND_KEYS), shares.get(pb.SHARE_KIND_VALUES))

    def describe(_):
        return pb.DescribeResponse(description=plugin.description())

    def configure(message):
        for share in message.shares:
            shares[share.kind] = Share(share.fd)
        texts = dict(line.split("=", 1) for line in message.params.splitlines())
        plugin.configure({p.name: p.parse(texts[p.name]) for p in plugin.parameters}, message.seed)
        return pb.ConfigureResponse()

    def build(message):
        s, queries = sequence(message.sequence), None
        if message.HasField("queries"):
            flat = shares[pb.SHARE_KIND_QUERIES].array(
                message.queries, np.dtype("<f4"), s.tokens * message.heads, s.head_dim
            )
            queries = flat.reshape(s.tokens, message.heads, s.head_dim)
        plugin.build(Build(s, message.layer, message.heads, queries))
        return pb.BuildResponse()

    def append(message):
        plugin.append(message.layer, sequence(message.sequence), [(r.lo, r.hi) for r in message.ranges])
        return pb.AppendResponse()

    def search(message):
        call = Search(message, [sequence(s) for s in message.sequences])
        plugin.search(call)
        return call.answer()

    def forget(message):
        plugin.forget(list(message.views))
        return pb.ForgetResponse()

    def export(message, context):
        with tempfile.TemporaryFile() as file:
            try:
                plugin.export(message.view, message.layer, file)
            except Exception as error:
                logging.exception("export failed")
                context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            file.seek(0)
            while data := file.read(MAX_CHUNK):
                yield pb.Chunk(data=data)

    def load(messages, context):
        first = next(messages)
        with tempfile.TemporaryFile() as file:
            file.write(first.data)
            for message in messages:
                file.write(message.data)
            file.seek(0)
            try:
                plugin.load(Build(sequence(first.sequence), first.layer, first.heads), file)
            except Exception as error:
                logging.exception("import failed")
                context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        return pb.ImportResponse()

    return grpc.method_handlers_generic_handler(
        pb.SERVICE,
        {
            "Describe": _unary(describe, pb.DescribeRequest, pb.DescribeResponse),
            "Configure": _unary(configure, pb.ConfigureRequest, pb.ConfigureResponse),
            "Build": _unary(build, pb.BuildRequest, pb.BuildResponse),
            "Append": _unary(append, pb.AppendRequest, pb.AppendResponse),
            "Search": _unary(search, pb.SearchRequest, pb.SearchResponse),
            "Forget": _unary(forget, pb.ForgetRequest, pb.ForgetResponse),
            "Export": grpc.unary_stream_rpc_method_handler(
                export, pb.ExportRequest.FromString, pb.Chunk.SerializeToString
            ),
            "Import": grpc.stream_unary_rpc_method_handler(
                load, pb.ImportRequest.FromString, pb.ImportResponse.SerializeToString
            ),
        },
    )


def _health() -> grpc.GenericRpcHandler:
    """grpc.health.v1, without its package: the answer is always SERVING."""
    serving = b"\x08\x01"  # field 1 of HealthCheckResponse
    check = grpc.unary_unary_rpc_method_handler(lambda request, context: serving)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


def _controller(over: threading.Event) -> grpc.GenericRpcHandler:
    """go-plugin's request to end."""

    def shutdown(request, context):
        over.set()
        return b""

    handler = grpc.unary_unary_rpc_method_handler(shutdown)
    return grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": handler})
