// Package version tells which build this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Set by the linker: -X github.com/xebec-project/xebec/internal/version.version=v0.1.0 and likewise
// commit.
var (
	version = ""
	commit  = ""
)

// Version returns the version, such as "v0.1.0", or "dev" for a build that was given none.
func Version() string {
	if version != "" {
		return version
	}
	return "dev"
}

// Commit returns the commit the build is from, empty when unknown.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}

// GoVersion returns the Go version of the build, such as "go1.26.6".
func GoVersion() string { return runtime.Version() }
