#!/usr/bin/python
"""Enable, start and restart systemd units, and wait until they serve, or tell why they don't."""

import os
import socket
import ssl
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: units
short_description: Start systemd units and wait until they serve
description:
  - Enables the units and starts those that do not run.
  - Restarts those whose program or one of whose files was replaced since they started, one after the other, each only
    when the one before serves again. The host itself shows which these are, so that the next run completes an
    interrupted one.
  - Waits until every unit serves. If a unit ends or is restarted by systemd meanwhile, the call fails immediately, with
    the last lines of the unit's log instead of a timeout.
options:
  units:
    description:
      - Units, each with name; listen (host:port or the path of a socket) if clients connect to it; cert and key (paths) of a
        client, if it uses TLS; files (paths) that it reads only when it starts; reload, if systemctl reload makes it read them
        again without an interruption.
      - Many units listen long before they serve, for example etcd until it has a leader. A TLS handshake shows that they serve; a
        connection alone does not.
    type: list
    elements: dict
    required: true
  restart:
    description: Whether to restart units that run with an old program or old files.
    type: bool
    default: true
  wait:
    description: Seconds to wait until a unit serves; 0 does not wait.
    type: int
    default: 60
author: Xebec
"""

RETURN = r"""
started:
  description: Units that did not run before.
  type: list
  returned: always
restarted:
  description: Units that ran before, and were restarted or reloaded.
  type: list
  returned: always
"""

EXAMPLES = r"""
- units:
    units:
      - {name: xebec-etcd.service, listen: "10.0.0.1:2379", cert: /etc/xebec/etcd/tls.crt, key: /etc/xebec/etcd/tls.key, files: [/etc/xebec/etcd/config.yaml]}
"""

FIELDS = ["ActiveState", "SubState", "UnitFileState", "NRestarts", "LoadState", "NeedDaemonReload", "FragmentPath", "MainPID", "ExecMainStartTimestamp",
          "StateChangeTimestamp"]
# Fields that systemd reports for every service, also for an unknown one.
ALWAYS = ["ActiveState", "SubState", "NRestarts", "LoadState", "NeedDaemonReload"]
# Time until an answer without them is an error, in seconds.
SHOW_TIMEOUT = 60
# The first and the longest time limit for an answer of a unit, and the shortest and the longest time between two checks of it,
# in seconds.
PATIENCE_MIN, PATIENCE_MAX = 2, 60
PAUSE_MIN, PAUSE_MAX = 0.2, 10


class Failed(Exception):
    """What a unit could not do, in words for the one who runs the playbook."""


class Systemd:
    """The parts of systemctl that are needed."""

    def __init__(self, module):
        self.module = module

    def run(self, *args, **kwargs):
        code, out, err = self.module.run_command(["systemctl"] + list(args))
        if code != 0 and not kwargs.get("tolerate"):
            raise Failed("systemctl %s: %s" % (" ".join(args), (err or out).strip()))
        return out

    def bring(self, verb, names):
        """Start or restart units; a failure is reported with the logs of the units that failed."""
        code, out, err = self.module.run_command(["systemctl", verb] + names)
        if code != 0:
            logs = ["%s:\n%s" % (name, self.log(name)) for name in names if self.show(name)["ActiveState"] != "active"]
            raise Failed("systemctl %s: %s\n%s" % (verb, (err or out).strip(), "\n".join(logs)))

    def show(self, name):
        """Return the properties of a unit. A host that is very busy answers without some of them: it is asked again."""
        deadline = time.monotonic() + SHOW_TIMEOUT
        while True:
            out = self.run("show", "--timestamp=unix", "--property", ",".join(FIELDS), name)
            state = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
            missing = [field for field in ALWAYS if field not in state]
            if not missing:
                return state
            if time.monotonic() > deadline:
                raise Failed("systemctl show %s does not report %s" % (name, ", ".join(missing)))
            time.sleep(1)

    def log(self, name):
        # The last lines of a unit may not be in the journal yet.
        self.module.run_command(["journalctl", "--sync"])
        _code, out, _err = self.module.run_command(["journalctl", "--unit", name, "--lines", "15", "--no-pager", "--output", "cat"])
        return out.strip()


def serves(unit, patience):
    """Say whether a unit answers where it listens within so many seconds: accepts a connection or, when it takes TLS, makes a handshake."""
    listen = unit["listen"]
    if listen.startswith("/"):
        if not os.path.exists(listen):
            return False
        family, address = socket.AF_UNIX, listen
    else:
        host, port = listen.rsplit(":", 1)
        family, address = socket.AF_INET, (host, int(port))
    probe = socket.socket(family, socket.SOCK_STREAM)
    probe.settimeout(patience)
    try:
        probe.connect(address)
        if "cert" in unit:
            with handshake(unit).wrap_socket(probe):
                return True
    except OSError:
        return False
    finally:
        probe.close()
    return True


def handshake(unit):
    """Return what a TLS handshake with a unit takes. Whose certificate it shows is looked at by those who have calls for it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(unit["cert"], unit["key"])
    return context


