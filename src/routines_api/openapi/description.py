"""The OpenAPI 3.1 description of the API, built from the handlers, the request models and the response structs."""

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, get_args, get_origin

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from routines_api.http.problems import PROBLEM_TYPES, TYPE_PREFIX, Problem, ProblemType
from routines_api.schemas.examples import EXAMPLES

REFERENCE = "#/components/schemas/"
DESCRIPTION = """Routines are saved, recurring invocations of tasks, scheduled in UTC. Each run leaves a trajectory.

Send a key as `Authorization: Bearer rtn_<id>_<secret>`; it opens one collection. Names that do not exist and names in
other collections are answered with the same 404. Errors are problem documents (RFC 9457)."""


FEED_PATH = "/api/v1/ics/{token}.ics"
"""Served by the handler that lists feeds, since a part of a segment cannot be a parameter."""


def operation(
    operation_id: str,
    *,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    conflict: bool = False,
    idempotent: bool = False,
    form: bool = False,
    file_type: str | None = None,
    may_wait: bool = False,
    dry_run: type[msgspec.Struct] | None = None,
    other_types: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return arguments for a handler's decorator that carry what its description needs.

    Args:
        operation_id: The name of the function in generated clients.
        body: The model of the request body.
        body_required: Whether the body must be sent.
        conflict: Whether the operation may answer 409.
        idempotent: Whether it takes an Idempotency-Key; then it may answer 409 too.
        form: Whether the body may also be a form, with files.
        file_type: The media type of a file that the body may also be; None if it may not.
        may_wait: Whether it may answer 202.
        dry_run: What it answers, with 200, to a dry run; None if it has none.
        other_types: Media types of text that it answers beside JSON.
        required: Query parameters that must be given. They have a default in the handler, since Litestar would refuse
            a missing parameter before it looks at the key.
    """
    opt = {
        "body": body,
        "body_required": body_required,
        "conflict": conflict or idempotent,
        "idempotent": idempotent,
        "form": form,
        "file_type": file_type,
    }
    opt |= {"dry_run": dry_run, "may_wait": may_wait, "other_types": other_types, "required": required}
    return {"operation_id": operation_id, "opt": opt}


def describe(app: Litestar) -> dict[str, Any]:
    """Return the OpenAPI document of the operations that this application serves."""
    handlers = {str(handler.operation_id): handler for handler in _handlers(app)}
    signatures = [(fields := handler.parsed_fn_signature.parameters, dict(fields)) for handler in handlers.values()]
    described = app.openapi_schema.to_schema()
    # Litestar adds the parameters of the path to the signatures by which it validates requests, which then lack them.
    for fields, own in signatures:
        fields.clear()
        fields.update(own)
    max_files: int = app.state.services.settings.max_files
    for path, item in described["paths"].items():
        for method, found in item.items():
            handler = handlers[found["operationId"]]
            item[method] = _operation(path, handler, found.get("parameters", []), max_files)
    if "listFeeds" in handlers:
        described["paths"][FEED_PATH] = {"get": _reading_a_feed()}
    described["info"] = {"title": "Routines", "version": "1", "description": DESCRIPTION, "license": {"name": "MIT"}}
    described["components"] = {
        "schemas": _schemas([*handlers.values()]),
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "A key of `routines keys create`."}
        },
    }
    return described


def _handlers(app: Litestar) -> Iterator[HTTPRouteHandler]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from (handler for handler in route.route_handlers if handler.operation_id)


def _operation(
    path: str, handler: HTTPRouteHandler, parameters: list[dict[str, Any]], max_files: int
) -> dict[str, Any]:
    summary, _, description = (handler.fn.__doc__ or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": handler.operation_id,
        "tags": sorted(handler.tags or {"Routines"}),
        "summary": summary.strip().rstrip("."),
        "description": " ".join(description.split()) or summary.strip(),
        "parameters": _parameters(path, handler, parameters),
        "responses": _responses(handler),
        "security": [{"key": []}] if _takes_key(handler) else [],
    }
    if body := handler.opt.get("body"):
        content = {"application/json": {"schema": {"$ref": REFERENCE + body.__name__}}}
        content |= _forms(max_files) if handler.opt.get("form") else {}
        if file_type := handler.opt.get("file_type"):
            content[file_type] = {"schema": {"type": "string"}}
        is_required = handler.opt["body_required"] and not handler.opt.get("form")
        described["requestBody"] = {"required": is_required, "content": content}
    return described


def _reading_a_feed() -> dict[str, Any]:
    answered = {"description": "Done.", "content": {"text/calendar": {"schema": {"type": "string"}}}}
    return {
        "operationId": "readFeed",
        "tags": ["Routines"],
        "summary": "Read a calendar feed",
        "description": "The coming slots as an iCalendar file, for calendar programs. The token in the path is the "
        "only credential, and opens nothing else.",
        "parameters": [_path_parameter("token")],
        "responses": {
            "200": answered,
            "304": {"description": "Not changed since the version named in If-None-Match."},
            **{str(code): _problem_response(code) for code in (404, 429, 431, 503)},
        },
        "security": [],
    }


_JSON_TEXT = {"type": "string", "contentMediaType": "application/json", "description": "An object as JSON."}
_FORM_FIELDS = {
    "init_params": _JSON_TEXT,
    "secret_params": _JSON_TEXT,
    "webhook_url": {"type": "string", "description": "Called when the run has ended."},
    "webhook_secret": {"type": "string", "description": "Signs the webhook."},
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "The files."}
_FORM = {"type": "object", "additionalProperties": False, "properties": _FORM_FIELDS}


def _forms(max_files: int) -> dict[str, Any]:
    with_files = {**_FORM, "properties": {**_FORM_FIELDS, "files": {**_FILES, "maxItems": max_files}}}
    return {"application/x-www-form-urlencoded": {"schema": _FORM}, "multipart/form-data": {"schema": with_files}}


def _parameters(path: str, handler: HTTPRouteHandler, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    in_path = [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", path)]
    in_query = [
        _query_parameter(each, is_required=each["name"] in handler.opt["required"])
        for each in found
        if each["in"] == "query"
    ]
    return [*in_path, *in_query, *([_IDEMPOTENCY_KEY] if handler.opt.get("idempotent") else [])]


def _query_parameter(found: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    described = {key: found[key] for key in ("name", "in", "description", "required", "schema") if key in found}
    if is_required:
        described["required"] = True
        described["schema"] = {
            key: rule for key, rule in _not_null(described["schema"]).items() if key not in {"default", "title"}
        }
    return described


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without the option null."""
    options = [option for option in schema.get("oneOf", schema.get("anyOf", ())) if option.get("type") != "null"]
    rest = {key: rule for key, rule in schema.items() if key not in {"oneOf", "anyOf"}}
    return {**rest, **options[0]} if len(options) == 1 else schema


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "For a day, repeating the request with the same key has no effect and returns the first answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_PATH_PARAMETERS = {
    "collection": ("The collection that the key opens.", "my-org"),
    "task": ("A task of the collection.", "greet"),
    "name": ("A routine of the task.", "morning-regression"),
    "trajectory_id": ("A run of the task.", "9876"),
    "delivery_id": ("A webhook of the routine.", "7"),
    "workflow_id": ("A run of the collection.", "flow-my-org-greet--9876"),
    "feed_id": ("A calendar feed of the collection.", "7"),
    "token": ("The token of a calendar feed.", "rtf_7_" + 43 * "x" + "1hQz0k"),
    "calendar": ("A calendar of the collection.", "holidays-de"),
    "backfill_id": ("A backfill of the routine.", "3"),
    "revision": ("A revision of the routine, from 1.", "3"),
    "version": ("A version of the task, from 1.", "3"),
    "rule": ("An alert rule of the collection.", "somebody-must-look"),
    "activity_name": ("An activity.", "text_echo"),
}


