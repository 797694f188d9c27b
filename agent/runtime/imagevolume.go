package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// MountImage mounts the files of an image that is on the node at a directory, which is made, as a
// volume of a pod. They are those of the first call until RemovePod is called, whatever becomes of
// the image. Nothing must be mounted at the directory yet, nor when RemovePod is called.
func (r *Runtime) MountImage(ctx context.Context, podUID, volume, image, dir string) error {
	ctx, cancel := context.WithTimeout(r.ctx(ctx), callTimeout)
	defer cancel()
	img, err := r.client.GetImage(ctx, image)
	if err != nil {
		return fmt.Errorf("finding image %s: %w", image, err)
	}
	layers, err := img.RootFS(ctx)
	if err != nil {
		return fmt.Errorf("reading the layers of image %s: %w", image, err)
	}
	id, service := path.Join(podUID, "volumes", volume), r.client.SnapshotService(r.cfg.Snapshotter)
	view, err := service.View(ctx, id, identity.ChainID(layers).String(), snapshots.WithLabels(map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
		labelPodUID:             podUID,
	}))
	if errdefs.IsAlreadyExists(err) {
		// A previous agent made it, or the machine restarted.
		view, err = service.Mounts(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("making a file system of image %s: %w", image, err)
	}
	failpoint.Hit("image-view-made")
	if err = os.MkdirAll(dir, 0o755); err == nil {
		err = mount.All(view, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mounting image %s at %s: %w", image, dir, err), r.removeSnapshot(ctx, id))
	}
	failpoint.Hit("image-view-mounted")
	return nil
}
