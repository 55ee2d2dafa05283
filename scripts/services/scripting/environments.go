package scripting

import (
	"container/list"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// environments keeps the environments that users uploaded last, as files named by
// their SHA-1 sums. It may be used concurrently.
type environments struct {
	dir      string
	most     int   // environments
	mostSize int64 // octets of all together

	mu    sync.Mutex
	used  *list.List // of *environment, the latest first
	known map[[HashSize]byte]*list.Element
	size  int64
}

type environment struct {
	hash [HashSize]byte
	size int64
}

func newEnvironments(dir string, most int, mostSize int64) *environments {
	return &environments{dir: dir, most: most, mostSize: mostSize, used: list.New(), known: make(map[[HashSize]byte]*list.Element)}
}

func (e *environments) path(hash [HashSize]byte) string {
	return filepath.Join(e.dir, hex.EncodeToString(hash[:]))
}

// get copies an environment to a file, and returns false if it is not there.
func (e *environments) get(hash [HashSize]byte, to string) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known, ok := e.known[hash]
	if !ok {
		return false, nil
	}
	e.used.MoveToFront(known)
	return true, copyFile(to, e.path(hash))
}

// put keeps a file as the environment that its SHA-1 sum names. One that is too large
// is not kept; room for others is made by forgetting those that were not used for
// longest.
func (e *environments) put(file string) error {
	hash, size, err := sum(file)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.known[hash]; ok || size > e.mostSize || e.most < 1 {
		return nil
	}
	for e.used.Len() >= e.most || e.size+size > e.mostSize {
		if err := e.forget(e.used.Back()); err != nil {
			return err
		}
	}
	if err := copyFile(e.path(hash), file); err != nil {
		return err
	}
	e.known[hash] = e.used.PushFront(&environment{hash, size})
	e.size += size
	return nil
}

func (e *environments) forget(oldest *list.Element) error {
	old := e.used.Remove(oldest).(*environment)
	delete(e.known, old.hash)
	e.size -= old.size
	return os.Remove(e.path(old.hash))
}

func sum(file string) (hash [HashSize]byte, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return hash, 0, err
	}
	defer f.Close()
	h := sha1.New()
	size, err = io.Copy(h, f)
	h.Sum(hash[:0])
	return hash, size, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", from, err), out.Close(), os.Remove(to))
	}
	return out.Close()
}
