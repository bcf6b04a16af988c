"""Faults of coordinators: killed while people use them, and two of them on one store."""
import os
import random
import signal
import socket
import threading
import time

from soak_faults.cluster import NUM_WORKERS, Broken, ask_at, end

KILLS_PER_JOB = 15
SERVING_LIMIT = 3
RETURN_LIMIT = 3 * 3 + 2.0  # a coordinator that is back waits three budgets for workers
CHECKPOINT_LIMIT = 400  # steps from the answer to a request for one
PAUSE_LIMIT = 50  # steps that a job may do before it pauses
UNREACHABLE, REFUSED = 5, 4


class Client(threading.Thread):
    """Gives one command after the other, and knows what was answered."""

    def __init__(self, trial, codecs):
        super().__init__(daemon=True)
        self.trial = trial
        self.codecs = codecs
        self.cluster = trial.cluster
        self.must_end = threading.Event()
        self.given = []  # {"verb", "reason", "code", "errors", ...}
        self.trouble = ""

    def run(self):
        pick = random.Random(self.trial.random.random())
        verbs = [self.set, self.set, self.set_with_etag, self.set_with_stale_etag, self.checkpoint, self.submit]
        try:
            while not self.must_end.is_set() and not self.trial.has_ended():
                if pick.random() < 0.06:
                    self.pause_and_resume()
                else:
                    pick.choice(verbs)(pick)
        except (Broken, OSError, ValueError, LookupError) as error:
            self.trouble = str(error) or type(error).__name__

    def give(self, verb, *arguments, **more):
        step = self.trial.watch.step
        coordinator = self.cluster.coordinator
        answer = self.cluster.try_to_ask(*arguments)
        if answer.code not in (0, REFUSED, UNREACHABLE):
            raise Broken(f"deltapipe {' '.join(arguments)}: exit {answer.code}: {answer.errors}")
        if "did not answer in time" in answer.errors and self.cluster.coordinator is coordinator:
            raise Broken(f"deltapipe {' '.join(arguments)}: {answer.errors}")
        self.given.append({"verb": verb, "code": answer.code, "errors": answer.errors, "step": step,
                           "answered_at": self.trial.watch.step, **more})
        if answer.code == UNREACHABLE:
            time.sleep(0.02)
        return answer

    def reason(self):
        return f"command-{self.trial.index}-{len(self.given)}."

    def set(self, pick, *more):
        reason = self.reason()
        # A rate that it never had: what changes nothing is no event.
        edits = [f"boundaries[0].rate_limit={1000 + len(self.given)}Mbit/s"]
        if self.codecs and pick.random() < 0.7:
            edits.append(f"{pick.choice(['activations', 'activation_gradients'])}={pick.choice(self.codecs)}")
        return self.give("set", "set", "soak-1", *edits, "--reason", reason, "--json", *more, reason=reason)

    def set_with_etag(self, pick):
        tuning = self.cluster.try_to_ask("set", "soak-1", "--json")
        if tuning.code == 0:
            self.set(pick, "--etag", tuning.objects()[0]["etag"])

    def set_with_stale_etag(self, pick):
        tuning = self.cluster.try_to_ask("set", "soak-1", "--json")
        if tuning.code == 0 and self.set(pick).code == 0:
            after = self.cluster.try_to_ask("set", "soak-1", "--json")
            if after.code == 0 and after.objects()[0]["etag"] != tuning.objects()[0]["etag"]:
                answer = self.set(pick, "--etag", tuning.objects()[0]["etag"])
                if answer.code == 0:
                    raise Broken(f"a stale etag was accepted: {answer.output}")

    def checkpoint(self, pick):
        self.give("checkpoint", "checkpoint", "create", "soak-1")

    def submit(self, pick):
        """A job for more workers than there are, and its end."""
        name = f"extra-{self.trial.index}-{len(self.given)}"
        answer = self.give("submit", "submit", self.trial.bench.spec, "--detach", "--set", f"name={name}",
                           "--set", "parallel.replicas=4", name=name)
        if answer.code == 0:
            job = answer.output.strip()
            self.given[-1]["job"] = job
            self.give("cancel", "cancel", job, job=job)

    def pause_and_resume(self):
        reason = self.reason()
        if self.give("pause", "pause", "soak-1", "--reason", reason, reason=reason).code != 0:
            # Nobody knows whether it holds.
            if "nothing to pause" in self.given[-1]["errors"]:
                return
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not self.trial.has_ended():
            answer = self.cluster.try_to_ask("describe", "soak-1", "--json")
            if answer.code == 0:
                job = answer.objects()[0]
                if job["state"] == "PAUSED":
                    self.give("resume", "resume", "soak-1")
                elif job["state"] in ("RUNNING", "PENDING", "STARTING") and job["wish"] != "PAUSE":
                    return
            time.sleep(0.02)
        if not self.trial.has_ended():
            raise Broken(f"neither paused nor going on 30 s after {self.given[-1]}")

    def stop(self):
        self.must_end.set()
        self.join(timeout=90)
        if self.trouble:
            raise Broken(self.trouble)


