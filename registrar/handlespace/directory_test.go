package handlespace

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"

	"rserpool/asap/param"
)

// A directory is a map, also where many pools share its parts.
func TestDirectoryIsAMap(t *testing.T) {
	d := directory{seed: maphash.MakeSeed()}
	model := map[param.PoolHandle]*pool{}
	r := rand.New(rand.NewPCG(1, 1))
	handles := make([]param.PoolHandle, 4<<partBits)
	for i := range handles {
		handles[i] = param.PoolHandle(fmt.Sprint("pool ", i))
	}
	for range 4 * len(handles) {
		handle := pick(r, handles)
		if p := model[handle]; p != nil {
			d.remove(p)
			delete(model, handle)
		} else {
			p = &pool{handle: handle}
			d.add(p)
			model[handle] = p
		}
	}
	for _, handle := range handles {
		if got, want := d.get(handle), model[handle]; got != want {
			t.Fatalf("%q: %p, want %p", handle, got, want)
		}
	}
}
