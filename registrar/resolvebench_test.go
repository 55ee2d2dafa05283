//go:build unix

package registrar

import (
	"fmt"
	"sync/atomic"
	"testing"

	"rserpool/asap"
	"rserpool/asap/param"
)

// BenchmarkResolutionsByAllCores shows what connections have in common: with -cpu 1,2
// the time for an answer halves if that is nothing, and the CPU time stays. Sixteen requests wait on each
// connection, for three of 1,000 elements, of a pool of its own or of the same pool.
func BenchmarkResolutionsByAllCores(b *testing.B) {
	const together, connections = 16, 16
	for _, shared := range []bool{false, true} {
		name := "own pools"
		pools := make([]param.PoolHandle, connections)
		for i := range pools {
			pools[i] = param.PoolHandle(fmt.Sprint("pool", i))
		}
		if shared {
			name, pools = "one pool", pools[:1]
		}
		b.Run(name, func(b *testing.B) {
			r := benchmarked(b, 1000, pools...)
			var next atomic.Int32
			b.ReportAllocs()
			b.ResetTimer()
			used := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				c, q := asking(b, r, asap.HandleResolution{Handle: pools[int(next.Add(1))%len(pools)], Items: 3})
				for waiting := 1; pb.Next(); waiting++ {
					c.handle(q)
					if waiting%together == 0 {
						c.flush()
					}
				}
				c.flush()
			})
			b.ReportMetric(float64(cpuTime(b)-used)/float64(b.N), "cpu-ns/op")
		})
	}
}