def coordinator_storm(trial):
    """Every other job changes codecs, so that its losses are its own; the others only rates."""
    changes_codecs = trial.index % 2 == 1
    codecs = ("int(8)", "int(4)", "delta(int(4),first=int(8))", "cast(bf16)")
    trial.begin(2400, "checkpoint.every=0", compares=not changes_codecs)
    client = Client(trial, codecs if changes_codecs else ())
    client.start()
    while trial.made < min(trial.left, KILLS_PER_JOB):
        time.sleep(trial.random.uniform(0.1, 0.9))
        if trial.has_ended():
            break
        if trial.random.random() < 0.5:
            await_change(trial)
        kill_coordinator(trial)
        trial.made += 1
    time.sleep(1)
    client.stop()
    trial.finish(restarts=0)
    check_commands(trial, client.given)


def await_change(trial):
    """Until a worker says that a change holds, which the coordinator may not have stored yet."""
    path = trial.cluster.log_of(trial.random.choice(trial.cluster.alive()))
    size = os.path.getsize(path)
    limit = time.monotonic() + 1
    with open(path) as log:
        log.seek(size)
        while time.monotonic() < limit:
            if "holds from step" in log.read():
                return
            time.sleep(0.0005)


def kill_coordinator(trial):
    before = trial.watch.step
    trial.cluster.coordinator.kill()
    trial.cluster.coordinator.wait()
    time.sleep(trial.random.choice([0, 0, 0.5]))
    begin = time.monotonic()
    trial.cluster.start_coordinator()
    trial.cluster.wait("an answer", trial.cluster.job, SERVING_LIMIT + 7)
    seconds = time.monotonic() - begin
    trial.note("serving again", seconds)
    if seconds > SERVING_LIMIT:
        raise Broken(f"the coordinator served after {seconds:.1f} s")
    trial.cluster.wait("the steps that were told", lambda: trial.cluster.job()["step"] >= before, 10)
    trial.note("knows all steps", time.monotonic() - begin)


def both_killed(trial):
    """The coordinator dies while the job goes back for a dead worker, or a little before that."""
    trial.begin(1600)
    while trial.made < min(trial.left, KILLS_PER_JOB):
        time.sleep(trial.random.uniform(0, 0.8))
        if trial.has_ended():
            break
        since = trial.watch.mark()
        is_worker_first = trial.random.random() < 0.7
        if not is_worker_first:
            trial.cluster.coordinator.kill()
            time.sleep(trial.random.uniform(0, 0.2))
        number = trial.random.choice(trial.cluster.alive())
        pid, when = trial.cluster.kill(number)
        trial.cluster.start_worker()
        if is_worker_first:
            if trial.random.random() < 0.5:
                await_start(trial, since)
            else:
                time.sleep(trial.random.uniform(0, 0.3))
            trial.cluster.coordinator.kill()
        trial.cluster.coordinator.wait()
        trial.cluster.start_coordinator()
        trial.made += 1
        since = trial.await_loss(number, pid, since, when, limit=RETURN_LIMIT)
        trial.await_training(since, when)
    trial.finish()


