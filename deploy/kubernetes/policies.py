"""The rules that our manifests keep, beyond being valid: `policy` registers one.

Each is a generator of complaints about a ClusterView. Next to each stand changes
that break it; `check` makes them, and fails if the policy does not notice.
"""
import ipaddress
import re

from cluster_view import (APP, CLUSTER_SCOPED, COMPONENT, argument, bytes_of, may_reach, name_of,
                          openings, selects)

POLICIES = {}
BREAKERS = {}


def policy(*breakers):
    """Registers a policy. A breaker: (kind, name, RFC 6902 operations...)."""
    def register(function):
        name = function.__name__.replace("_", "-")
        POLICIES[name] = function
        BREAKERS[name] = breakers
        return function
    return register


def add(path, value):
    return {"op": "add", "path": path, "value": value}


def remove(path):
    return {"op": "remove", "path": path}


COORDINATOR = ("StatefulSet", "deltapipe-coordinator")
POOL = ("Job", "deltapipe-pool")
POD = "/spec/template/spec"
MAIN = POD + "/containers/0"


# --- Names and places

@policy(("Namespace", "deltapipe", remove("/metadata/labels/pod-security.kubernetes.io~1enforce")))
def namespace_enforces_restricted(view):
    for namespace in view.of("Namespace"):
        labels = namespace["metadata"].get("labels", {})
        for mode in ("enforce", "audit", "warn"):
            if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"{name_of(namespace)}: pod-security {mode} is not 'restricted'"
    if not view.of("Namespace"):
        yield "there is no Namespace"


@policy((*POOL, add("/metadata/namespace", "default")), (*COORDINATOR, remove("/metadata/namespace")))
def everything_is_in_the_namespace(view):
    home = view.of("Namespace")[0]["metadata"]["name"]
    for thing in view.objects:
        if thing["kind"] not in CLUSTER_SCOPED and thing["metadata"].get("namespace") != home:
            yield f"{name_of(thing)}: expected the namespace {home}"


@policy(("Service", "deltapipe", add("/metadata/name", "deltapipe-coordinator")))
def names_are_unique(view):
    names = [name_of(thing) for thing in view.objects]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            yield f"{name} stands {names.count(name)} times"


@policy((*POOL, add("/metadata/name", "Pool_1")))
def names_are_dns_labels(view):
    for thing in view.objects:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", thing["metadata"]["name"]):
            yield f"{name_of(thing)}: not a DNS label"


@policy((*POOL, remove("/metadata/labels/app.kubernetes.io~1name")))
def workloads_and_their_pods_are_labelled(view):
    for w in view.workloads:
        for labels in (w.owner["metadata"].get("labels", {}), w.labels):
            if labels.get(APP) != "deltapipe" or labels.get(COMPONENT) not in ("coordinator", "worker"):
                yield f"{w.name}: needs the labels {APP} and {COMPONENT}"


# --- Access

@policy(("Role", "deltapipe-launcher", add("/kind", "ClusterRole")))
def nothing_is_granted_for_the_cluster(view):
    for thing in view.of("ClusterRole", "ClusterRoleBinding"):
        yield f"{name_of(thing)}: a namespaced Role is enough"


@policy(("Role", "deltapipe-launcher", add("/rules/1/resources/-", "secrets")))
def nobody_reads_secrets(view):
    for role in view.of("Role", "ClusterRole"):
        for rule in role["rules"]:
            if {"secrets", "*"} & set(rule["resources"]):
                yield f"{name_of(role)}: reaches Secrets: {rule}"


@policy(("Role", "deltapipe-launcher", add("/rules/0/verbs", ["*"])))
def rules_have_no_wildcards(view):
    for role in view.of("Role", "ClusterRole"):
        for rule in role["rules"]:
            if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]:
                yield f"{name_of(role)}: a wildcard in {rule}"


def launches(view):
    """Whether a coordinator makes Jobs itself."""
    return any(argument(w.containers[0], "--launch") == "kubernetes" for w in view.coordinators)


@policy(("Role", "deltapipe-launcher", add("/rules/1/verbs/-", "delete")),
        ("Role", "deltapipe-launcher", add("/rules/0/verbs", ["create", "get", "list", "watch"])),
        ("Role", "deltapipe-launcher", remove("/rules/2")),
        ("Role", "deltapipe-launcher", add("/rules/2/verbs/-", "delete")),
        (*COORDINATOR, add(MAIN + "/args", ["coordinator"])))
