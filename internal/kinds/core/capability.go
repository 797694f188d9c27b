package core

import (
	"slices"
	"strings"
)

// capabilityAll stands for all capabilities.
const capabilityAll = "ALL"

// capabilities are those that Linux knows as of version 6.18, by number, without "CAP_".
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// Capability returns the canonical name of a capability: in upper case and without "CAP_". Pods may
// write it in any case and with the prefix; "ALL" stands for all. It returns false for a name that
// Linux does not know.
func Capability(name string) (string, bool) {
	short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	return short, short == capabilityAll || slices.Contains(capabilities, short)
}

// Capabilities returns the names of all capabilities, without "CAP_".
func Capabilities() []string { return slices.Clone(capabilities) }
