package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
	"github.com/xebec-project/xebec/internal/osthread"
)

const (
	// layout names the directory of the pinned maps. It has to change whenever a map's
	// key, value, type or size does, and Load has to fill the new maps from the old
	// ones then, before programs that read them are put into the links.
	layout   = "maps-v1"
	linksDir = "links"

	// Sets and classes that are always there. The set allows all, and has flows
	// remembered.
	trackedSet = 1
	allClass   = 1
	// firstID is where the others begin.
	firstID = 16
)

// KernelConfig says where the kernel's part lives.
type KernelConfig struct {
	// PinPath is a directory on a bpf file system, this package's alone. It is
	// created when it does not exist.
	PinPath string
	// ClassicTC attaches programs as clsact filters, as is done on kernels before
	// 6.6, also where the kernel has tcx.
	ClassicTC bool
}

// Endpoint is a pod's end on the node.
type Endpoint struct {
	// Index is the number of the interface that leads to the pod.
	Index int
	// Netns is the path of the pod's network namespace.
	Netns string
	// Sets are what the pod is to have.
	Sets Sets
}

// Kernel is what the kernel knows of policies. It must be used by one goroutine at
// a time.
type Kernel struct {
	cfg       KernelConfig
	objects   *ebpf.Collection
	namespace *os.File // the node's

	// pods has what the kernel has, by interface; sets by number. Of classes, those
	// of an earlier agent are known by their ports in the map only.
	pods    map[uint32]bpf.PolicyPolicyPod
	sets    map[uint32]map[netip.Prefix]uint32
	classes map[uint32][]bpf.PolicyPolicyPort
	// setOf and classOf are the numbers that this agent gave.
	setOf   map[string]uint32
	classOf map[Ports]uint32

	nextSet, nextClass, revision uint32
	// reload is set while the above may differ from what the kernel has.
	reload bool
}

// Load opens the maps that an earlier agent pinned, or makes them, and puts this
// agent's programs in the place of its. The calling thread's network namespace is
// the node's.
func Load(cfg KernelConfig) (*Kernel, error) {
	dir, links := filepath.Join(cfg.PinPath, layout), filepath.Join(cfg.PinPath, linksDir)
	for _, d := range []string{dir, links} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("creating the directory for pins: %w", err)
		}
	}
	spec, err := bpf.LoadPolicy()
	if err != nil {
		return nil, fmt.Errorf("reading the policy programs: %w", err)
	}
	namespace, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the node's network namespace: %w", err)
	}
	k := &Kernel{cfg: cfg, namespace: namespace, objects: &ebpf.Collection{}}
	k.objects, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		namespace.Close()
		return nil, fmt.Errorf("loading the policy programs (maps pinned in %s): %w", dir, err)
	}
	if err := k.start(); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kernel) start() error {
	if err := k.readBack(); err != nil {
		return err
	}
	if err := k.writeConstants(); err != nil {
		return err
	}
	return k.inside(func() error {
		if err := errors.Join(k.dropGone(), k.writeAddresses()); err != nil {
			return err
		}
		return k.attachAll(true)
	})
}

// writeConstants writes the set and the class that are always there.
func (k *Kernel) writeConstants() error {
	if err := k.objects.Maps[bpf.PolicyMapPolicyPorts].Put(bpf.PolicyPolicyPort{Bits: 32, Class: allClass}, uint32(1)); err != nil {
		return fmt.Errorf("writing the class of all ports: %w", err)
	}
	if err := k.objects.Maps[bpf.PolicyMapPolicyPeers].Put(peerKey(trackedSet, anywhere), uint32(allClass)); err != nil {
		return fmt.Errorf("writing the set of all peers: %w", err)
	}
	k.classes[allClass] = []bpf.PolicyPolicyPort{{Bits: 32, Class: allClass}}
	k.sets[trackedSet] = map[netip.Prefix]uint32{anywhere: allClass}
	return nil
}

// Close lets go of the maps and programs and leaves them at work.
func (k *Kernel) Close() error {
	k.objects.Close()
	return k.namespace.Close()
}

// Maps are the maps that other programs that send packets into pods share.
func (k *Kernel) Maps() map[string]*ebpf.Map { return k.objects.Maps }

// Remove detaches all programs pinned under the path and removes the pins: no
// policy is enforced then. It is no error when there is nothing. The calling
// thread's network namespace is the node's.
func Remove(pinPath string) error {
	if err := hook.RemoveFilters(bpf.PolicyProgFromPod, bpf.PolicyProgToPod); err != nil {
		return err
	}
	if err := os.RemoveAll(pinPath); err != nil { // the last reference to a link is its pin
		return fmt.Errorf("removing the pins: %w", err)
	}
	return nil
}

