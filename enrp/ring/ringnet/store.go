package ringnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rserpool/enrp/ring"
)

// store keeps on disk what a member has to know of its former lives. Without a
// folder it keeps nothing.
type store struct {
	path  string // "": nowhere
	state durableState
}

type durableState struct {
	Counter     uint64           `json:"view_counter"`
	Incarnation ring.Incarnation `json:"incarnation"`
}

func openStore(dir string, id ring.NodeID) (*store, error) {
	s := &store{}
	if dir == "" {
		return s, nil
	}
	s.path = filepath.Join(dir, fmt.Sprintf("ring-%08x.json", uint32(id)))
	data, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("state of the ring: %w", err)
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return nil, fmt.Errorf("state of the ring in %s: %w", s.path, err)
	}
	return s, nil
}

func (s *store) durable() ring.Durable { return ring.Durable{Counter: s.state.Counter} }

// begin returns the incarnation of a new life: by the clock, unless that has been
// set back.
func (s *store) begin(clock ring.Incarnation) (ring.Incarnation, error) {
	next := s.state
	next.Incarnation = max(clock, s.state.Incarnation+1)
	return next.Incarnation, s.write(next)
}

func (s *store) save(d ring.Durable) error {
	next := s.state
	next.Counter = d.Counter
	return s.write(next)
}

// write replaces the file, so that a crash leaves the old or the new one.
func (s *store) write(next durableState) error {
	s.state = next
	if s.path == "" {
		return nil
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	f, err := os.CreateTemp(dir, filepath.Base(s.path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
