package fractal

// Point computes a point, counted row by row: how many steps it takes to leave the
// neighbourhood of the set, Iterations if it does not.
func (p Parameters) Point(n uint64) uint32 {
	x, y := n%uint64(p.Width), n/uint64(p.Width)
	stepX := (real(p.C2) - real(p.C1)) / float64(p.Width)
	stepY := (imag(p.C2) - imag(p.C1)) / float64(p.Height)
	cx, cy := real(p.C1)+float64(x)*stepX, imag(p.C1)+float64(y)*stepY
	var zx, zy float64
	for i := range p.Iterations {
		// The conversions keep the compiler from fusing operations: every
		// element computes the same, whatever its processor.
		xx, yy, xy := float64(zx*zx), float64(zy*zy), float64(zx*zy)
		zx, zy = float64(xx-yy)-cx, float64(xy+xy)-cy
		if float64(zx*zx)+float64(zy*zy) >= 2 {
			return i
		}
	}
	return p.Iterations
}

// Picture computes all points.
func (p Parameters) Picture() []uint32 {
	points := make([]uint32, p.Points())
	for n := range points {
		points[n] = p.Point(uint64(n))
	}
	return points
}