// inside runs f on a thread in the node's network namespace.
func (k *Kernel) inside(f func() error) error {
	return osthread.Do(func() error {
		if err := unix.Setns(int(k.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Knows reports whether the kernel has entries of the interface, by this agent or an earlier one.
func (k *Kernel) Knows(index int) bool {
	_, ok := k.pods[uint32(index)]
	return ok
}

// hooks are the programs at a pod's interface on the node.
func (k *Kernel) hooks(index uint32) []hook.Interface {
	var out []hook.Interface
	for _, name := range []string{bpf.PolicyProgFromPod, bpf.PolicyProgToPod} {
		out = append(out, hook.Interface{
			Pin: filepath.Join(k.cfg.PinPath, linksDir, fmt.Sprintf("%d-%s", index, name)), Name: name, Program: k.objects.Programs[name],
			Index: int(index), Egress: name == bpf.PolicyProgToPod, Classic: k.cfg.ClassicTC,
		})
	}
	return out
}

// attach makes sure that the programs are at the interface. It runs inside.
func (k *Kernel) attach(index uint32, renew bool) error {
	for _, h := range k.hooks(index) {
		if err := h.Ensure(renew); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) detach(index uint32) error {
	var errs []error
	for _, h := range k.hooks(index) {
		errs = append(errs, h.Remove())
	}
	return errors.Join(errs...)
}

// attachAll makes sure that the programs are at the interfaces of all pods that
// have sets. It runs inside.
func (k *Kernel) attachAll(renew bool) error {
	for index, pod := range k.pods {
		if pod.Ingress == 0 && pod.Egress == 0 {
			continue
		}
		if err := k.attach(index, renew); err != nil {
			return err
		}
	}
	return nil
}

// dropGone forgets pods whose interface is gone, and unpins their links. It runs
// inside.
func (k *Kernel) dropGone() error {
	gone := func(index uint32) bool {
		_, err := netlink.LinkByIndex(int(index))
		_, missing := errors.AsType[netlink.LinkNotFoundError](err)
		return missing
	}
	for index := range k.pods {
		if gone(index) {
			if err := k.forget(index); err != nil {
				return err
			}
		}
	}
	pins, err := os.ReadDir(filepath.Join(k.cfg.PinPath, linksDir))
	if err != nil {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	for _, pin := range pins {
		text, _, _ := strings.Cut(pin.Name(), "-")
		index, err := strconv.ParseUint(text, 10, 32)
		if err == nil && !gone(uint32(index)) {
			continue
		}
		if err := hook.Detach(filepath.Join(k.cfg.PinPath, linksDir, pin.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Forget drops what is known of a pod whose interface is going or gone.
func (k *Kernel) Forget(index int) error {
	return errors.Join(k.inside(func() error { return k.forget(uint32(index)) }), k.collect())
}

func (k *Kernel) forget(index uint32) error {
	if err := k.detach(index); err != nil {
		return err
	}
	if err := k.objects.Maps[bpf.PolicyMapPolicyPods].Delete(index); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("removing the entries of interface %d: %w", index, err)
	}
	delete(k.pods, index)
	return k.forgetCounts(index)
}

// Apply brings sets to what is wanted and gives each endpoint its own; pods that are not among the
// endpoints keep theirs. A packet that is judged meanwhile is judged by what was or by what is
// wanted, never by anything in between. After an error, the next call reads the state of the kernel
// again.
func (k *Kernel) Apply(w Wanted, endpoints []Endpoint) (err error) {
	defer func() { k.reload = err != nil }()
	if k.reload {
		if err := k.readBack(); err != nil {
			return err
		}
		if err := k.writeConstants(); err != nil {
			return err
		}
	}
	changed := map[uint32]bool{}
	for name, set := range w.Sets {
		number, differs, err := k.writeSet(name, set)
		if err != nil {
			return err
		}
		if differs {
			changed[number] = true
		}
	}
	for _, e := range endpoints {
		if err := k.place(e); err != nil {
			return err
		}
	}
	// Flows that a changed set allowed must be evaluated again.
	for _, pod := range k.pods {
		if changed[pod.Ingress] || changed[pod.Egress] {
			if err := k.writePod(pod.Ifindex, pod.Ingress, pod.Egress); err != nil {
				return err
			}
		}
	}
	return k.collect()
}

// place gives a pod its sets.
func (k *Kernel) place(e Endpoint) error {
	index := uint32(e.Index)
	had, known := k.pods[index]
	ingress, egress := k.setOf[e.Sets.Ingress], k.setOf[e.Sets.Egress]
	if known && had.Ingress == ingress && had.Egress == egress {
		return nil
	}
	was, is := had.Ingress != 0 || had.Egress != 0, ingress != 0 || egress != 0
	if known && is && !was {
		if err := k.track(e); err != nil {
			return err
		}
	}
	if err := k.writePod(index, ingress, egress); err != nil {
		return err
	}
	switch {
	case is && !known:
		return k.inside(func() error { return k.attach(index, true) })
	case was && !is:
		return k.inside(func() error { return k.detach(index) })
	}
	return nil
}

// track has the flows of a pod remembered before it is isolated, those included
// that it has already.
func (k *Kernel) track(e Endpoint) error {
	index := uint32(e.Index)
	if err := k.writePod(index, trackedSet, trackedSet); err != nil {
		return err
	}
	if err := k.inside(func() error { return k.attach(index, true) }); err != nil {
		return err
	}
	return k.rememberFlows(e)
}

// writePod gives an interface its sets in one step, under a revision of its own.
func (k *Kernel) writePod(index, ingress, egress uint32) error {
	k.revision++
	pod := bpf.PolicyPolicyPod{Ifindex: index, Revision: k.revision, Ingress: ingress, Egress: egress}
	if err := k.objects.Maps[bpf.PolicyMapPolicyPods].Put(index, pod); err != nil {
		return fmt.Errorf("writing the sets of interface %d: %w", index, err)
	}
	k.pods[index] = pod
	return nil
}

// writeSet makes a set what is wanted, and reports whether that changes one that was there. Longer
// prefixes are written first and shorter ones removed first, so that the longest prefix of an
// address is the one that it had or the one that it shall have at any moment.
func (k *Kernel) writeSet(name string, set *Set) (number uint32, changed bool, err error) {
	number, known := k.setOf[name]
	if !known {
		number = k.nextSet
		k.nextSet++
		k.setOf[name], k.sets[number] = number, map[netip.Prefix]uint32{}
	}
	have := k.sets[number]
	want := make(map[netip.Prefix]uint32, len(set.Peers))
	for prefix, ports := range set.Peers {
		if want[prefix], err = k.class(ports); err != nil {
			return 0, false, err
		}
	}
	var puts, removals []netip.Prefix
	for prefix, class := range want {
		if had, ok := have[prefix]; !ok || had != class {
			puts = append(puts, prefix)
		}
	}
	for prefix := range have {
		if _, ok := want[prefix]; !ok {
			removals = append(removals, prefix)
		}
	}
	slices.SortFunc(puts, func(a, b netip.Prefix) int { return cmp.Compare(b.Bits(), a.Bits()) })
	slices.SortFunc(removals, func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
	m := k.objects.Maps[bpf.PolicyMapPolicyPeers]
	for _, prefix := range puts {
		if err := m.Put(peerKey(number, prefix), want[prefix]); err != nil {
			return 0, false, fmt.Errorf("adding a peer (%s is full at %d): %w", bpf.PolicyMapPolicyPeers, m.MaxEntries(), err)
		}
		have[prefix] = want[prefix]
	}
	for _, prefix := range removals {
		if err := m.Delete(peerKey(number, prefix)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, false, fmt.Errorf("removing a peer: %w", err)
		}
		delete(have, prefix)
	}
	return number, known && len(puts)+len(removals) > 0, nil
}

// class returns the number of a class, written unless it is there.
func (k *Kernel) class(ports Ports) (uint32, error) {
	switch ports {
	case NoPorts:
		return 0, nil
	case AllPorts:
		return allClass, nil
	}
	if number, known := k.classOf[ports]; known {
		return number, nil
	}
	number := k.nextClass
	k.nextClass++
	m := k.objects.Maps[bpf.PolicyMapPolicyPorts]
	for key, allowed := range portKeys(number, ports) {
		if err := m.Put(key, allowed); err != nil {
			return 0, fmt.Errorf("adding a port (%s is full at %d): %w", bpf.PolicyMapPolicyPorts, m.MaxEntries(), err)
		}
		k.classes[number] = append(k.classes[number], key)
	}
	k.classOf[ports] = number
	return number, nil
}

// collect removes sets that no pod has, and classes that no set has.
func (k *Kernel) collect() error {
	used := map[uint32]bool{trackedSet: true}
	for _, pod := range k.pods {
		used[pod.Ingress], used[pod.Egress] = true, true
	}
	peers := k.objects.Maps[bpf.PolicyMapPolicyPeers]
	classes := map[uint32]bool{allClass: true}
	for number, set := range k.sets {
		if used[number] {
			for _, class := range set {
				classes[class] = true
			}
			continue
		}
		maps.DeleteFunc(k.setOf, func(_ string, n uint32) bool { return n == number })
		for prefix := range set {
			if err := peers.Delete(peerKey(number, prefix)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("removing a set: %w", err)
			}
			delete(set, prefix)
		}
		delete(k.sets, number)
	}
	for number, keys := range k.classes {
		if classes[number] {
			continue
		}
		maps.DeleteFunc(k.classOf, func(_ Ports, n uint32) bool { return n == number })
		for _, key := range keys {
			if err := k.objects.Maps[bpf.PolicyMapPolicyPorts].Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("removing a class: %w", err)
			}
		}
		delete(k.classes, number)
	}
	return nil
}

// readBack learns what the kernel has. Sets and classes have no names then: the desired ones are
// created again, and the others removed once no pod has them.
func (k *Kernel) readBack() error {
	k.pods = map[uint32]bpf.PolicyPolicyPod{}
	k.sets = map[uint32]map[netip.Prefix]uint32{}
	k.classes = map[uint32][]bpf.PolicyPolicyPort{}
	k.setOf, k.classOf = map[string]uint32{}, map[Ports]uint32{}
	k.nextSet, k.nextClass = max(k.nextSet, firstID), max(k.nextClass, firstID)

	var index uint32
	var pod bpf.PolicyPolicyPod
	it := k.objects.Maps[bpf.PolicyMapPolicyPods].Iterate()
	for it.Next(&index, &pod) {
		k.pods[index] = pod
		k.revision = max(k.revision, pod.Revision)
		k.nextSet = max(k.nextSet, pod.Ingress+1, pod.Egress+1)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading the sets of pods: %w", err)
	}
	var peer bpf.PolicyPolicyPeer
	var class uint32
	it = k.objects.Maps[bpf.PolicyMapPolicyPeers].Iterate()
	for it.Next(&peer, &class) {
		set := k.sets[peer.Set]
		if set == nil {
			set = map[netip.Prefix]uint32{}
			k.sets[peer.Set] = set
		}
		set[netip.PrefixFrom(netip.AddrFrom16(peer.Addr), int(peer.Bits)-32)] = class
		k.nextSet, k.nextClass = max(k.nextSet, peer.Set+1), max(k.nextClass, class+1)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading the sets: %w", err)
	}
	var port bpf.PolicyPolicyPort
	var allowed uint32
	it = k.objects.Maps[bpf.PolicyMapPolicyPorts].Iterate()
	for it.Next(&port, &allowed) {
		k.classes[port.Class] = append(k.classes[port.Class], port)
		k.nextClass = max(k.nextClass, port.Class+1)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading the classes: %w", err)
	}
	return nil
}

// Verify compares the kernel with what it should have. The next Apply repairs changes by others;
// missing programs are attached.
func (k *Kernel) Verify() error {
	seen := &Kernel{objects: k.objects}
	if err := seen.readBack(); err != nil {
		return err
	}
	same := maps.Equal(seen.pods, k.pods) && len(seen.sets) == len(k.sets) && len(seen.classes) == len(k.classes)
	for number, set := range k.sets {
		same = same && maps.Equal(seen.sets[number], set)
	}
	for number, keys := range k.classes {
		same = same && len(seen.classes[number]) == len(keys)
	}
	k.reload = k.reload || !same
	return k.inside(func() error { return errors.Join(k.writeAddresses(), k.attachAll(false)) })
}

// writeAddresses tells the programs the node's own addresses. It runs inside.
func (k *Kernel) writeAddresses() error {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing the node's addresses: %w", err)
	}
	m := k.objects.Maps[bpf.PolicyMapPolicyNode]
	now := map[bpf.PolicyPolicyAddress]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			now[bpf.PolicyPolicyAddress{Addr: ip.As16()}] = true
		}
	}
	var stale []bpf.PolicyPolicyAddress
	var key bpf.PolicyPolicyAddress
	var value uint8
	it := m.Iterate()
	for it.Next(&key, &value) {
		if !now[key] {
			stale = append(stale, key)
		}
		delete(now, key)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading the node's addresses: %w", err)
	}
	for key := range now {
		if err := m.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("adding an address of the node: %w", err)
		}
	}
	for _, key := range stale {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("removing an address of the node: %w", err)
		}
	}
	return nil
}

func peerKey(set uint32, p netip.Prefix) bpf.PolicyPolicyPeer {
	return bpf.PolicyPolicyPeer{Bits: 32 + uint32(p.Bits()), Set: set, Addr: p.Addr().As16()}
}

// portKeys are the entries of a class: that for all ports, and those allowed.
func portKeys(class uint32, ports Ports) map[bpf.PolicyPolicyPort]uint32 {
	out := map[bpf.PolicyPolicyPort]uint32{{Bits: 32, Class: class}: 0}
	for _, r := range ports.Ranges() {
		for _, p := range r.prefixes() {
			out[bpf.PolicyPolicyPort{Bits: 48 + uint32(p.bits), Class: class, Protocol: uint8(r.Protocol), Port: bits.ReverseBytes16(p.port)}] = 1
		}
	}
	return out
}
