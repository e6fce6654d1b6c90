"""The gateway's rules as a HAProxy configuration, by pure functions.

What HAProxy cannot decide as the Router does, it hands to a Router when there is one, and refuses otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.contracts import DRAINING_HEADER
from serve_app.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    Forbidden,
    PlatformError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnknownRoute,
)
from serve_app.request_ids import REQUEST_ID
from serve_app.rest.errors import STATUS, error_body, error_headers
from serve_app.rest.relayed import RELAYED_PATHS
from serve_app.rollout.table import BUCKETS, ranges
from serve_app.settings import INTERNAL_TOKEN

SERVER_OPTIONS = "check inter 1s fall 2 rise 1"  # a server added at run time takes nothing from the defaults
HEADROOM_BYTES = 64 * 1024  # of a buffer: a body that comes this close may have been cut
RESERVED = 1024  # HAProxy keeps so many bytes of a buffer free for rewriting (tune.maxrewrite)

BUSY = Unavailable("no replica can take the request now", retry_after_s=1)

# Each in the variable of its name, where the body has it; HAProxy reads numbers and texts only, no lists.
BODY_FIELDS = {
    "model": "$.model",
    "user": "$.user",
    "n": "$.n",
    "best_of": "$.best_of",
    "role": "$.messages[0].role",
    "lead": "$.messages[0].content",
}
PLAIN_USER = r'"user"\s*:\s*"[\x20\x21\x23-\x5b\x5d-\x7e]{1,256}"'  # neither escapes nor anything but text
USER = '"user":'
NOT_ASCII = r"[^\x20-\x7e]"


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant, its share in percent, and its replicas by name."""

    name: str
    weight: int
    replicas: Mapping[str, tuple[str, int]]  # name -> (host, port)


@dataclass(frozen=True, slots=True)
class Key:
    """A caller: its tenant and the models it may use, or None for all."""

    tenant: str
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """Everything that the configuration is rendered from."""

    port: int
    folder: Path  # of the maps and the admin socket
    models: Mapping[str, Sequence[Variant]]
    keys: Mapping[str, Key] = field(default_factory=dict)  # by SHA-256 digest in hex
    router: tuple[str, int] | None = None  # who takes what the edge does not
    host: str = "127.0.0.1"
    max_body_bytes: int = 10 * 1024 * 1024
    max_choices: int = 16
    buffer_bytes: int = 1024 * 1024  # longer bodies go to the router
    # `503` and `empty-response` make HAProxy keep two buffers for as long as a stream runs: 2 MiB per stream.
    retry_on: str = "conn-failure"

    @property
    def socket(self) -> Path:
        """The admin socket."""
        return self.folder / "admin.sock"

    def map(self, name: str) -> Path:
        """The file of a map."""
        return self.folder / f"{name}.map"


def quoted(text: object) -> str:
    """Return a text as one word of HAProxy's configuration."""
    for char in ("\\", '"', "$"):
        text = str(text).replace(char, f"\\{char}")
    return f'"{text}"'


def split(weights: Sequence[tuple[str, int]]) -> str:
    """Return a model's variants with the buckets below which each begins to own, as `STOP:VARIANT/STOP:VARIANT`."""
    return "/".join(f"{owned.stop}:{owned.variant}" for owned in ranges(weights))


def maps(edge: Edge) -> dict[str, str]:
    """Return the text of each map."""
    splits = {name: split([(v.name, v.weight) for v in variants]) for name, variants in edge.models.items()}
    tenants = {digest: key.tenant for digest, key in edge.keys.items()}
    grants = {f"{k.tenant}/{m}": "1" for k in edge.keys.values() for m in (("*",) if k.models is None else k.models)}
    return {
        name: "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))
        for name, entries in (("splits", splits), ("tenants", tenants), ("grants", grants))
    }


def render(edge: Edge) -> str:
    """Return HAProxy's configuration; the internal token comes from its environment."""
    lines = [*_process(edge), *_frontend(edge)]
    for name, variants in sorted(edge.models.items()):
        for variant in variants:
            lines += _backend(name, variant)
    if edge.router:
        lines += ["backend router", f"  server router {edge.router[0]}:{edge.router[1]}"]
    return "\n".join(lines) + "\n"