def launcher_may_do_what_it_does_and_no_more(view):
    allowed = {("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
               ("", "pods"): {"get", "list", "watch"},
               # Each belongs to a Job, with which it goes.
               ("policy", "poddisruptionbudgets"): {"create"}} if launches(view) else {}
    granted = {}
    for role in view.of("Role"):
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    granted.setdefault((group, resource), set()).update(rule["verbs"])
    if granted != allowed:
        yield f"expected {allowed}, got {granted}"


@policy(("RoleBinding", "deltapipe-launcher", add("/subjects/0/name", "deltapipe-worker")))
def only_the_coordinator_has_a_role(view):
    for binding in view.of("RoleBinding"):
        for subject in binding["subjects"]:
            if (subject["kind"], subject["name"]) != ("ServiceAccount", "deltapipe-coordinator") or (
                    subject.get("namespace") != binding["metadata"]["namespace"]):
                yield f"{name_of(binding)}: bound to {subject}"
        if view.named("Role", binding["roleRef"]["name"]) is None:
            yield f"{name_of(binding)}: there is no Role {binding['roleRef']['name']}"


@policy(("Service", "deltapipe", add("/kind", "Secret")))
def no_secret_is_written_down(view):
    for thing in view.of("Secret"):
        yield f"{name_of(thing)}: Secrets are made by hand: see docs/kubernetes.md"


@policy((*POOL, add(POD + "/automountServiceAccountToken", True)),
        ("ServiceAccount", "deltapipe-worker", add("/automountServiceAccountToken", True)))
def workers_have_no_api_token(view):
    for account in view.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name_of(account)}: mounts its token everywhere"
    for w in view.workers:
        if w.pod.get("automountServiceAccountToken") is not False:
            yield f"{w.name}: has an API token"


@policy((*COORDINATOR, add(POD + "/automountServiceAccountToken", False)),
        (*COORDINATOR, add(MAIN + "/args", ["coordinator"])))
def coordinators_have_an_api_token_if_they_launch(view):
    for w in view.coordinators:
        if w.pod.get("automountServiceAccountToken") is not launches(view):
            yield f"{w.name}: launches: {launches(view)}, token: {w.pod.get('automountServiceAccountToken')}"


@policy((*POOL, add(POD + "/serviceAccountName", "default")), (*COORDINATOR, remove(POD + "/serviceAccountName")))
def pods_run_as_accounts_that_exist(view):
    for w in view.workloads:
        if view.named("ServiceAccount", w.pod.get("serviceAccountName")) is None:
            yield f"{w.name}: there is no ServiceAccount {w.pod.get('serviceAccountName')}"


# --- Network

@policy(("NetworkPolicy", "default-deny", add("/spec/policyTypes", ["Ingress"])),
        ("NetworkPolicy", "default-deny", add("/spec/podSelector", {"matchLabels": {APP: "deltapipe"}})))
def network_is_denied_by_default(view):
    for deny in view.of("NetworkPolicy"):
        spec = deny["spec"]
        if spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"} and not (
                spec.get("ingress") or spec.get("egress")):
            return
    yield "no NetworkPolicy denies all traffic of all pods"


@policy(("NetworkPolicy", "workers", add("/spec/ingress/0/from", [])),
        ("NetworkPolicy", "metrics", add("/spec/ingress/0/from/0", {"podSelector": {}})))
def every_opening_names_its_peers(view):
    for opening in view.of("NetworkPolicy"):
        rules = [(rule, "from") for rule in opening["spec"].get("ingress", [])]
        rules += [(rule, "to") for rule in opening["spec"].get("egress", [])]
        for rule, key in rules:
            if not rule.get(key):
                yield f"{name_of(opening)}: opens to everybody"
            for peer in rule.get(key, []):
                if "ipBlock" not in peer and not peer.get("podSelector", {}).get("matchLabels"):
                    yield f"{name_of(opening)}: names no pods: {peer}"


@policy(("NetworkPolicy", "workers", remove("/spec/ingress/0/ports")))
def every_opening_names_its_ports(view):
    for opening in view.of("NetworkPolicy"):
        for rule in opening["spec"].get("ingress", []) + opening["spec"].get("egress", []):
            if not rule.get("ports") or any("port" not in port for port in rule["ports"]):
                yield f"{name_of(opening)}: opens all ports"


@policy(("NetworkPolicy", "launcher", add("/spec/egress/0/ports/-", {"protocol": "TCP", "port": 80})),
        ("NetworkPolicy", "workers", add("/spec/egress/0/to/-", {"ipBlock": {"cidr": "10.0.0.0/8"}})),
        (*COORDINATOR, add(MAIN + "/args", ["coordinator"])))
def only_the_launcher_leaves_the_namespace(view):
    for opening in view.of("NetworkPolicy"):
        for rule in opening["spec"].get("ingress", []) + opening["spec"].get("egress", []):
            if not any("ipBlock" in peer for peer in rule.get("from", []) + rule.get("to", [])):
                continue
            if opening["metadata"]["name"] != "launcher" or not launches(view) or (
                    {p["port"] for p in rule["ports"]} - {443, 6443}):
                yield f"{name_of(opening)}: reaches addresses: {rule}"


@policy(("NetworkPolicy", "launcher", add("/spec/egress/0/to/0/ipBlock/cidr", "0.0.0.0/0")),
        ("NetworkPolicy", "launcher", add("/spec/egress/0/to/-", {"ipBlock": {"cidr": "8.0.0.0/8"}})))
