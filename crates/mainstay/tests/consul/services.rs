//! Services, checks and nodes, as clients of Consul register and find them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CONFIG, PATIENCE, SOON, ask, check, get, put};
use crate::support::gateway::Gateway;
use crate::support::wait::{now, pause, until};

#[track_caller]
fn done(gateway: &Gateway, path: &str, body: &Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = put(gateway, path, &body);
    assert_eq!((answer.status, &*answer.body), (200, ""), "{path}");
}

/// The process' name as a node.
fn node(gateway: &Gateway) -> String {
    get(gateway, "agent/self").json()["Config"]["NodeName"].as_str().unwrap().to_owned()
}

/// The names of a document's members, as they come.
fn members(text: &str) -> Vec<String> {
    let map: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    map.keys().cloned().collect()
}

#[test]
fn a_service_is_registered_shown_and_gone() {
    let dev = Gateway::start_dev("consul-services", CONFIG);
    let node = node(&dev);
    check(&dev, "GET agent/services", "", 200, "{}");
    check(&dev, "GET health/service/web", "", 200, "[]");
    check(&dev, "GET catalog/services", "", 200, r#"{"consul":[]}"#);
    check(&dev, "PUT agent/service/register", "{}", 400, "Missing service name");
    let web = json!({
        "name": "web", "ID": "web/1", "Tags": ["v2", "v1"], "Port": 8080, "address": "10.1.2.3",
        "Meta": { "k": "v" }, "weights": { "passing": 5, "warning": 2 },
        "TaggedAddresses": { "lan": { "Address": "10.1.2.3", "Port": 8080 } },
        "Check": { "TTL": "10m", "notes": "told" },
    });
    done(&dev, "agent/service/register", &web);
    done(&dev, "agent/service/register", &json!({ "Name": "db" }));
    check(
        &dev,
        "GET agent/services",
        "",
        200,
        r#"{"db":{"ID":"db","Service":"db","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Datacenter":"dc1"},"web/1":{"ID":"web/1","Service":"web","Tags":["v2","v1"],"Meta":{"k":"v"},"Port":8080,"Address":"10.1.2.3","TaggedAddresses":{"lan":{"Address":"10.1.2.3","Port":8080}},"Weights":{"Passing":5,"Warning":2},"EnableTagOverride":false,"Datacenter":"dc1"}}"#,
    );
    check(&dev, "GET catalog/services", "", 200, r#"{"consul":[],"db":[],"web":["v1","v2"]}"#);
    let listed = get(&dev, "health/service/web").json();
    let index = listed[0]["Service"]["CreateIndex"].clone();
    let own = listed[0]["Node"].clone();
    let at =
        format!(r#""CreateIndex":{},"ModifyIndex":{}"#, own["CreateIndex"], own["ModifyIndex"]);
    let id = own["ID"].as_str().unwrap();
    assert_eq!(
        get(&dev, "health/service/web").body,
        format!(
            r#"[{{"Node":{{"ID":"{id}","Node":"{node}","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{{"lan":"127.0.0.1","wan":"127.0.0.1"}},"Meta":{{}},{at}}},"Service":{{"ID":"web/1","Service":"web","Tags":["v2","v1"],"Meta":{{"k":"v"}},"Port":8080,"Address":"10.1.2.3","TaggedAddresses":{{"lan":{{"Address":"10.1.2.3","Port":8080}}}},"Weights":{{"Passing":5,"Warning":2}},"EnableTagOverride":false,"Datacenter":"dc1","Proxy":{{"Expose":{{}},"MeshGateway":{{}},"Mode":""}},"Connect":{{}},"CreateIndex":{index},"ModifyIndex":{index}}},"Checks":[{{"Node":"{node}","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Definition":{{}},{at}}},{{"Node":"{node}","CheckID":"service:web/1","Name":"Service 'web' check","Status":"critical","Notes":"told","Output":"","ServiceID":"web/1","ServiceName":"web","ServiceTags":["v2","v1"],"Type":"ttl","Definition":{{}},"CreateIndex":{index},"ModifyIndex":{index}}}]}}]"#
        )
    );
    check(&dev, "GET health/service/web?passing", "", 200, "[]");
    done(&dev, "agent/check/pass/service:web/1?note=fine", &Value::Null);
    let passing = get(&dev, "health/service/web?passing=1&tag=v1&tag=v2").json();
    assert_eq!(passing[0]["Checks"][1]["Output"], "fine");
    check(&dev, "GET health/service/web?tag=v3", "", 200, "[]");
    let flat = get(&dev, "catalog/service/web");
    assert_eq!(
        members(flat.body.trim_matches(['[', ']'])),
        [
            "Address",
            "CreateIndex",
            "Datacenter",
            "ID",
            "ModifyIndex",
            "Node",
            "NodeMeta",
            "ServiceAddress",
            "ServiceConnect",
            "ServiceEnableTagOverride",
            "ServiceID",
            "ServiceKind",
            "ServiceMeta",
            "ServiceName",
            "ServicePort",
            "ServiceProxy",
            "ServiceTaggedAddresses",
            "ServiceTags",
            "ServiceWeights",
            "TaggedAddresses",
        ]
    );
    assert_eq!(flat.json()[0]["ServiceAddress"], "10.1.2.3");
    let on_node = get(&dev, &format!("catalog/node/{node}")).json();
    assert_eq!(on_node["Services"]["db"]["Service"], "db");
    check(&dev, "GET catalog/node/none", "", 200, "null");
    check(&dev, "GET catalog/connect/web", "", 200, "[]");
}

#[test]
fn an_id_names_one_service_and_what_cannot_be_one_is_refused() {
    let dev = Gateway::start_dev("consul-ids", CONFIG);
    done(&dev, "agent/service/register", &json!({ "Name": "web", "ID": "web/1" }));
    done(&dev, "agent/service/register", &json!({ "Name": "db" }));
    // Under another name it is another service.
    done(&dev, "agent/service/register", &json!({ "Name": "store", "ID": "db" }));
    check(&dev, "GET health/service/db", "", 200, "[]");
    done(&dev, "agent/service/deregister/db", &Value::Null);
    done(&dev, "agent/service/deregister/web%2F1", &Value::Null);
    check(&dev, "GET agent/services", "", 200, "{}");
    let unknown = put(&dev, "agent/service/deregister/db", "");
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    for bad in [
        json!({ "Name": "a b" }),
        json!({ "Name": "a", "Port": 65_536 }),
        json!({ "Name": "a", "Address": "169.254.169.254" }),
        json!({ "Name": "a", "Check": {"TCP": "x:1"} }),
        json!({ "Name": "a", "Check": {"Args": ["true"], "Interval": "1s"} }),
    ] {
        assert_eq!(put(&dev, "agent/service/register", &bad.to_string()).status, 400, "{bad}");
    }
    check(&dev, "GET agent/services", "", 200, "{}");
}

#[test]
fn the_native_registry_and_this_door_show_the_same() {
    let dev = Gateway::start_dev("consul-mapping", CONFIG);
    let node = node(&dev);
    let web = json!({ "Name": "web", "Port": 80, "Tags": ["a"], "Check": { "TTL": "10m" } });
    done(&dev, "agent/service/register", &web);
    let native = |service: &str| {
        let path = format!("/api/v1/registry/default/services/{service}");
        serde_json::from_str::<Value>(&dev.call("GET", &path, "").1).unwrap()
    };
    let shown = native("web");
    let instance = &shown["instances"][0];
    assert_eq!(instance["id"], format!("{node}/web"));
    assert_eq!(
        (&instance["kind"], &instance["health"]),
        (&json!("persistent"), &json!("critical"))
    );
    done(&dev, "agent/check/warn/service:web", &Value::Null);
    assert_eq!(native("web")["instances"][0]["health"], "warning");
    done(&dev, "agent/service/maintenance/web?enable=true&reason=disk", &Value::Null);
    let shown = native("web");
    assert_eq!(shown["instances"][0]["state"], "down");
    assert_eq!(shown["instances"][0]["reason"], "maintenance: disk");
    let checks = get(&dev, "health/checks/web").json();
    assert_eq!(checks[0]["CheckID"], "_service_maintenance:web");
    assert_eq!((&checks[0]["Status"], &checks[0]["Notes"]), (&json!("critical"), &json!("disk")));
    done(&dev, "agent/service/maintenance/web?enable=false", &Value::Null);
    assert_eq!(native("web")["instances"][0]["state"], "up");
    let path = "/api/v1/registry/default/services/order/instances/o1";
    let order = json!({ "address": "10.0.0.9", "port": 81, "tags": ["t"] });
    assert_eq!(dev.call("PUT", path, &order.to_string()).0, 201);
    let listed = get(&dev, "health/service/order?passing").json();
    assert_eq!(listed[0]["Node"]["Node"], node);
    assert_eq!(listed[0]["Service"]["ID"], "o1");
    assert_eq!(listed[0]["Checks"][1]["CheckID"], "mainstay:o1");
    // A service is persistent or ephemeral as a whole.
    let mixed = put(&dev, "agent/service/register", r#"{"Name":"order"}"#);
    assert_eq!(mixed.status, 400, "{}", mixed.body);
}

#[test]
fn a_report_is_good_for_its_ttl_and_no_longer() {
    let dev = Gateway::start_dev("consul-ttl", CONFIG);
    let quick = json!({ "Name": "quick", "Check": { "TTL": "100ms", "Status": "passing" } });
    done(&dev, "agent/service/register", &quick);
    done(&dev, "agent/check/register", &json!({ "Name": "disk", "TTL": "100ms" }));
    let status = |id: &str| get(&dev, "agent/checks").json()[id]["Status"].clone();
    for id in ["service:quick", "disk"] {
        let began = now();
        done(&dev, &format!("agent/check/pass/{id}"), &Value::Null);
        let at_once = status(id);
        if began.elapsed() < Duration::from_millis(100) {
            assert_eq!(at_once, "passing", "{id}");
        }
        pause(Duration::from_millis(100));
        assert_eq!(status(id), "critical", "{id}");
    }
    let output = get(&dev, "agent/checks").json()["disk"]["Output"].clone();
    assert!(
        output.as_str().unwrap().contains("TTL expired") || output == "no report within its ttl"
    );
    until("both are written as critical", PATIENCE, || {
        get(&dev, "health/state/critical").json().as_array().unwrap().len() == 2
    });
    let sick = get(&dev, "agent/health/service/id/quick");
    assert_eq!((sick.status, &sick.json()["AggregatedStatus"]), (503, &json!("critical")));
    done(&dev, "agent/check/deregister/disk", &Value::Null);
    assert_eq!(put(&dev, "agent/check/deregister/disk", "").status, 404);
    assert_eq!(put(&dev, "agent/check/pass/disk", "").status, 404);
    let lost = json!({ "Name": "lost", "ServiceID": "none", "TTL": "1s" });
    assert_eq!(put(&dev, "agent/check/register", &lost.to_string()).status, 404);
    let update = json!({ "Status": "warning", "Output": "so so" });
    done(&dev, "agent/service/register", &json!({ "Name": "slow", "Check": { "TTL": "10m" } }));
    done(&dev, "agent/check/update/service:slow", &update);
    let slow = get(&dev, "agent/health/service/name/slow");
    assert_eq!((slow.status, &slow.json()[0]["Checks"][0]["Output"]), (429, &json!("so so")));
    let text = get(&dev, "agent/health/service/id/slow?format=text");
    assert_eq!((text.status, &*text.body), (429, "warning"));
    check(&dev, "GET agent/health/service/name/none", "", 404, "[]");
}

#[test]
fn checks_are_sent_and_what_they_find_wakes_whoever_waits() {
    let dev = Gateway::start_dev("consul-http", CONFIG);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = origin.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        for stream in origin.incoming().take(1) {
            let mut stream = stream.unwrap();
            let mut head = [0; 1_024];
            let read = stream.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"GET /up HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
    });
    let url = format!("http://{at}/up");
    let web = json!({
        "Name": "web", "Port": 1,
        "Checks": [{ "HTTP": url, "Interval": "1s", "Timeout": "5s" }, { "TTL": "10m", "Status": "passing" }],
    });
    done(&dev, "agent/service/register", &web);
    let first = get(&dev, "health/service/web?passing");
    let ids: Vec<Value> = get(&dev, "health/checks/web")
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["CheckID"].clone())
        .collect();
    assert_eq!(ids, ["service:web:1", "service:web:2"]);
    let mut index = first.index();
    let began = now();
    // Waits by index until the check has found the origin, and until it has lost it again.
    for want in [1, 0] {
        loop {
            let next = get(&dev, &format!("health/service/web?passing&index={index}&wait=10s"));
            index = next.index();
            if next.json().as_array().unwrap().len() == want {
                break;
            }
            assert!(began.elapsed() < SOON, "the check says nothing");
        }
    }
    answers.join().unwrap();
    // An unrelated service changes nothing for it.
    let control = dev.control;
    let path = format!(
        "health/service/other?index={}&wait=60s",
        get(&dev, "health/service/other").index()
    );
    let waits = std::thread::spawn(move || ask(control, "GET", &path, "", b""));
    for at in 0..20 {
        done(&dev, "agent/service/register", &json!({ "Name": "web", "Port": at }));
    }
    assert!(!waits.is_finished(), "an unrelated change woke it");
    done(&dev, "agent/service/register", &json!({ "Name": "other" }));
    assert_eq!(waits.join().unwrap().json().as_array().unwrap().len(), 1);
}

#[test]
fn a_service_is_waited_for_by_the_hash_of_what_it_is() {
    let dev = Gateway::start_dev("consul-hash", CONFIG);
    check(
        &dev,
        "GET agent/service/web",
        "",
        404,
        r#"Unknown service ID "web". Ensure that the service ID is passed, not the service name."#,
    );
    done(&dev, "agent/service/register", &json!({ "Name": "web", "Check": { "TTL": "10m" } }));
    let one = get(&dev, "agent/service/web");
    let hash = one.json()["ContentHash"].as_str().unwrap().to_owned();
    assert_eq!(one.header("x-consul-contenthash"), Some(&*hash));
    let control = dev.control;
    let path = format!("agent/service/web?hash={hash}&wait=60s");
    let waits = std::thread::spawn(move || ask(control, "GET", &path, "", b""));
    done(&dev, "agent/check/pass/service:web", &Value::Null);
    pause(Duration::from_millis(200));
    assert!(!waits.is_finished(), "how it is is not what it is");
    done(&dev, "agent/service/register", &json!({ "Name": "web", "Port": 9 }));
    let woken = waits.join().unwrap().json();
    assert_eq!(woken["Port"], 9);
    assert_ne!(woken["ContentHash"], hash);
}

#[test]
fn nodes_without_an_agent_are_registered_and_forgotten() {
    let dev = Gateway::start_dev("consul-catalog", CONFIG);
    let own = node(&dev);
    check(&dev, "PUT catalog/register", r#"{"Node":"x"}"#, 400, "Must provide node and address");
    let x = json!({
        "Node": "x", "Address": "10.9.9.9", "NodeMeta": { "rack": "r1" },
        "Service": { "Service": "ext", "Port": 1, "Tags": ["t"] },
        "Checks": [
            { "CheckID": "up", "Name": "is up", "Status": "passing" },
            { "CheckID": "ext", "Name": "answers", "Status": "passing", "ServiceID": "ext",
              "Definition": { "TCP": "10.9.9.9:1" } },
        ],
    });
    let registered = put(&dev, "catalog/register", &x.to_string());
    assert_eq!((registered.status, &*registered.body), (200, "true"));
    let nodes = get(&dev, "catalog/nodes?node-meta=rack:r1").json();
    assert_eq!((nodes.as_array().unwrap().len(), &nodes[0]["Node"]), (1, &json!("x")));
    let listed = get(&dev, "health/service/ext?passing").json();
    assert_eq!(listed[0]["Checks"][0]["CheckID"], "up");
    assert_eq!(listed[0]["Checks"][1]["Definition"]["TCP"], "10.9.9.9:1");
    // Where the service is that names no address, there is its node.
    let (_, native) = dev.call("GET", "/api/v1/registry/default/services/ext", "");
    let native: Value = serde_json::from_str(&native).unwrap();
    assert_eq!(native["instances"][0]["address"], "10.9.9.9");
    // Said again, a check stands as it is said to, that of the service as well.
    let mut again = x;
    again["Checks"][1]["Status"] = json!("warning");
    assert_eq!(put(&dev, "catalog/register", &again.to_string()).body, "true");
    assert_eq!(get(&dev, "health/service/ext").json()[0]["Checks"][1]["Status"], "warning");
    let fails = json!({
        "Node": "x", "SkipNodeUpdate": true,
        "Check": { "CheckID": "up", "Name": "is up", "Status": "critical", "Output": "no" },
    });
    assert_eq!(put(&dev, "catalog/register", &fails.to_string()).body, "true");
    check(&dev, "GET health/service/ext?passing", "", 200, "[]");
    assert_eq!(get(&dev, "health/node/x").json()[0]["Output"], "no");
    assert_eq!(put(&dev, "catalog/deregister", r#"{"Node":"x","CheckID":"up"}"#).body, "true");
    assert_eq!(get(&dev, "health/node/x").json().as_array().unwrap().len(), 1);
    assert_eq!(put(&dev, "catalog/deregister", r#"{"Node":"x","ServiceID":"ext"}"#).body, "true");
    check(&dev, "GET health/service/ext", "", 200, "[]");
    assert_eq!(get(&dev, "catalog/nodes").json().as_array().unwrap().len(), 2);
    assert_eq!(put(&dev, "catalog/deregister", r#"{"Node":"x"}"#).body, "true");
    check(&dev, "GET catalog/node/x", "", 200, "null");
    // This node changes its address, and keeps the check that it is there.
    let moved = json!({ "Node": own, "Address": "10.0.0.77", "NodeMeta": { "a": "b" } });
    assert_eq!(put(&dev, "catalog/register", &moved.to_string()).body, "true");
    let nodes = get(&dev, "catalog/nodes").json();
    assert_eq!((&nodes[0]["Address"], &nodes[0]["Meta"]), (&json!("10.0.0.77"), &json!({})));
    assert_eq!(get(&dev, &format!("health/node/{own}")).json()[0]["CheckID"], "serfHealth");
    assert_eq!(get(&dev, "agent/members").json()[0]["Addr"], "10.0.0.77");
}

#[test]
fn a_node_its_service_and_checks_are_registered_together_or_not_at_all() {
    let dev = Gateway::start_dev("consul-together", CONFIG);
    let whole = |name: &str, checks: Value| {
        json!({
            "Node": name, "Address": "10.9.9.9",
            "Service": { "Service": "ext", "Port": 1 }, "Checks": checks,
        })
    };
    let at = |list: &str| get(&dev, list).index();
    let many: Vec<Value> = (0..17).map(|n| json!({ "CheckID": format!("c{n}") })).collect();
    let many_of_it: Vec<Value> =
        (0..17).map(|n| json!({ "CheckID": format!("c{n}"), "ServiceID": "ext" })).collect();
    for checks in [
        Value::Array(many),
        json!([{ "CheckID": "up" }, { "CheckID": "a", "ServiceID": "nobody" }]),
        json!([{ "CheckID": "up", "Status": "fine" }]),
        Value::Array(many_of_it),
    ] {
        let refused = put(&dev, "catalog/register", &whole("x", checks).to_string());
        assert!(400 <= refused.status, "{}", refused.body);
        check(&dev, "GET catalog/node/x", "", 200, "null");
        check(&dev, "GET catalog/service/ext", "", 200, "[]");
    }
    let one = whole("x", json!([{ "CheckID": "up", "Status": "passing" }]));
    assert_eq!(put(&dev, "catalog/register", &one.to_string()).body, "true");
    assert_eq!(at("catalog/nodes"), at("catalog/service/ext"), "in one revision");
    // A second service of the node, and news of the first one's check, in one revision too.
    let second = json!({
        "Node": "x", "SkipNodeUpdate": true, "Service": { "Service": "other" },
        "Checks": [{ "CheckID": "e", "ServiceID": "ext", "Status": "warning" }],
    });
    assert_eq!(put(&dev, "catalog/register", &second.to_string()).body, "true");
    assert_eq!(at("catalog/service/other"), at("health/checks/ext"));
    // Under another name it is another service, and the one before is gone with it.
    let mut renamed = second;
    renamed["Service"] = json!({ "ID": "ext", "Service": "renamed" });
    renamed["Checks"] = json!([]);
    assert_eq!(put(&dev, "catalog/register", &renamed.to_string()).body, "true");
    check(&dev, "GET catalog/service/ext", "", 200, "[]");
    assert_eq!(at("catalog/service/ext"), at("catalog/service/renamed"));
}

#[test]
fn expressions_say_which_elements_are_wanted() {
    let dev = Gateway::start_dev("consul-filter", CONFIG);
    for (name, tag) in [("a", "v1"), ("b", "v2")] {
        let service = json!({ "Name": name, "Tags": [tag], "Meta": { "tier": name } });
        done(&dev, "agent/service/register", &service);
    }
    let keys = |path: &str| members(&get(&dev, path).body);
    assert_eq!(keys("agent/services?filter=Meta.tier%3D%3Da"), ["a"]);
    assert_eq!(keys("agent/services?filter=%22v2%22+in+Tags"), ["b"]);
    assert_eq!(keys("catalog/services?filter=v1+in+ServiceTags"), ["a"]);
    let passing = "health/service/a?filter=Node.Meta+is+empty+and+Service.Port+%3D%3D+0";
    assert_eq!(get(&dev, passing).json().as_array().unwrap().len(), 1);
    check(&dev, "GET health/service/a?filter=Service.Port+%3D%3D+1", "", 200, "[]");
    check(
        &dev,
        "GET catalog/nodes?filter=Nope+%3D%3D+1",
        "",
        400,
        r#"Failed to create boolean expression evaluator: Selector "Nope" is not valid"#,
    );
}

#[test]
fn a_session_ends_with_its_checks() {
    let dev = Gateway::start_dev("consul-dependence", CONFIG);
    done(&dev, "agent/service/register", &json!({ "Name": "web", "Check": { "TTL": "10m" } }));
    let body = json!({ "ServiceChecks": [{ "ID": "service:web" }], "LockDelay": "0s" }).to_string();
    check(&dev, "PUT session/create", &body, 500, "Check 'service:web' is in critical state");
    let missing = json!({ "NodeChecks": ["serfHealth", "none"] }).to_string();
    check(&dev, "PUT session/create", &missing, 500, "Missing check 'none' registration");
    done(&dev, "agent/check/pass/service:web", &Value::Null);
    let id = put(&dev, "session/create", &body).json()["ID"].as_str().unwrap().to_owned();
    check(&dev, &format!("PUT kv/l?acquire={id}"), "v", 200, "true");
    done(&dev, "agent/check/warn/service:web", &Value::Null);
    assert_eq!(get(&dev, "kv/l").json()[0]["Session"], json!(id));
    done(&dev, "agent/check/fail/service:web", &Value::Null);
    until("the session ends", PATIENCE, || get(&dev, "kv/l").json()[0].get("Session").is_none());
    check(&dev, &format!("GET session/info/{id}"), "", 200, "[]");
    done(&dev, "agent/maintenance?enable=true&reason=moving", &Value::Null);
    let checks = get(&dev, "agent/checks").json();
    assert_eq!(checks["_node_maintenance"]["Notes"], "moving");
    check(&dev, "PUT agent/maintenance", "", 400, "Missing value for enable");
    done(&dev, "agent/maintenance?enable=false", &Value::Null);
    assert_eq!(get(&dev, "agent/checks").json().get("_node_maintenance"), None);
}

#[test]
fn a_proxy_goes_with_its_service_and_checks_stay_unless_replaced() {
    let dev = Gateway::start_dev("consul-sidecar", CONFIG);
    let web = json!({
        "Name": "web", "Port": 8080, "Connect": { "SidecarService": {} },
        "Checks": [{ "CheckID": "a", "TTL": "10m" }, { "CheckID": "b", "TTL": "10m" }],
    });
    done(&dev, "agent/service/register", &web);
    let proxy = get(&dev, "agent/service/web-sidecar-proxy").json();
    assert_eq!((&proxy["Kind"], &proxy["Port"]), (&json!("connect-proxy"), &json!(21_000)));
    assert_eq!(proxy["Proxy"]["DestinationServiceID"], "web");
    done(&dev, "agent/check/pass/a", &Value::Null);
    let less = json!({ "Name": "web", "Check": { "CheckID": "a", "TTL": "10m" } });
    done(&dev, "agent/service/register", &less);
    let names = || members(&get(&dev, "agent/checks").body);
    assert_eq!(names(), ["a", "b"]);
    assert_eq!(get(&dev, "agent/checks").json()["a"]["Status"], "passing");
    done(&dev, "agent/service/register?replace-existing-checks", &less);
    assert_eq!(names(), ["a"]);
    done(&dev, "agent/service/deregister/web", &Value::Null);
    check(&dev, "GET agent/services", "", 200, "{}");
}

#[test]
fn the_agent_says_what_it_is() {
    let dev = Gateway::start_dev("consul-agent", CONFIG);
    assert_eq!(
        members(&get(&dev, "agent/self").body),
        ["Config", "Coord", "DebugConfig", "Member", "Meta", "Stats", "xDS"]
    );
    assert_eq!(get(&dev, "agent/version").json()["HumanVersion"], "1.22.0");
    assert_eq!(get(&dev, "agent/host").json()["Errors"], Value::Null);
    let metrics = get(&dev, "agent/metrics").json();
    assert!(!metrics["Gauges"].as_array().unwrap().is_empty());
    assert!(get(&dev, "agent/metrics?format=prometheus").body.ends_with("# EOF\n"));
    assert_eq!(put(&dev, "agent/reload", "").status, 200);
    assert_eq!(put(&dev, "agent/leave", "").status, 403);
    check(&dev, "GET agent/monitor?loglevel=loud", "", 400, "Unknown log level: loud");
    let wan = get(&dev, "agent/members?wan").json();
    assert_eq!(wan[0]["Name"], format!("{}.dc1", node(&dev)));
    let own = get(&dev, "agent/self").json()["Member"].clone();
    assert_eq!(get(&dev, "agent/members").json(), json!([own]));
}

#[test]
fn events_are_heard_by_whoever_waits() {
    let dev = Gateway::start_dev("consul-events", CONFIG);
    check(&dev, "GET event/list", "", 200, "[]");
    let fired = put(&dev, "event/fire/deploy?service=web&tag=v1", "hi").json();
    let id = fired["ID"].as_str().unwrap();
    check(
        &dev,
        "GET event/list?name=deploy",
        "",
        200,
        &format!(
            r#"[{{"ID":"{id}","Name":"deploy","Payload":"aGk=","NodeFilter":"","ServiceFilter":"web","TagFilter":"v1","Version":1,"LTime":1}}]"#
        ),
    );
    check(&dev, "GET event/list?name=other", "", 200, "[]");
    let index = get(&dev, "event/list").index();
    let control = dev.control;
    let path = format!("event/list?index={index}&wait=60s");
    let waits = std::thread::spawn(move || ask(control, "GET", &path, "", b""));
    let second = put(&dev, "event/fire/again", "").json();
    assert_eq!(second["Payload"], Value::Null);
    assert_eq!(waits.join().unwrap().json()[1]["ID"], second["ID"]);
    assert_eq!(put(&dev, "event/fire/big", &"x".repeat(513)).status, 413);
}
