package datapath

// Settle computes what the events so far want, and writes nothing.
func (s *Syncer) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Flush()
}
