package framed

import (
	"context"
	"sync"

	"rserpool/asap/transport"
)

// Lingerer is what Linger is about: a Conn or an Assoc.
type Lingerer interface {
	transport.Nexter
	Finish(ctx context.Context) bool
}

// Linger tells the peer that nothing follows, and receives, for nobody, until the peer has
// ended too or ctx ends; nobody else may receive. After it Close loses nothing of what was
// sent. It returns at once where the peer can't be told.
func Linger(ctx context.Context, c Lingerer) {
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() { // the peer may take it only when we take what it sends
		if !c.Finish(ctx) {
			cancel()
		}
	})
	for {
		if _, err := c.Next(ctx); err != nil {
			break
		}
	}
	cancel()
	telling.Wait()
}
