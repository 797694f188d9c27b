package podnet

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// ErrNoAddress says that every address of the pod CIDR is taken.
var ErrNoAddress = errors.New("no free pod address")

// tempPrefix begins the names of files not yet complete; no pod's uid does.
const tempPrefix = ".new-"

// addresses hands out the addresses of a pod CIDR. Each allocation is a file
// named by the pod's uid that holds the address. It appears at once and whole,
// so that it survives a crash; a power cut ends the pods too.
type addresses struct {
	dir  string
	cidr netip.Prefix

	mu    sync.Mutex
	byUID map[string]netip.Addr
	taken map[netip.Addr]string
	// last was given out last. The search goes on from there, so that an address
	// rests as long as possible before it is another pod's.
	last netip.Addr
}

func openAddresses(dir string, cidr netip.Prefix) (*addresses, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the address directory: %w", err)
	}
	a := &addresses{
		dir:   dir,
		cidr:  cidr,
		byUID: make(map[string]netip.Addr),
		taken: make(map[netip.Addr]string),
		last:  cidr.Addr().Next(), // the first is kept for the node
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the address directory: %w", err)
	}
	for _, f := range files {
		uid, path := f.Name(), filepath.Join(dir, f.Name())
		if strings.HasPrefix(uid, tempPrefix) {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("removing an unfinished allocation: %w", err)
			}
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading an allocation: %w", err)
		}
		ip, err := netip.ParseAddr(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("reading the allocation %s: %w", path, err)
		}
		if other, ok := a.taken[ip]; ok {
			return nil, fmt.Errorf("%v is allocated to both %s and %s in %s", ip, other, uid, dir)
		}
		a.byUID[uid], a.taken[ip] = ip, uid
		if cidr.Contains(ip) && a.last.Less(ip) {
			a.last = ip
		}
	}
	return a, nil
}

// allocate returns the pod's address, a new one if it has none yet.
func (a *addresses) allocate(uid string) (netip.Addr, error) {
	if uid == "" || strings.HasPrefix(uid, ".") || strings.ContainsAny(uid, "/\x00") {
		return netip.Addr{}, fmt.Errorf("%q is not a pod UID", uid)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ip, ok := a.byUID[uid]; ok {
		return ip, nil
	}
	ip, ok := a.free()
	if !ok {
		return netip.Addr{}, fmt.Errorf("%w: all %d addresses of %v are allocated", ErrNoAddress, len(a.taken), a.cidr)
	}
	temp := filepath.Join(a.dir, tempPrefix+uid)
	if err := os.WriteFile(temp, []byte(ip.String()+"\n"), 0o600); err != nil {
		return netip.Addr{}, fmt.Errorf("writing an allocation: %w", err)
	}
	failpoint.Hit("address-written")
	if err := os.Rename(temp, filepath.Join(a.dir, uid)); err != nil {
		return netip.Addr{}, fmt.Errorf("writing an allocation: %w", err)
	}
	failpoint.Hit("address-recorded")
	a.byUID[uid], a.taken[ip], a.last = ip, uid, ip
	return ip, nil
}

// free finds the next free address after last. The network address, the broadcast address and the
// node's address are never allocated.
func (a *addresses) free() (netip.Addr, bool) {
	first := a.cidr.Addr().Next().Next()
	ip := a.last
	for range 1 << (32 - a.cidr.Bits()) {
		ip = ip.Next()
		if !a.cidr.Contains(ip.Next()) { // the last is the broadcast address
			ip = first
		}
		if _, taken := a.taken[ip]; !taken && a.cidr.Contains(ip.Next()) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// release frees the pod's address, if it has one.
func (a *addresses) release(uid string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ip, ok := a.byUID[uid]
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(a.dir, uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("releasing %v: %w", ip, err)
	}
	failpoint.Hit("address-released")
	delete(a.byUID, uid)
	delete(a.taken, ip)
	return nil
}

// count returns how many addresses are taken, and how many pods may have at all.
func (a *addresses) count() (taken, of int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.taken), 1<<(32-a.cidr.Bits()) - 3 // as free has it
}

// owners returns the uids of all pods that have an address, sorted.
func (a *addresses) owners() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	uids := make([]string, 0, len(a.byUID))
	for uid := range a.byUID {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return uids
}
