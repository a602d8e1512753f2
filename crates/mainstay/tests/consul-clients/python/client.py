"""py-consul, unmodified, against the door on the port given."""

import sys
import threading
import time

import consul

client = consul.Consul(host="127.0.0.1", port=int(sys.argv[1]))

# Pairs, compare-and-set.
assert client.kv.get("app/a")[1] is None
assert client.kv.put("app/a", "one")
index, pair = client.kv.get("app/a")
assert pair["Value"] == b"one" and int(index) == pair["ModifyIndex"]
assert client.kv.put("app/a", "two", cas=0) is False
assert client.kv.put("app/a", "two", cas=pair["ModifyIndex"]) is True
assert client.kv.get("app/", keys=True)[1] == ["app/a"]
assert [p["Key"] for p in client.kv.get("app/", recurse=True)[1]] == ["app/a"]

# A blocking query is woken by its own key.
index, _ = client.kv.get("app/a")


def change():
    time.sleep(0.3)
    client.kv.put("app/other", "x")
    time.sleep(0.3)
    client.kv.put("app/a", "three")


changes = threading.Thread(target=change)
began = time.monotonic()
changes.start()
later, pair = client.kv.get("app/a", index=index, wait="30s")
assert pair["Value"] == b"three" and int(later) > int(index)
assert 0.5 < time.monotonic() - began < 20
changes.join()

# A lock, and the delay after its session was destroyed.
first = client.session.create(name="first", ttl=10, lock_delay=1)
second = client.session.create(name="second", ttl=10, lock_delay=1)
assert client.kv.put("lock", "first", acquire=first)
assert not client.kv.put("lock", "second", acquire=second)
assert client.session.renew(first)["Name"] == "first"
assert client.session.destroy(first)
assert "Session" not in client.kv.get("lock")[1]
assert not client.kv.put("lock", "second", acquire=second)
deadline = time.monotonic() + 20
while not client.kv.put("lock", "second", acquire=second):
    assert time.monotonic() < deadline, "the delay never ends"
    time.sleep(0.1)
assert client.kv.get("lock")[1]["Session"] == second
assert client.kv.put("lock", "free", release=second)
assert [s["ID"] for s in client.session.list()[1]] == [second]

# Several operations at once.
done = client.txn.put([{"KV": {"Verb": "get", "Key": "app/a"}}])
assert done["Results"][0]["KV"]["Key"] == "app/a"

# A service, found once its check passes, by a query that waits for it.
check = consul.Check.ttl("10m")
assert client.agent.service.register("web", service_id="web-1", port=80, tags=["v1"], check=check)
index, found = client.health.service("web", passing=True)
assert found == []


def passes():
    time.sleep(0.3)
    client.agent.check.ttl_pass("service:web-1", "fine")


changes = threading.Thread(target=passes)
began = time.monotonic()
changes.start()
_, found = client.health.service("web", passing=True, index=index, wait="30s", tag="v1")
assert [entry["Service"]["ID"] for entry in found] == ["web-1"]
assert 0.2 < time.monotonic() - began < 20
changes.join()
assert client.catalog.services()[1] == {"consul": [], "web": ["v1"]}
assert client.catalog.service("web")[1][0]["ServicePort"] == 80
assert client.agent.services()["web-1"]["Service"] == "web"
assert client.agent.service.maintenance("web-1", "true", "moving")
assert [c["Notes"] for c in client.health.state("critical")[1]] == ["moving"]
assert client.agent.service.maintenance("web-1", "false")

# A session that ends with its check.
held = client.session.create(checks=["serfHealth", "service:web-1"], lock_delay=0)
assert client.kv.put("held", "x", acquire=held)
assert client.agent.check.ttl_fail("service:web-1")
deadline = time.monotonic() + 20
while "Session" in client.kv.get("held")[1]:
    assert time.monotonic() < deadline, "the session never ends"
    time.sleep(0.1)
assert client.agent.service.deregister("web-1")

# A node without an agent.
assert client.catalog.register("ext", "10.9.9.9", service={"Service": "db", "Port": 5432})
assert client.catalog.node("ext")[1]["Services"]["db"]["Port"] == 5432
assert client.catalog.deregister("ext")
assert client.catalog.node("ext")[1] is None

assert client.kv.delete("app/", recurse=True)
assert client.kv.get("app/", recurse=True)[1] is None
assert client.agent.self()["Config"]["Server"] is True
assert client.status.leader().endswith(":8300")
