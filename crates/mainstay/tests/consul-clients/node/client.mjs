// The `consul` client of npm, unmodified, against the door on the port given.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import Consul from "consul";

const consul = new Consul({ port: Number(process.argv[2]) });

/** Asks until the answer is the one that is waited for. */
async function until(what, ask) {
  for (const end = Date.now() + 20_000; Date.now() < end; await sleep(50)) {
    if (await ask()) return;
  }
  assert.fail(`${what} never came`);
}

// Pairs, compare-and-set.
assert.equal(await consul.kv.get("node/a"), undefined);
assert.equal(await consul.kv.set("node/a", "one"), true);
const pair = await consul.kv.get("node/a");
assert.equal(pair.Value, "one");
// What this client returns for `false` is `undefined`.
assert.ok(!(await consul.kv.set({ key: "node/a", value: "two", cas: "0" })));
const cas = String(pair.ModifyIndex);
assert.equal(await consul.kv.set({ key: "node/a", value: "two", cas }), true);
assert.ok(!(await consul.kv.set({ key: "node/a", value: "late", cas })));
assert.deepEqual(await consul.kv.keys("node/"), ["node/a"]);

// A watch asks with the index of the answer before: it is woken by its own key, and by no other.
const seen = [];
const watch = consul.watch({ method: consul.kv.get, options: { key: "node/a", wait: "30s" } });
watch.on("error", (error) => assert.fail(error));
watch.on("change", (pair, response) => {
  seen.push([pair.Value, BigInt(response.headers["x-consul-index"])]);
});
await until("the first value", () => seen.length === 1);
for (let n = 0; n < 20; n += 1) await consul.kv.set("node/other", String(n));
await consul.kv.set("node/a", "three");
await until("the change", () => seen.length === 2);
watch.end();
assert.deepEqual(seen.map(([value]) => value), ["two", "three"]);
assert.ok(seen[0][1] < seen[1][1], "the index moves");

// A service is found by a query that waits, once its check passes.
const check = { ttl: "10m" };
await consul.agent.service.register({ id: "node-1", name: "node", port: 80, tags: ["v1"], check });
const found = [];
const services = consul.watch({
  method: consul.health.service,
  options: { service: "node", passing: true, wait: "30s" },
});
services.on("error", (error) => assert.fail(error));
services.on("change", (entries) => found.push(entries.map((entry) => entry.Service.ID)));
await until("the first list", () => found.length === 1);
await consul.agent.check.pass("service:node-1");
await until("the instance", () => found.length === 2);
assert.deepEqual(found, [[], ["node-1"]]);
await consul.agent.service.deregister("node-1");
await until("its end", () => found.length === 3);
assert.deepEqual(found[2], []);
services.end();

// A lock, and the delay after its session was destroyed.
const session = (name) => consul.session.create({ name, ttl: "10s", lockdelay: "1s" });
const [{ ID: first }, { ID: second }] = [await session("first"), await session("second")];
const lock = (value, how) => consul.kv.set({ key: "node/lock", value, ...how });
assert.equal(await lock("first", { acquire: first }), true);
assert.ok(!(await lock("second", { acquire: second })));
assert.equal((await consul.session.renew(first))[0].ID, first);
await consul.session.destroy(first);
assert.equal((await consul.kv.get("node/lock")).Session, undefined);
assert.ok(!(await lock("second", { acquire: second })), "the delay holds");
await until("the end of the delay", () => lock("second", { acquire: second }));
assert.equal((await consul.kv.get("node/lock")).Session, second);
assert.equal(await lock("free", { release: second }), true);

// Several operations at once.
const done = await consul.transaction.create([{ KV: { Verb: "get", Key: "node/a" } }]);
assert.equal(done.Results[0].KV.Key, "node/a");
await consul.kv.del({ key: "node/", recurse: true });
assert.equal(await consul.kv.get("node/a"), undefined);
assert.match(await consul.status.leader(), /:8300$/);
