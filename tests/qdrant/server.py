"""Qdrant's own engine behind the part of Qdrant's REST API that Nearhop uses, for tests.

    .venv/bin/python tests/qdrant/server.py FOLDER [--port N] [--api-key KEY] [--tls CERT KEY] [--index-above KB]

Prints its port. The engine is `qdrant-edge-py`: the segments, payload indexes, filters, quantisation and
write-ahead log of the server, embedded; what this file adds is HTTP. A field that Qdrant's API does not
have is refused, as the server refuses it. It ends when its standard input does, so that no test that was
killed leaves one behind.

Beside the API, for tests: `POST /_fault` has everything under /collections go wrong from then on, until
`POST /_fault {}`. `GET /_seen` tells how many connections and requests there were. `POST /_optimize` runs
the engine's optimizers to their end and tells how many vectors are indexed: the server does so when it
likes, for segments of twenty megabytes and more, which `--index-above` lowers.

    {"delay_ms": 50}      each answer is late             {"hang": true}   none comes
    {"status": 500}       each answer has this status     {"close": true}  the connection ends instead
    {"garbage": true}     no HTTP at all                  {"junk": true}   a 200 that is no JSON
    {"unfiltered": true}  look-ups forget their filter    {"huge": true}   more bytes than anybody wants
    {"times": 1}          beside one of these: only for so many requests
"""

import argparse
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import qdrant_edge as edge

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
DISTANCES = {"Cosine": edge.Distance.Cosine, "Dot": edge.Distance.Dot}


class Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def fields(what: str, value: object, *known: str) -> dict:
    """The object, if it has no other fields than these."""
    if not isinstance(value, dict):
        raise Refused(400, f"Format error in JSON body: {what} is no object")
    for name in value:
        if name not in known:
            raise Refused(400, f"Format error in JSON body: unknown field `{name}` in {what}")
    return value


def condition_of(value: object) -> edge.FieldCondition:
    value = fields("condition", value, "key", "match", "range")
    match, span = value.get("match"), value.get("range")
    if (match is None) == (span is None):
        raise Refused(400, "Format error in JSON body: a condition matches or has a range")
    if match is not None:
        match = edge.MatchValue(fields("match", match, "value")["value"])
    if span is not None:
        span = edge.RangeFloat(**fields("range", span, "gte", "gt", "lte", "lt"))
    return edge.FieldCondition(value["key"], match=match, range=span)


def filter_of(value: object) -> edge.Filter:
    value = fields("filter", value, "must", "should", "must_not")
    return edge.Filter(**{name: [condition_of(one) for one in some] for name, some in value.items()})


def quantization_of(value: dict | None) -> object:
    if value is None:
        return None
    value = fields("quantization_config", value, "scalar", "binary")
    if "scalar" in value:
        scalar = fields("scalar", value["scalar"], "type", "quantile", "always_ram")
        if scalar["type"] != "int8":
            raise Refused(400, "Format error in JSON body: unknown type of quantization")
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, scalar.get("quantile"), scalar.get("always_ram"))
    binary = fields("binary", value["binary"], "always_ram")
    return edge.BinaryQuantizationConfig(binary.get("always_ram"))


def schema_of(value: object) -> object:
    if not isinstance(value, dict):
        raise Refused(400, "Format error in JSON body: a field schema that this test does not know")
    value = dict(value)
    kind = value.pop("type", None)
    if kind == "keyword":
        return edge.KeywordIndexParams(**fields("keyword", value, "is_tenant", "on_disk", "enable_hnsw"))
    if kind == "integer":
        return edge.IntegerIndexParams(**fields("integer", value, "lookup", "range", "on_disk", "enable_hnsw"))
    raise Refused(400, f"Format error in JSON body: unknown type {kind}")


