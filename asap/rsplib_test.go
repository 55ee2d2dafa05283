package asap

import (
	"testing"

	"rserpool/asap/param/paramtest"
)

func TestRsplib(t *testing.T) { paramtest.Rsplib(t, Decode) }
