package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// RotationStep is a step on the way from a cluster's authorities to new ones. Between two steps
// what Store.Ensure and Store.Trust change must reach every host, so that at no time one shows a
// certificate that another does not trust.
type RotationStep string

const (
	// RotationPrepare makes the next authorities: they are trusted from then on, and sign nothing yet.
	RotationPrepare RotationStep = "prepare"
	// RotationSwitch lets them sign in the place of the old ones, which are still trusted and whose
	// keys are gone.
	RotationSwitch RotationStep = "switch"
	// RotationFinish ends the trust in the old ones.
	RotationFinish RotationStep = "finish"
)

// RotationSteps are all steps, in order.
func RotationSteps() []RotationStep {
	return []RotationStep{RotationPrepare, RotationSwitch, RotationFinish}
}

// authorityFiles are the files of an authority while it rotates.
type authorityFiles struct{ cert, key, nextCert, nextKey, oldCert string }

func filesOf(dir string, a Authority) authorityFiles {
	file := func(suffix string) string { return filepath.Join(dir, string(a)+suffix) }
	return authorityFiles{
		cert:     file(".crt"),
		key:      file(".key"),
		nextCert: file(".next.crt"),
		nextKey:  file(".next.key"),
		oldCert:  file(".old.crt"),
	}
}

// Rotate takes a step for both authorities of a store, whose directory OpenStore opens afterwards,
// and returns those for which there was something to do. A step that was taken already does
// nothing, and one that was interrupted is made up for, so that all of them may be run again; one
// whose turn has not come is an error.
func Rotate(dir string, step RotationStep) ([]Authority, error) {
	take, ok := map[RotationStep]func(authorityFiles) (bool, error){
		RotationPrepare: authorityFiles.prepare, RotationSwitch: authorityFiles.change, RotationFinish: authorityFiles.finish,
	}[step]
	if !ok {
		return nil, fmt.Errorf("rotate authorities: there is no step %q; there are %v", step, RotationSteps())
	}
	var taken []Authority
	for _, a := range []Authority{ClusterAuthority, EtcdAuthority} {
		did, err := take(filesOf(dir, a))
		if err != nil {
			return taken, fmt.Errorf("rotate authority %s: %w", a, err)
		}
		if did {
			taken = append(taken, a)
		}
	}
	return taken, nil
}

func (f authorityFiles) prepare() (bool, error) {
	for _, file := range []string{f.nextCert, f.oldCert} {
		if there, err := exists(file); there || err != nil {
			return false, err
		}
	}
	now, err := LoadCA(f.cert, f.key)
	if err != nil {
		return false, err
	}
	next, err := CreateCA(nextName(now.Certificate().Subject.CommonName), 0)
	if err != nil {
		return false, err
	}
	return true, next.WriteFiles(f.nextCert, f.nextKey)
}

var generation = regexp.MustCompile(`^(.*) (\d+)$`)

// nextName counts the authorities of a cluster, so that people tell them apart.
func nextName(name string) string {
	if m := generation.FindStringSubmatch(name); m != nil {
		if n, err := strconv.Atoi(m[2]); err == nil {
			return fmt.Sprintf("%s %d", m[1], n+1)
		}
	}
	return name + " 2"
}

func (f authorityFiles) change() (bool, error) {
	next, err := LoadCA(f.nextCert, f.nextKey)
	if errors.Is(err, fs.ErrNotExist) {
		there, oldErr := exists(f.oldCert)
		if there || oldErr != nil {
			return false, oldErr
		}
		return false, errors.New("there is no next authority: prepare comes first")
	}
	if err != nil {
		return false, err
	}
	// The certificate is replaced last: as long as it is the old one, this was not done.
	now, err := os.ReadFile(f.cert)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(now, next.CertPEM()) {
		if err := WriteFile(f.oldCert, now); err != nil {
			return false, err
		}
		if err := next.WriteFiles(f.cert, f.key); err != nil {
			return false, err
		}
	}
	return true, errors.Join(os.Remove(f.nextKey), os.Remove(f.nextCert))
}

func (f authorityFiles) finish() (bool, error) {
	switch there, err := exists(f.nextCert); {
	case err != nil:
		return false, err
	case there:
		return false, errors.New("the next authority does not sign yet: switch comes first")
	}
	err := os.Remove(f.oldCert)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func exists(file string) (bool, error) {
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// trusted returns the certificates that those must trust who meet holders of the authority's: its
// own, and those of the next and the old one while it rotates. They are in the order in which they
// sign, so that a switch does not change them.
func (s *Store) trusted(a Authority) ([]byte, error) {
	files, own := filesOf(s.dir, a), s.authorities[a].CertPEM()
	var bundle []byte
	for _, file := range []string{files.oldCert, files.cert, files.nextCert} {
		cert, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && file != files.cert && bytes.Equal(cert, own) {
			continue
		}
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, cert...)
	}
	return bundle, nil
}
