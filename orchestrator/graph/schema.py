"""The JSON Schema of a graph's public form."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .fields import ID_PATTERN

_PARAMS = {
    "type": "object",
    "additionalProperties": {"$ref": "#/$defs/Parameter"},
}

_PARAMETER = {
    "description": "Any JSON value; references may stand anywhere inside.",
    "anyOf": [
        {"$ref": "#/$defs/Reference"},
        {
            "type": "object",
            "not": {"anyOf": [{"required": ["$ref"]}, {"required": ["$secret"]}]},
            "additionalProperties": {"$ref": "#/$defs/Parameter"},
        },
        {"type": "array", "items": {"$ref": "#/$defs/Parameter"}},
        {"type": ["string", "number", "boolean", "null"]},
    ],
}

_REFERENCE = {
    "description": "The result of another node; `default` stands in where it has none.",
    "type": "object",
    "properties": {"$ref": {"type": "string", "minLength": 1}, "default": {}},
    "required": ["$ref"],
    "additionalProperties": False,
}


_MAP = {"anyOf": [{"$ref": "#/$defs/Reference"}, {"type": "array", "items": {"$ref": "#/$defs/Parameter"}}, {"type": "null"}]}

_SUB_GRAPH = {
    "description": "A graph as a node: its nodes are `id.inner`, and whoever refers to it refers to its only sink.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": ID_PATTERN},
        "graph": {
            "type": "object",
            "properties": {"nodes": {"$ref": "#/properties/nodes"}},
            "required": ["nodes"],
            "additionalProperties": False,
        },
        "params": {**_PARAMS, "default": {}, "description": 'What nodes inside take by {"$input": name}.'},
        "after": {"type": "array", "items": {"type": "string"}, "default": []},
    },
    "required": ["id", "graph"],
    "additionalProperties": False,
}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of `model` with `params` described as what they are: JSON with references inside."""
    schema = model.model_json_schema()
    for name in ("Node", "Variant"):
        properties = schema["$defs"][name]["properties"]
        properties["params"] = {**_PARAMS, "default": {}, "description": properties["params"]["description"]}
    properties = schema["$defs"]["Node"]["properties"]
    properties["map"] = {**_MAP, "default": None, "description": properties["map"]["description"]}
    schema["$defs"] |= {"Parameter": _PARAMETER, "Reference": _REFERENCE, "SubGraph": _SUB_GRAPH}
    nodes = schema["properties"]["nodes"]
    nodes["items"] = {"anyOf": [nodes["items"], {"$ref": "#/$defs/SubGraph"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