class Collection:
    """One shard of the engine in its folder, beside the words with which it was made."""

    def __init__(self, folder: Path, index_above: int) -> None:
        self.folder, self.index_above = folder, index_above
        self.write = threading.Lock()
        self.operation = 0
        self.create = json.loads((folder / "create.json").read_text())
        shard = str(folder / "shard")
        if (folder / "shard").exists():
            self.shard = edge.EdgeShard.load(shard)
        else:
            self.shard = edge.EdgeShard.create(shard, self.config())

    @classmethod
    def make(cls, folder: Path, index_above: int, create: dict) -> "Collection":
        known = ("vectors", "on_disk_payload", "quantization_config", "hnsw_config", "replication_factor",
                 "write_consistency_factor", "shard_number")
        fields("collection", create, *known)
        fields("vectors", create["vectors"], "size", "distance", "on_disk")
        fields("hnsw_config", create.get("hnsw_config", {}), "m", "payload_m", "ef_construct")
        quantization_of(create.get("quantization_config"))
        folder.mkdir()
        (folder / "create.json").write_text(json.dumps(create))
        return cls(folder, index_above)

    def config(self) -> edge.EdgeConfig:
        vectors, hnsw = self.create["vectors"], self.create.get("hnsw_config", {})
        return edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(vectors["size"], DISTANCES[vectors["distance"]], on_disk=vectors.get("on_disk")),
            on_disk_payload=self.create.get("on_disk_payload"),
            hnsw_config=edge.HnswIndexConfig(hnsw.get("m", 16), hnsw.get("ef_construct", 100), min(10_000, self.index_above), payload_m=hnsw.get("payload_m")),
            quantization_config=quantization_of(self.create.get("quantization_config")),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=self.index_above),
        )

    def optimize(self) -> int:
        with self.write:
            self.shard.optimize()
        return self.shard.info().indexed_vectors_count

    def info(self) -> dict:
        info = self.shard.info()
        params = {"vectors": self.create["vectors"], "on_disk_payload": True,
                  "shard_number": self.create.get("shard_number", 1),
                  "replication_factor": self.create.get("replication_factor", 1),
                  "write_consistency_factor": self.create.get("write_consistency_factor", 1)}
        return {"status": "green", "optimizer_status": "ok", "points_count": info.points_count,
                "segments_count": info.segments_count, "config": {"params": params},
                "payload_schema": {name: {"data_type": "keyword", "points": 0} for name in info.payload_schema}}

    def update(self, operation: edge.UpdateOperation) -> dict:
        with self.write:
            self.shard.update(operation)
            self.operation += 1
            return {"operation_id": self.operation, "status": "completed"}

    def index(self, body: object) -> dict:
        body = fields("index", body, "field_name", "field_schema")
        return self.update(edge.UpdateOperation.create_field_index(body["field_name"], schema_of(body["field_schema"])))

    def upsert(self, body: object) -> dict:
        points = []
        for point in fields("points", body, "points")["points"]:
            point = fields("point", point, "id", "vector", "payload")
            points.append(edge.Point(point["id"], point["vector"], point.get("payload")))
        return self.update(edge.UpdateOperation.upsert_points(points))

    def delete(self, body: object) -> dict:
        return self.update(edge.UpdateOperation.delete_points_by_filter(filter_of(fields("delete", body, "filter")["filter"])))

    def count(self, body: object) -> dict:
        body = fields("count", body, "filter", "exact")
        chosen = filter_of(body["filter"]) if "filter" in body else None
        return {"count": self.shard.count(edge.CountRequest(True, chosen))}

    def query(self, body: object, unfiltered: bool) -> dict:
        body = fields("query", body, "query", "filter", "score_threshold", "limit", "with_payload", "params")
        params = fields("params", body.get("params", {}), "quantization", "hnsw_ef", "exact")
        quantization = fields("quantization", params.get("quantization", {}), "rescore", "oversampling", "ignore")
        found = self.shard.query(edge.QueryRequest(
            limit=body.get("limit", 10),
            query=edge.Query.Nearest(body["query"]),
            filter=None if unfiltered else filter_of(body["filter"]) if "filter" in body else None,
            score_threshold=body.get("score_threshold"),
            with_payload=body.get("with_payload", False),
            params=edge.SearchParams(hnsw_ef=params.get("hnsw_ef"), exact=params.get("exact", False),
                                     quantization=edge.QuantizationSearchParams(**quantization)),
        ))
        points = [{"id": one.id if isinstance(one.id, int) else str(one.id), "version": one.version,
                   "score": one.score, "payload": one.payload} for one in found]
        return {"points": points}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", given.port), Handler)
        self.folder, self.key, self.index_above = given.folder, given.api_key, given.index_above
        self.lock = threading.Lock()
        self.fault: dict = {}
        self.mended = threading.Event()
        self.seen = {"connections": 0, "requests": 0}
        self.collections = {
            place.name: Collection(place, self.index_above) for place in self.folder.iterdir() if place.is_dir()
        }
        self.tls = None
        if given.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*given.tls)

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            # The handshake belongs to the connection's own thread: one that is slow stops nobody.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.lock:
            self.seen["connections"] += 1
        return connection, address

    def handle_error(self, request, client_address) -> None:
        """Connections end as they like: that is what some tests are for."""

    def set_fault(self, fault: object) -> None:
        with self.lock:
            self.mended.set()
            self.mended = threading.Event()
            self.fault = fields("fault", fault, "delay_ms", "status", "garbage", "junk", "hang", "close",
                                "unfiltered", "huge", "times")

    def take_fault(self) -> tuple[dict, threading.Event]:
        with self.lock:
            fault, mended = dict(self.fault), self.mended
            if "times" in fault:
                self.fault["times"] -= 1
                if self.fault["times"] <= 0:
                    self.fault = {}
            return fault, mended

    def find(self, name: str) -> Collection:
        with self.lock:
            if name not in self.collections:
                raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
            return self.collections[name]

    def create(self, name: str, body: object) -> bool:
        with self.lock:
            if name in self.collections:
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            self.collections[name] = Collection.make(self.folder / name, self.index_above, body)
            return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_call()

    do_POST = do_PUT = do_DELETE = do_GET

    def handle_call(self) -> None:
        began = time.monotonic()
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        if url.path == "/_fault":
            self.server.set_fault(json.loads(body))
            return self.answer(200, {})
        if url.path == "/_seen":
            return self.answer(200, self.server.seen)
        if url.path == "/_optimize":
            return self.answer(200, {"indexed": sum(one.optimize() for one in self.server.collections.values())})
        with self.server.lock:
            self.server.seen["requests"] += 1
        fault, mended = self.server.take_fault()
        if fault.get("hang"):
            mended.wait()
            self.close_connection = True
            return None
        if fault.get("close"):
            self.close_connection = True
            return None
        if fault.get("garbage"):
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
            return None
        time.sleep(fault.get("delay_ms", 0) / 1000)
        if fault.get("junk"):
            return self.raw(200, b"<html>a page of somebody else</html>")
        if fault.get("huge"):
            return self.raw(200, b'{"result":"' + b"a" * (2 << 20) + b'"}')
        if "status" in fault:
            return self.answer(fault["status"], {"status": {"error": "Service internal error: as told"}, "time": 0.0})
        if self.server.key is not None and self.headers.get("api-key") != self.server.key:
            return self.raw(401, b"Must provide an API key or an Authorization bearer token")
        try:
            result = self.route(url, body, fault)
        except Refused as refused:
            why = {"status": {"error": str(refused)}, "time": time.monotonic() - began}
            return self.answer(refused.status, why)
        except (KeyError, TypeError, ValueError) as error:
            return self.answer(400, {"status": {"error": f"Format error in JSON body: {error}"}, "time": 0.0})
        except Exception as error:  # the engine's own
            return self.answer(400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0})
        return self.answer(200, {"result": result, "status": "ok", "time": time.monotonic() - began})

    def route(self, url, body: bytes, fault: dict) -> object:
        parts = url.path.strip("/").split("/")
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        fields("query string", query, "wait", "timeout", "ordering", "consistency")
        if len(parts) < 2 or parts[0] != "collections" or not NAME.fullmatch(parts[1]):
            raise Refused(404, "Not found")
        name, rest = parts[1], "/".join(parts[2:])
        given = json.loads(body) if body else {}
        match self.command, rest:
            case "GET", "":
                return self.server.find(name).info()
            case "PUT", "":
                return self.server.create(name, given)
            case "PUT", "index":
                return self.server.find(name).index(given)
            case "PUT", "points":
                return self.server.find(name).upsert(given)
            case "POST", "points/query":
                return self.server.find(name).query(given, fault.get("unfiltered", False))
            case "POST", "points/delete":
                return self.server.find(name).delete(given)
            case "POST", "points/count":
                return self.server.find(name).count(given)
        raise Refused(404, "Not found")

    def answer(self, status: int, value: object) -> None:
        self.raw(status, json.dumps(value).encode(), "application/json")

    def raw(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--index-above", type=int, default=20_000, metavar="KB")
    server = Server(parser.parse_args())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    # No flush: what the write-ahead log does not bring back was never written.
    os._exit(0)


main()
