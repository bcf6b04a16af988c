"""What the policies ask about a set of objects: who runs what, and who selects whom."""

APP = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
CLUSTER_SCOPED = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding",
                  "ResourceFlavor", "ClusterQueue"}


class Workload:
    """A pod template and what makes pods of it."""

    def __init__(self, owner, template, job_spec=None):
        self.name = f"{owner['kind']}/{owner['metadata']['name']}"
        self.owner = owner
        self.template = template
        self.pod = template["spec"]
        self.labels = template["metadata"].get("labels", {})
        self.component = self.labels.get(COMPONENT)
        self.job_spec = job_spec  # of a Job, or of a Job of a JobSet
        self.containers = self.pod["containers"] + self.pod.get("initContainers", [])


class ClusterView:
    def __init__(self, objects):
        self.objects = objects
        self.workloads = list(self._workloads())
        self.workers = [w for w in self.workloads if w.component == "worker"]
        self.coordinators = [w for w in self.workloads if w.component == "coordinator"]

    def of(self, *kinds):
        return [thing for thing in self.objects if thing["kind"] in kinds]

    def named(self, kind, name):
        return next((t for t in self.of(kind) if t["metadata"]["name"] == name), None)

    def _workloads(self):
        for thing in self.objects:
            spec = thing.get("spec", {})
            if thing["kind"] in ("StatefulSet", "Deployment", "DaemonSet"):
                yield Workload(thing, spec["template"])
            elif thing["kind"] == "Job":
                yield Workload(thing, spec["template"], spec)
            elif thing["kind"] == "JobSet":
                for replicated in spec["replicatedJobs"]:
                    job_spec = replicated["template"]["spec"]
                    yield Workload(thing, job_spec["template"], job_spec)
            elif thing["kind"] == "Pod":
                yield Workload(thing, {"metadata": thing["metadata"], "spec": spec})


def name_of(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def argument(container, flag):
    """What follows `flag` in the container's arguments, or None."""
    arguments = container.get("args", [])
    return arguments[arguments.index(flag) + 1] if flag in arguments[:-1] else None


def bytes_of(quantity):
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    text = str(quantity)
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text[:-len(unit)]) * factor
    return float(text)


def openings(view, direction, labels):
    """The rules by which pods with `labels` may receive ("ingress") or send."""
    for policy in view.of("NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], labels):
            for rule in policy["spec"].get(direction, []):
                yield policy, rule


def may_reach(view, sender, receiver, port):
    """Whether both ends' policies let `sender` reach `port` of `receiver`."""
    def is_open(direction, own, peer, key):
        for _, rule in openings(view, direction, own):
            ports = [p["port"] <= port <= p.get("endPort", p["port"]) for p in rule.get("ports", [])]
            peers = [set(entry) == {"podSelector"} and selects(entry["podSelector"], peer)
                     for entry in rule.get(key, [])]
            if any(ports) and any(peers):
                return True
        return False
    return (is_open("egress", sender, receiver, "to")
            and is_open("ingress", receiver, sender, "from"))
