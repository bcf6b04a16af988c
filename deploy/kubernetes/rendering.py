"""Renders the overlays without kustomize, for machines that have none.

Knows the part of kustomize that this folder uses (resources, components, and
patches of RFC 6902 with a target) and refuses every other field, so that it can
never differ in silence; `check` compares it with `kubectl kustomize` where that
is installed.
"""
import copy
import os

import yaml


class RenderError(Exception):
    pass


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, which plain YAML lets pass."""


def _mapping(loader, node, deep=False):
    own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key in own:
        if own.count(key) > 1:
            raise RenderError(f"{node.start_mark}: the key '{key}' stands twice")
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(text, origin):
    """All documents of `text`."""
    try:
        return [document for document in yaml.load_all(text, _StrictLoader) if document is not None]
    except yaml.YAMLError as error:
        raise RenderError(f"{origin}: not YAML: {error}") from error


def _read_file(path):
    with open(path, encoding="utf-8") as file:
        return read_yaml(file.read(), path)


def _step(container, token, path):
    """The key or index that `token` is for `container`."""
    if isinstance(container, list):
        if token == "-":
            return len(container)
        if not token.isdigit() or int(token) > len(container):
            raise RenderError(f"{path}: no index {token} in a list of {len(container)}")
        return int(token)
    if not isinstance(container, dict):
        raise RenderError(f"{path}: '{token}' is below a scalar")
    return token


def apply_patch(target, operations, origin):
    """RFC 6902's add, replace and remove on `target`, in place."""
    for operation in operations:
        path = operation["path"]
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]
        container = target
        for token in tokens[:-1]:
            key = _step(container, token, path)
            if isinstance(container, dict) and key not in container or (
                    isinstance(container, list) and key >= len(container)):
                raise RenderError(f"{origin}: {path}: there is no '{token}'")
            container = container[key]
        key = _step(container, tokens[-1], path)
        is_there = key in container if isinstance(container, dict) else key < len(container)
        if operation["op"] != "add" and not is_there:
            raise RenderError(f"{origin}: {path}: nothing there to {operation['op']}")
        if operation["op"] == "remove":
            del container[key]
        elif operation["op"] == "add" and isinstance(container, list):
            container.insert(key, copy.deepcopy(operation["value"]))
        elif operation["op"] in ("add", "replace"):
            container[key] = copy.deepcopy(operation["value"])
        else:
            raise RenderError(f"{origin}: {path}: unknown op '{operation['op']}'")


def _patch(objects, patch, origin):
    if set(patch) != {"target", "patch"} or set(patch["target"]) != {"kind", "name"}:
        raise RenderError(f"{origin}: a patch has a target of kind and name, and a patch")
    found = [thing for thing in objects
             if thing["kind"] == patch["target"]["kind"]
             and thing["metadata"]["name"] == patch["target"]["name"]]
    if not found:
        raise RenderError(f"{origin}: no {patch['target']['kind']} {patch['target']['name']} to patch")
    operations = read_yaml(patch["patch"], origin)[0]
    for thing in found:
        apply_patch(thing, operations, origin)


def _accumulate(folder, objects):
    """Adds what the kustomization in `folder` has to `objects`, and patches them."""
    origin = os.path.join(folder, "kustomization.yaml")
    kustomization = _read_file(origin)[0]
    unknown = set(kustomization) - {"apiVersion", "kind", "resources", "components", "patches"}
    if unknown:
        raise RenderError(f"{origin}: {sorted(unknown)}: rendering.py does not know this; add it there")
    for name in kustomization.get("resources", []):
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isdir(path):
            own = []
            _accumulate(path, own)
            objects += own
        else:
            objects += _read_file(path)
    for name in kustomization.get("components", []):
        _accumulate(os.path.normpath(os.path.join(folder, name)), objects)
    for patch in kustomization.get("patches", []):
        _patch(objects, patch, origin)


def render(folder):
    """The objects that `kubectl kustomize FOLDER` prints."""
    objects = []
    _accumulate(folder, objects)
    return copy.deepcopy(objects)  # no two share what a YAML anchor made one
