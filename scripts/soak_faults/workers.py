"""Faults of workers: killed at any moment and at named places, stopped, asked to leave."""
import os
import signal
import time

from soak_faults.cluster import Broken
from soak_faults.trial import DETECTION_LIMIT, RECOVERY_LIMIT

KILLS_PER_JOB = 20
FAILPOINTS_PER_JOB = 7

# Ranks 0 and 1 are the first stage's replicas, 2 and 3 the second's. Each name
# with the ranks that pass it, and within how many passes one of them dies.
FIRST, SECOND, ALL = (0, 1), (2, 3), (0, 1, 2, 3)
FAILPOINTS = {
    "load": (ALL, 200),
    "receive-activation": (SECOND, 100),
    "forward": (ALL, 100),
    "send-activation": (FIRST, 100),
    "receive-gradient": (FIRST, 100),
    "backward": (ALL, 100),
    "send-gradient": (SECOND, 100),
    "reduce": (ALL, 60),
    "apply": (ALL, 60),
    "weights-changed": (ALL, 60),
    "step-done": (ALL, 60),
    "step-told": (ALL, 60),
    "checkpoint": (ALL, 3),
    "stage-file-written": ((0, 2), 3),  # the first replica of each stage writes it
    "files-written": (ALL, 3),
    "manifest": (ALL, 3),
    "manifest-stored": (ALL, 3),
    "validate": (ALL, 2),
    "restored": (ALL, 1),
    "tuned": (ALL, 2),  # once somebody changes a knob
}


def kill_storm(trial):
    """Some kills hit a job that has not yet recovered from the one before."""
    trial.begin(steps=1600)
    while trial.made < min(trial.left, KILLS_PER_JOB):
        time.sleep(trial.random.uniform(0, 0.8))
        if trial.has_ended():
            break
        if trial.random.random() < 0.2:
            trial.cluster.kill(trial.random.choice(trial.cluster.alive()))
            trial.cluster.start_worker()
            trial.made += 1
            trial.count("kills while it recovered")
            time.sleep(trial.random.uniform(0, 0.3))
        if trial.made < trial.left:
            trial.kill_worker(trial.random.choice(trial.cluster.alive()))
            trial.made += 1
    trial.finish()


def failpoints(trial):
    """One worker after the other, in the place of one that was killed, dies where it is told to."""
    trial.begin(steps=1600)
    names = list(FAILPOINTS)[len(FAILPOINTS) - trial.left:]
    for name in names[:FAILPOINTS_PER_JOB]:
        if not die_at(trial, name):
            break  # the job was quicker: in the next one
        trial.made += 1
        trial.count(f"at {name}")
    if trial.made == 0:
        raise Broken(f"nobody passed the failpoint {names[0]}")
    trial.finish()


def die_at(trial, name):
    """False if the job ended before anybody died there."""
    ranks, most = FAILPOINTS[name]
    since = trial.watch.mark()
    if trial.has_ended():
        return False
    victim = trial.cluster.members()[trial.random.choice(ranks)]
    pid, when = trial.cluster.kill(victim)
    doomed = trial.cluster.start_worker({"DELTAPIPE_FAILPOINTS": f"{name}=kill@{trial.random.randint(1, most)}"})
    since = trial.await_loss(victim, pid, since, when)
    process = trial.cluster.workers[doomed]
    begin = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - begin > 60:
            raise Broken(f"the failpoint {name} was not passed within 60 s")
        if trial.has_ended():
            return False
        if name == "tuned":
            rate = trial.random.choice(["1Gbit/s", "2Gbit/s", "3Gbit/s"])
            trial.cluster.try_to_ask("set", "soak-1", f"boundaries[0].rate_limit={rate}")
        time.sleep(0.002)
    when = time.time()
    if process.returncode != -signal.SIGKILL:
        raise Broken(f"the worker that was to die at {name} ended with {process.returncode}")
    trial.cluster.start_worker()
    trial.await_training(trial.await_loss(doomed, process.pid, since, when), when)
    return True