def _process(edge: Edge) -> list[str]:
    failures: dict[int, PlatformError] = {
        400: BadRequest("the request is not valid HTTP"),
        408: DeadlineExceeded("the request did not come in time"),
        500: PlatformError("internal error; quote the request id when you report it"),
        502: PlatformError("internal error; quote the request id when you report it"),
        503: BUSY,
        504: DeadlineExceeded("the answer did not begin in time"),
    }
    return [
        "global",
        "  hard-stop-after 4h",
        f"  tune.bufsize {edge.buffer_bytes}",
        f"  tune.maxrewrite {RESERVED}",
        f"  tune.memory.hot-size {16 * edge.buffer_bytes}",  # or every buffer is allocated anew
        f"  stats socket {quoted(edge.socket)} mode 600 level admin",
        "defaults",
        "  mode http",
        "  option http-no-delay",
        "  option abortonclose",
        "  option splice-auto",
        "  option clitcpka",
        "  option srvtcpka",
        "  option redispatch 1",
        "  http-reuse always",
        "  retries 2",
        f"  retry-on {edge.retry_on}",
        "  timeout connect 5s",
        "  timeout http-request 30s",
        "  timeout http-keep-alive 75s",
        "  timeout queue 10m",
        "  timeout client 1h",
        "  timeout server 1h",
        *(f"  http-error status {status} {_answer(error)}" for status, error in failures.items()),
    ]


def _answer(error: PlatformError, *, form: str = "string") -> str:
    headers = [(name.decode(), value.decode()) for name, value in error_headers(error)]
    extra = "".join(f" hdr {name} {quoted(value)}" for name, value in headers if name != "content-type")
    return f"content-type application/json{extra} {form} {quoted(error_body(error).decode())}"


def _refuse(error: PlatformError, condition: str, *, form: str = "string") -> str:
    return f"  http-request return status {STATUS[error.kind]} {_answer(error, form=form)} if !given_away {condition}"


def _frontend(edge: Edge) -> list[str]:
    return [
        "frontend edge",
        f"  bind {edge.host}:{edge.port}",
        "  acl given_away var(txn.backend) -m found",
        *_request_id(),
        *_path_rules(edge),
        *_caller_rules(edge),
        *_body_rules(edge),
        *_key_rules(edge),
        *_variant_rules(edge),
        "  use_backend %[var(txn.backend)]",
    ]


def _set(name: str, expression: str, condition: str = "") -> str:
    return f"  http-request set-var(txn.{name}) {expression} if !given_away {condition}".rstrip()


def _give_away(edge: Edge, condition: str, error: PlatformError) -> str:
    return _set("backend", "str(router)", condition) if edge.router else _refuse(error, condition)


def _request_id() -> list[str]:
    return [
        "  http-request set-var(txn.id) req.fhdr(x-request-id,1)",
        f"  http-request set-var(txn.id) uuid,regsub(-,,g) unless {{ var(txn.id) -m reg {quoted(f'^{REQUEST_ID.pattern}$')} }}",
        "  http-request set-header x-request-id %[var(txn.id)]",
        "  http-after-response set-header x-request-id %[var(txn.id)]",
    ]


def _path_rules(edge: Edge) -> list[str]:
    unknown = UnknownRoute("unknown request URL")
    relayed = f"{{ path {' '.join(RELAYED_PATHS)} }}"
    return [
        _give_away(edge, "!METH_POST", unknown),
        _give_away(edge, f"!{relayed}", unknown),
    ]


def _caller_rules(edge: Edge) -> list[str]:
    if not edge.keys:
        return [_set("tenant", "str(anonymous)")]
    # A header of another scheme, or none at all, has no token.
    missing = Unauthenticated("no API key; send it as `Authorization: Bearer KEY`")
    digest = f"http_auth_bearer,sha2(256),hex,lower,map_str({edge.map('tenants')})"
    return [
        _refuse(missing, "!{ http_auth_bearer -m len gt 0 }"),
        _set("tenant", digest),
        _refuse(Unauthenticated("this API key is not known here"), "!{ var(txn.tenant) -m found }"),
    ]


def _body_rules(edge: Edge) -> list[str]:
    fits = edge.buffer_bytes - HEADROOM_BYTES
    no_model = BadRequest("model must name what is to answer; GET /v1/models lists it", param="model")
    rules = [
        _refuse(BodyTooLarge(edge.max_body_bytes), f"{{ req.body_size gt {edge.max_body_bytes} }}"),
        f"  http-request wait-for-body time 30s at-least {edge.buffer_bytes} if !given_away",
        _give_away(edge, f"{{ req.body_size gt {fits} }}", BodyTooLarge(fits)),
        *(_set(name, f"req.body,json_query({quoted(path)})") for name, path in BODY_FIELDS.items()),
        _give_away(edge, "!{ var(txn.model) -m len gt 0 }", no_model),
    ]
    for name in ("n", "best_of"):
        error = BadRequest(f"{name} must be at most {edge.max_choices} here", param=name)
        rules.append(_refuse(error, f"{{ var(txn.{name}) -m int gt {edge.max_choices} }}"))
    return rules


