"""Validates objects against the schemas of Kubernetes and of the CRDs we use.

kubernetes-validate brings the former, strict: an unknown field is an error. The
latter lie in schemas/, and have the fields that our manifests use, no more.
"""
import json
import os

import jsonschema
import kubernetes_validate

# From the first with podFailurePolicy as a stable field to the newest known.
VERSIONS = ("1.31", "1.34", "1.37")


def name_of(thing):
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


def _own_schema(folder, thing):
    path = os.path.join(folder, "schemas", thing["kind"].lower() + ".json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    return schema if schema["properties"]["apiVersion"]["const"] == thing["apiVersion"] else None


def _inner_jobs(thing):
    """The Jobs that a JobSet will make, as objects of their own."""
    for replicated in thing["spec"]["replicatedJobs"]:
        yield {"apiVersion": "batch/v1", "kind": "Job",
               "metadata": {"name": f"{thing['metadata']['name']}-{replicated['name']}"},
               "spec": replicated["template"]["spec"]}


def _place(error):
    return "/".join(str(step) for step in error.absolute_path) or "the object"


def complaints(folder, objects):
    """One sentence for each object that a schema refuses."""
    found = []
    objects = list(objects)
    for thing in objects:
        if not isinstance(thing, dict) or not {"apiVersion", "kind", "metadata"} <= set(thing):
            found.append(f"not an object of Kubernetes: {str(thing)[:80]}")
            continue
        schema = _own_schema(folder, thing)
        if schema is not None:
            for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
                found.append(f"{name_of(thing)}: {_place(error)}: {error.message}")
            if thing["kind"] == "JobSet" and not found:
                found += complaints(folder, _inner_jobs(thing))
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError as error:
                found.append(f"{name_of(thing)}: {error.message}: a CRD needs a schema in schemas/")
                break
            except jsonschema.ValidationError as error:
                found.append(f"{name_of(thing)}: Kubernetes {version}: {_place(error)}: {error.message}")
    return found