def addresses_are_private(view):
    for opening in view.of("NetworkPolicy"):
        for rule in opening["spec"].get("ingress", []) + opening["spec"].get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                block = peer.get("ipBlock", {}).get("cidr", "10.0.0.0/8")
                network = ipaddress.ip_network(block)
                if network.prefixlen < 8 or not network.is_private:
                    yield f"{name_of(opening)}: {block} is not private"


@policy(("NetworkPolicy", "launcher", remove("/spec/egress/0")))
def launcher_reaches_the_api_server(view):
    for w in view.coordinators:
        found = {p["port"] for _, rule in openings(view, "egress", w.labels) for p in rule["ports"]
                 if any("ipBlock" in peer for peer in rule["to"])}
        if launches(view) and found != {443, 6443}:
            yield f"{w.name}: reaches addresses on {sorted(found)}, expected the API server's 443 and 6443"


@policy(("NetworkPolicy", "clients", add("/spec/ingress/0/from/0/namespaceSelector", {})),
        ("NetworkPolicy", "clients", add("/spec/ingress/0/ports/-", {"protocol": "TCP", "port": 7708})),
        ("NetworkPolicy", "workers", add("/spec/ingress/0/from/0/namespaceSelector", {"matchLabels": {"a": "b"}})))
def other_namespaces_are_labelled_and_reach_only_the_coordinator(view):
    for opening in view.of("NetworkPolicy"):
        for rule in opening["spec"].get("ingress", []):
            for peer in rule.get("from", []):
                if "namespaceSelector" not in peer:
                    continue
                if not peer["namespaceSelector"].get("matchLabels"):
                    yield f"{name_of(opening)}: opens to every namespace: {peer}"
                if {p["port"] for p in rule["ports"]} - {7707, 9090}:
                    yield f"{name_of(opening)}: opens {rule['ports']} to other namespaces"


@policy(("NetworkPolicy", "workers", remove("/spec/ingress/0")),
        ("NetworkPolicy", "workers", remove("/spec/egress/0")))
def workers_reach_each_other(view):
    for w in view.workers:
        if not may_reach(view, w.labels, w.labels, 7708):
            yield f"{w.name}: its pods cannot reach each other on 7708"


@policy(("NetworkPolicy", "workers", remove("/spec/egress/1")),
        ("NetworkPolicy", "coordinator", add("/spec/ingress/0/ports/0/port", 7708)))
def workers_reach_the_coordinator(view):
    for w in view.workers:
        for c in view.coordinators:
            if not may_reach(view, w.labels, c.labels, 7707):
                yield f"{w.name}: cannot reach {c.name} on 7707"


@policy(("NetworkPolicy", "workers",
         add("/spec/ingress/0/ports/-", {"protocol": "TCP", "port": 1, "endPort": 9})),
        ("NetworkPolicy", "workers", add("/spec/ingress/0/ports/-",
                                         {"protocol": "TCP", "port": 1024, "endPort": 65535})))
def workers_open_one_port(view):
    """Where there are GPUs, also those that the kernel gives NCCL."""
    has_gpus = any("nvidia.com/gpu" in c["resources"].get("limits", {}) for w in view.workers for c in w.containers)
    allowed = [(7708, 7708)] + ([(32768, 60999)] if has_gpus else [])
    for w in view.workers:
        for _, rule in openings(view, "ingress", w.labels):
            for port in rule.get("ports", []):
                if (port["port"], port.get("endPort", port["port"])) not in allowed:
                    yield f"{w.name}: {port} is open"


@policy(("NetworkPolicy", "metrics", add("/spec/ingress/0/ports/0/port", 9091)),
        ("NetworkPolicy", "metrics", remove("/spec/ingress/0/from/0/namespaceSelector")))
def prometheus_reaches_the_metrics(view):
    for c in view.coordinators:
        for _, rule in openings(view, "ingress", c.labels):
            if any(p["port"] == 9090 for p in rule["ports"]) and all(
                    peer.get("namespaceSelector", {}).get("matchLabels") for peer in rule["from"]):
                break
        else:
            yield f"{c.name}: nobody may scrape port 9090 from a namespace of its own"


@policy(("NetworkPolicy", "names", add("/spec/egress/0/ports/0/protocol", "TCP")))
def names_can_be_looked_up(view):
    for w in view.workloads:
        found = {p["protocol"] for _, rule in openings(view, "egress", w.labels)
                 for p in rule["ports"] if p["port"] == 53}
        if found != {"UDP", "TCP"}:
            yield f"{w.name}: DNS is open for {sorted(found)}, expected TCP and UDP"


# --- Security context

@policy((*POOL, remove(POD + "/securityContext/runAsNonRoot")),
        (*COORDINATOR, add(MAIN + "/securityContext/runAsUser", 0)))
def nothing_runs_as_root(view):
    for w in view.workloads:
        own = w.pod.get("securityContext", {})
        if own.get("runAsNonRoot") is not True or not own.get("runAsUser"):
            yield f"{w.name}: may run as root"
        for c in w.containers:
            if c["securityContext"].get("runAsUser", 1) == 0 or not c["securityContext"].get("runAsNonRoot", True):
                yield f"{w.name}: {c['name']} runs as root"


