package enrp

import (
	"testing"

	"rserpool/asap/param/paramtest"
)

func FuzzDecode(f *testing.F) { paramtest.FuzzRoundTrip(f, Decode, corpus()) }
