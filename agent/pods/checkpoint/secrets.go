package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xebec-project/xebec/agent/volumes"
)

// secretsDir is the directory of the node's pods' state that lies in memory: the copies of secrets
// and the tokens of service accounts, a directory for each pod. It outlives the agent and not the
// machine's restart, after which a master is asked again.
const secretsDir = ".secrets"

// ConfigMapObject is the kind of saved object that is no secret.
const ConfigMapObject = "configmap"

// secrets is where what is secret of the pod is kept.
func (d Dir) secrets() string {
	return filepath.Join(filepath.Dir(string(d)), secretsDir, filepath.Base(string(d)))
}

// objects is where all else of the objects is kept that the pod refers to; agents of 0.1 kept what
// is secret there too.
func (d Dir) objects() string { return filepath.Join(string(d), "objects") }

// Object is where an object that the pod refers to is kept.
func (d Dir) Object(kind, name string) string {
	if kind == ConfigMapObject {
		return filepath.Join(d.objects(), kind+"-"+name+".pb")
	}
	return filepath.Join(d.secrets(), kind+"-"+name+".pb")
}

// MakeSecretsDir makes the directory for what is secret.
func MakeSecretsDir(stateDir string) error {
	if err := volumes.Secret(filepath.Join(stateDir, secretsDir)); err != nil {
		return fmt.Errorf("mounting the file system for secrets: %w", err)
	}
	return nil
}

// TidySecrets moves what agents of 0.1 left on the disk into memory, and removes from there what is
// of pods that are gone.
func TidySecrets(stateDir string) error {
	root := filepath.Join(stateDir, secretsDir)
	pods, err := PodDirs(stateDir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var errs []error
	for _, uid := range pods {
		known[uid] = true
		errs = append(errs, Dir(filepath.Join(stateDir, uid)).moveSecrets())
	}
	kept, err := os.ReadDir(root)
	errs = append(errs, err)
	for _, e := range kept {
		if !known[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// moveSecrets moves what is secret from the disk into memory.
func (d Dir) moveSecrets() error {
	entries, err := os.ReadDir(d.objects())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ConfigMapObject+"-") {
			continue
		}
		from, to := filepath.Join(d.objects(), e.Name()), filepath.Join(d.secrets(), e.Name())
		if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
			content, err := os.ReadFile(from)
			if err == nil {
				err = WriteFile(to, content, 0o600)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("moving %s into memory: %w", from, err))
				continue
			}
		}
		errs = append(errs, os.Remove(from))
	}
	return errors.Join(errs...)
}
