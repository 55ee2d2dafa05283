package ringnet

import (
	"errors"
	"os"
	"testing"
	"time"

	"rserpool/enrp/ring"
)

func TestPrimaryModeKeepsItsState(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		dirs := map[int]string{1: t.TempDir(), 2: t.TempDir(), 3: t.TempDir()}
		c.change = func(id int, cfg *Config) { cfg.Size, cfg.StateDir = 3, dirs[id] }
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		if err := c.members[1].group.Lock("l"); err != nil {
			t.Fatal(err)
		}
		granted := func(id int) (g ring.Granted) {
			m := c.members[id]
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.granted) > 0 {
				g = m.granted[len(m.granted)-1]
			}
			return g
		}
		c.wait(10*time.Second, "the lock is granted", func() bool { return granted(3).Holder.ID == 1 })
		fence := granted(3).Fence
		// All are gone at once, and come back.
		for id := 1; id <= 3; id++ {
			c.kill(id)
		}
		for id := 1; id <= 3; id++ {
			files, err := os.ReadDir(dirs[id])
			if err != nil || len(files) != 1 {
				t.Errorf("member %d keeps %v, %v", id, files, err)
			}
		}
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		if err := c.members[2].group.Lock("l"); err != nil {
			t.Fatal(err)
		}
		c.wait(20*time.Second, "the lock is granted again", func() bool { return granted(3).Holder.ID == 2 })
		if again := granted(3).Fence; again.Compare(fence) <= 0 {
			t.Errorf("fence %v after %v", again, fence)
		}
	})
}

// TestNoStateNoGroup: what can't be made durable must not be seen, so the member
// ends.
func TestNoStateNoGroup(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		dirs := map[int]string{1: t.TempDir(), 2: t.TempDir()}
		c.change = func(id int, cfg *Config) { cfg.Size, cfg.StateDir = 2, dirs[id] }
		c.start(1)
		m := c.members[1]
		c.wait(5*time.Second, "a first view", func() bool { return m.group.Err() == nil && c.status(1).State != ring.Left })
		if err := os.RemoveAll(dirs[1]); err != nil {
			t.Fatal(err)
		}
		c.start(2)
		select {
		case <-m.group.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("it goes on")
		}
		if m.group.Err() == nil {
			t.Error("no reason")
		}
		if _, err := m.group.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("status: %v", err)
		}
	})
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, 7)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := s.begin(1000); i != 1000 || err != nil {
		t.Errorf("first life %d, %v", i, err)
	}
	if err := s.save(ring.Durable{Counter: 42}); err != nil {
		t.Fatal(err)
	}
	s, err = openStore(dir, 7)
	if err != nil || s.durable().Counter != 42 {
		t.Errorf("the second life knows %+v, %v", s.durable(), err)
	}
	// The clock was set back.
	if i, err := s.begin(10); i != 1001 || err != nil {
		t.Errorf("second life %d, %v", i, err)
	}
	if other, err := openStore(dir, 8); err != nil || other.durable().Counter != 0 {
		t.Errorf("another member knows %+v, %v", other.durable(), err)
	}
	if err := os.WriteFile(s.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, 7); err == nil {
		t.Error("a broken file is taken for none")
	}
}
