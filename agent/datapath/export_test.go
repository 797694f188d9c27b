package datapath

// Settle computes what the events so far want, and writes nothing.
func (s *Syncer) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Flush()
}

// ProbeFeatures asks the kernel for features, in the calling thread.
func ProbeFeatures(listing Listing, ipv6 bool) ([]Feature, error) {
	families := []*family{{programs: programs4}}
	if ipv6 {
		families = append(families, &family{programs: programs6})
	}
	s, err := probeSupport(listing, families)
	for _, f := range families {
		f.peers.Close()
	}
	if err != nil {
		return nil, err
	}
	return s.features(), nil
}

// TryListing tells why sockets cannot be listed in a way.
func TryListing(listing Listing, ipv6 bool) error {
	_, err := ProbeFeatures(listing, ipv6)
	return err
}

// Noted returns how many connected sockets the programs have noted.
func (d *Datapath) Noted() (int, error) {
	total := 0
	for _, f := range d.families {
		noted, err := f.noted()
		if err != nil {
			return 0, err
		}
		total += len(noted)
	}
	return total, nil
}
