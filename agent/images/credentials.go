package images

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Credentials are what a registry asks for.
type Credentials struct{ User, Password string }

// Keyring holds credentials by where they apply: a registry's host, or a host and the beginning of
// the repositories' names. The zero value holds none.
type Keyring map[string]Credentials

// dockerHub is how Docker's own configuration names its registry.
const dockerHub = "https://index.docker.io/v1/"

type dockerAuth struct{ Username, Password, Auth string }

// Add reads what a secret holds under ".dockerconfigjson", or in the older form under ".dockercfg".
// What was added before goes first.
func (k Keyring) Add(config []byte, legacy bool) error {
	var file struct{ Auths map[string]dockerAuth }
	var err error
	if legacy {
		err = json.Unmarshal(config, &file.Auths)
	} else {
		err = json.Unmarshal(config, &file)
	}
	if err != nil {
		return fmt.Errorf("reading registry credentials: %w", err)
	}
	for place, a := range file.Auths {
		c := Credentials{a.Username, a.Password}
		if a.Auth != "" {
			text, err := base64.StdEncoding.DecodeString(a.Auth)
			user, password, ok := strings.Cut(string(text), ":")
			if err != nil || !ok {
				return fmt.Errorf("reading registry credentials: auth of %s is not base64 of USER:PASSWORD", place)
			}
			c = Credentials{user, password}
		}
		place = normalPlace(place)
		if _, have := k[place]; !have {
			k[place] = c
		}
	}
	return nil
}

func normalPlace(place string) string {
	if place == dockerHub {
		return "docker.io"
	}
	_, rest, ok := strings.Cut(place, "://")
	if !ok {
		rest = place
	}
	host, path, _ := strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	return strings.TrimSuffix(host+"/"+path, "/")
}

// For returns the credentials for an image, given by its full name: those of the longest place
// first.
func (k Keyring) For(full string) []Credentials {
	ref, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return nil
	}
	places := slices.SortedFunc(maps.Keys(k), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var out []Credentials
	for _, p := range places {
		if fits(p, reference.Domain(ref), reference.Path(ref)) {
			out = append(out, k[p])
		}
	}
	return out
}

// fits reports whether a place covers a repository. A part of the place's host may be "*", which
// stands for one part.
func fits(place, domain, repository string) bool {
	host, path, _ := strings.Cut(place, "/")
	want, have := strings.Split(host, "."), strings.Split(domain, ".")
	if len(want) != len(have) {
		return false
	}
	for i, part := range want {
		if part != "*" && part != have[i] {
			return false
		}
	}
	return path == "" || repository == path || strings.HasPrefix(repository, path+"/")
}

// registryHost returns the host that serves an image, given by its full name.
func registryHost(full string) string {
	ref, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return ""
	}
	host, err := docker.DefaultHost(reference.Domain(ref))
	if err != nil {
		return ""
	}
	return host
}