def _path_parameter(name: str) -> dict[str, Any]:
    description, example = _PATH_PARAMETERS[name]
    schema = {"type": "string", "minLength": 1}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def _responses(handler: HTTPRouteHandler) -> dict[str, Any]:
    answered = _answer_type(handler)
    status = str(handler.status_code)
    success: dict[str, Any] = {"description": "Done."}
    if answered is not None:
        success["content"] = {"application/json": {"schema": _schema_of(answered)}}
        success["content"] |= {kind: {"schema": {"type": "string"}} for kind in handler.opt.get("other_types", ())}
    if "cursor" in (handler.fn.__kwdefaults__ or {}):
        link = {"description": "The next page (rel=next), if there is one.", "schema": {"type": "string"}}
        success["headers"] = {"Link": link}
    waiting = (
        {"202": {**success, "description": "The run has started, but not ended."}}
        if handler.opt.get("may_wait")
        else {}
    )
    planned = handler.opt.get("dry_run")
    planning = (
        {"200": {"description": "A dry run.", "content": {"application/json": {"schema": _schema_of(planned)}}}}
        if planned
        else {}
    )
    return {
        status: success,
        **waiting,
        **planning,
        **{str(code): _problem_response(code) for code in sorted(_error_codes(handler))},
    }


def _error_codes(handler: HTTPRouteHandler) -> set[int]:
    if not _takes_key(handler):
        return {431}
    codes = {400, 401, 404, 429, 431, 503}
    if handler.opt.get("conflict"):
        codes |= {409}
    return codes | ({408, 413, 415} if handler.opt.get("body") else set[int]())


