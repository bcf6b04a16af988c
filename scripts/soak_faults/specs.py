"""Specs as people write them: settings drawn at random, a worker killed, the run resumed with something changed."""
import glob
import json
import os
import random
import signal
import struct
import subprocess
import time

from soak_faults.cluster import AT_REST, DELTAPIPE, NUM_WORKERS, Broken, Watch, end, say
from soak_faults.trial import losses_in

STEPS = 40
LIMIT = 240  # seconds for a run
OK, BAD_SPEC, WRONG_STATE = 0, 2, 4
JOB = "soak-1"
CLICKED_STEPS, CLICKS = 600, 12
IMAGES = "../images"  # seen from the folder of a trial

SMALL_CODECS = ("int(8)", "int(4)", "int(3,clip=minmax)", "int(4,levels=affine)", "sign(block=256)", "luq", "fp(4,3)",
                "cast(bf16)", "cast(fp16)", "rowwise4(search=minmax)", "eoq_flag8", "hadamard(int(4))", "aqsgd(4)",
                "error_bound(rel=0.01)", "per_head(int(4),head=8)", "lowrank(4)", "topk(0.2)", "nonzero(int(4))",
                "mixed(3)", "entropy_tiles", "dual_precision", "prune(0.5)", "luq(range=hindsight)",
                "int(4,channel=slow)")
STORES = ("", ",store=fp32", ",store=int(8)")
POLICIES = ("none", "fixed(int(8))", "fixed(int(4))", "actnn(bits=4)", "gact(bits=4,every=10)", "comet(target=0.01)",
            "division", "mesa(bits=8)", "recompute(every=1)", "recompute(every=2,codec=int(8))", "lean(none)",
            "lean(fixed(int(4)))", "auto(64)")


def boundary_codec(pick, is_gradient):
    kind = pick.random()
    if kind < 0.15:
        return "auto"
    codec = pick.choice(SMALL_CODECS)
    if kind < 0.45 and not is_gradient or kind < 0.25:
        return f"delta({codec},first={pick.choice(('int(8)', 'none', 'cast(bf16)'))}{pick.choice(STORES)})"
    if kind < 0.6:
        return f"ef({codec}{pick.choice(('', ',store=int(8)'))})"
    return codec


SHAPES = ((1, 1), (1, 2), (2, 1), (2, 2), (2, 2), (3, 1), (1, 3), (1, 4), (4, 1))


