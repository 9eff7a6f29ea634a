"""Writes `otlp.binpb` and `otlp.json` beside itself: the same spans, in both encodings of OpenTelemetry's own SDK.

    pip install opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-common==1.45.2 \
        opentelemetry-exporter-otlp-json-common==0.66b1
    python otlp.py
"""

import itertools
import json
from pathlib import Path

from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans as as_json
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as as_proto
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

START = 1_772_442_000_000_000_000  # 2026-03-02T09:00:00Z


class Counted(IdGenerator):
    """The same ids on every run."""

    def __init__(self):
        self.spans, self.traces = itertools.count(0x00F067AA0BA902B7), itertools.count(0x4BF92F3577B34DA6A3CE929D0E0E4736)

    def generate_span_id(self):
        return next(self.spans)

    def generate_trace_id(self):
        return next(self.traces)


exporter, ids = InMemorySpanExporter(), Counted()
seconds = itertools.count()


def tracer(service, scope):
    provider = TracerProvider(
        resource=Resource({"service.name": service, "deployment.environment.name": "staging"}),
        id_generator=ids,
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer(scope, "1.2.3")


def span(tracer, name, attributes, parent=None, kind=SpanKind.INTERNAL, status=None, events=()):
    start = START + next(seconds) * 1_000_000_000
    context = set_span_in_context(parent) if parent else None
    made = tracer.start_span(name, context=context, kind=kind, attributes=attributes, start_time=start)
    for event, fields in events:
        made.add_event(event, fields, timestamp=start + 1_000_000)
    if status:
        made.set_status(status)
    made.end(end_time=start + 250_000_000)
    return made


# A framework by the conventions of 1.36: provider as `gen_ai.system`, no arguments on the span.
old = tracer("ops-agents", "example.framework.old")
root = span(
    old,
    "invoke_agent deploy-bot",
    {"gen_ai.operation.name": "invoke_agent", "gen_ai.system": "openai", "gen_ai.agent.name": "deploy-bot"},
)
span(
    old,
    "chat gpt-4o",
    {"gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.usage.input_tokens": 97},
    parent=root,
    kind=SpanKind.CLIENT,
    events=[("gen_ai.user.message", {"content": "scale the ledger"})],
)
span(
    old,
    "execute_tool get_deployment",
    {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.system": "openai",
        "gen_ai.tool.name": "get_deployment",
        "gen_ai.tool.call.id": "call_mszuSIzqtI65i1wAUOE8w5H4",
        "gen_ai.tool.type": "function",
    },
    parent=root,
)

# The later conventions: agent, conversation and arguments (structured, and as text) stand on the span.
new = tracer("ops-agents", "example.framework.new")
common = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.agent.id": "deploy-bot",
    "gen_ai.agent.name": "Deploy Bot",
    "gen_ai.conversation.id": "conv_5j66UpCpwteGg4YSxUnt7lPY",
}
span(
    new,
    "execute_tool scale_deployment",
    common
    | {
        "gen_ai.tool.name": "scale_deployment",
        "gen_ai.tool.call.id": "toolu_01",
        "gen_ai.tool.call.arguments": {"deployment": "ledger", "replicas": 3, "wait": True, "labels": ["a", "b"]},
        "enduser.id": "dana@example.com",
    },
)
span(
    new,
    "execute_tool bash",
    common
    | {
        "gen_ai.tool.name": "bash",
        "gen_ai.tool.call.arguments": json.dumps({"command": "kubectl get pods -n ledger"}),
        "error.type": "PermissionError",
        "k8s.cluster.name": "prod-1",
        "k8s.namespace.name": "ledger",
    },
    status=Status(StatusCode.ERROR, "exit status 1"),
)

# MCP: the client's span is the call; the server's own span of it does not say whose it was.
call = {
    "mcp.method.name": "tools/call",
    "mcp.session.id": "191c4850af6c49e08843a3f6c80e5046",
    "mcp.protocol.version": "2025-06-18",
    "jsonrpc.request.id": "7",
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "create_issue",
}
client = span(
    new,
    "tools/call create_issue",
    call
    | {
        "gen_ai.agent.name": "triage-bot",
        "server.address": "mcp.example.com",
        "server.port": 443,
        "gen_ai.tool.call.arguments": {"title": "Grüße"},
        "error.type": "tool_error",
    },
    kind=SpanKind.CLIENT,
    status=Status(StatusCode.ERROR),
)
span(new, "initialize", {"mcp.method.name": "initialize"}, kind=SpanKind.CLIENT)
server = tracer("issues-mcp", "example.mcp.server")
span(server, "tools/call create_issue", call, parent=client, kind=SpanKind.SERVER)

spans = exporter.get_finished_spans()
here = Path(__file__).parent
here.joinpath("otlp.binpb").write_bytes(as_proto(spans).SerializeToString())
here.joinpath("otlp.json").write_text(as_json(spans).to_json() + "\n")