def await_start(trial, since):
    """Until the next generation has its workers, which still have to begin."""
    trial.watch.wait("the next start", since, lambda e: e["kind"] == "state" and e["state"] == "STARTING", 10)
    time.sleep(trial.random.uniform(0, 0.05))


def check_commands(trial, given):
    """What was acknowledged happened once, what was refused never, the rest at most once."""
    events = trial.cluster.ask("events", "soak-1", "--json").objects()
    jobs = trial.cluster.ask("ls", "--json").objects()
    checkpoints = [e["step"]["step"] + 1 for e in events if e["kind"] == "checkpoint"]

    def check(command, times):
        name = command.get("reason") or command.get("name") or command.get("job")
        wrong = {0: times != 1, REFUSED: times != 0}.get(command["code"], times > 1)
        if wrong:
            raise Broken(f"{command['verb']} {name} (exit {command['code']}: {command['errors']}) at step "
                         f"{command['step']} happened {times} times")
    for command in given:
        trial.count({0: "commands acknowledged", REFUSED: "refused"}.get(command["code"], "without an answer"))
        if command["verb"] == "set":
            check(command, sum(e["kind"] == "tuning" and e.get("tuning", {}).get("reason") == command["reason"]
                               for e in events))
        elif command["verb"] == "pause" and command["answered_at"] < trial.steps - PAUSE_LIMIT:
            check(command, sum(e["kind"] == "state" and e["state"] == "PAUSED" and command["reason"] in e["text"]
                               for e in events))
        elif command["verb"] == "submit":
            check(command, sum(job["spec"]["name"] == command["name"] for job in jobs))
        elif command["verb"] == "cancel" and command["code"] == 0:
            check(command, sum(job["id"] == command["job"] and job["state"] == "CANCELLED" for job in jobs))
        elif command["verb"] == "checkpoint" and command["code"] == 0:
            latest = command["answered_at"] + CHECKPOINT_LIMIT
            if latest < trial.steps and not any(command["step"] <= step <= latest for step in checkpoints):
                raise Broken(f"the checkpoint that was promised at step {command['answered_at']} was never written")
    resumed = sum(e["kind"] == "state" and e["text"] == "resumed" for e in events)
    asked = [command["code"] for command in given if command["verb"] == "resume"]
    if not asked.count(0) <= resumed <= len(asked):
        raise Broken(f"{resumed} events say that the job was resumed, for {asked.count(0)} acknowledged commands")
    effective = [e["tuning"]["effective_step"] for e in events if e["kind"] == "tuning"]
    if effective != sorted(effective):
        raise Broken(f"changes hold from steps {effective}")


class Relay:
    """An address that stands for the coordinator, wherever it runs: what a service of Kubernetes is."""

    def __init__(self, backend):
        self.backend = backend
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                host, port = self.backend.rsplit(":", 1)
                far = socket.create_connection((host, int(port)), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            self.connections.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pass_on, args=(source, sink), daemon=True).start()

    def lead_to(self, backend):
        """Breaks what stands, as the end of the machine behind it would."""
        self.backend = backend
        for pair in self.connections:
            for end_of_it in pair:
                shut(end_of_it)
        self.connections = []

    def close(self):
        self.listener.close()
        self.lead_to(self.backend)