def _problem_response(code: int) -> dict[str, Any]:
    kinds = list(dict.fromkeys(kind for kind in PROBLEM_TYPES.values() if kind.status == code))
    content: dict[str, Any] = {
        "schema": {"$ref": REFERENCE + "Problem"},
        "examples": {k.slug: _example(k) for k in kinds},
    }
    return {
        "description": " or ".join(dict.fromkeys(kind.title for kind in kinds)) + ".",
        "content": {"application/problem+json": content},
    }


def _example(kind: ProblemType) -> dict[str, Any]:
    sentence = kind.detail or f"{kind.title}: the field, the rule and the value given."
    return {"value": {"type": TYPE_PREFIX + kind.slug, "title": kind.title, "status": kind.status, "detail": sentence}}


def _takes_key(handler: HTTPRouteHandler) -> bool:
    return not {"caller", "door"}.isdisjoint(handler.fn.__annotations__)


def _answer_type(handler: HTTPRouteHandler) -> Any:
    annotation = handler.parsed_fn_signature.return_type.annotation
    answered = get_args(annotation)[0] if get_origin(annotation) is Response else annotation
    return None if answered is type(None) else answered


def _schema_of(answered: Any) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([answered], ref_template=REFERENCE + "{name}")
    return schema


def _schemas(handlers: list[HTTPRouteHandler]) -> dict[str, Any]:
    answered = [kind for handler in handlers if (kind := _answer_type(handler)) is not None]
    answered += [kind for handler in handlers if (kind := handler.opt.get("dry_run"))]
    _, sent_out = msgspec.json.schema_components([*answered, Problem], ref_template=REFERENCE + "{name}")
    bodies = {handler.opt["body"] for handler in handlers if handler.opt.get("body")}
    _, taken_in = models_json_schema(
        [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)],
        ref_template=REFERENCE + "{model}",
    )
    schemas: dict[str, Any] = {**sent_out, **taken_in.get("$defs", {})}
    for body in bodies:
        # In an update, fields left out keep their value, so a default would mislead.
        if not schemas[body.__name__].get("required"):
            for field in schemas[body.__name__].get("properties", {}).values():
                field.pop("default", None)
    for name, schema in schemas.items():
        _describe(schema, schema.get("description", name))
        for field in schema.get("properties", {}).values():
            if field.get("type") == "array":
                field.setdefault("items", {})  # code generators expect `items`, even for arrays of anything
        if name in EXAMPLES:
            schema["examples"] = [EXAMPLES[name]]
    return dict(sorted(schemas.items()))


def _describe(schema: dict[str, Any], docstring: str) -> None:
    """Describe a schema and its fields from a docstring, whose Attributes section describes the fields."""
    text = re.sub(r"\bNone\b", "null", cleandoc(docstring))
    schema["description"], _, attributes = text.partition("\n\nAttributes:\n")
    described = dict(_ATTRIBUTE.findall(attributes))
    for name, field in schema.get("properties", {}).items():
        options = [option["description"] for option in field.get("anyOf", ()) if "description" in option]
        if name in described:
            field.setdefault("description", " ".join(described[name].split()))
        elif options:
            field.setdefault("description", options[0])  # pydantic describes the type, not the field


_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