def stale(unit, state):
    """Say how a running unit is brought up to date, restart or reload, or None when it is."""
    try:
        if os.readlink("/proc/%s/exe" % state["MainPID"]).endswith(" (deleted)"):
            return "restart"
    except OSError:
        return None
    if newer([state["FragmentPath"]], state["ExecMainStartTimestamp"]):
        return "restart"
    files = unit.get("files", [])
    if unit.get("reload"):
        # The state changes to reloading and back.
        return "reload" if newer(files, state["StateChangeTimestamp"]) else None
    return "restart" if newer(files, state["ExecMainStartTimestamp"]) else None


def newer(files, timestamp):
    """Say whether a file was replaced after a time that systemd tells."""
    since = int(timestamp.lstrip("@") or 0)
    return any(int(os.stat(path).st_mtime) > since for path in files)


def wait_for(systemd, unit, seconds):
    """Return once the unit serves; raise Failed when it ends or does not in time.

    On a busy host each look costs the unit time that it needs to start, and an answer takes longer than on others. Looks therefore
    have more and more time, and are as far apart as the last one took.
    """
    name, listen = unit["name"], unit.get("listen")
    restarts = systemd.show(name)["NRestarts"]
    deadline = time.monotonic() + seconds
    patience = PATIENCE_MIN
    while True:
        begun = time.monotonic()
        state = systemd.show(name)
        if state["NRestarts"] != restarts or state["ActiveState"] in ("failed", "inactive"):
            raise Failed("%s does not stay up (%s, %s). Its log ends with:\n%s" % (name, state["ActiveState"], state["SubState"], systemd.log(name)))
        if state["ActiveState"] == "active" and (not listen or serves(unit, patience)):
            return
        took = time.monotonic() - begun
        if took >= patience:
            patience = min(2 * patience, PATIENCE_MAX)
        if time.monotonic() > deadline:
            raise Failed("%s runs but did not answer at %s within %d s. Its log ends with:\n%s" % (name, listen, seconds, systemd.log(name)))
        time.sleep(min(max(took, PAUSE_MIN), PAUSE_MAX))


def apply(systemd, params, check):
    started, restarted, enabled = [], {}, []
    units = params["units"]
    states = [systemd.show(unit["name"]) for unit in units]
    if not check and any(state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found" for state in states):
        systemd.run("daemon-reload")
        states = [systemd.show(unit["name"]) for unit in units]
    for unit, state in zip(units, states):
        if state["LoadState"] == "not-found" and not check:
            raise Failed("there is no unit %s" % unit["name"])
        if state["UnitFileState"] not in ("enabled", "static", "generated"):
            enabled.append(unit["name"])
        if state["ActiveState"] not in ("active", "activating", "reloading"):
            started.append(unit["name"])
        elif params["restart"] and stale(unit, state):
            restarted[unit["name"]] = stale(unit, state)
    if not check:
        if enabled:
            systemd.run("enable", *enabled)
        if started:
            # systemd does not start units that failed often until they are reset.
            systemd.run("reset-failed", *started, tolerate=True)
            systemd.bring("start", started)
        for unit in units:
            if unit["name"] in restarted:
                systemd.bring(restarted[unit["name"]], [unit["name"]])
                if params["wait"]:
                    wait_for(systemd, unit, params["wait"])
        if params["wait"]:
            for unit in units:
                wait_for(systemd, unit, params["wait"])
    return {"changed": bool(started or restarted or enabled), "started": started, "restarted": sorted(restarted)}


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "restart": {"type": "bool", "default": True},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = apply(Systemd(module), module.params, module.check_mode)
    except Failed as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