def shut(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def pass_on(source, sink):
    try:
        while True:
            data = source.recv(1 << 16)
            if not data:
                break
            sink.sendall(data)
    except OSError:
        pass
    for connection in (source, sink):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def two_coordinators(trial):
    """The first is cut off, and by turns stopped or awake, while a second one takes its store."""
    is_stopped = trial.index % 2 == 0
    steps = 3200  # enough for some tries to stop the first between two writes
    trial.bench.losses_until(steps)
    cluster = trial.cluster
    first, first_address = cluster.start_coordinator()
    relay = Relay(first_address)
    second = None
    try:
        cluster.workers_address = relay.address
        for _ in range(NUM_WORKERS):
            cluster.start_worker()
        trial.submit(steps)
        trial.watch.wait_for_step(100)
        try:
            cluster.start_coordinator(listen="127.0.0.1:0", log="refused.log")
        except Broken as refusal:
            if "in use by another coordinator" not in str(refusal):
                raise
        else:
            raise Broken("a second coordinator opened the store although the first had not lost it")
        if is_stopped:
            first.send_signal(signal.SIGSTOP)
        # As on storage whose locks the other machine does not see.
        os.remove(f"{trial.folder}/c.db.lock")
        before = trial.watch.step
        begin = time.monotonic()
        second, second_address = take_over(trial, first if is_stopped else None)
        relay.lead_to(second_address)
        cluster.wait("the steps that were told", lambda: cluster.job()["step"] >= before, 10)
        trial.note("taken over", time.monotonic() - begin)
        first.send_signal(signal.SIGCONT)
        for command in (["set", "soak-1", "boundaries[0].rate_limit=1Gbit/s", "--reason", "from the first"],
                        ["pause", "soak-1", "--reason", "from the first"],
                        ["submit", trial.bench.spec, "--detach", "--set", "name=late"],
                        ["cancel", "soak-1", "--reason", "from the first"]):
            answer = ask_at(first_address, *command)
            if answer.code == 0:
                raise Broken(f"the first coordinator still accepts {command[0]}")
            trial.count("commands to the first refused")
        # Its next write finds the other one there: 4 is "wrong state or conflict".
        if first.wait(timeout=20) != 4:
            raise Broken(f"the first coordinator ended with {first.returncode}, expected 4")
        cluster.ask("set", "soak-1", "boundaries[0].rate_limit=2Gbit/s", "--reason", "from the second")
        trial.finish(restarts=0)
        events = cluster.ask("events", "soak-1", "--json").output
        if "from the first" in events or events.count("from the second") < 1:
            raise Broken("the events have what the first was told")
        if any(job["spec"]["name"] == "late" for job in cluster.ask("ls", "--json").objects()):
            raise Broken("the first coordinator made a job")
        for number in cluster.workers:
            with open(cluster.log_of(number)) as log:
                # Of one address, the service's: once at each of the two.
                registered = log.read().count("registered as ")
            if registered != 2:
                raise Broken(f"worker {number} registered {registered} times, expected 2")
        trial.made = 1
    finally:
        end(first)
        end(second)
        relay.close()


def take_over(trial, stopped):
    """One that was stopped amid a write still holds SQLite's own lock."""
    while True:
        try:
            return trial.cluster.start_coordinator(listen="127.0.0.1:0", log="second.log")
        except Broken as refusal:
            if stopped is None or "database is locked" not in str(refusal):
                raise
            trial.count("stopped amid a write")
            stopped.send_signal(signal.SIGCONT)
            time.sleep(trial.random.uniform(0, 0.05))
            stopped.send_signal(signal.SIGSTOP)


FAULTS = {
    "coordinator-storm": (
        "kill -9 of the coordinator at a random moment or when a change begins to hold, started again after 0 to "
        "0.5 s, while commands are given without a break (changes with fresh and stale etags, checkpoints, pauses, "
        "resumes, jobs and their ends)",
        f"serving again within {SERVING_LIMIT} s; no restart, no step lost or done twice (audit; every loss equal in "
        "the jobs that keep their codecs); what was acknowledged is in the event log once, what was refused never",
        coordinator_storm, "kills", 10, 50),
    "both-killed": (
        "kill -9 of a worker and, up to 0.3 s earlier or later or when the job starts again, of the coordinator; both "
        "are started again",
        "the job goes back to its last checkpoint with a new worker; every loss equal",
        both_killed, "kills", 5, 20),
    "two-coordinators": (
        "a second coordinator takes the store of one that hangs or is cut off (its lock file removed, the workers' "
        "address leads to the second)",
        "a second one is refused while the lock is held; after that the first changes nothing any more; workers follow "
        "the second alone; no restart, every loss equal",
        two_coordinators, "runs", 2, 4),
}
