"""One run of a fault: a job, what is done to it, and what must be true at its end."""
import json
import random
import statistics
import subprocess
import time

from soak_faults.cluster import AT_REST, DELTAPIPE, NUM_WORKERS, Broken, Cluster, Watch, say

SPEC = """name: soak
seed: 17
model: {{kind: gpt, layers: 2, width: 32, heads: 2, context: 32}}
data: {{path: {corpus}}}
train: {{steps: 400, batch: 16, microbatch: 4, validate_every: 50,
        optimizer: {{kind: onebit_lamb, learning_rate: 2e-3, lr_warmup_steps: 20, compress_after_step: 40}}}}
parallel: {{stages: 2, replicas: 2}}
compression: {{activations: "delta(int(4),first=int(8))", activation_gradients: "int(8)", verdict: tell}}
checkpoint: {{every: 20}}
failure: {{detection_budget: 3s, max_restarts: 20}}
"""
BATCH = 16
DETECTION_LIMIT = 3 + 2.0  # the budget, and what this machine may be late
RECOVERY_LIMIT = 30
END_LIMIT = 300


class Bench:
    """What all trials share: a corpus, the spec, losses of an undisturbed run."""

    def __init__(self, folder):
        self.folder = folder
        self.spec = f"{folder}/soak.yaml"
        self.losses = {}
        corpus = f"{folder}/corpus.txt"
        generator = random.Random(17)
        words = ["".join(generator.choices("abcdefghijklmnop", k=generator.randint(2, 8))) for _ in range(300)]
        with open(corpus, "w") as text:
            text.write(" ".join(generator.choices(words, k=30000)))
        with open(self.spec, "w") as text:
            text.write(SPEC.format(corpus=corpus))

    def losses_until(self, steps):
        """The rate is constant: a longer run's first losses are a shorter one's."""
        if len(self.losses) < steps:
            say(f"an undisturbed run of {steps} steps, for its losses")
            done = subprocess.run(
                [DELTAPIPE, "run", self.spec, "--json", "--runs", f"{self.folder}/runs-{steps}",
                 "--set", f"train.steps={steps}"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=600)
            self.losses = dict(losses_in(done.stdout.splitlines()))
            if len(self.losses) != steps:
                raise Broken(f"the undisturbed run told {len(self.losses)} steps, expected {steps}")
        return self.losses


def losses_in(lines):
    """(Step, loss) as `run --json` tells them; steps count from 1."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by the end of its writer
        if event.get("event") == "step":
            yield event["step"], event["loss"]


class Trial:
    """What a fault gets: a place, its own random numbers, and where to put figures."""

    def __init__(self, bench, folder, generator, index, left):
        self.bench = bench
        self.folder = folder
        self.random = generator
        self.index = index  # of the trials of this fault
        self.left = left  # how many kills, flips, ... are still to be made
        self.made = 0
        self.figures = {}  # name -> values
        self.counts = {}
        self.cluster = Cluster(folder)
        self.watch = None
        self.steps = 0
        self.compares = True

    def note(self, name, value):
        self.figures.setdefault(name, []).append(value)

    def count(self, name, more=1):
        self.counts[name] = self.counts.get(name, 0) + more

    # A job of a cluster of its own.

    def submit(self, steps, *settings):
        self.steps = steps
        arguments = ["submit", self.bench.spec, "--detach"]
        for setting in (f"train.steps={steps}", *settings):
            arguments += ["--set", setting]
        self.cluster.ask(*arguments)
        self.watch = Watch(self.cluster)

    def begin(self, steps, *settings, compares=True):
        self.compares = compares
        if compares:
            self.bench.losses_until(steps)
        self.cluster.start_coordinator()
        for _ in range(NUM_WORKERS):
            self.cluster.start_worker()
        self.submit(steps, *settings)
        self.watch.wait_for_step(25)

    def state(self):
        return self.cluster.job()["state"]

    def has_ended(self):
        return self.watch.has_told_end()

    def wait_for_end(self):
        self.cluster.wait("the job's end", lambda: self.state() in AT_REST, END_LIMIT)
        job = self.cluster.job()
        if job["state"] != "SUCCEEDED":
            raise Broken(f"the job ended {job['state']}: {job['reason']}")
        return job

    def finish(self, restarts=None, is_each_once=False):
        """The job must end well, with every loss and every sample as they have to be."""
        job = self.wait_for_end()
        if self.compares:
            self.compare(is_each_once)
        if restarts is not None and job["restarts"] != restarts:
            raise Broken(f"the job was started again {job['restarts']} times, expected {restarts}: {job['reason']}")
        self.audit(job)
        return job

    def compare(self, is_each_once):
        """Every loss that was told, also of steps that were done again."""
        self.cluster.wait("the last step's loss", lambda: self.watch.step == self.steps, 10)
        reference = self.bench.losses
        told = [(e["step"]["step"] + 1, e["step"]["loss"]) for e in self.watch.told("step")]
        different = [step for step, loss in told if reference[step] != loss]
        if different:
            raise Broken(f"{len(different)} of {len(told)} losses differ from the undisturbed run's, "
                         f"first at step {min(different)}")
        # Not the other way round: steps are not stored, and who watches anew may miss some.
        if is_each_once and len(told) != len({step for step, _ in told}):
            raise Broken(f"{len(told)} steps were told, some of {self.steps} twice")
        self.count("losses equal", len(told))

    def audit(self, job):
        audit = self.cluster.ask("job", "audit", "soak-1", "--json").objects()[0]
        if not audit["ok"] or audit["steps"] != self.steps or audit["samples_applied"] != self.steps * BATCH:
            raise Broken(f"the audit: {audit}")
        if job["result"]["steps"] != self.steps:
            raise Broken(f"the result has {job['result']['steps']} steps, expected {self.steps}")

    def close(self):
        if self.watch is not None:
            self.watch.stop()
        self.cluster.stop()

    # Workers that are lost.

    def await_loss(self, number, pid, since, when, limit=DETECTION_LIMIT):
        """Waits until the coordinator knows that a worker is gone; returns the mark after that."""
        name = self.cluster.id_of(number)
        begin = time.monotonic()
        while time.monotonic() - begin < limit + 5:
            try:
                since, _, event = self.watch.wait(
                    "detection", since, lambda e: e["kind"] == "restart" and f"pid {pid})" in e["text"], 0.5)
                seconds = max(0.0, event["time_millis"] / 1000 - when)
                if seconds > limit:
                    raise Broken(f"the loss of {name} was noticed after {seconds:.1f} s")
                self.note("detected", seconds)
                return since
            except Broken as late:
                if "not within" not in str(late):
                    raise
            if self.has_ended() or name not in self.cluster.listed_workers():
                return self.watch.mark()  # it was idle then
        raise Broken(f"the loss of {name} (pid {pid}) was not noticed")

    def await_training(self, since, when):
        """Until a step is done beyond that mark."""
        limit = RECOVERY_LIMIT - (time.time() - when)
        end_time = time.monotonic() + max(limit, 1)
        while time.monotonic() < end_time:
            if self.has_ended():
                return
            try:
                _, _, event = self.watch.wait_for_any_step(since, 0.5)
                self.note("training again", event["time_millis"] / 1000 - when)
                return
            except Broken:
                pass
        raise Broken(f"not training again within {RECOVERY_LIMIT} s: {self.cluster.job()['reason']}")

    def kill_worker(self, number):
        """kill -9 and a new worker; measures how long it takes until a step is done again."""
        since = self.watch.mark()
        pid, when = self.cluster.kill(number)
        self.cluster.start_worker()
        self.await_training(self.await_loss(number, pid, since, when), when)


def summary(name, values):
    """Median / maximum; a name in steps says so."""
    middle, most = statistics.median(values), max(values)
    if name.endswith("(steps)"):
        return f"{middle:g} / {most:g}"
    if most < 0.1:
        return f"{middle * 1e3:.1f} / {most * 1e3:.1f} ms"
    return f"{middle:.2f} / {most:.2f} s"
