package kernels

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/tests/guests"
)

// keyring has the keys of Debian's releases.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// suites are the Debian releases that kernels are from, by the version of Linux. 5.10 is older than
// what a node may have, 5.15: what it takes, that takes.
var suites = map[string]string{"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}

// debian is a kernel as Debian builds it for virtual machines.
type debian struct {
	release string // as uname has it
	image   string
	// modules are the files of those that are no part of the image, by name.
	modules map[string]string
}

// kernel returns a release's kernel, from the cache if it is there.
func kernel(t *testing.T, suite string) *debian {
	t.Helper()
	tree := guests.Image{Kind: "kernel", Suite: suite}.Get(t, func(path string) { fetch(t, suite, path) })
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		t.Fatalf("%s has the images %v (%v): remove it, and it is fetched again", tree, images, err)
	}
	k := &debian{release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), image: images[0], modules: map[string]string{}}
	err = filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(entry.Name(), ".ko"); err == nil && ok {
			k.modules[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fetch downloads a release's kernel and unpacks it. The machine's own lists of packages, and what
// is installed, are neither asked nor changed.
func fetch(t *testing.T, suite, tree string) {
	t.Helper()
	t.Logf("Fetching the kernel of Debian %s", suite)
	dir := t.TempDir()
	sources := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror(t), suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(program string, args ...string) string {
		t.Helper()
		options := []string{
			"-qq", "-o", "Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::SourceParts=/dev/null",
			"-o", "Dir::State::Status=/dev/null", "-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir,
			"-o", "APT::Architecture=amd64", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
		}
		return guests.Run(t, dir, program, append(options, args...)...)
	}
	apt("apt-get", "update")
	// The package that a system installs names the one that has the kernel.
	latest := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindStringSubmatch(apt("apt-cache", "depends", "linux-image-cloud-amd64"))
	if latest == nil {
		t.Fatalf("Debian %s has no linux-image-cloud-amd64", suite)
	}
	apt("apt-get", "download", latest[1])
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("apt-get left the packages %v (%v)", packages, err)
	}
	guests.Run(t, dir, "dpkg-deb", "-x", packages[0], tree)
}

// mirror returns where debootstrap, with which the tests of hosts and of virtual machines begin,
// gets Debian's releases from.
func mirror(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("/usr/sbin/debootstrap")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^DEF_MIRROR="([^"]+)"`).FindSubmatch(script)
	if found == nil {
		t.Fatal("debootstrap names no mirror of its own")
	}
	return string(found[1])
}

// moduleName is how the kernel writes a module's name; files may have hyphens.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// module is one to be loaded.
type module struct {
	name string
	code []byte
}

// closure returns modules and what they depend on, each after what it depends on. Names of which
// there is no file are parts of the image.
func (k *debian) closure(t *testing.T, names ...string) []module {
	t.Helper()
	var out []module
	var add func(string)
	add = func(name string) {
		path := k.modules[name]
		if path == "" || slices.ContainsFunc(out, func(m module) bool { return m.name == name }) {
			return
		}
		code, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(path, ".xz") {
			code, err = exec.CommandContext(t.Context(), "xz", "-dc", path).Output()
		}
		if err != nil {
			t.Fatalf("reading module %s: %v", name, err)
		}
		needs, err := depends(code)
		if err != nil {
			t.Fatalf("reading module %s: %v", name, err)
		}
		for _, need := range needs {
			add(need)
		}
		out = append(out, module{name, code})
	}
	for _, name := range names {
		add(name)
	}
	return out
}

// depends reads the names of the modules that one needs: of its section .modinfo, strings KEY=VALUE
// that end with a zero.
func depends(code []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("it has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(moduleName(list), ","), nil
		}
	}
	return nil, nil
}
