"""Configurations of the peers, each as its experts would write it.

Every peer has a bare form (forward, keep connections, nothing else) and a full one (limits, health,
retries, circuit breaking where it has any, who asked in `X-Forwarded-*`, a request id; what only we
and Envoy send, `traceparent`, the two others are not asked for). All run one worker, log nothing
per request, and keep upstream connections open.
"""

import json
import pathlib

WORKERS = 1


def backend(directory: pathlib.Path, port: int, port_h2: int) -> list[str]:
    """nginx that answers 1 KiB and 64 KiB from memory, over HTTP/1.1 and over HTTP/2 in the clear."""
    conf = directory / "backend.conf"
    files = directory / "www"
    files.mkdir(exist_ok=True)
    for size in (1024, 65536):
        (files / str(size)).write_bytes(b"x" * size)
    conf.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {directory}/backend.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on;
  http2_max_concurrent_streams 1024;
  open_file_cache max=16 inactive=600s; open_file_cache_valid 600s;
  {temp_paths(directory)}
  server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; default_type text/plain; }}
  server {{ listen 127.0.0.1:{port_h2} http2 backlog=4096; root {files}; default_type text/plain; }}
}}
""")
    return ["nginx", "-c", str(conf), "-p", str(directory)]


def temp_paths(directory: pathlib.Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{k}_temp_path {directory}/tmp-{k};" for k in kinds)


def nginx(directory: pathlib.Path, ports: dict, upstreams: list[int], cert: dict, full: bool) -> list[str]:
    name = "nginx-full" if full else "nginx-bare"
    conf = directory / f"{name}.conf"
    limits = """
  limit_req_zone $server_name zone=rate:1m rate=1000000r/s;
  limit_conn_zone $server_name zone=conn:1m;""" if full else ""
    use = """
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Request-Id $request_id;
      limit_req zone=rate burst=100000 nodelay; limit_conn conn 10000;
      proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3;
      proxy_connect_timeout 1s; proxy_read_timeout 15s;""" if full else ""
    check = " max_fails=5 fail_timeout=10s" if full else " max_fails=0"
    servers = "\n    ".join(f"server 127.0.0.1:{p}{check};" for p in upstreams)
    least = "least_conn;" if full else ""
    conf.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {directory}/{name}.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  {temp_paths(directory)}{limits}
  upstream service {{
    {least}
    {servers}
    keepalive 256; keepalive_requests 100000000; keepalive_timeout 600s;
  }}
  server {{
    listen 127.0.0.1:{ports['http']} backlog=4096;
    listen 127.0.0.1:{ports['h2c']} http2 backlog=4096;
    listen 127.0.0.1:{ports['tls']} ssl http2 backlog=4096;
    server_name bench;
    ssl_certificate {cert['cert']}; ssl_certificate_key {cert['key']};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m; http2_max_requests 100000000;
    location / {{
      proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffers 8 32k; proxy_buffer_size 8k;{use}
    }}
  }}
}}
""".replace(" http2_max_requests 100000000;", ""))
    return ["nginx", "-c", str(conf), "-p", str(directory)]


def haproxy(directory: pathlib.Path, ports: dict, upstreams: list[int], cert: dict, full: bool,
            upstream_h2: bool = False) -> list[str]:
    name = "haproxy-full" if full else "haproxy-bare"
    conf = directory / f"{name}{'-h2' if upstream_h2 else ''}.cfg"
    proto = " proto h2" if upstream_h2 else ""
    front = """
  maxconn 10000
  http-request deny deny_status 429 if { fe_req_rate gt 1000000 }
  unique-id-format %{+X}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]""" if full else ""
    back = """
  option redispatch 1
  retries 2
  retry-on conn-failure empty-response response-timeout 502 503 504
  balance leastconn
  option httpchk
  http-check send meth GET uri /1024 ver HTTP/1.1 hdr host bench
  default-server check inter 2s observe layer7 error-limit 50 on-error mark-down maxconn 2000""" if full else "\n  balance roundrobin"
    servers = "\n  ".join(f"server s{i} 127.0.0.1:{p}{proto}" for i, p in enumerate(upstreams))
    conf.write_text(f"""
global
  nbthread 1
  maxconn 8000
  tune.bufsize 16384
defaults
  mode http
  timeout connect 1s
  timeout client 600s
  timeout server 15s
  timeout http-keep-alive 600s
  option http-keep-alive
  http-reuse always
  option forwardfor
frontend in
  bind 127.0.0.1:{ports['http']} backlog 4096
  bind 127.0.0.1:{ports['h2c']} proto h2 backlog 4096
  bind 127.0.0.1:{ports['tls']} ssl crt {cert['pem']} alpn h2,http/1.1 backlog 4096{front}
  default_backend out
backend out{back}
  {servers}
""")
    return ["haproxy", "-f", str(conf), "-db"]


