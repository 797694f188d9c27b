package runtime

import (
	"context"
	"fmt"

	ctrapparmor "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// defaultAppArmor names the profile that the agent loads into the kernel where a container asks for
// the default.
const defaultAppArmor = "xebec-default"

// AppArmor says what confines a container. The zero value stands for nothing.
type AppArmor struct {
	// Default is containerd's default profile; on a machine without AppArmor it is none.
	Default bool
	// Profile names one that the kernel has loaded.
	Profile string
}

// HasAppArmor reports whether the machine's kernel confines programs by AppArmor, and has what it
// takes to load profiles.
func HasAppArmor() bool { return apparmor.HostSupports() }

func withAppArmor(a AppArmor) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
		switch {
		case a.Profile != "" && !HasAppArmor():
			return fmt.Errorf("AppArmor profile %q: AppArmor is not enabled on the node", a.Profile)
		case a.Profile != "":
			return ctrapparmor.WithProfile(a.Profile)(ctx, client, c, s)
		case a.Default && HasAppArmor():
			return ctrapparmor.WithDefaultProfile(defaultAppArmor)(ctx, client, c, s)
		}
		return nil
	}
}
