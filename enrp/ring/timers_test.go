package ring

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The manual has each timer of each preset, and what follows from others does.
func TestTimersAreAsTheManualSays(t *testing.T) {
	text, err := os.ReadFile("../../docs/ring.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 7 {
			rows[strings.TrimSpace(cells[1])] = cells[2:6]
		}
	}
	for i, preset := range []Timers{LAN(), WAN(), Test()} {
		want := map[string]time.Duration{"Starving": preset.Starving()}
		for j, v := 0, reflect.ValueOf(preset); j < v.NumField(); j++ {
			want[v.Type().Field(j).Name] = time.Duration(v.Field(j).Int())
		}
		for name, d := range want {
			row := rows[name]
			if row == nil || strings.TrimSpace(row[3]) == "" {
				t.Errorf("%s is not in the table", name)
				continue
			}
			cell := strings.ReplaceAll(strings.ReplaceAll(row[i], "min", "m"), " ", "")
			if said, err := time.ParseDuration(cell); err != nil || said != d {
				t.Errorf("%s is %v, the manual says %s: %v", name, d, row[i], err)
			}
		}
		if preset.HopTimeout != 3*preset.HopRetry || preset.CollectWait != preset.HopRetry || preset.LostWait != preset.HopRetry {
			t.Errorf("%+v are not those that the manual derives", preset)
		}
	}
}