@policy((*POOL, add(MAIN + "/securityContext/allowPrivilegeEscalation", True)))
def privileges_do_not_grow(view):
    for w in view.workloads:
        for c in w.containers:
            if c["securityContext"].get("allowPrivilegeEscalation") is not False:
                yield f"{w.name}: {c['name']} may escalate"


@policy((*COORDINATOR, add(MAIN + "/securityContext/capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
        (*POOL, remove(MAIN + "/securityContext/capabilities")))
def all_capabilities_are_dropped(view):
    for w in view.workloads:
        for c in w.containers:
            if c["securityContext"].get("capabilities") != {"drop": ["ALL"]}:
                yield f"{w.name}: {c['name']} keeps capabilities"


@policy((*POOL, remove(POD + "/securityContext/seccompProfile")))
def seccomp_is_the_runtimes_default(view):
    for w in view.workloads:
        if w.pod["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{w.name}: no seccomp profile"


@policy((*COORDINATOR, remove(MAIN + "/securityContext/readOnlyRootFilesystem")))
def root_file_systems_are_read_only(view):
    for w in view.workloads:
        for c in w.containers:
            if c["securityContext"].get("readOnlyRootFilesystem") is not True:
                yield f"{w.name}: {c['name']} can write its root"


@policy((*POOL, add(POD + "/hostNetwork", True)), (*POOL, add(MAIN + "/ports/0/hostPort", 7708)),
        (*COORDINATOR, add(MAIN + "/securityContext/privileged", True)))
def nothing_of_the_host_is_used(view):
    for w in view.workloads:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if w.pod.get(field):
                yield f"{w.name}: {field}"
        for c in w.containers:
            if c["securityContext"].get("privileged") or any("hostPort" in p for p in c.get("ports", [])):
                yield f"{w.name}: {c['name']} is privileged or takes a port of the host"


@policy((*POOL, add(POD + "/volumes/-", {"name": "x", "hostPath": {"path": "/"}})))
def volumes_are_of_the_restricted_kinds(view):
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim", "downwardAPI", "ephemeral"}
    for w in view.workloads:
        for volume in w.pod.get("volumes", []):
            if not set(volume) - {"name"} <= allowed:
                yield f"{w.name}: volume {volume['name']}: {sorted(set(volume) - {'name'})}"


@policy((*COORDINATOR, remove(POD + "/enableServiceLinks")))
def environment_is_not_filled_with_services(view):
    for w in view.workloads:
        if w.pod.get("enableServiceLinks") is not False:
            yield f"{w.name}: enableServiceLinks"


# --- Files

@policy((*POOL, remove(POD + "/volumes/1/emptyDir/sizeLimit")))
def scratch_space_is_bounded(view):
    for w in view.workloads:
        for volume in w.pod.get("volumes", []):
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{w.name}: volume {volume['name']} has no sizeLimit"


@policy((*COORDINATOR, remove(MAIN + "/volumeMounts/1")))
def there_is_a_place_for_temporary_files(view):
    for w in view.workloads:
        scratch = {v["name"] for v in w.pod.get("volumes", []) if "emptyDir" in v}
        for c in w.containers:
            if not any(m["mountPath"] == "/tmp" and m["name"] in scratch for m in c["volumeMounts"]):
                yield f"{w.name}: {c['name']} has no /tmp"


@policy((*POOL, remove(POD + "/volumes/3/emptyDir/medium")), (*POOL, remove(MAIN + "/volumeMounts/3")))
def workers_have_shared_memory(view):
    for w in view.workers:
        in_memory = {v["name"] for v in w.pod.get("volumes", []) if v.get("emptyDir", {}).get("medium") == "Memory"}
        for c in w.containers:
            if not any(m["mountPath"] == "/dev/shm" and m["name"] in in_memory for m in c["volumeMounts"]):
                yield f"{w.name}: {c['name']} has no /dev/shm in memory"


@policy((*COORDINATOR, add(MAIN + "/args/4", "/tmp/coordinator.db")),
        (*COORDINATOR, remove("/spec/volumeClaimTemplates")))
def state_of_the_coordinator_is_on_a_claim(view):
    for w in view.coordinators:
        claims = {claim["metadata"]["name"] for claim in w.owner["spec"].get("volumeClaimTemplates", [])}
        store = argument(w.containers[0], "--store")
        if not any(store.startswith(m["mountPath"] + "/") and m["name"] in claims
                   for m in w.containers[0]["volumeMounts"]):
            yield f"{w.name}: --store {store} is on no volume claim"


@policy((*POOL, add(POD + "/volumes/-", {"name": "x", "persistentVolumeClaim": {"claimName": "nowhere"}})),
        (*POOL, add(MAIN + "/volumeMounts/-", {"name": "nowhere", "mountPath": "/x"})))
def what_is_mounted_exists(view):
    for w in view.workloads:
        volumes = {v["name"] for v in w.pod.get("volumes", [])}
        volumes |= {c["metadata"]["name"] for c in w.owner["spec"].get("volumeClaimTemplates", [])}
        for c in w.containers:
            for mount in c["volumeMounts"]:
                if mount["name"] not in volumes:
                    yield f"{w.name}: there is no volume {mount['name']}"
        for volume in w.pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and view.named("PersistentVolumeClaim", claim) is None:
                yield f"{w.name}: there is no claim {claim}"


# --- Resources

@policy((*POOL, remove(MAIN + "/resources/requests/cpu")), (*COORDINATOR, remove(MAIN + "/resources/requests/memory")),
        (*POOL, remove(MAIN + "/resources/requests/ephemeral-storage")))
def resources_are_asked_for(view):
    for w in view.workloads:
        for c in w.containers:
            missing = {"cpu", "memory", "ephemeral-storage"} - set(c["resources"].get("requests", {}))
            if missing:
                yield f"{w.name}: {c['name']} asks for no {sorted(missing)}"


@policy((*POOL, remove(MAIN + "/resources/limits/memory")),
        (*POOL, add(MAIN + "/resources/limits/memory", "1Mi")))
def memory_and_disk_are_limited(view):
    for w in view.workloads:
        for c in w.containers:
            for kind in ("memory", "ephemeral-storage"):
                limit = c["resources"].get("limits", {}).get(kind)
                if limit is None or bytes_of(limit) < bytes_of(c["resources"]["requests"].get(kind, 0)):
                    yield f"{w.name}: {c['name']}: limit of {kind}: {limit}"


@policy((*POOL, add(MAIN + "/resources/limits/nvidia.com~1gpu", 1)))
def gpus_are_asked_for_as_limited(view):
    for w in view.workloads:
        for c in w.containers:
            wanted = [c["resources"].get(part, {}).get("nvidia.com/gpu") for part in ("requests", "limits")]
            if wanted[0] != wanted[1]:
                yield f"{w.name}: {c['name']}: GPUs asked for and limited: {wanted}"
            if wanted[1] and argument(c, "--device") != "cuda":
                yield f"{w.name}: {c['name']} has a GPU and --device {argument(c, '--device')}"


@policy((*POOL, add(MAIN + "/image", "deltapipe-worker:latest")), (*COORDINATOR, add(MAIN + "/image", "deltapipe")),
        (*COORDINATOR, add(MAIN + "/args", ["coordinator", "--worker-image", "deltapipe-worker"])))
def images_are_pinned(view):
    for w in view.workloads:
        for c in w.containers:
            for image in filter(None, (c["image"], argument(c, "--worker-image"))):
                name = image.rsplit("/", 1)[-1]
                if "@sha256:" not in name and (":" not in name or name.endswith(":latest")):
                    yield f"{w.name}: {c['name']}: {image}"


# --- Probes and ends

@policy((*COORDINATOR, remove(MAIN + "/startupProbe")), (*COORDINATOR, remove(MAIN + "/readinessProbe")))
def coordinator_has_three_probes(view):
    for w in view.coordinators:
        missing = {"startupProbe", "readinessProbe", "livenessProbe"} - set(w.containers[0])
        if missing:
            yield f"{w.name}: no {sorted(missing)}"


@policy((*COORDINATOR, add(MAIN + "/livenessProbe", {"grpc": {"port": 7707}})))
def coordinator_is_probed_by_its_own_program(view):
    for w in view.coordinators:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            command = w.containers[0].get(probe, {}).get("exec", {}).get("command", [])
            if not command or command[0] != "/usr/bin/deltapipe":
                yield f"{w.name}: {probe}: a kubelet has no certificate for TLS on both sides"


@policy((*POOL, add(MAIN + "/livenessProbe", {"tcpSocket": {"port": 7708}})), (*POOL, remove(MAIN + "/startupProbe")))
def workers_are_judged_by_heartbeats_alone(view):
    for w in view.workers:
        for c in w.containers:
            if "startupProbe" not in c or "livenessProbe" in c:
                yield f"{w.name}: {c['name']}: expected a startup probe and no liveness probe"


@policy((*POOL, add(POD + "/terminationGracePeriodSeconds", 119)),
        (*POOL, remove("/spec/template/metadata/annotations/deltapipe.io~1checkpoint-seconds")))
def grace_is_twice_a_checkpoint(view):
    for w in view.workers:
        seconds = w.template["metadata"].get("annotations", {}).get("deltapipe.io/checkpoint-seconds")
        if seconds is None or w.pod.get("terminationGracePeriodSeconds", 30) < 2 * int(seconds):
            yield f"{w.name}: grace {w.pod.get('terminationGracePeriodSeconds')} s, checkpoint {seconds} s"


# --- Workloads

@policy((*COORDINATOR, add("/spec/replicas", 2)))
def there_is_one_coordinator(view):
    if [w.owner["spec"].get("replicas") for w in view.coordinators] != [1]:
        yield "expected one coordinator of one replica"


@policy(("PodDisruptionBudget", "deltapipe-pool", remove("/spec/selector/matchLabels")),
        ("PodDisruptionBudget", "deltapipe-coordinator", add("/spec/selector/matchLabels", {"a": "b"})))
def evictions_are_bounded(view):
    for w in view.workloads:
        budgets = [b for b in view.of("PodDisruptionBudget") if b["spec"]["selector"].get("matchLabels")
                   and selects(b["spec"]["selector"], w.labels)]
        if len(budgets) != 1:
            yield f"{w.name}: expected one PodDisruptionBudget, got {len(budgets)}"


@policy(("PodDisruptionBudget", "deltapipe-pool", remove("/spec/minAvailable"), add("/spec/maxUnavailable", 1)),
        ("PodDisruptionBudget", "deltapipe-pool", add("/spec/minAvailable", 1000)))
def workers_are_evicted_one_by_one(view):
    """Of pods of a Job, which has no scale, only minAvailable as a number works."""
    for w in view.workers:
        for budget in view.of("PodDisruptionBudget"):
            expected = w.job_spec["completions"] - 1
            if selects(budget["spec"]["selector"], w.labels) and budget["spec"].get("minAvailable") != expected:
                yield f"{name_of(budget)}: expected minAvailable {expected}, got {budget['spec']}"


@policy(("Service", "deltapipe-pool", remove("/spec/publishNotReadyAddresses")),
        ("Service", "deltapipe-pool", remove("/spec/clusterIP")),
        (*POOL, add(POD + "/subdomain", "elsewhere")))
def workers_have_names_before_they_are_ready(view):
    for w in view.workers:
        network = w.owner["spec"].get("network")
        if w.owner["kind"] == "JobSet":
            if not (network and network.get("enableDNSHostnames") and network.get("publishNotReadyAddresses")):
                yield f"{w.name}: its network publishes no names"
            continue
        service = view.named("Service", w.pod.get("subdomain"))
        if service is None or service["spec"].get("clusterIP") != "None" or not (
                service["spec"].get("publishNotReadyAddresses")) or not (
                selects({"matchLabels": service["spec"]["selector"]}, w.labels)):
            yield f"{w.name}: no headless Service '{w.pod.get('subdomain')}' that publishes unready addresses"


@policy(("Service", "deltapipe", add("/spec/selector/x", "y")),
        ("Service", "deltapipe", add("/spec/ports/0/targetPort", "web")))
def services_lead_to_pods(view):
    for service in view.of("Service"):
        pods = [w for w in view.workloads if selects({"matchLabels": service["spec"]["selector"]}, w.labels)]
        names = {p["name"] for w in pods for c in w.containers for p in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in names:
                yield f"{name_of(service)}: no pod has the port '{port['targetPort']}'"


@policy((*POOL, add("/spec/parallelism", 1)), (*POOL, remove("/spec/completionMode")))
def workers_run_all_at_once(view):
    for w in view.workers:
        spec = w.job_spec
        if spec.get("completionMode") != "Indexed" or spec["completions"] != spec["parallelism"]:
            yield f"{w.name}: expected an Indexed Job with as many pods as indexes"


@policy((*POOL, add(POD + "/restartPolicy", "OnFailure")))
def containers_are_not_restarted_in_place(view):
    for w in view.workers:
        if w.pod.get("restartPolicy") != "Never":
            yield f"{w.name}: podFailurePolicy needs restartPolicy Never"


def _codes(spec, action):
    rules = spec.get("podFailurePolicy", {}).get("rules", [])
    return sorted(code for rule in rules if rule["action"] == action and "onExitCodes" in rule
                  and rule["onExitCodes"]["operator"] == "In" for code in rule["onExitCodes"]["values"])


@policy((*POOL, add("/spec/podFailurePolicy/rules/1/onExitCodes/values", [9])))
def resumable_ends_do_not_count(view):
    for w in view.workers:
        if _codes(w.job_spec, "Ignore") != [8]:
            yield f"{w.name}: expected exit code 8 to be ignored, got {_codes(w.job_spec, 'Ignore')}"


@policy((*POOL, remove("/spec/podFailurePolicy/rules/0")))
def disruptions_do_not_count(view):
    for w in view.workers:
        rules = w.job_spec.get("podFailurePolicy", {}).get("rules", [])
        # The first rule that matches decides.
        if not rules or rules[0] != {"action": "Ignore", "onPodConditions": [
                {"type": "DisruptionTarget", "status": "True"}]}:
            yield f"{w.name}: the first rule must ignore DisruptionTarget"


@policy((*POOL, add("/spec/podFailurePolicy/rules/2/action", "Count")))
def hopeless_ends_fail_the_job(view):
    for w in view.workers:
        if _codes(w.job_spec, "FailJob") != [2, 6]:
            yield f"{w.name}: expected exit codes 2 and 6 to fail the Job, got {_codes(w.job_spec, 'FailJob')}"


@policy((*POOL, add("/spec/podFailurePolicy/rules/1/onExitCodes/containerName", "other")))
def failure_rules_name_a_container(view):
    for w in view.workers:
        names = {c["name"] for c in w.containers}
        for rule in w.job_spec.get("podFailurePolicy", {}).get("rules", []):
            if "onExitCodes" in rule and rule["onExitCodes"].get("containerName") not in names:
                yield f"{w.name}: no container {rule['onExitCodes'].get('containerName')}"


@policy((*POOL, add("/spec/podReplacementPolicy", "TerminatingOrFailed")))
def no_two_pods_have_one_index(view):
    for w in view.workers:
        if w.job_spec.get("podReplacementPolicy") != "Failed":
            yield f"{w.name}: podReplacementPolicy must be Failed"


@policy((*POOL, add("/spec/backoffLimit", 0)))
def a_few_crashes_are_survived(view):
    for w in view.workers:
        if w.job_spec.get("backoffLimit", 6) < w.job_spec["completions"]:
            yield f"{w.name}: one round of crashes ends the Job"


# --- What the programs are told

@policy((*POOL, add(MAIN + "/args/-", "--insecure")), (*COORDINATOR, add(MAIN + "/args/-", "--insecure")))
def nothing_talks_in_plain_text(view):
    for w in view.workloads:
        for c in w.containers:
            if any(a.startswith("--insecure") for a in c.get("args", [])):
                yield f"{w.name}: {c['name']} is --insecure"


@policy((*COORDINATOR, add(MAIN + "/args/10", "0.0.0.0:9400")), (*COORDINATOR, remove(MAIN + "/args/9")))
def metrics_are_served_where_they_are_scraped(view):
    for w in view.coordinators:
        c = w.containers[0]
        ports = {p["name"]: p["containerPort"] for p in c["ports"]}
        if argument(c, "--metrics-listen") != f"0.0.0.0:{ports.get('metrics')}":
            yield f"{w.name}: --metrics-listen {argument(c, '--metrics-listen')}, port {ports.get('metrics')}"


@policy((*POOL, add(MAIN + "/args/7", "secret")), (*POOL, remove(POD + "/volumes/0")),
        (*POOL, add(MAIN + "/env/-", {"name": "TOKEN", "valueFrom": {
            "secretKeyRef": {"name": "s", "key": "join-token"}}})))
def join_token_comes_from_a_file(view):
    for w in view.workers:
        secrets = {v["name"] for v in w.pod.get("volumes", []) if "secret" in v}
        for c in w.containers:
            path = argument(c, "--join-token-file") or ""
            if not any(m["name"] in secrets and m.get("readOnly") and path.startswith(m["mountPath"] + "/")
                       for m in c["volumeMounts"]):
                yield f"{w.name}: --join-token-file '{path}' is no file of a Secret"
            for e in c.get("env", []):
                if "token" in e.get("valueFrom", {}).get("secretKeyRef", {}).get("key", ""):
                    yield f"{w.name}: a token in the environment: {e['name']}"


def arguments_of(container, flag):
    words = container.get("args", [])
    return [value for name, value in zip(words, words[1:]) if name == flag]


def lies_beneath(path, root):
    return root == "/" or path == root or path.startswith(root.rstrip("/") + "/")


@policy((*POOL, remove(MAIN + "/args/12")), (*POOL, add(MAIN + "/args/13", "/")), (*POOL, add(MAIN + "/args/13", "/etc")),
        (*POOL, add(MAIN + "/args/-", "--write-root"), add(MAIN + "/args/-", "/etc/deltapipe/join")),
        (*POOL, add(MAIN + "/args/13", "/var/lib")))
def jobs_name_paths_beneath_roots_without_secrets(view):
    """What jobs read is apart from what they write, and neither holds a Secret."""
    for w in view.workers:
        secrets = {v["name"] for v in w.pod.get("volumes", []) if "secret" in v}
        for c in w.containers:
            reads = arguments_of(c, "--data-root")
            writes = arguments_of(c, "--folder") + arguments_of(c, "--write-root")
            if not reads:
                yield f"{w.name}: no --data-root"
            for root in reads + writes:
                for mount in c["volumeMounts"]:
                    if mount["name"] in secrets and (
                            lies_beneath(mount["mountPath"], root) or lies_beneath(root, mount["mountPath"])):
                        yield f"{w.name}: jobs may name {root}, and {mount['mountPath']} holds a Secret"
            for read in reads:
                for write in writes:
                    if lies_beneath(write, read):
                        yield f"{w.name}: jobs may read below {read} what others write to {write}"


@policy((*POOL, add(POD + "/volumes/-", {"name": "own", "persistentVolumeClaim": {"claimName": "own"}}),
         add(MAIN + "/volumeMounts/-", {"name": "own", "mountPath": "/own"})))
def claims_lie_where_jobs_may_name_them(view):
    for w in view.workers:
        claims = {v["name"] for v in w.pod.get("volumes", []) if "persistentVolumeClaim" in v}
        for c in w.containers:
            reads = arguments_of(c, "--data-root")
            writes = arguments_of(c, "--folder") + arguments_of(c, "--write-root")
            for mount in c["volumeMounts"]:
                roots = reads if mount.get("readOnly") else writes
                if mount["name"] in claims and not any(lies_beneath(mount["mountPath"], root) for root in roots):
                    yield f"{w.name}: no job may name {mount['mountPath']}, where {mount['name']} is mounted"


@policy((*POOL, add(MAIN + "/args/9", "sha256:0")), (*POOL, remove(MAIN + "/env/1")))
def ca_hash_comes_from_the_secret(view):
    for w in view.workers:
        for c in w.containers:
            known = {f"$({e['name']})" for e in c.get("env", []) if "secretKeyRef" in e.get("valueFrom", {})}
            if argument(c, "--ca-hash") not in known:
                yield f"{w.name}: --ca-hash {argument(c, '--ca-hash')}"


@policy((*POOL, add(MAIN + "/args/1", "elsewhere.deltapipe.svc:7707")),
        (*POOL, add(MAIN + "/args/1", "deltapipe.deltapipe.svc:1")))
def workers_call_a_service_that_exists(view):
    for w in view.workers:
        host, _, port = (argument(w.containers[0], "--coordinator") or "").rpartition(":")
        parts = host.split(".")
        service = view.named("Service", parts[0])
        if service is None or service["metadata"]["namespace"] != (parts + [""])[1] or (
                port not in {str(p["port"]) for p in service["spec"]["ports"]}):
            yield f"{w.name}: --coordinator {host}:{port} is no Service"


@policy((*COORDINATOR, remove(MAIN + "/args/7")))
def certificate_has_the_name_that_workers_call(view):
    for c in view.coordinators:
        arguments = c.containers[0]["args"]
        names = [value for flag, value in zip(arguments, arguments[1:]) if flag == "--tls-host"]
        for w in view.workers:
            host = (argument(w.containers[0], "--coordinator") or "").rpartition(":")[0]
            if host not in names:
                yield f"{c.name}: no --tls-host {host}, which {w.name} calls"


@policy((*POOL, add(MAIN + "/ports/0/containerPort", 7709)), (*COORDINATOR, add(MAIN + "/args/2", "127.0.0.1:7707")))
def programs_listen_where_their_ports_are(view):
    for w in view.workloads:
        for c in w.containers:
            host, _, port = (argument(c, "--listen") or "").rpartition(":")
            if host != "0.0.0.0" or port not in {str(p["containerPort"]) for p in c["ports"]}:
                yield f"{w.name}: {c['name']} --listen {host}:{port}"


# --- What only some overlays have

@policy(("Service", "deltapipe", add("/kind", "ServiceMonitor"),
         add("/spec", {"selector": {"matchLabels": {APP: "other"}}, "endpoints": [{"port": "metrics"}]})),)
def monitors_find_the_metrics(view):
    for monitor in view.of("ServiceMonitor"):
        services = [s for s in view.of("Service") if selects(monitor["spec"]["selector"], s["metadata"]["labels"])]
        ports = {p["name"] for s in services for p in s["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"{name_of(monitor)}: no Service has the port {endpoint['port']}"


@policy((*POOL, add(POD + "/priorityClassName", "system-node-critical")))
def priorities_exist_and_push_nobody_out(view):
    for w in view.workloads:
        name = w.pod.get("priorityClassName")
        if name and view.named("PriorityClass", name) is None:
            yield f"{w.name}: there is no PriorityClass {name}"
    for priority in view.of("PriorityClass"):
        if priority.get("globalDefault") or priority.get("preemptionPolicy") != "Never":
            yield f"{name_of(priority)}: changes what other pods get"


@policy((*POOL, add("/metadata/labels/kueue.x-k8s.io~1queue-name", "deltapipe"), add("/spec/suspend", False)))
def queued_jobs_wait_to_be_admitted(view):
    for w in view.workers:
        queue = w.owner["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
        if queue is None:
            continue
        if w.owner["spec"].get("suspend") is not True:
            yield f"{w.name}: starts before Kueue admits it"
        local = view.named("LocalQueue", queue)
        cluster = local and view.named("ClusterQueue", local["spec"]["clusterQueue"])
        if cluster is None:
            yield f"{w.name}: the queue {queue} leads to no ClusterQueue"
            continue
        covered = {r for group in cluster["spec"]["resourceGroups"] for r in group["coveredResources"]}
        for c in w.containers:
            if not set(c["resources"]["requests"]) <= covered:
                yield f"{w.name}: {name_of(cluster)} covers {sorted(covered)}"
        for group in cluster["spec"]["resourceGroups"]:
            for flavor in group["flavors"]:
                if view.named("ResourceFlavor", flavor["name"]) is None:
                    yield f"{name_of(cluster)}: there is no ResourceFlavor {flavor['name']}"
