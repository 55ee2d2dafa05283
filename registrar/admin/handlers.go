package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	return s.reply(w, http.StatusOK, s.cfg.Backend.Status())
}

func (s *Server) registrars(w http.ResponseWriter, _ *http.Request) error {
	return s.reply(w, http.StatusOK, RegistrarList{s.cfg.Backend.Registrars()})
}

func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) error {
	return s.reply(w, http.StatusOK, map[string]bool{"healthy": true})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	if !s.cfg.Backend.Ready() {
		return fmt.Errorf("%w: elements and users are not served", ErrUnavailable)
	}
	return s.reply(w, http.StatusOK, map[string]bool{"ready": true})
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) error {
	switch err := s.cfg.Backend.Reload(); {
	case errors.Is(err, ErrUnavailable):
		return err
	case err != nil:
		return &problem{http.StatusConflict, err.Error(), nil}
	}
	return s.reply(w, http.StatusOK, map[string]bool{"reloaded": true})
}

func (s *Server) pools(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	limit, err := number(query.Get("limit"), maxPools)
	if err != nil {
		return badRequest("limit: %v", err)
	}
	var after param.PoolHandle
	if text := query.Get("after"); text != "" {
		if after, err = UnescapeHandle(text); err != nil {
			return badRequest("after: %v", err)
		}
	}
	limit = min(limit, maxPools)
	// One more than asked for tells whether there are more.
	infos := s.cfg.Backend.Space().Pools(nil, after, limit+1)
	list := PoolList{Pools: []Pool{}}
	for i, info := range infos {
		if i == limit {
			list.Next = EscapeHandle(infos[i-1].Handle)
			break
		}
		list.Pools = append(list.Pools, ShowPool(info))
	}
	return s.reply(w, http.StatusOK, list)
}

// number reads a positive number; the empty string stands for a default.
func number(text string, standard int) (int, error) {
	if text == "" {
		return standard, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a positive number", text)
	}
	return int(n), nil
}

func (s *Server) pool(w http.ResponseWriter, r *http.Request) error {
	handle, err := UnescapeHandle(r.PathValue("handle"))
	if err != nil {
		return badRequest("%v", err)
	}
	space := s.cfg.Backend.Space()
	info, ok := space.Pool(handle)
	if !ok {
		return s.absent("no pool %s", EscapeHandle(handle))
	}
	pool := ShowPool(info)
	var after param.PEID
	for {
		records := space.Elements(nil, handle, after, maxPools)
		if len(records) == 0 {
			return s.reply(w, http.StatusOK, pool)
		}
		for _, record := range records {
			pool.Members = append(pool.Members, ShowElement(record))
		}
		after = records[len(records)-1].ID
	}
}

// target reads pool handle and element identifier of a path.
func target(r *http.Request) (param.PoolHandle, param.PEID, error) {
	handle, err := UnescapeHandle(r.PathValue("handle"))
	if err != nil {
		return "", 0, badRequest("%v", err)
	}
	id, err := ParseID(r.PathValue("id"))
	if err != nil {
		return "", 0, badRequest("%v", err)
	}
	return handle, param.PEID(id), nil
}

