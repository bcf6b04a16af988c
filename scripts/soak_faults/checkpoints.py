"""Faults of checkpoints: damaged files, and a disk that is full."""
import json
import os
import shutil
import subprocess
import time

from soak_faults.cluster import DELTAPIPE, Broken
from soak_faults.trial import losses_in

STEPS = 400
RESUMED_OF = 50  # every how many damages one is really resumed from
MEBIBYTE = 1 << 20


def make_paused_run(trial):
    """A run with two checkpoints or more, which was asked to end."""
    runs = f"{trial.folder}/runs"
    process = subprocess.Popen(
        [DELTAPIPE, "run", trial.bench.spec, "--json", "--runs", runs, "--set", f"train.steps={STEPS}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in process.stdout:
            event = json.loads(line)
            if event.get("event") == "step" and event["step"] == 190:
                process.terminate()
        if process.wait(timeout=60) != 8:
            raise Broken(f"the run that was asked to end ended with {process.returncode}, expected 8")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return runs


def checkpoints_of(folder):
    return sorted(name for name in os.listdir(folder) if os.path.exists(f"{folder}/{name}/manifest.json"))


class Damage:
    """A changed bit or a missing end of one file; undone by `undo`."""

    def __init__(self, path, random):
        self.path = path
        size = os.path.getsize(path)
        self.at = random.randrange(size)
        self.is_cut = random.random() < 0.5
        with open(path, "r+b") as file:
            file.seek(self.at)
            self.former = file.read() if self.is_cut else file.read(1)
            file.seek(self.at)
            if self.is_cut:
                file.truncate()
            else:
                file.write(bytes([self.former[0] ^ 1 << random.randrange(8)]))

    def __str__(self):
        return f"{os.path.basename(self.path)} {'cut off at' if self.is_cut else 'with another bit in'} byte {self.at}"

    def undo(self):
        with open(self.path, "r+b") as file:
            file.seek(self.at)
            file.write(self.former)


def checkpoint_bits(trial):
    trial.bench.losses_until(STEPS)
    runs = make_paused_run(trial)
    folder = f"{runs}/soak/checkpoints"
    newest = checkpoints_of(folder)[-1]
    names = sorted(os.listdir(f"{folder}/{newest}"))
    verify(f"{folder}/{newest}", 0)
    while trial.made < trial.left:
        # By name: by size, the small files would seldom be chosen.
        path = f"{folder}/{newest}/{trial.random.choice(names)}"
        damage = Damage(path, trial.random)
        told = verify(f"{folder}/{newest}", 1)
        if os.path.basename(path) not in " ".join(told["defects"]):
            raise Broken(f"{damage}: verify does not name the file: {told}")
        trial.count("cut off" if damage.is_cut else "bits flipped")
        if trial.made % RESUMED_OF == 0:
            resume(trial, runs, damage, newest)
        damage.undo()
        trial.made += 1
    verify(f"{folder}/{newest}", 0)
    resume_from_none(trial, runs)


def verify(path, expected):
    done = subprocess.run([DELTAPIPE, "checkpoint", "verify", path, "--json"], capture_output=True, text=True,
                          timeout=60)
    if done.returncode != expected:
        raise Broken(f"verify ended with {done.returncode}, expected {expected}: {done.stdout} {done.stderr}")
    return json.loads(done.stdout)


def resume(trial, runs, damage, newest):
    """From a copy: the older checkpoint is used and the damaged file named, or it is refused."""
    copy = f"{trial.folder}/copy"
    shutil.copytree(runs, copy)
    older = [step_of(name) for name in checkpoints_of(f"{copy}/soak/checkpoints") if name != newest][-1]
    if go_on(trial, copy, older, [(newest, damage)]):
        trial.count("resumed from the older one")
    shutil.rmtree(copy)


def resume_from_none(trial, runs):
    """All checkpoints are damaged: from the beginning, or not at all."""
    folder = f"{runs}/soak/checkpoints"
    damages = [(name, Damage(f"{folder}/{name}/stage-{trial.random.randrange(2)}.safetensors", trial.random))
               for name in checkpoints_of(folder)]
    if go_on(trial, runs, 0, damages):
        trial.count("begun anew where all were damaged")


def step_of(name):
    return int(name.split("-")[1])


def go_on(trial, runs, since, damages):
    """Whether the run went on after that step, told everybody why, and computed what it should."""
    what = "; ".join(f"{name}: {damage}" for name, damage in damages)
    begin = time.monotonic()
    done = subprocess.run(
        [DELTAPIPE, "run", trial.bench.spec, "--json", "--runs", runs, "--set", f"train.steps={STEPS}", "--resume"],
        capture_output=True, text=True, timeout=120)
    losses = list(losses_in(done.stdout.splitlines()))
    told = [json.loads(line).get("text", "") for line in done.stdout.splitlines()] + [done.stderr]
    for name, damage in damages:
        if not any(name in text and os.path.basename(damage.path) in text for text in told):
            raise Broken(f"{what}: nobody was told when the job was resumed")
    if done.returncode != 0:
        if losses:
            raise Broken(f"{what}: resume trained, and ended with {done.returncode}: {done.stderr}")
        trial.count("resumes refused")
        return False
    if [step for step, _ in losses] != list(range(since + 1, STEPS + 1)):
        raise Broken(f"{what}: the job went on with step {losses[0][0]}, expected {since + 1}")
    different = [step for step, loss in losses if trial.bench.losses[step] != loss]
    if different:
        raise Broken(f"{what}: silently other losses from step {different[0]} on")
    trial.note("resumed run", time.monotonic() - begin)
    trial.count("losses equal", len(losses))
    return True


def newest_damaged(trial):
    """While the job runs: a dead worker sends it back to a checkpoint that is damaged."""
    trial.begin(steps=800)
    folder = f"{trial.folder}/models/soak-1/checkpoints"
    trial.cluster.wait("two checkpoints", lambda: len(checkpoints_of(folder)) >= 2, 60)
    number = trial.random.choice(trial.cluster.alive())
    since = trial.watch.mark()
    pid, when = trial.cluster.kill(number)
    since = trial.await_loss(number, pid, since, when)
    newest = checkpoints_of(folder)[-1]
    files = sorted(os.listdir(f"{folder}/{newest}"))
    damage = Damage(f"{folder}/{newest}/{trial.random.choice(files)}", trial.random)
    trial.cluster.start_worker()
    trial.await_training(since, when)
    named = [e for e in trial.watch.told("checkpoint")
             if newest in e["text"] and os.path.basename(damage.path) in e["text"]]
    if not named:
        raise Broken(f"{damage}: no event names it")
    trial.finish(restarts=1)
    trial.made = 1


def enospc(trial):
    """The disk of the checkpoints is full for a while, and a worker dies meanwhile."""
    disk = f"{trial.folder}/disk"
    os.makedirs(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "deltapipe-soak", disk], check=True)
    try:
        trial.begin(1000, f"checkpoint.folder={disk}/checkpoints")
        folder = f"{disk}/checkpoints"
        trial.watch.wait_for_step(trial.random.randint(80, 140))
        since = trial.watch.mark()
        fill(f"{disk}/filler")
        trial.watch.wait("word of the full disk", since,
                         lambda e: e["kind"] == "warning" and "No space left on device" in e["text"], 20)
        step = trial.watch.step
        trial.watch.wait_for_step(step + 60)
        trial.count("steps done on a full disk", trial.watch.step - step)
        good = checkpoints_of(folder)[-1]
        verify(f"{folder}/{good}", 0)
        number = trial.random.choice(trial.cluster.alive())
        trial.kill_worker(number)
        begun = [e["text"] for e in trial.watch.told("state") if e["state"] == "RUNNING"][-1]
        if good not in begun:
            raise Broken(f"the job did not go back to {good}: {begun}")
        trial.count("resumed from the last good one")
        since = trial.watch.mark()
        os.remove(f"{disk}/filler")
        trial.watch.wait("a checkpoint once there is room", since, lambda e: e["kind"] == "checkpoint", 20)
        trial.finish(restarts=1)
        for name in checkpoints_of(folder):
            verify(f"{folder}/{name}", 0)
            trial.count("checkpoints good at the end")
        trial.made = 1
    finally:
        trial.close()
        subprocess.run(["umount", disk], check=True)


def fill(path):
    """Takes all room that there is, and what others free in the next moment."""
    with open(path, "wb", buffering=0) as filler:
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.5:
            try:
                filler.write(bytes(MEBIBYTE // 16))
                quiet_since = time.monotonic()
            except OSError:
                time.sleep(0.005)


FAULTS = {
    "checkpoint-bits": (
        "a bit flipped in, or the end cut off, a random file of the newest checkpoint; one in 50 is resumed from",
        "`checkpoint verify` finds every one and names the file; resumed, the older one is used and an event names the "
        "file; every loss equal",
        checkpoint_bits, "flips", 100, 1000),
    "newest-damaged": (
        "the same while the job runs, after kill -9 of a worker",
        "the checkpoint before is used, an event names the file; every loss equal", newest_damaged, "runs", 3, 10),
    "enospc": (
        "the disk of the checkpoints fills up, a worker is killed, then there is room again",
        "training goes on, a warning says why there is no checkpoint; the last good one verifies and is used; later "
        "ones follow; every loss equal",
        enospc, "runs", 2, 5),
}