def draw(pick, shapes=SHAPES):
    """Settings of a small job, as `--set` takes them."""
    stages, replicas = pick.choice(shapes)
    microbatch = pick.choice([1, 2, 4])
    optimizer = pick.choice(["sgd", "adam", "adamw", "lamb", "onebit_adam", "onebit_lamb", "zero_one_adam"])
    compresses = optimizer in ("onebit_adam", "onebit_lamb", "zero_one_adam")
    settings = {
        "model.kind": "gpt",
        "model.layers": pick.choice([4, 5]),
        "model.width": pick.choice([16, 32]),
        "model.heads": 2,
        "model.context": pick.choice([8, 16]),
        "train.steps": STEPS,
        "train.microbatch": microbatch,
        "train.batch": microbatch * replicas * pick.choice([1, 2, 4, 4]),
        "train.optimizer.kind": optimizer,
        "train.optimizer.learning_rate": 1e-3,
        "parallel.stages": stages,
        "parallel.replicas": replicas,
        "parallel.partition": "even",
        "compression.activations": boundary_codec(pick, False),
        "compression.activation_gradients": boundary_codec(pick, True),
        "compression.verdict": "tell",
        "checkpoint.every": pick.choice([5, 7]),
        "failure.detection_budget": "3s",
    }

    def sometimes(share, name, *values):
        if pick.random() < share:
            settings[name] = pick.choice(values)

    kind = pick.choice(["gpt", "gpt", "gpt", "mlp", "resnet", "image_mlp", "synthetic"])
    if kind != "gpt":
        settings["model.kind"] = kind
    if kind in ("resnet", "image_mlp"):
        settings.update({"data.kind": "fashion_mnist", "data.path": IMAGES, "data.validation": 0.5})
        sometimes(0.3, "data.views", 2, "unbounded")
        if kind == "resnet":
            settings.update({"model.width": 4, "model.layers": 4})
            sometimes(0.7, "model.norm", "group", "fixup")
            sometimes(0.2, "data.sizes", "28:0.5,20:0.5")
    if kind == "synthetic":
        settings.update({"model.synthetic.forward_time": "1ms", "model.synthetic.backward_time": "2ms",
                         "model.synthetic.samples": 64, "parallel.partition": "auto"})
        sometimes(0.8, "model.synthetic.parameters_per_stage", 1000, 70000)
    if compresses:
        settings["train.optimizer.compress_after_step"] = pick.choice([8, "25%", "auto"])
        sometimes(0.4, "compression.gradients", "sign(block=0)", "sign(block=64)", "int(4)", "identity", "cast(bf16)")
        sometimes(0.3, "compression.plain_gradients", "cast(bf16)")
        # A variance that is frozen so soon must have settled so soon.
        settings["train.optimizer.beta2"] = 0.9
    else:
        sometimes(0.3, "compression.gradients", "cast(bf16)", "none")
        sometimes(0.2, "train.optimizer.shard_state", "on")
    if optimizer == "zero_one_adam":
        settings["train.optimizer.variance_update_scaler"] = 2
        settings["train.optimizer.local_step_scaler"] = 4
        settings["train.optimizer.local_step_clipper"] = 4
    if replicas == 4:
        sometimes(0.6, "parallel.nodes", 2)
        sometimes(0.3, "compression.node_gradients", "cast(bf16)")
    if kind == "gpt":
        sometimes(0.3, "model.tied", "on")
    sometimes(0.2, "model.dropout", 0.1)
    if kind != "synthetic":
        sometimes(0.4, "train.precision", "bf16", "fp16")
    sometimes(0.5, "parallel.schedule", "gpipe", "1f1b", "2bw", "2bw")
    sometimes(0.4, "compression.saved_activations", *POLICIES)
    sometimes(0.2, "compression.saved_probe_every", 6)
    sometimes(0.2, "compression.state_on", "disk")
    sometimes(0.2, "compression.state_memory", "20kB", "200kB")
    sometimes(0.3, "stragglers.policy", "detect", *(("drop", "rebalance", "auto") if replicas > 1 else ()))
    sometimes(0.1, "stragglers.inject", '"lognormal:1.0"', '"slow:rank=0,x=2"')
    sometimes(0.2, "stragglers.requeue", "on")
    sometimes(0.2, "checkpoint.records", "forget")
    sometimes(0.2, "checkpoint.staging", "10kB")
    sometimes(0.2, "network.checksums", "off")
    sometimes(0.2, "network.emulate.latency", "3ms")
    sometimes(0.2, "train.clip_norm", 0, 0.1)
    sometimes(0.3, "train.validate_every", 9)
    sometimes(0.3, "train.verify_every", 4)
    sometimes(0.3, "train.report_every", 3)
    sometimes(0.2, "train.optimizer.lr_warmup_steps", 5)
    sometimes(0.2, "train.optimizer.groups", "[{match: '*weight', weight_decay: 0, learning_rate_scale: 0.5}]")
    sometimes(0.2, "train.optimizer.look_ahead", 1)
    return settings


def differ_by_clock(settings):
    """Whether two runs of it may train otherwise."""
    return (settings.get("stragglers.policy") in ("drop", "rebalance", "auto")
            or settings.get("checkpoint.records") == "forget")


def change(pick, settings):
    """Something that people change when they go on."""
    changed = dict(settings)
    name = pick.choice(["activations", "gradients", "saved", "replicas", "schedule", "precision", "stragglers",
                        "nothing"])
    if name == "activations":
        changed["compression.activations"] = boundary_codec(pick, False)
        changed["compression.activation_gradients"] = boundary_codec(pick, True)
    elif name == "gradients":
        changed["compression.gradients"] = pick.choice(["auto", "cast(bf16)", "none", "int(4)"])
    elif name == "saved":
        changed["compression.saved_activations"] = pick.choice(POLICIES)
    elif name == "replicas":
        changed["parallel.replicas"] = 3 - min(2, settings["parallel.replicas"])
        changed["train.batch"] = settings["train.microbatch"] * changed["parallel.replicas"] * 2
        changed.pop("parallel.nodes", None)
        changed.pop("compression.node_gradients", None)
    elif name == "schedule":
        changed["parallel.schedule"] = pick.choice(["gpipe", "1f1b", "2bw"])
    elif name == "precision":
        changed["train.precision"] = pick.choice(["fp32", "bf16", "fp16"])
    elif name == "stragglers":
        changed["stragglers.policy"] = pick.choice(["none", "detect", "drop", "rebalance", "auto"])
    return name, changed


def write_images(folder):
    """Four files of MNIST's format, of noise that leans to its class."""
    if os.path.isdir(folder):
        return
    os.makedirs(folder)
    generator = random.Random(17)
    for name, count in (("train", 400), ("t10k", 100)):
        labels = bytes(generator.randrange(10) for _ in range(count))
        pixels = b"".join(bytes(min(255, 20 * label + generator.randrange(64)) for _ in range(28 * 28))
                          for label in labels)
        with open(f"{folder}/{name}-labels-idx1-ubyte", "wb") as file:
            file.write(struct.pack(">II", 2049, count) + labels)
        with open(f"{folder}/{name}-images-idx3-ubyte", "wb") as file:
            file.write(struct.pack(">IIII", 2051, count, 28, 28) + pixels)


