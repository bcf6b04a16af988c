"""Faults that people make: knobs that change all the time while a job trains."""
import statistics
import time

from soak_faults.cluster import Broken

CODECS = ("int(8)", "int(4)", "int(2)", "delta(int(4),first=int(8))", "delta(int(2),first=int(8))", "cast(bf16)",
          "cast(fp16)", "ef(int(4))", "none")
GRADIENT_CODECS = ("sign(block=0)", "sign(block=256)", "int(4)", "int(8)")
RATES = ("unlimited", "300Mbit/s", "600Mbit/s")
MOST_STEPS = 2  # from the answer to the first step under the change


def switch_100(trial):
    """The links are slow enough to be the bottleneck."""
    trial.begin(6000, "network.emulate.bandwidth=400Mbit/s", "checkpoint.every=100", compares=False)
    switches = []  # effective steps
    while trial.made < trial.left and not trial.has_ended():
        change = [f"activations={trial.random.choice(CODECS)}",
                  f"activation_gradients={trial.random.choice(CODECS)}",
                  f"gradients={trial.random.choice(GRADIENT_CODECS)}",
                  f"boundaries[0].rate_limit={trial.random.choice(RATES)}"]
        change = trial.random.sample(change, trial.random.randint(1, len(change)))
        before = trial.watch.step
        begin = time.monotonic()
        answer = trial.cluster.try_to_ask("set", "soak-1", *change, "--json")
        seconds = time.monotonic() - begin
        after = trial.watch.step
        if answer.code != 0:
            raise Broken(f"set {change}: exit {answer.code}: {answer.errors}")
        effective = answer.objects()[0]["effective_step"]
        if switches and effective <= switches[-1]:
            continue  # it asked for what was in force
        if effective > after + MOST_STEPS:
            raise Broken(f"set {change} was answered at step {after} and holds from step {effective} on")
        switches.append(effective)
        trial.note("answered", seconds)
        trial.note("in force after the answer (steps)", max(0, effective - after))
        trial.note("in force after the question (steps)", max(0, effective - before))
        trial.made += 1
    if trial.made < trial.left:
        raise Broken(f"only {trial.made} of {trial.left} changes were made before the job ended")
    trial.watch.wait_for_step(switches[-1] + 20)
    trial.cluster.ask("cancel", "soak-1", "--reason", "enough")
    trial.cluster.wait("the job's end", lambda: trial.state() == "CANCELLED", 60)
    job = trial.cluster.job()
    if job["restarts"]:
        raise Broken(f"the job was started again: {job['reason']}")
    faults = {name: int(count) for name, count in job["result"].get("faults", {}).items() if int(count)}
    if faults:
        raise Broken(f"the links saw faults: {faults}")
    trial.count("frames refused or mismatched", 0)
    audit = trial.cluster.ask("job", "audit", "soak-1", "--json").objects()[0]
    if not audit["ok"]:
        raise Broken(f"the audit: {audit}")
    seconds = {e["step"]["step"]: e["step"]["step_seconds"] for e in trial.watch.told("step")}
    median = statistics.median(seconds.values())
    trial.note("all steps", median)
    at_switch = sorted(seconds[step] for step in switches if step in seconds)
    trial.note("steps at a switch", statistics.median(at_switch))
    trial.note("99th percentile of these", at_switch[min(len(at_switch) - 1, int(0.99 * len(at_switch)))])


FAULTS = {
    "switch-100": (
        "changes of codecs (both directions, gradients) and rates in one run, one after the other, while slow links "
        "are the bottleneck",
        f"each holds at all workers from one step on, at most {MOST_STEPS} after the answer; no frame refused, no "
        "restart, every sample used once",
        switch_100, "switches", 100, 100),
}