def envoy(directory: pathlib.Path, ports: dict, upstreams: list[int], cert: dict, full: bool, binary: str,
          upstream_h2: bool = False) -> list[str]:
    name = "envoy-full" if full else "envoy-bare"
    conf = directory / f"{name}{'-h2' if upstream_h2 else ''}.json"

    def listener(kind: str) -> dict:
        router = {"name": "envoy.filters.http.router",
                  "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
        filters = [router]
        if full:
            filters.insert(0, {"name": "envoy.filters.http.local_ratelimit", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "rate",
                "token_bucket": {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"},
                "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
                "filter_enforced": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}}})
        route = {"cluster": "service", "timeout": "15s"}
        if full:
            route["retry_policy"] = {"retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
                                     "retriable_status_codes": [502, 503, 504], "num_retries": 2}
        manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                   "stat_prefix": kind, "codec_type": "HTTP2" if kind == "h2c" else "AUTO",
                   "http_filters": filters, "use_remote_address": True,
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                                                       "routes": [{"match": {"prefix": "/"}, "route": route}]}]}}
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        if kind == "tls":
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [
                    {"certificate_chain": {"filename": cert["cert"]}, "private_key": {"filename": cert["key"]}}]}}}
        return {"name": kind, "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports[kind]}},
                "filter_chains": [chain]}

    cluster = {"name": "service", "type": "STATIC", "connect_timeout": "1s",
               "lb_policy": "LEAST_REQUEST" if full else "ROUND_ROBIN",
               "load_assignment": {"cluster_name": "service", "endpoints": [{"lb_endpoints": [
                   {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": p}}}}
                   for p in upstreams]}]}}
    if full:
        cluster["circuit_breakers"] = {"thresholds": [{"max_connections": 10000, "max_pending_requests": 10000,
                                                       "max_requests": 10000, "retry_budget": {}}]}
        cluster["outlier_detection"] = {"consecutive_5xx": 5}
    if upstream_h2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}}
    conf.write_text(json.dumps({
        "static_resources": {"listeners": [listener(k) for k in ("http", "h2c", "tls")], "clusters": [cluster]}}))
    return [binary, "-c", str(conf), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]


def mainstay(directory: pathlib.Path, ports: dict, upstreams: list[int], cert: dict, full: bool, binary: str,
             upstream_h2: bool = False) -> list[str]:
    name = "mainstay-full" if full else "mainstay-bare"
    conf = directory / f"{name}{'-h2' if upstream_h2 else ''}.toml"
    instances = ", ".join(f'"127.0.0.1:{p}"' for p in upstreams)
    protocol = 'protocol = "http2"' if upstream_h2 else ""
    policies = f"""
[route.all]
prefix = "/"
to = "service"
limits = ["all"]
fallback = "plain"
[upstream.service]
instances = [{instances}]
{protocol}
retry = {{ attempts = 3, try_seconds = 5 }}
balance = {{ kind = "peak_ewma" }}
[limit.all]
max = 1000000
[fallback.plain]
steps = [{{ when = ["circuit"], value = {{ status = 503, body = "later" }} }}]
""" if full else f"""
[route.all]
prefix = "/"
to = "service"
[upstream.service]
instances = [{instances}]
{protocol}
circuits = []
retry = {{ attempts = 1 }}
balance = {{ kind = "round_robin" }}
"""
    conf.write_text(f"""
[server]
listen = "127.0.0.1:{ports['control']}"
[system]  # a benchmark saturates the machine on purpose, which is what this would shed for
cpu_percent_max = 0
memory_percent_max = 0
[gateway]
listen = ["127.0.0.1:{ports['http']}"]
tls_listen = ["127.0.0.1:{ports['tls']}"]
workers = {WORKERS}
access_log = {{ format = "off" }}
[gateway.limits]
requests_per_connection_max = 100000000
connection_age_seconds = 3600
[[gateway.certificates]]
certificate_file = "{cert['cert']}"
key_file = "{cert['key']}"
{policies}
""")
    return [binary, "gateway", "--config", str(conf), "--data-dir", str(directory / f"{name}-data")]
