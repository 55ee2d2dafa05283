package fractal

import (
	"slices"
	"strings"
	"testing"
)

func TestCanvasCountsWhatComesTwice(t *testing.T) {
	c := NewCanvas(view)
	all := view.Picture()
	for _, tt := range []struct{ start, end, again uint64 }{
		{0, 300, 0}, {300, 500, 0}, {400, 700, 100}, {100, 200, 100}, {700, 1200, 0},
	} {
		if again := c.Put(Data{Start: tt.start, Points: all[tt.start:tt.end]}); again != tt.again {
			t.Errorf("%d to %d: %d came again, want %d", tt.start, tt.end, again, tt.again)
		}
	}
	if c.Done() != view.Points() || c.Missing() != 0 || !slices.Equal(c.Points(), all) {
		t.Errorf("%d points, %d missing", c.Done(), c.Missing())
	}
}

func TestDrawing(t *testing.T) {
	c := NewCanvas(view)
	half := view.Points() / 2
	all := view.Picture()
	c.Put(Data{Points: all[:half]})
	letters := c.Draw(40, 10, false)
	if len(letters) != 10 || len(letters[0]) != 40 || strings.TrimSpace(letters[0]) == "" {
		t.Errorf("the upper half is %q", letters)
	}
	if strings.TrimSpace(strings.Join(letters[5:], "")) != "" {
		t.Errorf("the lower half is not there yet: %q", letters[5:])
	}
	c.Put(Data{Start: half, Points: all[half:]})
	letters = c.Draw(40, 10, false)
	if !strings.Contains(strings.Join(letters, "\n"), "  ") || strings.TrimSpace(letters[9]) == "" {
		t.Errorf("the picture is\n%s", strings.Join(letters, "\n"))
	}
	for _, line := range c.Draw(40, 10, true) {
		if strings.Count(line, "▀") != 40 || !strings.HasSuffix(line, "\x1b[0m") {
			t.Errorf("a line in colours: %q", line)
		}
	}
}
