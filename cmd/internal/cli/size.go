package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// sizeUnits in descending order, so that String finds the largest that divides.
var sizeUnits = []struct {
	suffix string
	octets int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// Size is a number of octets as a setting: a whole number, alone or with one of
// the units B, kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of
// 1024).
type Size int64

// SizeVar declares a size setting.
func SizeVar(fs *pflag.FlagSet, p *Size, name string, value Size, usage string) {
	*p = value
	fs.Var(p, name, usage)
}

// Set parses the size.
func (s *Size) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range sizeUnits {
		if n, found := strings.CutSuffix(text, u.suffix); found {
			number, unit = n, u.octets
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size such as 65536 or 64KiB", text)
	}
	*s = Size(n * unit)
	return nil
}

// String formats the size so that Set reads it again.
func (s *Size) String() string {
	for _, u := range sizeUnits {
		if u.octets >= 1024 && u.octets&(u.octets-1) == 0 && *s != 0 && int64(*s)%u.octets == 0 {
			return strconv.FormatInt(int64(*s)/u.octets, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type names the type in help texts.
func (s *Size) Type() string { return "size" }
