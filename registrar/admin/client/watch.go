package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/admin"
)

const (
	// maxEvent bounds one event of the stream, in octets.
	maxEvent = 1 << 20
	// Pauses before reconnecting: doubled from the first to the second while
	// the registrar is away.
	firstPause = 250 * time.Millisecond
	lastPause  = 8 * time.Second
)

// errStream: the event stream can't be read any more.
var errStream = errors.New("event stream broken")

// Watch calls f for each event, of one pool or, with an empty handle, of all.
// When the stream breaks it reconnects, by and by slower, and goes on behind the
// last event it has seen; what the registrar has forgotten meanwhile it announces
// by an event of type admin.EventSnapshot. Watch returns when ctx ends, with its
// cause; when f returns an error, with that; and when the first connection can't
// be made or the registrar refuses.
func (c *Client) Watch(ctx context.Context, h param.PoolHandle, f func(admin.Event) error) error {
	query := url.Values{}
	if h != "" {
		query.Set("pool", admin.EscapeHandle(h))
	}
	last, pause := "", firstPause
	for connected := false; ; {
		req, err := c.request(ctx, http.MethodGet, admin.PathEvents, query, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := c.do(req)
		switch {
		case err == nil:
			connected = true
			err = readEvents(resp.Body, func(e admin.Event, id string) error {
				pause = firstPause
				if id != "" {
					last = id
				}
				return f(e)
			})
			resp.Body.Close()
			if ctx.Err() == nil && !errors.Is(err, errStream) {
				return err
			}
		case !connected || !errors.Is(err, ErrUnreachable):
			// A refusal doesn't go away by itself.
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

// readEvents reads server-sent events until the stream ends (errStream) or f
// returns an error.
func readEvents(r io.Reader, f func(e admin.Event, id string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var data []string
	id, size := "", 0
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "data":
			if size += len(lines.Text()); size > maxEvent {
				return fmt.Errorf("%w: event %s of more than %d octets", errStream, id, maxEvent)
			}
			data = append(data, value)
		case "":
			if lines.Text() != "" || len(data) == 0 {
				continue // a comment, or nothing to dispatch
			}
			var e admin.Event
			if err := json.Unmarshal([]byte(strings.Join(data, "\n")), &e); err != nil {
				return fmt.Errorf("event %s: %w", id, err)
			}
			if err := f(e, id); err != nil {
				return err
			}
			data, id, size = nil, "", 0
		}
	}
	return fmt.Errorf("%w: %w", errStream, errors.Join(lines.Err(), io.EOF))
}