func (s *Server) element(w http.ResponseWriter, r *http.Request) error {
	handle, id, err := target(r)
	if err != nil {
		return err
	}
	record := s.cfg.Backend.Space().Get(handle, id)
	if record == nil {
		return s.absent("no element %s in pool %s", id, EscapeHandle(handle))
	}
	return s.reply(w, http.StatusOK, ShowElement(record))
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) error {
	handle, err := UnescapeHandle(r.PathValue("handle"))
	if err != nil {
		return badRequest("%v", err)
	}
	id := param.PEID(0)
	if r.PathValue("id") == "" {
		for id == 0 || s.cfg.Backend.Space().Get(handle, id) != nil {
			id = param.PEID(rand.Uint32())
		}
	} else if _, id, err = target(r); err != nil {
		return err
	}
	var request RegisterRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return badRequest("body: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badRequest("body: something behind the registration")
	}
	element, err := request.element()
	if err != nil {
		return badRequest("body: %v", err)
	}
	element.ID = id
	events, err := s.cfg.Backend.Register(r.Context(), handle, element)
	if err != nil {
		return err
	}
	for _, event := range events {
		switch e := event.(type) {
		case handlespace.Rejected:
			return &problem{http.StatusConflict, "registration rejected: " + e.Causes.String(), e.Causes}
		case handlespace.Registered:
			status := http.StatusCreated
			if e.Previous != nil {
				status = http.StatusOK
			}
			return s.reply(w, status, ShowElement(e.Record))
		}
	}
	return errors.New("registration had no result")
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	handle, id, err := target(r)
	if err != nil {
		return err
	}
	events, err := s.cfg.Backend.Remove(r.Context(), handle, id)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return notFound("no element %s in pool %s", id, EscapeHandle(handle))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) resolve(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	handle, err := UnescapeHandle(query.Get("pool"))
	if err != nil {
		return badRequest("pool: %v", err)
	}
	// 0 stands for the limit of the pool's policy.
	items, err := number(query.Get("items"), 0)
	if err != nil {
		return badRequest("items: %v", err)
	}
	records, policy, ok := s.cfg.Backend.Space().Resolve(nil, handle, handlespace.Query{Items: items, Room: param.MaxLength})
	if !ok {
		return s.absent("no pool %s", EscapeHandle(handle))
	}
	out := Resolution{Handle: EscapeHandle(handle), Policy: PolicyName(policy.Type), Elements: []Element{}}
	for _, record := range records {
		out.Elements = append(out.Elements, ShowElement(record))
	}
	return s.reply(w, http.StatusOK, out)
}

// events streams changes as server-sent events, from behind Last-Event-ID on if
// that is remembered.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	var only param.PoolHandle
	if text := r.URL.Query().Get("pool"); text != "" {
		var err error
		if only, err = UnescapeHandle(text); err != nil {
			return badRequest("pool: %v", err)
		}
	}
	feed := s.cfg.Feed
	if !feed.Join() {
		return fmt.Errorf("%w: too many event streams", ErrUnavailable)
	}
	defer feed.Leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	stream := &eventStream{w: w, rc: http.NewResponseController(w)}

	after, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	known := err == nil
	var changes []Change
	for r.Context().Err() == nil {
		if !known {
			after = feed.Last()
			if !stream.send(Event{Seq: after, Time: time.Now(), Type: EventSnapshot}) {
				return nil
			}
		}
		changes, known = s.wait(r, changes[:0], after)
		for _, change := range changes {
			after = change.Seq
			event, ok := showChange(change)
			if ok && (only == "" || event.Handle == EscapeHandle(only)) && !stream.send(event) {
				return nil
			}
		}
		if known && len(changes) == 0 && !stream.beat() {
			return nil
		}
	}
	return nil
}

// wait waits for changes, at most until the next heartbeat.
func (s *Server) wait(r *http.Request, dst []Change, after uint64) ([]Change, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), heartbeat)
	defer cancel()
	return s.cfg.Feed.Next(ctx, dst, after)
}

// eventStream writes server-sent events; its methods return false when the reader
// has gone or does not read.
type eventStream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (e *eventStream) send(event Event) bool {
	data, err := json.Marshal(event)
	if err != nil {
		return false
	}
	return e.write("event: %s\nid: %d\ndata: %s\n\n", event.Type, event.Seq, data)
}

// beat sends a comment, so that both sides notice when the other has gone.
func (e *eventStream) beat() bool { return e.write(":\n\n") }

func (e *eventStream) write(format string, args ...any) bool {
	// Not supported by test recorders, which need none.
	_ = e.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := fmt.Fprintf(e.w, format, args...); err != nil {
		return false
	}
	return e.rc.Flush() == nil
}