def command(trial, verb, settings, *more):
    """What gives the spec with these settings to `verb`; kept in the trial's folder."""
    arguments = [verb, trial.bench.spec, *more]
    for path, value in settings.items():
        arguments += ["--set", f"{path}={value}"]
    with open(f"{trial.folder}/commands", "a") as commands:
        commands.write(json.dumps([DELTAPIPE, *arguments]) + "\n")
    return arguments


class Run:
    """A `deltapipe run` in the trial's folder."""

    def __init__(self, trial, settings, name, *more):
        self.trial = trial
        self.told = f"{trial.folder}/{name}.ndjson"
        self.errors = f"{trial.folder}/{name}.err"
        arguments = command(trial, "run", {**settings, "name": name}, "--json", "--runs", f"{trial.folder}/runs", *more)
        # One that goes on writes behind what it told before.
        with open(self.told, "a") as output, open(self.errors, "a") as errors:
            self.process = subprocess.Popen([DELTAPIPE, *arguments], stdout=output, stderr=errors, cwd=trial.folder)

    def losses(self):
        """By step, as first told; and the steps that were told otherwise later."""
        first, otherwise = {}, []
        with open(self.told) as lines:
            for step, loss in losses_in(lines):
                if first.setdefault(step, loss) != loss:
                    otherwise.append(step)
        return first, otherwise

    def kill_a_worker(self, after):
        """False if the run was over before."""
        while self.process.poll() is None:
            if max(self.losses()[0], default=0) >= after:
                break
            time.sleep(0.01)
        children = []
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(stat) as line:
                    fields = line.read()
            except OSError:
                continue
            if int(fields.rsplit(")", 1)[1].split()[1]) == self.process.pid and "(deltapipe-worke" in fields:
                children.append(int(os.path.basename(os.path.dirname(stat))))
        if not children or self.process.poll() is not None:
            return False
        os.kill(self.trial.random.choice(sorted(children)), signal.SIGKILL)
        return True

    def end(self):
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Broken(f"hung for {LIMIT} s: {self.last_words()}") from None
        return code

    def last_words(self):
        with open(self.errors) as errors:
            return errors.read().strip()[-600:]


def reasons(words):
    return "; ".join(line.split("error: ", 1)[1] for line in words.splitlines() if "error: " in line) or words


def expect_ok(run):
    code = run.end()
    if code != OK:
        raise Broken(f"exit {code}: {run.last_words()}")
    return run.losses()


def random_specs(trial):
    write_images(f"{trial.bench.folder}/images")
    settings = draw(trial.random)
    trial.made = 1
    whole = Run(trial, settings, "whole")
    code = whole.end()
    if code == BAD_SPEC:
        words = whole.last_words()
        if "expected" not in words and "error:" not in words:
            raise Broken(f"refused without a reason: {words}")
        trial.count("refused")
        say(f"refused: {reasons(words)}")
        return
    reference, _ = expect_ok(whole)
    trial.count("diverged" if None in reference.values() else "trained")

    killed = Run(trial, settings, "killed")
    if killed.kill_a_worker(trial.random.randint(2, STEPS - 5)):
        trial.count("workers killed")
    losses, again = expect_ok(killed)
    # Samples whose records were forgotten travel as values once more.
    if again and settings.get("checkpoint.records") != "forget":
        raise Broken(f"done again, step {min(again)} had another loss")
    if not differ_by_clock(settings):
        different = [step for step, loss in reference.items() if losses.get(step) != loss]
        if different:
            raise Broken(f"losses differ from the undisturbed run's, first at step {min(different)}")
        trial.count("losses equal", len(reference))

    name, changed = change(trial.random, settings)
    steps = STEPS + 15
    changed["train.steps"] = steps
    resumed = Run(trial, changed, "killed", "--resume")
    code = resumed.end()
    if code == BAD_SPEC:
        trial.count("resume refused")
        say(f"refused with other {name}: {reasons(resumed.last_words())}")
        return
    first, _ = expect_ok(resumed)
    if max(first) not in (steps, steps - steps % changed.get("train.report_every", 1)):
        raise Broken(f"resumed with other {name}, it ended at step {max(first)}")
    trial.count("resumed")


