package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
)

// asked is what came of asking: right and wrong answers, the first of these, and the
// longest time without a right one from any registrar, in seconds.
type asked struct {
	Right, Wrong int
	First        []string
	Gap          float64
}

// asker resolves a pool again and again; an answer is right that names all its elements.
type asker struct {
	pool     param.PoolHandle
	elements int

	mu     sync.Mutex
	asked  asked
	latest time.Time // right answer, or the start
}

// askPause lies between an answer and the next request to the same registrar, and
// askPatience ends the wait for an answer.
const (
	askPause    = 200 * time.Millisecond
	askPatience = 2 * time.Second
)

// ask resolves a pool at all registrars at the same time until SIGTERM, and prints what
// came of it.
func ask(pool string, elements int, registrars []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a := &asker{pool: param.PoolHandle(pool), elements: elements, latest: time.Now()}
	var group sync.WaitGroup
	for _, at := range registrars {
		endpoint, err := transport.ParseEndpoint(at, transport.SCTP, 3863)
		if err != nil {
			return err
		}
		group.Go(func() {
			for ctx.Err() == nil {
				a.askOver(ctx, endpoint)
				time.Sleep(askPause)
			}
		})
	}
	group.Wait()
	a.asked.Gap = max(a.asked.Gap, time.Since(a.latest).Seconds())
	return json.NewEncoder(os.Stdout).Encode(a.asked)
}

// askOver asks a registrar over one association until it does not answer.
func (a *asker) askOver(ctx context.Context, registrar transport.Endpoint) {
	request, err := (&asap.HandleResolution{Handle: a.pool}).Append(nil)
	if err != nil {
		panic(err) // the handle is ours
	}
	patience, cancel := context.WithTimeout(ctx, askPatience)
	conn, err := transport.NewNetworks(sctp.New()).Dial(patience, nil, registrar, transport.Options{DefaultPPID: transport.PPIDASAP})
	cancel()
	if err != nil {
		return
	}
	defer conn.Close()
	buf := make([]byte, transport.MaxMessage)
	for ctx.Err() == nil {
		patience, cancel := context.WithTimeout(ctx, askPatience)
		answer, err := exchange(patience, conn, request, buf)
		cancel()
		if err != nil {
			return
		}
		a.answered(registrar, answer)
		time.Sleep(askPause)
	}
}

// exchange sends a request and returns the answer.
func exchange(ctx context.Context, conn transport.Conn, request, buf []byte) (*asap.HandleResolutionResponse, error) {
	if err := conn.Send(ctx, transport.Message{Data: request}); err != nil {
		return nil, err
	}
	received, err := conn.Receive(ctx, buf)
	if err != nil {
		return nil, err
	}
	m, _, err := asap.Decode(received.Data)
	if err != nil {
		return nil, err
	}
	answer, ok := m.(*asap.HandleResolutionResponse)
	if !ok {
		return nil, fmt.Errorf("got %T", m)
	}
	return answer, nil
}

func (a *asker) answered(registrar transport.Endpoint, answer *asap.HandleResolutionResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	ids := make(map[param.PEID]bool)
	for _, e := range answer.Elements {
		ids[e.ID] = true
	}
	if len(ids) != a.elements {
		if a.asked.Wrong++; len(a.asked.First) < 10 {
			a.asked.First = append(a.asked.First, fmt.Sprintf("%v: %v names %d elements, causes %v", now.Format("15:04:05.000"), registrar, len(ids), answer.Error))
		}
		return
	}
	if a.asked.Right++; a.asked.Right == 1 {
		fmt.Println("answered")
	}
	a.asked.Gap = max(a.asked.Gap, now.Sub(a.latest).Seconds())
	a.latest = now
}
