"""The OpenAPI 3.1 document, made of the table that the routes are made of.

In: `Operation`s. Out: one JSON value. What it says of queries, bodies and answers are the schemas
of the very types that read and write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from jetcamer.hub.api.table import Media, Operation

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")

_SECURITY = {
    "apiToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token, jc_…; the roles are viewer, operator and admin, and each "
        "may do what those before it may.",
    },
    "joinToken": {"type": "http", "scheme": "bearer", "description": "A join token, jcj_…."},
}


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    operations = [*operations]
    kinds = {operation.body for operation in operations if operation.body is not None}
    queries = {operation.query for operation in operations if operation.query is not None}
    for operation in operations:
        kinds.update(kind for kind in operation.statuses().values() if not isinstance(kind, Media))
    in_order = sorted(kinds | queries, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(in_order, ref_template=_REF)
    parameters = {kind.__name__: components.pop(kind.__name__) for kind in queries}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation,
            {"properties": {}} if operation.query is None else parameters[operation.query.__name__],
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "JetCamer hub",
            "version": version,
            "description": "Times are Unix milliseconds. Errors are objects with the one member "
            "`error`, a line for a person.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _operation(operation: Operation, query: Mapping[str, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_")
    found: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": _security(operation),
        "parameters": [*_path_parameters(operation), *_query_parameters(query)]
        + [
            {"name": header, "in": "header", "required": False, "schema": {"type": "string"}}
            for header in operation.headers
        ],
        "responses": {
            str(status): _response(status, kind) for status, kind in operation.statuses().items()
        },
    }
    if operation.body is not None:
        found["requestBody"] = {
            "required": any(f.required for f in msgspec.structs.fields(operation.body)),
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    return found


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.join:
        return [{"joinToken": []}]
    return [] if operation.role is None else [{"apiToken": [operation.role]}]


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(query: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = query.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _not_null(schema)}
        for name, schema in query["properties"].items()
    ]


def _not_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query has no way to say null: what may be None may be left out."""
    found = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    kinds = [kind for kind in found.pop("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        found.update(kinds[0])
    elif kinds:
        found["anyOf"] = kinds
    return found


def _response(status: int, kind: type[msgspec.Struct] | Media) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(kind, Media):
        value = "object" if kind.content_type == "application/json" else "string"
        found["content"] = {kind.content_type: {"schema": {"type": value}}}
    else:
        found["content"] = {"application/json": {"schema": _reference(kind)}}
    if status == 429:
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return found


def _reference(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
