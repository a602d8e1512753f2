"""grpcio, with stubs that its own tools make from the published contract."""

import importlib
import json
import pathlib
import sys
import tempfile
import urllib.request

import grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

contract, address, token = sys.argv[1:]
made = tempfile.mkdtemp()
files = sorted(str(path) for path in pathlib.Path(contract).rglob("*.proto"))
arguments = ["protoc", f"-I{contract}", f"--python_out={made}", f"--grpc_python_out={made}"]
assert protoc.main(arguments + files) == 0
sys.path.insert(0, made)
load = importlib.import_module
registry, registry_calls = load("mainstay.v1.registry_pb2"), load("mainstay.v1.registry_pb2_grpc")
config, config_calls = load("mainstay.v1.config_pb2"), load("mainstay.v1.config_pb2_grpc")
lock, lock_calls = load("mainstay.v1.lock_pb2"), load("mainstay.v1.lock_pb2_grpc")

WAIT = 20
known = [("authorization", f"Bearer {token}")]
channel = grpc.insecure_channel(address)


def publish(content):
    body = json.dumps({"items": {"app": {"content": content}}, "note": "from a test"})
    request = urllib.request.Request(
        f"http://{address}/api/v1/config/shop/app/releases",
        data=body.encode(),
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=WAIT).read()


# Nobody is let in without the token.
try:
    registry_calls.RegistryStub(channel).Register(registry.RegisterRequest(), timeout=WAIT)
    raise AssertionError("let in")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    told = dict(error.trailing_metadata())
    assert told["mainstay-code"] == "credential-missing", told
    assert json.loads(told["mainstay-problem-bin"])["status"] == 401, told

# Registered, and followed as it changes.
services = registry_calls.RegistryStub(channel)


def register(name):
    instance = registry.Registration(id=name, address="10.0.0.1", port=80, ttl_seconds=60)
    request = registry.RegisterRequest(namespace="shop", service="order", registration=instance)
    return services.Register(request, metadata=known, timeout=WAIT).revision


register("a")
followed = registry.FollowedService(namespace="shop", service="order")
watch = registry.RegistryWatchRequest(services=[followed], mode=registry.WATCH_MODE_EVENTS)
events = services.Watch(watch, metadata=known, timeout=60)
store = dict(events.initial_metadata())["mainstay-store"]
first = next(events)
assert [one.id for one in first.snapshot.instances] == ["a"], first
second = register("b")
event = next(events)
assert (event.event.put.id, event.revision) == ("b", second), event
events.cancel()

# Resumed where it stood.
register("c")
followed.revision = event.revision
watch = registry.RegistryWatchRequest(
    services=[followed], mode=registry.WATCH_MODE_EVENTS, store=store
)
events = services.Watch(watch, metadata=known, timeout=60)
assert next(events).event.put.id == "c"
events.cancel()

# Configuration is pushed.
publish("one")
groups = [config.HeldGroup(namespace="shop", group="app")]
watch = config.ConfigWatchRequest(client="python", groups=groups)
updates = config_calls.ConfigStub(channel).Watch(watch, metadata=known, timeout=60)
assert next(updates).snapshot.contents.items["app"].content == "one"
publish("two")
change = next(updates).change
assert (change.release, change.contents.items["app"].content) == (2, "two"), change
updates.cancel()

# A session lives by its stream.
asked = lock.OpenSession(ttl_seconds=10, owner=lock.SessionOwner(host="h", pid=1, name="python"))
requests = iter(
    [
        lock.LockSessionRequest(open=asked),
        lock.LockSessionRequest(renew=lock.RenewSession(sequence=1)),
        lock.LockSessionRequest(end=lock.EndSession()),
    ]
)
kinds = [
    told.WhichOneof("item")
    for told in lock_calls.LockStub(channel).Session(requests, metadata=known, timeout=60)
]
assert kinds[0] == "opened" and kinds[-1] == "ended", kinds
assert {"snapshot", "renewed"} <= set(kinds), kinds


class Known(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends the token along."""

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=known), request)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=known), requests)


# Tools find out what there is.
asking = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Known()))
names = set(asking.get_services())
assert {f"mainstay.v1.{name}" for name in ["Registry", "Config", "Rules", "Switches", "Lock"]} <= names
assert asking.FindFileContainingSymbol("mainstay.v1.Registry").package == "mainstay.v1"
