package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// Gauge reads the load of a service: 0 is idle, 1 is fully used.
type Gauge interface {
	Load(ctx context.Context) (float64, error)
	String() string
}

// FileGauge reads the load from a file, anew each time.
type FileGauge struct{ Path string }

func (g FileGauge) String() string { return "file " + g.Path }

// Load reads the file.
func (g FileGauge) Load(context.Context) (float64, error) {
	f, err := os.Open(g.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxOutput))
	if err != nil {
		return 0, err
	}
	return ParseLoad(string(text))
}

// ExecGauge takes the load from the standard output of a command, given to
// /bin/sh, that ends with code 0.
type ExecGauge struct{ Command string }

func (g ExecGauge) String() string { return "exec " + g.Command }

// Load runs the command.
func (g ExecGauge) Load(ctx context.Context) (float64, error) {
	out, err := run(ctx, g.Command)
	if err != nil {
		return 0, err
	}
	return ParseLoad(out)
}

// HTTPGauge takes the load from the body of the answer to a GET with status
// 200.
type HTTPGauge struct{ URL string }

func (g HTTPGauge) String() string { return "http " + g.URL }

// Load makes the request.
func (g HTTPGauge) Load(ctx context.Context) (float64, error) {
	resp, err := get(ctx, g.URL)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("answered %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxOutput))
	if err != nil {
		return 0, err
	}
	return ParseLoad(string(text))
}

// ParseLoad reads a load from the first word of a text: a share of full load
// from 0 to 1, such as "0.35", or a percentage with its sign, such as "35%".
// More than 100 % counts as 100 %; a plain number above 1 is refused, because it
// might be meant as a percentage.
func ParseLoad(text string) (float64, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0, errors.New("load: nothing to read")
	}
	number, percent := strings.CutSuffix(words[0], "%")
	x, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || x != x:
		return 0, fmt.Errorf("load: %.40q is not a number", words[0])
	case x < 0:
		return 0, fmt.Errorf("load: %v is negative", x)
	case percent:
		return min(x/100, 1), nil
	case x > 1:
		return 0, fmt.Errorf("load: %v is above 1 (write %v%% if it is a percentage)", x, x)
	}
	return x, nil
}

// ParseGauge reads a gauge written as file:PATH, exec:COMMAND, http://... or
// https://...; an empty text is no gauge.
func ParseGauge(s string) (Gauge, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "":
		return nil, nil
	case kind == "http" || kind == "https":
		if err := checkURL(s); err != nil {
			return nil, fmt.Errorf("load %q: %w", s, err)
		}
		return HTTPGauge{s}, nil
	case strings.TrimSpace(rest) == "":
		return nil, fmt.Errorf("load %q: write file:PATH, exec:COMMAND or http://...", s)
	case kind == "file":
		return FileGauge{rest}, nil
	case kind == "exec":
		return ExecGauge{rest}, nil
	}
	return nil, fmt.Errorf("load %q: unknown kind (one of file:PATH, exec:COMMAND, http://..., https://...)", s)
}
