package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"rserpool/enrp/ring"
)

// Bounds of what bodies holds: own messages that are not ordered yet, as many as a
// ring's queue; and octets that are not handed to the network yet.
const (
	aheadMessages = 1 << 16
	aheadOctets   = 16 << 20
	aheadUnsent   = 4 << 20
)

// aheadBatch is how many octets go to the network in one piece.
const aheadBatch = 128 << 10

// aheadPort is how far the port for bodies is from that of the ring.
const aheadPort = 100

// bodies is an experiment: messages go to all members at once, over connections of
// their own, and the token orders no more than their numbers ('all of mine up to n').
// A member delivers when it has both. That bounds from above what a ring could gain
// that sends bodies ahead of its token: such a ring has to hold the token until it has
// all bodies that the token names, and this one does not.
type bodies struct {
	propose func(payload []byte) error
	take    func(own bool, first, count uint64) // called with mu held
	room    chan struct{}
	wake    chan struct{}
	links   []chan batch

	mu       sync.Mutex
	sealed   []batch
	open     batch
	unsent   int // octets in sealed and open
	sent     uint64
	octets   int    // of own messages that are not ordered
	asked    uint64 // the number that was last handed to the token
	waiting  bool   // it is not ordered yet
	received map[ring.Member]uint64
	taken    map[ring.Member]uint64
	order    []ordered
	self     ring.Member
	size     int // octets of each message
}

// ordered is a number that the token brought.
type ordered struct {
	from ring.Member
	upTo uint64
}

// batch is messages as they travel: octets (32 bits), messages (32 bits), and each
// with its length before it.
type batch struct {
	at    time.Time // sealed
	count uint32
	data  []byte
}

func newBodies(size int, propose func([]byte) error, take func(own bool, first, count uint64)) *bodies {
	return &bodies{
		propose: propose, take: take, size: size, room: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		received: make(map[ring.Member]uint64), taken: make(map[ring.Member]uint64),
	}
}

// aheadAddress is where a member takes bodies.
func aheadAddress(endpoint string) (string, error) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(endpoint, "tcp://"))
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(port)
	return net.JoinHostPort(host, strconv.Itoa(n+aheadPort)), err
}

// connect opens the connections, of which each carries bodies one way.
func (b *bodies) connect(ctx context.Context, self ring.Member, j *job) error {
	b.mu.Lock()
	b.self = self
	b.mu.Unlock()
	listen, err := aheadAddress(j.listen)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			context.AfterFunc(ctx, func() { _ = c.Close() })
			go b.receive(c)
		}
	}()
	for peer := range strings.SplitSeq(j.peers, ",") {
		if peer == "" {
			continue
		}
		address, err := aheadAddress(peer)
		if err != nil {
			return err
		}
		c, err := dialPatiently(ctx, address)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
		link := make(chan batch, 64)
		b.links = append(b.links, link)
		go b.write(ctx, c, link, j.delay)
	}
	go b.spread(ctx)
	return nil
}

func dialPatiently(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// put hands one message in.
func (b *bodies) put(payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.octets+len(payload) > aheadOctets && b.octets > 0 || b.sent-b.taken[b.self] >= aheadMessages || b.unsent > aheadUnsent {
		return ring.ErrFull
	}
	if b.open.data == nil {
		b.open.data = make([]byte, 8, min(aheadBatch+8, 8+64*(len(payload)+3)))
	}
	b.open.data = append(binary.AppendUvarint(b.open.data, uint64(len(payload))), payload...)
	b.open.count++
	b.unsent += len(payload)
	b.octets += len(payload)
	b.sent++
	b.received[b.self] = b.sent
	if len(b.open.data) >= aheadBatch {
		b.seal()
	}
	poke(b.wake)
	return b.ask()
}

func (b *bodies) seal() {
	binary.BigEndian.PutUint32(b.open.data, uint32(len(b.open.data)-8))
	binary.BigEndian.PutUint32(b.open.data[4:], b.open.count)
	b.open.at = time.Now()
	b.sealed = append(b.sealed, b.open)
	b.open = batch{}
}

// ask has the own messages ordered, unless that is on its way.
func (b *bodies) ask() error {
	if b.waiting || b.sent == b.asked {
		return nil
	}
	b.waiting, b.asked = true, b.sent
	return b.propose(binary.BigEndian.AppendUint64(nil, b.sent))
}

// spread gives what is there to all links; it waits for the slowest.
func (b *bodies) spread(ctx context.Context) {
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
		b.mu.Lock()
		if b.open.count > 0 {
			b.seal()
		}
		batches := b.sealed
		b.sealed = nil
		b.mu.Unlock()
		for _, s := range batches {
			for _, link := range b.links {
				select {
				case link <- s:
				case <-ctx.Done():
					return
				}
			}
			b.mu.Lock()
			b.unsent -= int(s.count) * b.size
			b.mu.Unlock()
			poke(b.room)
		}
	}
}

// write sends batches, each after a delay.
func (b *bodies) write(ctx context.Context, c net.Conn, link <-chan batch, delay time.Duration) {
	hello := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(b.self.ID)), uint64(b.self.Incarnation))
	_, err := c.Write(hello)
	late, alarmErr := newAlarm()
	if err = errors.Join(err, alarmErr); err == nil {
		defer late.close()
	}
	for err == nil {
		select {
		case s := <-link:
			if wait := time.Until(s.at.Add(delay)); delay > 0 && wait > 0 {
				err = late.sleep(wait)
			}
			if err == nil {
				_, err = c.Write(s.data)
			}
		case <-ctx.Done():
			return
		}
	}
	b.report(ctx, err)
}

// receive takes what one member sends.
func (b *bodies) receive(c net.Conn) {
	r := bufio.NewReaderSize(c, 64<<10)
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return // it left before it said anything
	}
	from := ring.Member{ID: ring.NodeID(binary.BigEndian.Uint32(head[:])), Incarnation: ring.Incarnation(binary.BigEndian.Uint64(head[4:]))}
	for {
		if _, err := io.ReadFull(r, head[:8]); err != nil {
			return // it has left
		}
		data := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, data); err != nil {
			return
		}
		b.mu.Lock()
		b.received[from] += uint64(binary.BigEndian.Uint32(head[4:]))
		b.deliver()
		b.mu.Unlock()
	}
}

func (b *bodies) report(ctx context.Context, err error) {
	if ctx.Err() == nil {
		fmt.Println("ahead:", err) // no result: the run fails
	}
}

// handle takes what the token ordered.
func (b *bodies) handle(entries []ring.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range entries {
		b.order = append(b.order, ordered{e.From, binary.BigEndian.Uint64(e.Payload)})
		if e.From == b.self {
			b.waiting = false
		}
	}
	b.deliver()
	if err := b.ask(); err != nil {
		fmt.Println("ahead:", err)
	}
}

// deliver delivers what is ordered and here.
func (b *bodies) deliver() {
	for len(b.order) > 0 && b.received[b.order[0].from] >= b.order[0].upTo {
		o := b.order[0]
		b.order = b.order[1:]
		first := b.taken[o.from] + 1
		b.taken[o.from] = o.upTo
		b.take(o.from == b.self, first, o.upTo+1-first)
		if o.from == b.self {
			b.octets -= int(o.upTo+1-first) * b.size
			poke(b.room)
		}
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