def _key_rules(edge: Edge) -> list[str]:
    """Return the rules of serve_app.affinity; where no session or user is given, the digest is HAProxy's own."""
    odd_session = BadRequest("x-session-id must be ASCII here")
    odd_user = BadRequest("user must be a text of 1 to 256 ASCII characters without escapes here", param="user")
    no_session, has_user = "!{ var(txn.session) -m found }", "{ var(txn.user) -m found }"
    return [
        _set("session", "req.fhdr(x-session-id,1),bytes(0,256)", "{ req.fhdr(x-session-id,1) -m len gt 0 }"),
        _give_away(edge, f"{{ var(txn.session) -m reg {quoted(NOT_ASCII)} }}", odd_session),
        _give_away(edge, f"{no_session} {has_user} !{{ req.body -m reg {quoted(PLAIN_USER)} }}", odd_user),
        _give_away(edge, f"{no_session} !{has_user} {{ req.body -m sub {quoted(USER)} }}", odd_user),
        _set("second", f"req.body,json_query({quoted('$.messages[1].content')})", "!{ var(txn.role) -m str user }"),
        _set("lead", "var(txn.lead),concat(,txn.second)", "{ var(txn.second) -m found }"),
        *(
            _set("lead", f"req.body,{converter}", "!{ var(txn.lead) -m found }")
            for converter in (f"json_query({quoted('$.prompt')})", f"json_query({quoted('$.input')})", "bytes(0,1024)")
        ),
        _set("digest", "var(txn.lead),xxh64"),
        _set("prefix", "var(txn.lead),bytes(0,1024)"),
        _set("prefix", "var(txn.session)", "{ var(txn.session) -m found }"),
        _set("key", "var(txn.tenant),concat(/h/,txn.digest)"),
        _set("key", "var(txn.tenant),concat(/u/,txn.user)", has_user),
        _set("key", "var(txn.tenant),concat(/s/,txn.session)", "{ var(txn.session) -m found }"),
        _set("bucket", f"var(txn.key),crc32,mod({BUCKETS})"),
    ]


def _variant_rules(edge: Edge) -> list[str]:
    mark = "MODEL"
    unknown = error_body(UnknownModel(mark)).decode()
    named = quoted(unknown.replace("%", "%%")).replace(mark, "%[var(txn.model),json(utf8s)]")
    unknown_rule = f"  http-request return status 404 content-type application/json lf-string {named} if !given_away"
    rules = [_set("split", f"var(txn.model),map_str({edge.map('splits')})")]
    if edge.router:
        rules.append(_set("backend", "str(router)", "!{ var(txn.split) -m found }"))
    else:
        rules.append(f"{unknown_rule} !{{ var(txn.split) -m found }}")
    if edge.keys:
        rules += _grant_rules(edge)
    for slot in range(1, 1 + max(map(len, edge.models.values()))):
        rules += [
            _set("owned", f"var(txn.split),field({slot},/)"),
            _set("stop", "var(txn.owned),field(1,:)"),
            _set(
                "variant", "var(txn.owned),field(2,:)", "!{ var(txn.variant) -m found } { var(txn.bucket),sub(txn.stop) lt 0 }"
            ),
        ]
    return [*rules, _set("backend", "var(txn.model),concat(.,txn.variant)")]


def _grant_rules(edge: Edge) -> list[str]:
    refused = Forbidden("this API key may not use this model", param="model")
    return [
        _set("grant", f"var(txn.tenant),concat(/*),map_str({edge.map('grants')})"),
        _set("grant", f"var(txn.tenant),concat(/,txn.model),map_str({edge.map('grants')})", "!{ var(txn.grant) -m found }"),
        _refuse(refused, "!{ var(txn.grant) -m found }"),
    ]


def _backend(model: str, variant: Variant) -> list[str]:
    token = f'"Bearer ${{{INTERNAL_TOKEN}}}"'
    return [
        f"backend {model}.{variant.name}",
        "  balance hash var(txn.prefix)",
        "  hash-type consistent",
        "  hash-balance-factor 125",
        "  option httpchk",
        f"  http-check send meth GET uri /health hdr authorization {token}",
        f"  http-request set-header authorization {token}",
        "  http-request del-header cookie",
        f"  http-response return status 503 {_answer(BUSY)} if {{ res.hdr({DRAINING_HEADER}) -m found }}",
        f"  http-response set-header x-manta-model {model}",
        f"  http-response set-header x-manta-variant {variant.name}",
        *(f"  server {name} {host}:{port} {SERVER_OPTIONS}" for name, (host, port) in sorted(variant.replicas.items())),
    ]