def stop_60s(trial):
    """It wakes up while a later generation trains, and is told that it is no part of it."""
    # Slow links make steps long enough for the job to go on meanwhile.
    trial.begin(1000, "network.emulate.latency=20ms")
    members = trial.cluster.members()
    number = members[trial.random.choice(sorted(members))]
    process = trial.cluster.workers[number]
    since, when = trial.watch.mark(), time.time()
    process.send_signal(signal.SIGSTOP)
    trial.cluster.start_worker()
    trial.await_training(trial.await_loss(number, process.pid, since, when), when)
    generation = trial.cluster.job()["generation"]
    time.sleep(max(0.0, when + 60 - time.time()))
    if trial.has_ended():
        raise Broken("the job was quicker than the worker's sleep")
    step, told = trial.watch.step, os.path.getsize(trial.cluster.log_of(number))
    process.send_signal(signal.SIGCONT)
    woken = time.time()

    def is_fenced():
        with open(trial.cluster.log_of(number)) as log:
            log.seek(told)
            words = log.read()
        return process.poll() is not None or "given this worker's part to another" in words
    trial.cluster.wait("the woken worker's end of its part", is_fenced, 20)
    trial.note("fenced", time.time() - woken)
    trial.watch.wait_for_step(step + 20)
    job = trial.finish(restarts=1)
    if job["generation"] != generation:
        raise Broken(f"the job went on in generation {job['generation']}, expected {generation}")
    folder = f"{trial.folder}/models/soak-1/checkpoints"
    late = [name for name in os.listdir(folder) if not name.endswith(f"-g{generation}")]
    if late:
        raise Broken(f"checkpoints of another generation: {late}")
    trial.count("frames of an earlier membership refused", int(job["result"].get("faults", {}).get("refused", 0)))
    trial.made = 1


def worker_terminated(trial):
    trial.begin(steps=800)
    number = trial.random.choice(trial.cluster.alive())
    process = trial.cluster.workers[number]
    since, when = trial.watch.mark(), time.time()
    trial.cluster.start_worker()
    process.terminate()
    code = process.wait(timeout=30)
    trial.note("left", time.time() - when)
    if code != 8:
        raise Broken(f"the worker that was asked to leave ended with {code}, expected 8")
    await_next_generation(trial, since, when)
    trial.finish(restarts=0, is_each_once=True)
    trial.made = 1


def worker_drained(trial):
    trial.begin(steps=800)
    name = trial.random.choice(trial.cluster.listed_workers())
    trial.cluster.start_worker()
    since, when = trial.watch.mark(), time.time()
    trial.cluster.ask("worker", "drain", name)
    trial.cluster.wait("the drain", lambda: name not in trial.cluster.listed_workers(), 30)
    trial.note("gone", time.time() - when)
    await_next_generation(trial, since, when)
    trial.finish(restarts=0, is_each_once=True)
    trial.made = 1


def await_next_generation(trial, since, when):
    since, _, _ = trial.watch.wait(
        "the next generation", since, lambda e: e["kind"] == "state" and e["state"] == "RUNNING", RECOVERY_LIMIT)
    trial.await_training(since, when)


def paused(trial):
    trial.begin(steps=800)
    since, when = trial.watch.mark(), time.time()
    trial.cluster.ask("pause", "soak-1")
    trial.watch.wait("the pause", since, lambda e: e["kind"] == "state" and e["state"] == "PAUSED", 30)
    trial.note("paused", time.time() - when)
    since, when = trial.watch.mark(), time.time()
    trial.cluster.ask("resume", "soak-1")
    await_next_generation(trial, since, when)
    trial.finish(restarts=0, is_each_once=True)
    trial.made = 1


# name: what is done, what must come of it, action, unit, default number, full number
FAULTS = {
    "kill-storm": (
        "kill -9 of a random worker at a random moment, some while the job recovers from the one before",
        f"noticed within {DETECTION_LIMIT:g} s, a step done again within {RECOVERY_LIMIT} s; every loss equal",
        kill_storm, "kills", 12, 100),
    "failpoints": (
        f"kill -9 of a worker that passes one of {len(FAILPOINTS)} named places, each in turn",
        f"as above; each place is reached; every loss equal", failpoints, "failpoints", len(FAILPOINTS),
        len(FAILPOINTS)),
    "stop-60s": (
        "SIGSTOP of a random worker, SIGCONT 60 s later, when its part has long been another's",
        "replaced as if it had been killed; once awake it gives up its part and writes nothing; every loss equal",
        stop_60s, "runs", 1, 2),
    "worker-terminated": (
        "SIGTERM to a random worker", "a checkpoint of that step, exit code 8, no step done twice; every loss equal",
        worker_terminated, "runs", 3, 5),
    "worker-drained": (
        "`deltapipe worker drain` of a random worker", "a checkpoint of that step, the job goes on with a spare",
        worker_drained, "runs", 3, 5),
    "paused": (
        "`deltapipe pause`, `deltapipe resume`", "goes on from the step where it stood; every loss equal",
        paused, "runs", 3, 5),
}