class Clicks:
    """What people do to a job that runs, one thing after the other."""

    def __init__(self, trial):
        self.trial = trial
        self.cluster = trial.cluster
        self.actions = (self.set, self.set, self.set, self.kill_worker, self.kill_coordinator, self.pause, self.drain,
                        self.checkpoint)

    def click(self):
        self.trial.random.choice(self.actions)()

    def ask(self, what, *arguments):
        answer = self.cluster.try_to_ask(*arguments)
        if answer.code not in (OK, BAD_SPEC, WRONG_STATE):
            raise Broken(f"deltapipe {' '.join(arguments)}: exit {answer.code}: {answer.errors}")
        self.trial.count(what if answer.code == OK else f"{what} refused")
        return answer.code == OK

    def set(self):
        pick = self.trial.random
        edits = pick.sample([
            f"activations={boundary_codec(pick, False)}",
            f"activation_gradients={boundary_codec(pick, True)}",
            f"gradients={pick.choice(('sign(block=0)', 'int(4)', 'cast(bf16)', 'none', 'auto'))}",
            f"saved_activations={pick.choice(POLICIES)}",
            f"inject={pick.choice(('none', 'lognormal:0.5', 'slow:rank=0,x=1.5', 'input:rank=0,by=2ms'))}",
            f"straggler_policy={pick.choice(('none', 'detect', 'drop', 'rebalance', 'auto'))}",
            f"boundaries[0].rate_limit={pick.choice(('unlimited', '300Mbit/s'))}",
            f"tuner.mode={pick.choice(('off', 'propose', 'apply'))}",
            f"budget={pick.choice(('none', '100kB'))}"], pick.randint(1, 3))
        self.ask("changes", "set", JOB, *edits)

    def kill_worker(self):
        members = self.cluster.members()
        alive = [number for number in members.values() if number in self.cluster.alive()]
        if not alive or self.trial.has_ended():
            return
        self.trial.kill_worker(self.trial.random.choice(alive))
        self.trial.count("workers killed")

    def kill_coordinator(self):
        end(self.cluster.coordinator)
        self.cluster.start_coordinator()
        self.trial.count("coordinators killed")

    def pause(self):
        if not self.ask("pauses", "pause", JOB):
            return
        self.cluster.wait("a pause", lambda: self.trial.state() in AT_REST, 60)
        if self.trial.state() == "PAUSED":
            self.cluster.ask("resume", JOB)

    def drain(self):
        listed = self.cluster.listed_workers()
        self.cluster.start_worker()
        self.ask("drains", "worker", "drain", self.trial.random.choice(listed))

    def checkpoint(self):
        self.ask("checkpoints", "checkpoint", "create", JOB)


def random_clicks(trial):
    write_images(f"{trial.bench.folder}/images")
    settings = draw(trial.random, shapes=((2, 2),))
    settings.update({"train.steps": CLICKED_STEPS, "checkpoint.every": 20, "failure.max_restarts": 50,
                     "train.report_every": 1})
    trial.made = 1
    trial.steps = CLICKED_STEPS
    trial.cluster.start_coordinator()
    for _ in range(NUM_WORKERS):
        trial.cluster.start_worker()
    answer = trial.cluster.try_to_ask(*command(trial, "submit", settings, "--detach"))
    if answer.code == BAD_SPEC:
        trial.count("refused")
        return
    if answer.code != OK:
        raise Broken(f"submit: exit {answer.code}: {answer.errors}")
    trial.watch = Watch(trial.cluster)
    trial.watch.wait_for_step(5)
    clicks = Clicks(trial)
    for _ in range(CLICKS):
        time.sleep(trial.random.uniform(0, 0.5))
        if trial.has_ended():
            break
        clicks.click()
    trial.cluster.wait("the job's end", lambda: trial.state() in AT_REST, LIMIT)
    job = trial.cluster.job()
    if "diverged" in job["reason"]:
        trial.count("diverged")
        return
    if job["state"] != "SUCCEEDED":
        raise Broken(f"the job ended {job['state']}: {job['reason']}")
    audit = trial.cluster.ask("job", "audit", JOB, "--json").objects()[0]
    if not audit["ok"] or audit["steps"] != CLICKED_STEPS:
        raise Broken(f"the audit: {audit}")
    trial.count("trained")


FAULTS = {
    "random-clicks": (
        "settings drawn at random, and a dozen things done to the job: knobs changed, workers and the coordinator "
        "killed, pauses, drains, checkpoints",
        "each is made or refused, and the job trains all its steps; the audit finds every sample",
        random_clicks, "runs", 5, 50),
    "random-specs": (
        "settings of a job drawn at random; a worker killed at a random step; resumed with something changed",
        "refused before it starts, with the field (exit 2), or trained: every loss equal where no clock decides, "
        "also after the kill; resumed or refused likewise",
        random_specs, "runs", 10, 100),
}
