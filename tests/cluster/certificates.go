package cluster

import (
	"path/filepath"

	"github.com/xebec-project/xebec/internal/pki"
)

// authorities issue a cluster's certificates into a directory.
type authorities struct {
	dir           string
	cluster, etcd *pki.CA
}

func newAuthorities(dir string) (*authorities, error) {
	a := &authorities{dir: filepath.Join(dir, "pki")}
	var err error
	if a.cluster, err = a.create("ca"); err != nil {
		return nil, err
	}
	a.etcd, err = a.create("etcd-ca")
	return a, err
}

func (a *authorities) create(name string) (*pki.CA, error) {
	ca, err := pki.CreateCA(name, 0)
	if err != nil {
		return nil, err
	}
	return ca, ca.WriteFiles(a.path(name+".crt"), a.path(name+".key"))
}

func (a *authorities) path(file string) string { return filepath.Join(a.dir, file) }

// files issues a certificate and returns where it is.
func (a *authorities) files(ca *pki.CA, name string, request pki.Request) (pki.Files, error) {
	files := pki.Files{CA: a.path("ca.crt"), Cert: a.path(name + ".crt"), Key: a.path(name + ".key")}
	if ca == a.etcd {
		files.CA = a.path("etcd-ca.crt")
	}
	pair, err := ca.Issue(request)
	if err != nil {
		return files, err
	}
	return files, pair.WriteFiles(files.Cert, files.Key)
}

// source issues a certificate for this process.
func (a *authorities) source(ca *pki.CA, name string, request pki.Request) (*pki.Source, error) {
	files, err := a.files(ca, name, request)
	if err != nil {
		return nil, err
	}
	return pki.NewSource(files)
}
