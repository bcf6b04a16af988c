"""The processes of a job, and what a job tells of itself."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DELTAPIPE = os.environ.get("DELTAPIPE", os.path.join(ROOT, "bin", "deltapipe"))
WORKER = os.environ.get("DELTAPIPE_WORKER", os.path.join(ROOT, "bin", "deltapipe-worker"))
NUM_WORKERS = 4
AT_REST = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")


class Broken(Exception):
    """Something did not come as it must."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Answer:
    """What a command of deltapipe ended with."""

    def __init__(self, code, output, errors):
        self.code, self.output, self.errors = code, output, errors

    def objects(self):
        return [json.loads(line) for line in self.output.splitlines()]


def ask_at(address, *arguments, timeout=60):
    try:
        done = subprocess.run([DELTAPIPE, *arguments, "--coordinator", address], capture_output=True, text=True,
                              timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Broken(f"deltapipe {' '.join(arguments)}: hung for {timeout} s") from None
    return Answer(done.returncode, done.stdout, done.stderr.strip())


class Cluster:
    """A coordinator and its workers, each a process of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.workers = {}  # by number
        self.coordinator = None
        self.address = None
        self.workers_address = None  # where workers look for it, if elsewhere

    def start_coordinator(self, listen=None, log="coordinator.log"):
        """Returns its process and address; it is the cluster's own from now on."""
        with open(f"{self.folder}/{log}", "a") as errors:
            process = subprocess.Popen(
                [DELTAPIPE, "coordinator", "--listen", listen or self.address or "127.0.0.1:0",
                 "--store", f"{self.folder}/c.db", "--json"],
                stdout=subprocess.PIPE, stderr=errors, text=True, cwd=self.folder)
        line = process.stdout.readline()
        if not line:
            process.wait()
            with open(f"{self.folder}/{log}") as errors:
                raise Broken(f"the coordinator did not start: {errors.read().strip()[-500:]}")
        self.coordinator = process
        self.address = json.loads(line)["address"]
        return process, self.address

    def start_worker(self, environment=None):
        number = len(self.workers) + 1
        with open(self.log_of(number), "a") as log:
            self.workers[number] = subprocess.Popen(
                [WORKER, "--coordinator", self.workers_address or self.address, "--folder", f"{self.folder}/models"],
                stdout=log, stderr=log, cwd=self.folder, env=dict(os.environ, **(environment or {})))
        return number

    def log_of(self, number):
        return f"{self.folder}/worker-{number}.log"

    def id_of(self, number):
        """The coordinator's name of a worker; '' before it has one."""
        with open(self.log_of(number)) as log:
            names = [line.split("registered as ")[1].split()[0] for line in log if "registered as " in line]
        return names[-1] if names else ""

    def kill(self, number):
        """kill -9; returns its pid and the moment."""
        process = self.workers[number]
        when = time.time()
        process.kill()
        process.wait()
        return process.pid, when

    def alive(self):
        return [number for number, process in self.workers.items() if process.poll() is None]

    def number_of(self, pid):
        return next(number for number, process in self.workers.items() if process.pid == pid)

    def try_to_ask(self, *arguments, timeout=60):
        return ask_at(self.address, *arguments, timeout=timeout)

    def ask(self, *arguments):
        answer = self.try_to_ask(*arguments)
        if answer.code != 0:
            raise Broken(f"deltapipe {' '.join(arguments)}: exit {answer.code}: {answer.errors}")
        return answer

    def job(self):
        return self.ask("describe", "soak-1", "--json").objects()[0]

    def tuning(self):
        return self.ask("set", "soak-1", "--json").objects()[0]

    def members(self):
        """The worker's number of each rank."""
        return {member["rank"]: self.number_of(member["pid"]) for member in self.job()["members"]}

    def listed_workers(self):
        return [worker["id"] for worker in self.ask("worker", "ls", "--json").objects()]

    def wait(self, what, condition, limit):
        begin = time.monotonic()
        while time.monotonic() - begin < limit:
            try:
                if condition():
                    return time.monotonic() - begin
            except Broken:
                pass  # the coordinator may be away
            time.sleep(0.02)
        raise Broken(f"{what}: not within {limit} s")

    def stop(self):
        for process in [*self.workers.values(), self.coordinator]:
            end(process)


def end(process):
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


class Watch:
    """Follows a job's events over restarts of its coordinator.

    Each event is kept with the moment at which it was told. An index into the
    events is a mark, from which one can wait for what comes.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.changed = threading.Condition()
        self.events = []  # (moment, event)
        self.step = 0  # done
        self.sequence = 0
        self.process = None
        self.must_end = False
        self.record = open(f"{cluster.folder}/events.ndjson", "a")
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        while not self.must_end:
            self.process = subprocess.Popen(
                [DELTAPIPE, "events", "soak-1", "-w", "--steps", "--json", "--since", str(self.sequence),
                 "--coordinator", self.cluster.address],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.process.stdout:
                moment = time.time()
                self.record.write(line)
                try:
                    event = json.loads(line)
                except ValueError:
                    break  # torn by the end of its writer
                with self.changed:
                    self.events.append((moment, event))
                    self.sequence = max(self.sequence, event["sequence"])
                    if event["kind"] == "step":
                        self.step = event["step"]["step"] + 1
                    self.changed.notify_all()
            self.process.wait()
            time.sleep(0.02)

    def mark(self):
        with self.changed:
            return len(self.events)

    def find(self, since, condition):
        """The mark after the first such event, its moment and itself; or None. Call with the lock held."""
        for index in range(since, len(self.events)):
            moment, event = self.events[index]
            if condition(event):
                return index + 1, moment, event
        return None

    def wait(self, what, since, condition, limit):
        end_time = time.monotonic() + limit
        with self.changed:
            while True:
                found = self.find(since, condition)
                if found is not None:
                    return found
                left = end_time - time.monotonic()
                if left <= 0:
                    raise Broken(f"{what}: not within {limit:g} s")
                since = len(self.events)
                self.changed.wait(left)

    def wait_for_step(self, step, limit=60):
        return self.wait(f"step {step}", 0, lambda e: e["kind"] == "step" and e["step"]["step"] + 1 >= step, limit)

    def wait_for_any_step(self, since, limit=30):
        return self.wait("training again", since, lambda e: e["kind"] == "step", limit)

    def told(self, kind):
        with self.changed:
            return [event for _, event in self.events if event["kind"] == kind]

    def has_told_end(self):
        with self.changed:
            return any(e["kind"] == "state" and e["state"] in ("SUCCEEDED", "FAILED", "CANCELLED")
                       for _, e in self.events)

    def stop(self):
        self.must_end = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        self.thread.join(timeout=10)
        self.record.close()
