package main

import (
	"testing"

	"rserpool/cmd/internal/clidoc"
)

func TestReferenceIsUpToDate(t *testing.T) { clidoc.Check(t, command(nil), 1) }
