#!/usr/bin/python
"""Write many small files in one call, each replaced atomically and only when it differs."""

import grp
import os
import pwd
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: files
short_description: Write many small files in one call
description:
  - Makes directories and writes files with the given content, mode, owner and group.
  - A file is replaced atomically, and only when its content differs, so that readers never see a partial file.
  - A host with eight services has about sixty files. One call for all of them takes as long as a call for one of them.
options:
  directories:
    description: Directories to make, parents first, each with path, mode, owner and group.
    type: list
    elements: dict
    default: []
  files:
    description: Files to write, each with path, content, mode, owner and group.
    type: list
    elements: dict
    default: []
  absent:
    description: Files to remove.
    type: list
    elements: path
    default: []
author: Xebec
"""

RETURN = r"""
paths:
  description: Paths that were made, written or removed, or whose owner or mode was changed.
  type: list
  returned: always
"""

EXAMPLES = r"""
- files:
    directories: [{path: /etc/xebec, mode: "0755"}]
    files: [{path: /etc/xebec/a, content: "x\n", mode: "0640", owner: root, group: xebec-etcd}]
"""


def ownership(want):
    """Return the numeric user and group of an entry, root's where it names none."""
    owner, group = want.get("owner", "root"), want.get("group", "root")
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid


def attributes_differ(path, want, uid, gid):
    """Say whether mode, user or group of what is at path are not as wanted."""
    have = os.lstat(path)
    return (have.st_mode & 0o7777, have.st_uid, have.st_gid) != (int(want["mode"], 8), uid, gid)


def ensure_directory(want, check):
    """Make a directory as wanted and say whether that changed anything."""
    path = want["path"]
    uid, gid = ownership(want)
    exists = os.path.isdir(path)
    if exists and not attributes_differ(path, want, uid, gid):
        return False
    if not check:
        if not exists:
            os.mkdir(path, 0o700)
        os.chown(path, uid, gid)
        os.chmod(path, int(want["mode"], 8))
    return True


def ensure_file(want, check):
    """Write a file as wanted and say whether that changed anything."""
    path, content = want["path"], want["content"].encode()
    uid, gid = ownership(want)
    if os.path.isfile(path) and not os.path.islink(path):
        with open(path, "rb") as have:
            same = have.read() == content
        if same and not attributes_differ(path, want, uid, gid):
            return False
    if check:
        return True
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix="." + os.path.basename(path))
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(content)
            os.fchown(new.fileno(), uid, gid)
            os.fchmod(new.fileno(), int(want["mode"], 8))
            new.flush()
            os.fsync(new.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def main():
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "default": []},
            "files": {"type": "list", "elements": "dict", "default": []},
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    changed = []
    path = ""
    try:
        for want in module.params["directories"]:
            path = want["path"]
            if ensure_directory(want, module.check_mode):
                changed.append(path)
        for want in module.params["files"]:
            path = want["path"]
            if ensure_file(want, module.check_mode):
                changed.append(path)
        for path in module.params["absent"]:
            if os.path.lexists(path):
                if not module.check_mode:
                    os.unlink(path)
                changed.append(path)
    except (OSError, KeyError, ValueError) as error:
        module.fail_json(msg="%s: %s" % (path, error), paths=changed)
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
