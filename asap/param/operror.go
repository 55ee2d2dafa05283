package param

// OperationError decodes an Operation Error parameter: one or more causes, each
// code(2) length(2) data (RFC 5354, section 3.12). The data of causes is not
// looked into. The result is a copy.
func (d *Decoding) OperationError(p Param) (OperationError, error) {
	var out OperationError
	for rest := p.value(); ; {
		// A cause has the form of a parameter.
		c, next, err := split(rest)
		if err != nil {
			return nil, Invalid(p.raw, "cause in %s: %v", p.Type, err)
		}
		if c.raw == nil {
			break
		}
		if len(out) == d.Limits.Causes {
			return nil, TooMany("causes in an error", d.Limits.Causes)
		}
		out = append(out, Cause{Code: CauseCode(c.Type), Data: append([]byte(nil), c.value()...)})
		rest = next
	}
	if out == nil {
		return nil, Invalid(p.raw, "%s without cause", p.Type)
	}
	return out, nil
}

// OperationError takes the next parameter if it is an Operation Error; without
// one it returns nil.
func (r *Reader) OperationError() (OperationError, error) {
	p, ok, err := r.Accept(TypeOperationError)
	if !ok || err != nil {
		return nil, err
	}
	return r.d.OperationError(p)
}

// OperationError appends an Operation Error parameter, as the last one of a
// message; nothing if e is empty. Data that does not fit into the message is cut
// off at its end (AMB-75).
func (w *Writer) OperationError(e OperationError) {
	if len(e) == 0 {
		return
	}
	at := w.begin(uint16(TypeOperationError))
	for i, c := range e {
		w.pad()
		// Room for the data, once every further cause has its header; whole
		// words, if padding would follow.
		room := MaxLength - w.Len() - headerLen*(len(e)-i)
		if i < len(e)-1 {
			room &^= 3
		}
		if room < 0 {
			break
		}
		start := w.begin(uint16(c.Code))
		w.buf = append(w.buf, c.Data[:min(len(c.Data), room)]...)
		w.end(start)
	}
	w.end(at)
}
