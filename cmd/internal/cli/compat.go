package cli

import (
	"fmt"

	"github.com/spf13/pflag"
)

// Compat is the make of implementation whose peculiarities a program takes into
// account. It is the same setting in all programs, so that one RSERPOOL_COMPAT
// does for all.
type Compat string

// The makes.
const (
	CompatNone   Compat = "none"   // what keeps to the RFCs
	CompatRsplib Compat = "rsplib" // the reference implementation
)

// CompatVar declares the flag --compat. The usage says what the program does;
// the makes are added to it.
func CompatVar(fs *pflag.FlagSet, p *Compat, usage string) {
	*p = CompatNone
	fs.Var(p, "compat", usage+": none, rsplib")
}

// Set parses the make.
func (c *Compat) Set(text string) error {
	switch v := Compat(text); v {
	case CompatNone, CompatRsplib:
		*c = v
		return nil
	}
	return fmt.Errorf("%q is neither none nor rsplib", text)
}

func (c *Compat) String() string { return string(*c) }

// Type names the type in help texts.
func (c *Compat) Type() string { return "make" }
