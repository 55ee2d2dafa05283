package main

import (
	"testing"

	"rserpool/cmd/internal/clidoc"
)

func TestReferenceIsUpToDate(t *testing.T) { clidoc.Check(t, command(), 8) }
