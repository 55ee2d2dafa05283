package poolhttp

import (
	"io"
	"net/http"
	"sync"
)

// body is a request's body, which is read by one attempt after the other. An
// http.Transport may go on reading and closing for a while after it has failed; what
// an attempt that is over does comes to nothing.
type body struct {
	renew func() (io.ReadCloser, error)

	mu      sync.Mutex
	in      io.ReadCloser // nil: no body
	attempt int
	touched bool // something was read of in
	done    bool // the attempt needs it no more
	closed  bool // in is closed
	over    bool // there will be no further attempt
	err     error
}

func newBody(req *http.Request) *body {
	b := &body{renew: req.GetBody}
	if req.Body != http.NoBody {
		b.in = req.Body
	}
	return b
}

// reader returns the body for one attempt.
func (b *body) reader() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.in == nil {
		return nil
	}
	return &bodyReader{body: b, in: b.in, attempt: b.attempt}
}

// again ends the attempt and tells whether there can be another one.
func (b *body) again() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempt++
	b.done = false
	if b.in == nil || !b.touched {
		return true
	}
	b.close()
	if b.renew == nil {
		return false
	}
	in, err := b.renew()
	if err != nil {
		return false
	}
	b.in, b.touched, b.closed = in, false, false
	return true
}

// end tells that there will be no further attempt. When the last one succeeded the body
// may still be read.
func (b *body) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if err != nil {
		b.attempt++
	}
	if err != nil || b.done {
		b.close()
	}
}

// failed tells whether the body could not be read, which is the caller's fault.
func (b *body) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

func (b *body) close() {
	if b.in != nil && !b.closed {
		b.closed = true
		_ = b.in.Close() // there is nobody to tell
	}
}

type bodyReader struct {
	body    *body
	in      io.ReadCloser
	attempt int
}

func (r *bodyReader) Read(p []byte) (int, error) {
	b := r.body
	b.mu.Lock()
	if r.attempt != b.attempt {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.touched = true
	b.mu.Unlock()
	n, err := r.in.Read(p)
	if err != nil && err != io.EOF {
		b.mu.Lock()
		if r.attempt == b.attempt {
			b.err = err
		}
		b.mu.Unlock()
	}
	return n, err
}

// Close closes what was read. Another attempt may need what was not.
func (r *bodyReader) Close() error {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.attempt != b.attempt {
		return nil
	}
	b.done = true
	if b.touched || b.over {
		b.close()
	}
	return nil
}
